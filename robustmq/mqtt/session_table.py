"""The sessions whose home is this core: opening, taking over, expiring, their wills, a restart."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

from robustmq import metrics
from robustmq.broker.api import Broker, Principal, Window, client_of
from robustmq.errors import Refusal, Refused
from robustmq.message.session_record import SessionRecord, Verdict
from robustmq.mqtt.deadlines import AT_ONCE, Deadlines
from robustmq.mqtt.last_will import LastWills, will_delay, will_ms
from robustmq.mqtt.packets import Will
from robustmq.mqtt.registry import Registrar
from robustmq.mqtt.session import DURABLE, NEVER, Recording, Session, Subscribed
from robustmq.mqtt.session_rows import SessionRow, SessionRows, will_of
from robustmq.settings.mqtt import MqttProtocol

PROGRESS_EVERY: Final = 10_000
"""Sessions after which a restart says how far it is."""

_CORE_SHIFT: Final = 48
_NUMBERS: Final = b"session"


class Opened(NamedTuple):
    """A session for a connection; `present`: it was there. `waits`: rows were changed for it."""

    session: Session
    present: bool
    waits: bool


class SessionTable:
    """Sessions by client id, and their rows.

    `first_key` is where the keys begin that this life of the core gives to sessions which end
    with it: the core in the bits from 48 on, and below bit 46 what differs from life to life.
    """

    def __init__(self, broker: Broker, limits: MqttProtocol, first_key: int) -> None:
        self.rows = SessionRows(broker.state)
        self._registrar: Registrar | None = None
        self._bequeath: Callable[[Session], None]
        self._broker = broker
        self._limits = limits
        self._sessions: dict[str, Session] = {}
        self._next_key = first_key & ~DURABLE
        self._first_number = first_key >> _CORE_SHIFT << _CORE_SHIFT | DURABLE
        self._deadlines = Deadlines(broker, due_ms, self._on_due)
        self._unnoted: deque[Session] = deque()
        self._wills = LastWills(broker, limits)
        self._cells = broker.turn.row

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, identity: str) -> Session | None:
        """The session of a client, None when it has none."""
        return self._sessions.get(identity)

    def walk(self, start: int = 0) -> Iterator[Session]:
        """The sessions from a number on, in the order in which they came to this core."""
        return islice(self._sessions.values(), start, None)

    def join(self, registrar: Registrar, bequeath: Callable[[Session], None]) -> None:
        """The node is one of several from now on: the cluster knows what is kept here.

        `bequeath(session)` sees to what a session is owed that another node has.
        """
        self._bequeath = bequeath
        self._registrar = self.rows.registrar = registrar
        registrar.lost = self.give_up

    # ------------------------------------------------------------------ opening

    def refusal(self, identity: str, clean_start: bool, expiry: int) -> Refused | None:
        """Why a client may not connect now: what it asks for would have to be kept on disk.

        Whoever takes up a durable session as it was may read what it is owed, for which there
        may be no room otherwise. A will is none of the reasons: it lives in memory then.
        """
        session = self._sessions.get(identity)
        if session is None or not session.is_durable:
            return self._broker.state.refusal if expiry else None
        if not clean_start and expiry == session.expiry:
            return None
        return self._broker.state.refusal

    def open(
        self,
        principal: Principal,
        clean_start: bool,
        *,
        expiry: int = 0,
        will: Will | None = None,
        version: int = 0,
        generation: int = 0,
    ) -> Opened:
        """The client's session, with a new will; a connection that it has is ended.

        `expiry` in seconds. MQTT5 3.1.4: the earlier connection gets 0x8E, and with clean start
        the session with it goes. The client is told `when_kept`, if the session `waits`. A new
        one is of the tenure `generation`, if that is not 0.
        """
        session = self._sessions.get(principal.identity)
        waits = was_stored = session is not None and session.stored
        if session is not None:
            if session.connection is not None:
                self._cells[metrics.SESSIONS_TAKEN_OVER] += 1
                session.connection.taken_over(clean_start)
            else:
                self._catch_up(session)
            session = self._sessions.get(principal.identity)
        if session is not None and clean_start:
            self.end(session)
            session = None
        present = session is not None
        if session is None:
            session = self._create(principal, expiry > 0)
            session.generation = session.born = generation
            was_stored = False
        else:
            self._deadlines.discard(session)
            before, session.principal = session.principal, principal
            if before != principal:
                self.revoke(session)
        session.expiry = expiry
        session.will = will
        session.version = version
        session.ended_ms = 0
        session.stored = session.is_durable or (
            will is not None and self._broker.state.refusal is None
        )
        if session.stored:
            self.rows.put(session)
        elif was_stored:
            # It was for the sake of its will.
            self.rows.erase(session)
            session.generation = 0
        # Who could come although nothing can be written need not wait until it can.
        waits = (waits or session.stored) and self._broker.state.refusal is None
        return Opened(session, present, waits)

    def when_kept(
        self, identity: str, kept: Callable[[], None], refused: Callable[[], None]
    ) -> None:
        """Call back when what was put of a session is durable, here and in the cluster.

        `refused()` instead when the cluster has not said so in time, or has said no.
        """
        if self._registrar is None:
            self._broker.state.then(kept)
        else:
            self._registrar.then(identity, partial(self._known, kept, refused))

    def _known(
        self, kept: Callable[[], None], refused: Callable[[], None], verdict: Verdict
    ) -> None:
        if verdict is Verdict.DONE:
            self._broker.state.then(kept)
        else:
            refused()

    def _create(self, principal: Principal, durable: bool) -> Session:
        if durable:
            key = self._first_number | self._broker.state.next_number(_NUMBERS)
        else:
            self._next_key += 1
            key = self._next_key
        session = self._place(principal, key)
        if durable:
            self._broker.keep(session.window, self._broker.position)
        return session

    def _place(self, principal: Principal, key: int) -> Session:
        limits = self._limits
        window = Window(
            self._broker.turn,
            limits.max_queued_messages,
            limits.max_queued_bytes,
            limits.max_outbox_bytes,
        )
        window.key = key
        session = Session(principal, window)
        self._sessions[principal.identity] = session
        self._cells[metrics.SESSIONS] = len(self._sessions)
        return session

    # ------------------------------------------------------------------ ending

    def detach(self, session: Session, with_will: bool) -> None:
        """The session's connection has ended; `with_will`: not by the client's own wish."""
        self._let_go(session)
        if not with_will:
            session.will = None
        if session.expiry == 0:
            self.end(session)
            return
        session.ended_ms = self._broker.turn.now_ms
        if session.will is not None and not will_delay(session.will):
            self._send_will(session)
        elif session.stored:
            self.rows.put(session)
        self._deadlines.add(session)

    def suspend(self, session: Session) -> None:
        """The session's connection ends because the server stops: the rest is for its restart.

        Then its will is due, unless it returns within the delay (MQTT5 3.1.2.5).
        """
        if not session.stored:
            self.detach(session, with_will=False)
            return
        self._let_go(session)
        session.ended_ms = self._broker.turn.now_ms
        self.rows.put(session)

    def _let_go(self, session: Session) -> None:
        session.connection = None
        session.window.detach()
        self._broker.open(session.window, False)

    def end(self, session: Session) -> None:
        """Forget the session; its will is due now if it is not sent yet (MQTT5 3.1.3.2.2)."""
        self._deadlines.discard(session)
        publish = self._wills.take(session)
        if publish is not None and not self._is_known(session):
            publish()
            publish = None
        for subscribed in session.subscriptions:
            self.withdraw(session, subscribed)
        if session.stored:
            self.rows.erase(session, publish)
        self._broker.drop(session.window)
        session.unsubscribe_all()
        session.window.clear()
        session.window.session = None
        if self._sessions.get(session.principal.identity) is session:
            del self._sessions[session.principal.identity]
        self._cells[metrics.SESSIONS] = len(self._sessions)

    def vacate(self, identity: str, clean_start: bool) -> bool:
        """A client of another node asks for its session; say whether it is to come here.

        What ends with its connection, or with a clean start, ends now (MQTT5 3.1.4).
        """
        session = self._sessions.get(identity)
        if session is not None and session.connection is None:
            self._catch_up(session)
            session = self._sessions.get(identity)
        if session is None:
            return False
        if session.expiry and not clean_start:
            return True
        if session.connection is not None:
            self._cells[metrics.SESSIONS_TAKEN_OVER] += 1
            session.connection.taken_over(clean_start)
        if self._sessions.get(identity) is session:
            self.end(session)
        return False

    def give_up(self, session: Session) -> None:
        """Another node has the session, as the cluster sees it: forget it, and its client.

        What it is owed stays here until that node has it.
        """
        self._cells[metrics.SESSIONS_GIVEN_UP] += 1
        self._bequeath(session)
        session.will = None
        session.generation = 0
        if session.connection is not None:
            session.connection.taken_over(session_ends=True)
        else:
            self.end(session)

    def adopt(self, row: SessionRecord) -> Session:
        """Make a session, offline and without its subscriptions, that the cluster has given us.

        What was not durable has ended with its node: its will is what is left. Raises Corrupt.
        """
        head = row.head
        if (before := self._sessions.get(row.identity)) is not None:
            self.give_up(before)
        tenant, client_id = client_of(row.identity)
        principal = Principal(
            client_id, head.username, head.address, tenant=tenant, superuser=head.superuser
        )
        session = self._create(principal, head.durable)
        session.expiry = head.expiry if head.durable else 0
        session.version = session.window.version = head.version
        session.ended_ms = head.ended_ms
        session.will = will_of(head.will)
        session.stored = True
        session.generation = row.generation
        session.born = head.born
        self.rows.write(session)
        self._deadlines.add(session)
        return session

    def withdraw(self, session: Session, subscribed: Subscribed) -> None:
        """Take back from the broker what the session subscribed to."""
        self._cells[metrics.SUBSCRIPTIONS] -= 1
        self.release(session, subscribed)
        group = subscribed.group
        if group is None:
            self._broker.unsubscribe(session.window, subscribed.topic_filter)
        else:
            self._broker.leave(session.window, group, subscribed.topic_filter)

    def revoke(self, session: Session) -> None:
        """End the subscriptions that the session's client may not have, or not any more."""
        for subscribed in list(session.subscriptions):
            refused = self._broker.authorize(session.principal, subscribed.written.decode())
            if refused is None or refused.code is not Refusal.NOT_AUTHORIZED:
                continue
            session.unsubscribe(subscribed.written)
            self.withdraw(session, subscribed)
            if session.is_durable:
                self.rows.delete_subscription(session, subscribed.written)
            if subscribed.options.no_local and session.connection is not None:
                session.connection.forget_routes()
            self._cells[metrics.SUBSCRIPTIONS_REVOKED] += 1

    def release(self, session: Session, subscribed: Subscribed) -> None:
        """Let others have a subscription, if it is exclusive."""
        if subscribed.is_exclusive:
            self._broker.exclusives.release(
                session.window, subscribed.topic_filter, session.is_durable
            )

    def _on_due(self, session: Session) -> None:
        if session.connection is None and self._sessions.get(session.principal.identity) is session:
            self._catch_up(session)

    def _catch_up(self, session: Session) -> None:
        """Do what has become due for a session that is offline."""
        now_ms = self._broker.turn.now_ms
        expires_ms = _expires_ms(session)
        if expires_ms is not None and expires_ms <= now_ms:
            self._cells[metrics.SESSIONS_EXPIRED] += 1
            self.end(session)
            return
        due = will_ms(session)
        if due is not None and due <= now_ms:
            self._send_will(session)
        self._deadlines.add(session)

    def _is_known(self, session: Session) -> bool:
        """Say whether others would take the session up, with its will."""
        return self._registrar is not None and session.stored and session.generation > 0

    def _send_will(self, session: Session) -> None:
        """Publish the will of a session that goes on, and write that it is gone.

        In a cluster it is published when nobody else can take it: until then its row has it.
        """
        if self._registrar is not None and self._is_known(session):
            self.rows.put(session)
            if (publish := self._wills.take(session)) is not None:
                self._registrar.take_will(session, partial(self._will_taken, session, publish))
            return
        if (publish := self._wills.take(session)) is not None:
            publish()
        if session.stored:
            self.rows.put(session)

    def _will_taken(self, session: Session, publish: Callable[[], None]) -> None:
        publish()
        if self._sessions.get(session.principal.identity) is session:
            self.rows.put(session)

    def recorded(
        self, session: Session, packet_id: int, waiting: Recording, code: int, matched: bool
    ) -> None:
        """Learn what became of a QoS 2 message; a packet id that is free leaves no row."""
        tell = partial(session.recorded, packet_id, waiting, code, matched)
        if not (code and session.is_durable and session.waiting_for(packet_id) is waiting):
            tell()
            return
        self.rows.delete_received(session, packet_id)
        # A row that came back would swallow the next message with this id. With a disk that
        # fails there is no way to know.
        self._broker.state.then(tell, lambda _: tell())

    # ------------------------------------------------------------------ a restart

    def restore(self, progress: Callable[[int], None]) -> None:
        """Make the sessions that the rows hold; the core has not started yet. Raises Corrupt.

        `progress(sessions so far)` is called every PROGRESS_EVERY sessions.
        """
        now_ms = self._broker.turn.now_ms
        expiries: dict[int, int] = {}
        by_number: dict[int, Session] = {}
        for identity, row in self.rows.sessions():
            # Equal expiries are one object: most sessions share theirs.
            row.expiry = expiries.setdefault(row.expiry, row.expiry)
            session = by_number[row.number] = self._restore(identity, row, now_ms)
            if not row.ended_ms:
                self._unnoted.append(session)
            if len(self._sessions) % PROGRESS_EVERY == 0:
                progress(len(self._sessions))
        for key, number, subscribed in self.rows.subscriptions():
            owner = by_number.get(number)
            if owner is None:
                self.rows.discard(key)
            else:
                self._restore_subscription(owner, subscribed)
        for key, number, packet_id in self.rows.received():
            owner = by_number.get(number)
            if owner is None:
                self.rows.discard(key)
            else:
                owner.receive(packet_id, None)

    def _restore(self, identity: str, row: SessionRow, now_ms: int) -> Session:
        tenant, client_id = client_of(identity)
        principal = Principal(
            client_id, row.username, row.address, tenant=tenant, superuser=row.superuser
        )
        session = self._place(principal, row.number)
        session.expiry = row.expiry
        # What was in flight is read back in the words of the version that the client spoke.
        session.version = session.window.version = row.version
        # One that was connected when the server died is offline since the restart.
        session.ended_ms = row.ended_ms or now_ms
        session.will = will_of(row.will)
        session.stored = True
        session.generation = row.generation
        session.born = row.born
        if session.is_durable:
            self._broker.keep(session.window, None)
        return session

    def _restore_subscription(self, session: Session, subscribed: Subscribed) -> None:
        session.subscribe(subscribed)
        self._cells[metrics.SUBSCRIPTIONS] += 1
        group, options = subscribed.group, subscribed.options
        topic_filter = subscribed.topic_filter
        if subscribed.is_exclusive:
            self._broker.exclusives.restore(session.window, topic_filter)
        if group is None:
            self._broker.restore(session.window, topic_filter, options, subscribed.start)
        else:
            self._broker.restore_member(session.window, group, topic_filter, options)

    def resume(self) -> None:
        """The core has started after `restore`: let time go on.

        Wills and expiries that became due while the server was down are handled in portions.
        """
        for session in self._sessions.values():
            self._deadlines.add(session)
        self._note_ends()

    def _note_ends(self) -> None:
        """Write since when those are offline that were connected: time down counts once."""
        for _ in range(min(len(self._unnoted), AT_ONCE)):
            session = self._unnoted.popleft()
            if (
                session.connection is None
                and self._sessions.get(session.principal.identity) is session
            ):
                self.rows.put(session)
        if self._unnoted:
            self._broker.at(self._broker.turn.now_ms, self._note_ends)


def due_ms(session: Session) -> int | None:
    """When something is due for an offline session, its will or its end; None for never."""
    times = [when for when in (will_ms(session), _expires_ms(session)) if when is not None]
    return min(times, default=None)


def _expires_ms(session: Session) -> int | None:
    return None if session.expiry == NEVER else session.ended_ms + session.expiry * 1_000
