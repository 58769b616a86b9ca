"""The sessions of this core as the cluster knows them: what has changed goes there once a turn.

One change of a session is on its way at a time; what comes meanwhile travels together with the
next. A change of which nothing is heard is made again, with all that the session has, until it is
known what became of it: then only may another node hear that the session is not here.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol, TypeAlias

from robustmq import metrics
from robustmq.broker.api import Broker, Principal
from robustmq.message.session_record import (
    SessionChange,
    SessionHead,
    SubscriptionRecord,
    Verdict,
)
from robustmq.mqtt.packets import Will
from robustmq.mqtt.session import Session, Subscribed
from robustmq.mqtt.session_rows import flags_of, will_record

Heard: TypeAlias = Callable[[Verdict], None]

_STAMP_SHIFT: Final = 10


class Registry(Protocol):
    """The cluster's memory of sessions, as this core reaches it."""

    def propose(self, change: SessionChange, done: Heard, /) -> None:
        """Let the cluster decide on a change; those of a turn travel together.

        `done` is called once, in a bounded time: with UNKNOWN when nothing was heard.
        """


def head_of(session: Session) -> SessionHead:
    """What the cluster knows of a session, its subscriptions apart."""
    return _head(
        session.is_durable,
        session.ended_ms,
        session.principal,
        session.expiry,
        session.will,
        session.version,
        session.born,
    )


def head_for(
    principal: Principal, expiry: int, will: Will | None, version: int
) -> SessionHead | None:
    """What the cluster has to know of a new session; None when that is nothing."""
    if not expiry and will is None:
        return None
    return _head(expiry > 0, 0, principal, expiry, will, version)


def _head(  # noqa: PLR0917
    durable: bool,
    ended_ms: int,
    principal: Principal,
    expiry: int,
    will: Will | None,
    version: int,
    born: int = 0,
) -> SessionHead:
    return SessionHead(
        durable,
        expiry,
        ended_ms,
        version,
        principal.username,
        None if will is None else will_record(will),
        principal.address,
        principal.superuser,
        born,
    )


def record_of(subscribed: Subscribed) -> SubscriptionRecord:
    """What the cluster knows of a subscription."""
    options = subscribed.options
    return SubscriptionRecord(subscribed.written, flags_of(options), options.identifier)


class _Entry:
    """What has changed of one tenure, or is on its way; gone when the cluster knows all."""

    __slots__ = (
        "after",
        "begun",
        "flying",
        "generation",
        "identity",
        "is_dirty",
        "is_doubtful",
        "is_gone",
        "is_over",
        "sent",
        "session",
        "subscribed",
        "takes",
        "unsubscribed",
        "waiting",
        "whole",
    )

    def __init__(self, identity: str, generation: int, after: "_Entry | None") -> None:
        self.identity = identity
        self.generation = generation
        self.after = after
        """The tenure of the same client that must have ended before."""
        self.session: Session | None = None
        self.takes: int | None = None
        self.begun = True
        self.whole = False
        self.is_dirty = False
        self.is_over = False
        self.is_gone = False
        self.is_doubtful = False
        """The node was given up meanwhile: others may have taken what is not here."""
        self.sent: SessionHead | None = None
        self.subscribed: dict[bytes, SubscriptionRecord] = {}
        self.unsubscribed: set[bytes] = set()
        self.waiting: list[_Waiting] = []
        self.flying: list[_Waiting] | None = None

    def begin(self) -> None:
        """Let a tenure begin with all that the session has."""
        self.takes, self.begun, self.whole = 0, False, True


class _Waiting(NamedTuple):
    """Who waits for a verdict; `patient`: until it is one, and not UNKNOWN."""

    heard: Heard
    patient: bool = False


