"""Whose session is it: before a core opens one that it has not, it asks the other nodes.

On each live node the core that a client id hashes to is asked, and answers one of these:

    ABSENT  it has no session of this client, or not any more: what ended with its connection was
            taken over (MQTT5 3.1.4), and with clean start what would have been kept is gone too
    HERE    it keeps one, and the client is to be brought to it
    YIELD   its own client came later, and goes first: the one that asks is refused

When two nodes seek the same client, the later one has it, by (stamp, node). A core answers when
it has seen what the one that asks has seen of the cluster, when it has taken over what it must
of nodes that are gone, and when the cluster knows all that was changed here of the session. So
at most one node has a session of a client.
"""

import enum
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, Protocol

from robustmq import metrics
from robustmq.broker.api import Broker
from robustmq.errors import Refusal, Refused
from robustmq.message.core_number import node_of
from robustmq.message.session_record import SessionHead, Verdict
from robustmq.mqtt.registry import Registrar
from robustmq.mqtt.session_table import SessionTable

FIRST_KIND: Final = 240
"""The frames' kinds from this on are those of sessions, of several nodes."""
SEEK: Final = 240
FOUND: Final = 241

_SEEK: Final = struct.Struct("<BBQQQ")
_FOUND: Final = struct.Struct("<BBQQ")

_OVERTAKEN: Final = Refused(
    Refusal.BUSY, "another client connects with this client identifier: try again"
)
_OUT_OF_REACH: Final = Refused(
    Refusal.UNAVAILABLE,
    "the cluster cannot keep the session now, a majority of its nodes is out of reach: try again",
)


class Answer(enum.IntEnum):
    """What a core says that was asked for a session."""

    ABSENT = 0
    HERE = 1
    YIELD = 2


class Cluster(Protocol):
    """What a core knows of the others, and how it reaches them."""

    @property
    def node(self) -> int:
        """The number of this node."""

    @property
    def version(self) -> int:
        """How far it is known here which nodes there are: the same number, the same nodes."""

    def homes(self, client_id: bytes) -> Sequence[int]:
        """Return the cores of the other live nodes that sessions of a client would live on."""

    def send(self, core: int, frame: bytes) -> None:
        """Queue a frame."""


class _Stage(enum.Enum):
    PARKED = 0
    ASKING = 1
    BEGINNING = 2
    WAITING = 3


@dataclass(slots=True, eq=False)
class Newcomer:
    """A client that is to have its session opened; one of the three callables ends it.

    `head` is what the cluster has to know of the session, None when that is nothing.
    `enter(generation)`: it lives here, in a tenure that has begun unless that is 0;
    `follow(core)`: there; `refuse(why)`.
    """

    identity: str
    client_id: bytes
    clean_start: bool
    head: SessionHead | None
    enter: Callable[[int], None]
    follow: Callable[[int], None]
    refuse: Callable[[Refused], None]
    stamp: int = 0
    call: int = 0
    asked: int = 0
    """The version of the cluster in which it was asked who there is."""
    was_taken: bool = False
    """The cluster says that some node has the session, although none has said so."""
    seen: int = 0
    """The highest version in which it was answered."""
    stage: _Stage = _Stage.PARKED
    owing: set[int] = field(default_factory=set)


class _Seek(NamedTuple):
    """A question of another core."""

    core: int
    call: int
    stamp: int
    version: int
    clean_start: bool
    was_taken: bool
    identity: str
    until_ms: int


