"""Sessions of nodes that are gone: taken over here, and given up there when the node returns.

The cluster's rows of a node's sessions are shared out over the live nodes and their cores; each
core proposes to be the next owner of its share, and opens those that it gets, offline. A session's
messages that waited on the node's disk are not there; what is published from then on is.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable
from functools import partial

from robustmq import metrics
from robustmq.broker.api import Broker
from robustmq.message.session_record import (
    SessionChange,
    SessionRecord,
    SubscriptionRecord,
    Verdict,
)
from robustmq.mqtt.registry import Registrar, head_of
from robustmq.mqtt.session import Session, Subscribed
from robustmq.mqtt.session_rows import options_of
from robustmq.mqtt.session_table import SessionTable


class Adoption:
    """Takes over a core's share of the sessions of nodes that are gone.

    `changed()` hears when `is_settled` or `is_complete` may have become true.
    """

    def __init__(
        self,
        broker: Broker,
        sessions: SessionTable,
        registrar: Registrar,
        *,
        at_once: int,
        retry_ms: int,
        changed: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._sessions = sessions
        self._registrar = registrar
        self._at_once = at_once
        self._retry_ms = retry_ms
        self._changed = changed
        self._shares: dict[int, deque[SessionRecord]] = {}
        self._missing: set[int] = set()
        self._under_way: dict[int, int] = {}
        self._undecided: set[str] = set()
        self._proposed: set[str] = set()
        """Sessions of which is not known yet whether they are ours, whoever is back meanwhile."""
        self._opening = 0
        """Sessions whose interest not all cores know yet."""
        self._is_returning = True
        self._held: list[Callable[[], None]] = []
        """What was heard of before `restored` is asked again: rows on their way may not have it
        yet, or others may have it by then."""

    @property
    def is_settled(self) -> bool:
        """Whether this core has its share of the sessions of all nodes that are gone."""
        return not (self._shares or self._proposed or self._undecided)

    @property
    def is_complete(self) -> bool:
        """Whether it is settled, and no message to a session that was opened is missed any more."""
        return self.is_settled and not self._opening

    @property
    def knows_own(self) -> bool:
        """Whether it is known of all sessions that are here that they are this node's."""
        return not self._undecided

    def isolated(self) -> None:
        """What is this node's own is to be looked at again: nothing is adopted until `restored`."""
        self._is_returning = True

    def fenced(self, node: int) -> None:
        """A node is gone: `adopt` follows with what this core is to take over, then `settled`."""
        self._shares.setdefault(node, deque())
        self._missing.add(node)

    def adopt(self, node: int, rows: Iterable[SessionRecord]) -> None:
        """Take over these sessions of a node that is gone; some may have been asked for before."""
        if node in self._shares:
            self._shares[node].extend(rows)
            self._go_on(node)

    def settled(self, node: int) -> None:
        """What was this core's share of a node's sessions has other owners now, us or others."""
        self._missing.discard(node)
        self._go_on(node)

    def returned(self, node: int) -> None:
        """A node is back: what nobody has taken over yet is its own again."""
        self._missing.discard(node)
        if self._shares.pop(node, None) is not None:
            self._changed()

    def _go_on(self, node: int) -> None:
        share = self._shares.get(node)
        if share is None or self._is_returning:
            return
        while share and self._under_way.get(node, 0) < self._at_once:
            self._under_way[node] = self._under_way.get(node, 0) + 1
            row = share.popleft()
            self._propose(node, row, max(self._registrar.stamp(), row.generation + 1))
        if not (share or self._under_way.get(node) or node in self._missing):
            del self._shares[node]
            self._changed()

    def _propose(self, node: int, row: SessionRecord, generation: int) -> None:
        head = row.head
        # One that was connected when its node died is offline since now, as far as anybody knows.
        head.ended_ms = head.ended_ms or self._broker.turn.now_ms
        change = SessionChange(
            row.identity,
            self._registrar.node,
            generation,
            self._registrar.stamp(),
            row.generation,
            head,
        )
        self._proposed.add(row.identity)
        self._registrar.propose(change, partial(self._heard, node, row, generation))

    def _heard(self, node: int, row: SessionRecord, generation: int, verdict: Verdict) -> None:
        if verdict is Verdict.UNKNOWN:
            again = self._broker.turn.now_ms + self._retry_ms
            # As the same owner: it may be that already, also when the node is back meanwhile.
            self._broker.at(again, partial(self._propose, node, row, generation))
            return
        if self._is_returning:
            self._held.append(partial(self._propose, node, row, generation))
            return
        self._proposed.discard(row.identity)
        self._changed()
        if verdict is Verdict.DONE and not self._is_known(row.identity, generation):
            self._broker.turn.row[metrics.SESSIONS_ADOPTED] += 1
            row.generation = generation
            self._open(row, partial(self._opened, node))
        else:
            self._opened(node)

    def _is_known(self, identity: str, generation: int) -> bool:
        """Whether `restored` has found the session before it was heard that it is ours."""
        session = self._sessions.get(identity)
        is_here = session is not None and session.generation >= generation
        return is_here or not self._registrar.is_quiet(identity)

    def _opened(self, node: int) -> None:
        self._under_way[node] -= 1
        if not self._under_way[node]:
            del self._under_way[node]
        self._go_on(node)

    # ------------------------------------------------------------------ opening

    def _open(self, row: SessionRecord, ready: Callable[[], None]) -> None:
        """Open a session offline; `ready()` when no message to it is missed any more."""
        session = self._sessions.adopt(row)
        self._opening += 1
        self._subscribe_all(session, row.subscriptions if session.is_durable else [], ready)

    def _subscribe_all(
        self, session: Session, wanted: Collection[SubscriptionRecord], ready: Callable[[], None]
    ) -> None:
        owing = [len(wanted) + 1]

        def settled() -> None:
            owing[0] -= 1
            if not owing[0]:
                self._opening -= 1
                ready()
                self._changed()

        for subscription in wanted:
            self._subscribe(session, subscription, settled)
        settled()

    def _subscribe(
        self, session: Session, row: SubscriptionRecord, ready: Callable[[], None]
    ) -> None:
        subscribed = Subscribed(
            row.written, options_of(row.flags, row.identifier), self._broker.position
        )
        if subscribed.is_exclusive:
            claimed = partial(self._claimed, session, subscribed, ready)
            self._broker.exclusives.claim(session.window, subscribed.topic_filter, claimed)
        else:
            self._start(session, subscribed, ready)

    def _claimed(
        self, session: Session, subscribed: Subscribed, ready: Callable[[], None], granted: bool
    ) -> None:
        is_here = self._sessions.get(session.principal.identity) is session
        if granted and is_here:
            self._start(session, subscribed, ready)
            return
        if granted:
            self._sessions.release(session, subscribed)
        elif is_here:
            # Another session has got it meanwhile.
            self._registrar.unsubscribed(session, subscribed.written)
        ready()

    def _start(self, session: Session, subscribed: Subscribed, ready: Callable[[], None]) -> None:
        session.subscribe(subscribed)
        self._broker.turn.row[metrics.SUBSCRIPTIONS] += 1
        self._sessions.rows.write_subscription(session, subscribed)
        group, options, window = subscribed.group, subscribed.options, session.window
        topic_filter = subscribed.topic_filter
        if group is None:
            self._broker.subscribe(window, topic_filter, options, False, lambda _: ready())
        else:
            self._broker.join(window, group, topic_filter, options, ready)

    # ------------------------------------------------------------------ this node's own return

    def restored(self, rows: Iterable[SessionRecord]) -> list[Session]:
        """Compare what the disk had with `rows`: all sessions of this core that are this node's.

        What the cluster knows of subscriptions holds, for all that was acknowledged is in it. A
        session that the disk has lost is opened anew. Returns those that others have taken over,
        and those that are over; one that the cluster has never known is written now.
        """
        known = {row.identity: row for row in rows}
        gone: list[Session] = []
        for session in list(self._sessions.walk()):
            identity = session.principal.identity
            row = known.pop(identity, None)
            if not session.stored or session.is_own:
                continue
            if not self._registrar.is_quiet(identity):
                # What is on its way to the cluster decides.
                self._await(identity)
            elif row is not None:
                self._match(session, row)
            elif session.generation:
                gone.append(session)
            else:
                self._registrar.enroll(session)
                self._registrar.then(identity, partial(self._enrolled, session))
        now_ms = self._broker.turn.now_ms
        for row in known.values():
            if self._registrar.is_quiet(row.identity):
                row.head.ended_ms = row.head.ended_ms or now_ms
                self._open(row, lambda: None)
        self._go_on_adopting()
        return gone

    def _go_on_adopting(self) -> None:
        self._is_returning = False
        held, self._held = self._held, []
        for propose in held:
            propose()
        for node in [*self._shares]:
            self._go_on(node)

    def _await(self, identity: str) -> None:
        self._undecided.add(identity)
        self._registrar.then(identity, partial(self._decided, identity))

    def _decided(self, identity: str, verdict: Verdict) -> None:
        if verdict is Verdict.UNKNOWN:
            self._await(identity)
            return
        self._undecided.discard(identity)
        if not self._undecided:
            self._changed()

    def _enrolled(self, session: Session, verdict: Verdict) -> None:
        if verdict is Verdict.DONE and self._sessions.get(session.principal.identity) is session:
            self._sessions.rows.write(session)

    def _match(self, session: Session, row: SessionRecord) -> None:
        session.generation = row.generation
        wanted = {each.written: each for each in row.subscriptions}
        for subscribed in list(session.subscriptions):
            if subscribed.written not in wanted:
                session.unsubscribe(subscribed.written)
                self._sessions.withdraw(session, subscribed)
                self._sessions.rows.delete_subscription(session, subscribed.written)
        for written, each in wanted.items():
            if session.subscription(written) is None:
                self._subscribe(session, each, lambda: None)
        if head_of(session) != row.head:
            self._sessions.rows.put(session)
