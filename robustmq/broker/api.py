"""The port: all that a protocol may ask of the broker."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import msgspec

from robustmq._kernel.intake import Handle
from robustmq._kernel.meter import Meter
from robustmq._kernel.turn import Turn
from robustmq._kernel.window import Window
from robustmq.broker.timers import Alarm, Timer
from robustmq.errors import Refused
from robustmq.message.record import Record
from robustmq.policy.credentials import Credential, CredentialBook, Salted
from robustmq.policy.logins import Exchange, Login, Logins, Step
from robustmq.policy.principal import BRIDGE, SERVER, Peer, Principal, client_of
from robustmq.settings.topics import AutoSubscribe
from robustmq.storage.log import StoredBatch

__all__ = [
    "BRIDGE",
    "SERVER",
    "Alarm",
    "Broker",
    "Credential",
    "CredentialBook",
    "Estates",
    "Exchange",
    "Gate",
    "Handle",
    "Heir",
    "Kept",
    "Legacies",
    "Legacy",
    "LogBounds",
    "Login",
    "Logins",
    "Meter",
    "Options",
    "Orphans",
    "Peer",
    "Portion",
    "Principal",
    "Rates",
    "Record",
    "Salted",
    "Step",
    "StoredBatch",
    "Timer",
    "Turn",
    "Window",
    "client_of",
]


class Options(NamedTuple):
    """How a subscription wants its messages (MQTT5 3.8.3.1).

    `identifier` is what the protocol puts into every message for it, encoded by the protocol.
    """

    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    identifier: bytes = b""


class Kept(NamedTuple):
    """What a core had retained when it settled a subscription; only a broker looks into it."""

    core: int
    position: int
    sent: list[int]


class State(Protocol):
    """The durable rows of this core; what is put in a turn is written as one, or not at all.

    A key begins with a byte that says what the row is, so that protocols do not meet:
    `s` and from there to `z` are theirs.
    """

    @property
    def refusal(self) -> Refused | None:
        """Why nothing can be kept now (the disk is full, or fails); None while writing works."""

    def put(self, key: bytes, value: bytes, /) -> None:
        """Set a row."""

    def delete(self, key: bytes, /) -> None:
        """Remove a row; it may be missing."""

    def erase(self, first: bytes, stop: bytes, /) -> None:
        """Remove the rows from `first` on and below `stop`; for a thousand rows and more."""

    def get(self, key: bytes, /) -> bytes | None:
        """Return a written row's value; None when there is none."""

    def walk(self, first: bytes, stop: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        """Yield the written rows from `first` on and below `stop`, ascending."""

    def then(
        self, callback: Callable[[], None], refused: Callable[[int], None] | None = None
    ) -> None:
        """Call back when everything that was put so far is durable; not before the turn's end.

        With `refused`, that is called instead, with the Refusal, when writing fails before.
        """

    def next_number(self, name: bytes, /) -> int:
        """A number that was never given before under this name, also before a restart."""


class LogBounds(NamedTuple):
    """The offsets of a log: the first that is kept, the next, and that below which is safe."""

    start: int
    end: int
    high_watermark: int


class Logs(Protocol):
    """The logs of topics that this core keeps (see `[[topic_rules]]`).

    A topic that has a log of its own is kept by one core; of other topics each core keeps what
    was published on it, in a log for all topics of a rule.
    """

    def read(self, topic: bytes, offset: int, max_bytes: int) -> list[StoredBatch]:
        """As `storage.log.Log.read`, what is safe of the log that keeps `topic`; else nothing."""

    def bounds(self, topic: bytes) -> LogBounds | None:
        """How far that log reaches; None when there is none here."""


class Topics(Protocol):
    """What the configuration says of a client and a topic; a refusal is a value."""

    @property
    def rewrites(self) -> bool:
        """Whether a message may go to another topic than its publisher wrote."""

    @property
    def names_publishers(self) -> bool:
        """Whether each message has to say in its headers whose it is (`record.CLIENT`)."""

    def name(self, principal: Principal, topic: bytes, /) -> bytes | Refused:
        """The topic that a message to a valid topic goes to: what is published has it as key."""

    def filter(self, principal: Principal, written: str, /) -> str | Refused:
        """The filter that a client means by a valid one: what it is subscribed by and known by."""

    def payload(self, topic: bytes, payload: bytes, /) -> Refused | None:
        """Say why a message that calls itself text may not be published to a topic."""

    def automatic(self, principal: Principal, /) -> Iterator[tuple[str, AutoSubscribe]]:
        """The filters that a client is subscribed to when it connects, unless it already is."""


class Gate(Protocol):
    """Who may connect; asked by whoever opens sessions, on the home core of the client."""

    def admit(
        self, principal: Principal, now_ms: int, replaces: bool, *, has_many: bool = False
    ) -> Refused | None:
        """Say why a client may not connect; `replaces`: it takes over a connection that is here.

        To be asked once for each that wants to. `has_many`: clients of its protocol have several
        connections, and none of their own name.
        """

    def banned(self, principal: Principal, now_ms: int) -> Refused | None:
        """Say why a client may not be connected any more."""

    def opened(self, peer: Peer) -> None:
        """A client that was admitted is connected."""

    def closed(self, peer: Peer) -> None:
        """A client that was connected is gone."""


class Exclusives(Protocol):
    """Subscriptions that one session of the whole node has at a time, by their filters."""

    def claim(self, window: Window, topic_filter: bytes, reply: Callable[[bool], None], /) -> None:
        """Ask for a filter; `reply(True)` when the session has it, False when another has it."""

    def restore(self, window: Window, topic_filter: bytes, /) -> None:
        """After a restart: the durable session had it; to be said before the core starts."""

    def release(self, window: Window, topic_filter: bytes, kept: bool, /) -> None:
        """Let others have it: at once, or of a session that is `kept` when the disk knows."""


class Heir(NamedTuple):
    """To whom something is owed: a client, and when its session began (`SessionHead.born`)."""

    identity: str
    born: int


class Legacy(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A batch of one run that a session is owed, and how it wants each copy of it.

    `position` is behind its last record, on the core that it comes from.
    """

    position: int
    options: list[Options]
    batch: bytes


class Portion(NamedTuple):
    """Some of what a session is owed, and the position from which on it goes on; None: all."""

    legacies: list[Legacy]
    after: int | None


class Orphans(Protocol):
    """Sessions of nodes that are gone: what they may be owed is held until others have them."""

    def settled(self, is_settled: bool) -> None:
        """Say whether this core has all sessions that are its own, with all that they want."""


class Estates(Protocol):
    """What this core owes to sessions that other nodes have by now, by the sessions' numbers."""

    waiting: deque[int]
    """Those that nobody sees to yet."""

    def begin(self) -> None:
        """The node has another life: what it keeps from now on is not owed by it alone."""

    def leave(self, window: Window, heir: Heir) -> None:
        """Another node has the session, which is dropped here: keep what it is owed."""

    def heir(self, number: int) -> Heir:
        """Whose session it was."""

    def page(self, number: int, max_bytes: int) -> Portion:
        """Read what comes next; one batch may be larger than `max_bytes`."""

    def passed(self, number: int, position: int | None) -> None:
        """All before `position`, or with None all, is on the disk of the session's new home."""

    def close(self, number: int) -> None:
        """Nothing is owed any more."""


class Legacies(Protocol):
    """What sessions of this core were owed elsewhere, taken over: each batch once, in order."""

    def take(self, window: Window, source: int, estate: int, legacies: list[Legacy]) -> bool:
        """Keep what core `source` hands on; False: not now, all of it is to come again."""

    def end(self, window: Window, source: int, estate: int) -> None:
        """Core `source` has nothing more of that estate."""


class Rates(Protocol):
    """How much may be published; a meter that has nothing left stops the intakes that it has."""

    def meters(self, peer: Peer) -> list[Meter] | None:
        """Return the meters of a new client, for all of its intakes; None without a limit."""

    def of_topic(self, topic: bytes) -> Meter | None:
        """Return the meter of a valid topic name; None where there is no limit."""


class Broker(Protocol):
    """What a protocol sees of its core. No call waits; answers come to the callable given.

    A `window` is the receiving end of a session: its `key` names it in the whole node, and
    whoever opens it gives it a session of its own.
    """

    turn: Turn

    @property
    def state(self) -> State:
        """What of this core survives it."""

    @property
    def topics(self) -> Topics:
        """What is configured for clients and topics."""

    @property
    def exclusives(self) -> Exclusives:
        """Who subscribes alone."""

    @property
    def estates(self) -> Estates:
        """What is owed to sessions that have left."""

    @property
    def orphans(self) -> Orphans:
        """What sessions may be owed that other nodes had, while it is not known who has them."""

    @property
    def legacies(self) -> Legacies:
        """What sessions that have come were owed elsewhere."""

    @property
    def logs(self) -> Logs:
        """What this core keeps for readers to come."""

    def route(
        self, principal: Principal, topic: bytes, retain: bool = False
    ) -> Handle | Refused | None:
        """Decide once whether and where this principal's messages to `topic` go.

        The handle takes runs of plain messages until it is `stale`. None: they may be published,
        each by itself. With `retain` it is asked about messages that are to be retained.
        """

    def publish(
        self,
        principal: Principal,
        record: Record,
        reply: Callable[[int, bool], None] | None,
        once: bool = False,
    ) -> Refused | None:
        """Append one record.

        `reply(code, matched)` follows when every core that owes it to a durable session has it:
        `code` is 0 or a Refusal, `matched` False when no subscription wants the topic. With
        `once` it is not delivered before the rows that were put with it are durable, and then
        exactly once, also when this core dies in between: the publisher must not repeat it.
        A delayed one (`$delayed/...`) is answered when it is safe until then, and `matched`.
        """

    @property
    def blocked(self) -> bool:
        """Say whether publishers must pause: some core is too far behind.

        A handle says so by its builder. Whoever pauses puts its intake into `turn.resumes`.
        """

    def subscribe(
        self,
        window: Window,
        topic_filter: bytes,
        options: Options,
        retained: bool,
        reply: Callable[[list[Kept]], None],
    ) -> None:
        """Deliver what matches to `window`.

        After `reply(kept)` no publish on any core is missed. With `retained`, `kept` is what
        `send_retained` must be given for the retained messages that were there before; a
        message is either among them or delivered, never both.
        """

    def keep(self, window: Window, position: int | None = None) -> None:
        """Keep for the session on disk what its subscriptions of QoS 1 and 2 match.

        To be said before it subscribes, once; `window.key` is its number for ever
        (`state.next_number`). After a restart `position` is None, and the session stands where
        it stood.
        """

    def drop(self, window: Window) -> None:
        """The session has ended: nothing is owed to it any more."""

    @property
    def position(self) -> int:
        """Where a subscription stands that begins now (see `restore`)."""

    def pump(self, window: Window) -> None:
        """The window's connection has room again: let it send on, in this turn or the next."""

    def released(self, window: Window, packet_id: int) -> None:
        """The client has a QoS 2 message of a durable session (PUBREC), before it is answered."""

    def completed(self, window: Window, packet_id: int) -> None:
        """A QoS 2 exchange of a durable session is over (PUBCOMP, or refused by PUBREC)."""

    def restore(self, window: Window, topic_filter: bytes, options: Options, position: int) -> None:
        """After a restart: the durable session had this subscription, from that position on.

        To be called before the core starts; nobody is asked, and nothing is answered.
        """

    def unsubscribe(self, window: Window, topic_filter: bytes) -> None:
        """Deliver for this filter no more."""

    def join(
        self,
        window: Window,
        group: bytes,
        topic_filter: bytes,
        options: Options,
        reply: Callable[[], None],
    ) -> None:
        """Make the window's session a member of a shared subscription (MQTT5 4.8.2)."""

    def restore_member(
        self, window: Window, group: bytes, topic_filter: bytes, options: Options
    ) -> None:
        """After a restart: the durable session was a member; to be said before the core starts."""

    def leave(self, window: Window, group: bytes, topic_filter: bytes) -> None:
        """End a membership: what was not acknowledged goes to the other members."""

    def open(self, window: Window, ready: bool) -> None:
        """The session's client has come (or, not ready, gone): routes and groups follow."""

    def moved(self, topic_filter: bytes) -> None:
        """A subscriber of the filter speaks another version of its protocol now."""

    def send_retained(
        self, window: Window, topic_filter: bytes, options: Options, kept: list[Kept]
    ) -> None:
        """Give retained records to one window, marked as retained, while it is subscribed."""

    def authorize(self, principal: Principal, topic_filter: str) -> Refused | None:
        """Say why the principal may not subscribe to a filter; None when it may."""

    def at(self, when_ms: int, callback: Callable[[], None]) -> Timer:
        """Call back at a time of the turn's clock."""