class Seeker:
    """Finds out where newcomers belong, and answers the other nodes.

    `is_ready()`: all is taken over that must be of nodes that are gone. A question that cannot be
    answered is forgotten after `patience_ms`: whoever asked has given up.
    """

    def __init__(
        self,
        broker: Broker,
        sessions: SessionTable,
        registrar: Registrar,
        cluster: Cluster,
        *,
        is_ready: Callable[[], bool],
        retry_ms: int,
        patience_ms: int,
    ) -> None:
        self._broker = broker
        self._sessions = sessions
        self._registrar = registrar
        self._cluster = cluster
        self._is_ready = is_ready
        self._retry_ms = retry_ms
        self._patience_ms = patience_ms
        self._newcomers: dict[str, Newcomer] = {}
        self._calls: dict[int, Newcomer] = {}
        self._last_call = 0
        self._parked: list[_Seek] = []
        self._has_news = False

    # ------------------------------------------------------------------ asking

    def seek(self, newcomer: Newcomer) -> None:
        """Find out where a client belongs that has no session here."""
        before = self._newcomers.get(newcomer.identity)
        if before is not None:
            self._refuse(before, _OVERTAKEN)
        newcomer.stamp = self._registrar.stamp()
        self._newcomers[newcomer.identity] = newcomer
        self._broker.turn.row[metrics.SESSIONS_SOUGHT] += 1
        self._ask(newcomer)

    def abandon(self, newcomer: Newcomer) -> None:
        """The client has gone, or has waited for too long."""
        if self._newcomers.get(newcomer.identity) is newcomer:
            self._leave(newcomer)

    def refuse_all(self, why: Refused) -> None:
        """Nobody is to find anything out now."""
        for newcomer in list(self._newcomers.values()):
            self._refuse(newcomer, why)

    def _ask(self, newcomer: Newcomer) -> None:
        self._calls.pop(newcomer.call, None)
        if not self._is_ready() or newcomer.seen > self._cluster.version:
            newcomer.stage = _Stage.PARKED
            return
        if self._sessions.get(newcomer.identity) is not None:
            self._leave(newcomer)
            newcomer.enter(0)
            return
        newcomer.stage = _Stage.ASKING
        newcomer.asked = newcomer.seen = self._cluster.version
        newcomer.owing = set(self._cluster.homes(newcomer.client_id))
        self._last_call += 1
        newcomer.call = self._last_call
        self._calls[newcomer.call] = newcomer
        head = _SEEK.pack(
            SEEK,
            newcomer.clean_start | newcomer.was_taken << 1,
            newcomer.call,
            newcomer.stamp,
            self._cluster.version,
        )
        frame = head + newcomer.identity.encode()
        for core in newcomer.owing:
            self._cluster.send(core, frame)
        if not newcomer.owing:
            self._nowhere(newcomer)

    def _nowhere(self, newcomer: Newcomer) -> None:
        """No node that was asked has a session of the client."""
        self._calls.pop(newcomer.call, None)
        if newcomer.seen > newcomer.asked:
            # Somebody knows more of the cluster than we did: there may be others to ask.
            self._ask(newcomer)
        elif newcomer.head is None:
            self._leave(newcomer)
            newcomer.enter(0)
        else:
            newcomer.stage = _Stage.BEGINNING
            begun = partial(self._begun, newcomer)
            self._registrar.begin(newcomer.identity, newcomer.head, begun)

    def _begun(self, newcomer: Newcomer, verdict: Verdict, generation: int) -> None:
        if self._newcomers.get(newcomer.identity) is not newcomer:
            if verdict is Verdict.DONE:
                self._registrar.forget(newcomer.identity, generation)
        elif verdict is Verdict.DONE:
            self._leave(newcomer)
            session = self._sessions.get(newcomer.identity)
            if session is not None:
                # It was taken over from a node that is gone while its client waited.
                self._registrar.renew(session, generation)
            newcomer.enter(generation)
        elif verdict is Verdict.UNKNOWN:
            self._refuse(newcomer, _OUT_OF_REACH)
        else:
            # A node has it that is gone, and whoever takes it over is not done; or it has just
            # begun elsewhere.
            newcomer.stage = _Stage.WAITING
            newcomer.was_taken = True
            again = self._broker.turn.now_ms + self._retry_ms
            self._broker.at(again, partial(self._ask_again, newcomer))

    def _ask_again(self, newcomer: Newcomer) -> None:
        is_current = self._newcomers.get(newcomer.identity) is newcomer
        if is_current and newcomer.stage is _Stage.WAITING:
            self._ask(newcomer)

    def _leave(self, newcomer: Newcomer) -> None:
        del self._newcomers[newcomer.identity]
        self._calls.pop(newcomer.call, None)
        self._has_news = True

    def _refuse(self, newcomer: Newcomer, why: Refused) -> None:
        self._leave(newcomer)
        newcomer.refuse(why)

    def _found(self, core: int, call: int, answer: Answer, version: int) -> None:
        newcomer = self._calls.get(call)
        if newcomer is None or core not in newcomer.owing:
            return
        if answer is Answer.ABSENT:
            newcomer.owing.discard(core)
            newcomer.seen = max(newcomer.seen, version)
            if not newcomer.owing:
                self._nowhere(newcomer)
        elif answer is Answer.HERE:
            self._leave(newcomer)
            newcomer.follow(core)
        else:
            self._refuse(newcomer, _OVERTAKEN)

    # ------------------------------------------------------------------ being asked

    def receive(self, core: int, frame: bytes) -> None:
        """Take a frame of another core."""
        if frame[0] == FOUND:
            _, answer, call, version = _FOUND.unpack(frame)
            self._found(core, call, Answer(answer), version)
            return
        _, flags, call, stamp, version = _SEEK.unpack_from(frame)
        seek = _Seek(
            core,
            call,
            stamp,
            version,
            bool(flags & 1),
            bool(flags & 2),
            frame[_SEEK.size :].decode(),
            self._broker.turn.now_ms + self._patience_ms,
        )
        if not self._answer(seek):
            self._parked.append(seek)

    def _answer(self, seek: _Seek) -> bool:
        """Answer if that can be done now."""
        if seek.version > self._cluster.version or not self._is_ready():
            return False
        mine = self._newcomers.get(seek.identity)
        if mine is not None:
            if (mine.stamp, self._cluster.node) > (seek.stamp, node_of(seek.core)):
                self._tell(seek, Answer.YIELD)
                return True
            self._refuse(mine, _OVERTAKEN)
        if self._sessions.vacate(seek.identity, seek.clean_start):
            self._tell(seek, Answer.HERE)
            return True
        if not self._registrar.is_quiet(seek.identity):
            return False
        if seek.was_taken:
            # An earlier life may have begun it with its last words: end that before the answer.
            self._registrar.disown(seek.identity)
            self._parked.append(seek._replace(was_taken=False))
        else:
            self._tell(seek, Answer.ABSENT)
        return True

    def _tell(self, seek: _Seek, answer: Answer) -> None:
        self._cluster.send(seek.core, _FOUND.pack(FOUND, answer, seek.call, self._cluster.version))

    # ------------------------------------------------------------------ what changes

    def look(self) -> None:
        """Something has changed that somebody may wait for; to be seen at the end of the turn."""
        self._has_news = True

    def run(self) -> None:
        """Go on with what waited for a change; to be called once a turn."""
        if not self._has_news:
            return
        self._has_news = False
        for newcomer in list(self._newcomers.values()):
            if newcomer.stage is _Stage.PARKED:
                self._ask(newcomer)
        now_ms = self._broker.turn.now_ms
        parked, self._parked = self._parked, []
        self._parked += [
            seek for seek in parked if seek.until_ms > now_ms and not self._answer(seek)
        ]

    @property
    def busy(self) -> bool:
        """Whether `run` has to be called again."""
        return self._has_news and bool(self._parked or self._newcomers)

    def begin_again(self) -> None:
        """A node is gone whose sessions are taken over: ask those who do that, when they have."""
        for newcomer in list(self._newcomers.values()):
            if newcomer.stage is _Stage.ASKING:
                self._ask(newcomer)

    def replaced(self, core: int) -> None:
        """A core has a new life, or is gone: it has not heard what it was asked."""
        self._parked = [seek for seek in self._parked if seek.core != core]
        for newcomer in list(self._newcomers.values()):
            if newcomer.stage is _Stage.ASKING and core in newcomer.owing:
                self._ask(newcomer)