class Registrar:
    """Keeps the rows of this core's sessions in the cluster; `node` owns them.

    `lost(session)` hears that another node has a session that is here: it is no longer ours;
    `quieted()` that the cluster knows all of some session.
    """

    def __init__(
        self, broker: Broker, registry: Registry, node: int, *, at_once: int, retry_ms: int
    ) -> None:
        self.node = node
        self.lost: Callable[[Session], None]
        self.quieted: Callable[[], None]
        self._broker = broker
        self._registry = registry
        self._at_once = at_once
        self._retry_ms = retry_ms
        self._entries: dict[str, _Entry] = {}
        self._dirty: deque[_Entry] = deque()
        self._under_way = 0
        self._unheard: list[_Entry] = []
        self._last = 0

    def stamp(self) -> int:
        """A number that is higher than all that this core has given, and than those of before."""
        self._last = max(self._last + 1, self._broker.turn.now_ms << _STAMP_SHIFT)
        return self._last

    def is_quiet(self, identity: str) -> bool:
        """Say whether the cluster knows all that was changed here of a client's session."""
        return identity not in self._entries

    # ------------------------------------------------------------------ what changes

    def begin(
        self, identity: str, head: SessionHead, heard: Callable[[Verdict, int], None]
    ) -> None:
        """Become the owner of a session that nobody has; `heard(verdict, generation)`.

        What is noted of the session within `heard` and is as in `head` needs no other change.
        When it is UNKNOWN what became of it, the session is ended again.
        """
        entry = self._new(identity, self.stamp())
        entry.begin()
        head.born = entry.generation
        entry.sent = head
        entry.waiting.append(_Waiting(lambda verdict: heard(verdict, entry.generation)))
        self._mark(entry)

    def propose(self, change: SessionChange, heard: Heard) -> None:
        """Propose a change of a session that is not here: its adoption."""
        self._count()
        self._registry.propose(change, heard)

    def note(self, session: Session) -> None:
        """The session has begun, or something of it but for its subscriptions has changed."""
        entry = self._entry(session)
        if not entry.is_dirty and entry.sent != head_of(session):
            self._mark(entry)

    def enroll(self, session: Session) -> None:
        """Begin the first tenure of a session that is here, and that the cluster does not know."""
        session.generation = 0
        self._mark(self._entry(session))

    def renew(self, session: Session, generation: int) -> None:
        """A tenure has begun of a session that was here: write all of it, and not the old one."""
        session.generation = generation
        entry = self._entry(session)
        entry.whole = True
        self._mark(entry)

    def subscribed(self, session: Session, subscribed: Subscribed) -> None:
        """The session has a subscription, new or with other options."""
        entry = self._entry(session)
        entry.unsubscribed.discard(subscribed.written)
        entry.subscribed[subscribed.written] = record_of(subscribed)
        self._mark(entry)

    def unsubscribed(self, session: Session, written: bytes) -> None:
        """The session has a subscription no more."""
        entry = self._entry(session)
        entry.subscribed.pop(written, None)
        entry.unsubscribed.add(written)
        self._mark(entry)

    def take_will(self, session: Session, taken: Callable[[], None]) -> None:
        """The session has its will no more: `taken()` if nobody else has taken it."""
        entry = self._entry(session)
        entry.waiting.append(_Waiting(lambda verdict: _if_done(verdict, taken), True))
        self._mark(entry)

    def end(self, session: Session, ended: Callable[[], None] | None) -> None:
        """The session is over; `ended()` if that ended its tenure, and not somebody else."""
        entry = self._entry(session)
        entry.is_over = True
        entry.session = None
        if ended is not None:
            entry.waiting.append(_Waiting(lambda verdict: _if_done(verdict, ended), True))
        self._mark(entry)

    def forget(self, identity: str, generation: int) -> None:
        """End a tenure that has no session here: its client has gone before it began."""
        entry = self._entries.get(identity)
        if entry is None or entry.generation != generation:
            entry = self._new(identity, generation)
        entry.is_over = True
        self._mark(entry)

    def was_fenced(self) -> None:
        """The node was given up by the cluster: what is on its way may have been overtaken."""
        for entry in self._entries.values():
            later: _Entry | None = entry
            while later is not None:
                later.is_doubtful = True
                later = later.after

    def disown(self, identity: str) -> None:
        """End a tenure that this node may have of a session without anybody here knowing it."""

        def heard(verdict: Verdict, generation: int) -> None:
            if verdict is Verdict.DONE:
                self.forget(identity, generation)

        self.begin(identity, SessionHead(False, 0, 0, 0), heard)

    def then(self, identity: str, heard: Heard) -> None:
        """Hear when the cluster knows what was changed so far, or that it could not be told."""
        entry = self._entries.get(identity)
        if entry is None:
            heard(Verdict.DONE)
        elif entry.is_dirty or entry.flying is None:
            entry.waiting.append(_Waiting(heard))
        else:
            entry.flying.append(_Waiting(heard))

    def _entry(self, session: Session) -> _Entry:
        identity = session.principal.identity
        entry = self._entries.get(identity)
        if (
            entry is not None
            and not entry.is_over
            and session.generation == entry.generation
            and (entry.session is None or entry.session is session)
        ):
            entry.session = session
            return entry
        entry = self._new(identity, session.generation or self.stamp())
        entry.session = session
        if not session.generation:
            session.generation = entry.generation
            session.born = session.born or entry.generation
            entry.begin()
        return entry

    def _new(self, identity: str, generation: int) -> _Entry:
        entry = _Entry(identity, generation, self._entries.get(identity))
        self._entries[identity] = entry
        return entry

    def _mark(self, entry: _Entry) -> None:
        if not (entry.is_dirty or entry.is_gone):
            entry.is_dirty = True
            self._dirty.append(entry)

    # ------------------------------------------------------------------ there and back

    def flush(self) -> None:
        """Propose what the turn has changed."""
        while self._dirty and self._under_way < self._at_once:
            entry = self._dirty.popleft()
            if entry.flying is None and entry.after is None and entry.is_dirty:
                self._send(entry)

    @property
    def busy(self) -> bool:
        """Whether `flush` has to be called again."""
        return bool(self._dirty) and self._under_way < self._at_once

    def _count(self) -> None:
        self._broker.turn.row[metrics.SESSION_CHANGES] += 1

    def _send(self, entry: _Entry) -> None:
        entry.is_dirty = False
        entry.flying, entry.waiting = entry.waiting, []
        if entry.is_over and not entry.begun:
            # The cluster has never heard of it.
            self._heard(entry, Verdict.DONE)
            return
        self._count()
        self._under_way += 1
        change = self._change(entry)
        entry.begun = True
        entry.subscribed = {}
        entry.unsubscribed = set()
        self._registry.propose(change, lambda verdict: self._landed(entry, verdict))

    def _landed(self, entry: _Entry, verdict: Verdict) -> None:
        self._under_way -= 1
        self._heard(entry, verdict)

    def _change(self, entry: _Entry) -> SessionChange:
        change = SessionChange(entry.identity, self.node, entry.generation, self.stamp())
        if entry.is_over:
            return change
        session = entry.session
        change.takes = entry.takes
        change.whole = entry.whole
        if session is not None:
            entry.sent = head_of(session)
        change.head = entry.sent
        if entry.whole:
            held = session.subscriptions if session is not None and session.is_durable else ()
            change.subscribed = [record_of(each) for each in held]
        else:
            change.subscribed = list(entry.subscribed.values())
            change.unsubscribed = list(entry.unsubscribed)
        return change

    def _heard(self, entry: _Entry, verdict: Verdict) -> None:
        if verdict is Verdict.UNKNOWN:
            self._try_again(entry)
            return
        if verdict is Verdict.GONE and entry.is_over and not entry.is_doubtful:
            # Nobody else could: it was done when it was asked for before.
            verdict = Verdict.DONE
        if verdict is Verdict.DONE:
            entry.takes = None
            entry.whole = False
        waiting = entry.flying or ()
        for each in waiting:
            each.heard(verdict)
        entry.flying = None
        session = entry.session
        if verdict is Verdict.DONE:
            self._rest(entry)
            return
        self._drop(entry)
        if session is not None:
            session.generation = 0
            self.lost(session)

    def _rest(self, entry: _Entry) -> None:
        """Let go of what is known, or go on with what has come meanwhile."""
        if not entry.is_dirty:
            self._drop(entry)
        elif entry.after is None:
            self._dirty.append(entry)

    def _drop(self, entry: _Entry) -> None:
        entry.is_gone = True
        entry.is_dirty = False
        later = self._entries[entry.identity]
        if later is entry:
            del self._entries[entry.identity]
        while later.after is not None:
            if later.after is entry:
                later.after = entry.after
                self._dirty.append(later)
            else:
                later = later.after
        for each in entry.waiting:
            each.heard(Verdict.TAKEN)
        self.quieted()

    def _try_again(self, entry: _Entry) -> None:
        self._broker.turn.row[metrics.SESSION_CHANGES_UNHEARD] += 1
        waiting, entry.flying = entry.flying or [], None
        entry.waiting = [each for each in waiting if each.patient] + entry.waiting
        if entry.session is None:
            # Whoever began it hears that it could not be.
            entry.is_over = True
        entry.whole = True
        if not self._unheard:
            self._broker.at(self._broker.turn.now_ms + self._retry_ms, self._again)
        self._unheard.append(entry)
        for each in waiting:
            if not each.patient:
                each.heard(Verdict.UNKNOWN)

    def _again(self) -> None:
        unheard, self._unheard = self._unheard, []
        for entry in unheard:
            # It may have changed while it was on its way, and was passed over then.
            entry.is_dirty = not entry.is_gone
            self._dirty.append(entry)


def _if_done(verdict: Verdict, callback: Callable[[], None]) -> None:
    if verdict is Verdict.DONE:
        callback()
