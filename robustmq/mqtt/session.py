"""A session: what the server keeps for a client across its connections (MQTT5 4.1)."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from robustmq.broker.api import Broker, Options, Principal, Window
from robustmq.message.topic import EXCLUSIVE_PREFIX, SHARE_PREFIX, matches
from robustmq.mqtt.packets import Will

if TYPE_CHECKING:
    from robustmq.mqtt.connection import Connection

NEVER: Final = 0xFFFFFFFF
"""A session expiry interval that never ends (MQTT5 3.1.2.11.2)."""

DURABLE: Final = 1 << 46
"""The bit of a session's number that says that the session is kept on disk."""

OWN_CLIENTS: Final = "$bridge/"
"""How the client identifiers of the node's own bridges begin; no other client may have one."""

_SHARE: Final = SHARE_PREFIX.encode()
EXCLUSIVE: Final = EXCLUSIVE_PREFIX.encode()

Recording: TypeAlias = list[Callable[[int, bool], None]]
"""Who awaits that a QoS 2 message is recorded: called with (code, matched)."""


class Subscribed(msgspec.Struct, frozen=True, gc=False):
    """A subscription of a session; `written` is its filter as the client wrote it.

    `start` is the position of the broker from which on a durable session is owed what matches.
    """

    written: bytes
    options: Options
    start: int = 0

    @property
    def group(self) -> bytes | None:
        """The shared group's name, or None (MQTT5 4.8.2)."""
        return self.written.split(b"/", 2)[1] if self.written.startswith(_SHARE) else None

    @property
    def topic_filter(self) -> bytes:
        """The filter without the group, and without what makes it exclusive."""
        if self.written.startswith(_SHARE):
            return self.written.split(b"/", 2)[2]
        return self.written.removeprefix(EXCLUSIVE)

    @property
    def is_exclusive(self) -> bool:
        """Say whether no other session may have it (`$exclusive/filter`)."""
        return self.written.startswith(EXCLUSIVE)

    @property
    def twin(self) -> bytes:
        """How a subscription to the same filter is written that is exclusive, or is not."""
        return self.topic_filter if self.is_exclusive else EXCLUSIVE + self.written


class Session:
    """State of one client id. Its `window` holds what goes out, its number is `window.key`.

    `expiry` is in seconds; 0 ends the session with its connection. `ended_ms` is when the last
    connection ended, 0 while there is one; `version` is that of the last one. `stored` says
    that it has a row on disk: it is durable, or has a will. `generation` is its tenure in a
    cluster (`message.session_record`), 0 for a session that the cluster does not know, `born`
    the first one's.
    """

    # There are millions that are offline, so what most of them do not have costs no object.
    __slots__ = (
        "_received",
        "_subscribed",
        "born",
        "connection",
        "ended_ms",
        "expiry",
        "generation",
        "principal",
        "stored",
        "version",
        "will",
        "window",
    )

    def __init__(self, principal: Principal, window: Window) -> None:
        self.principal = principal
        self.window = window
        self.expiry = 0
        self.version = 0
        self.ended_ms = 0
        self.stored = False
        self.generation = 0
        self.born = 0
        self.connection: Connection | None = None
        self.will: Will | None = None
        self._subscribed: Subscribed | dict[bytes, Subscribed] | None = None
        self._received: dict[int, Recording | None] | None = None
        window.session = self

    @property
    def client_id(self) -> str:
        """Whose session it is."""
        return self.principal.client_id

    @property
    def is_durable(self) -> bool:
        """Say whether it is kept on disk with its subscriptions; so from its beginning or never."""
        return bool(self.window.key & DURABLE)

    @property
    def is_own(self) -> bool:
        """Say whether it is a bridge's of this node: it never moves to another one."""
        return self.principal.client_id.startswith(OWN_CLIENTS)

    def said_by(self, broker: Broker) -> str:
        """The client id where messages have to say whose they are, else nothing."""
        return self.client_id if broker.topics.names_publishers else ""

    # ------------------------------------------------------------------ subscriptions

    @property
    def subscriptions(self) -> Iterable[Subscribed]:
        """Every subscription, the oldest first."""
        held = self._subscribed
        if held is None:
            return ()
        return held.values() if isinstance(held, dict) else (held,)

    @property
    def subscription_count(self) -> int:
        """How many subscriptions there are."""
        held = self._subscribed
        return len(held) if isinstance(held, dict) else int(held is not None)

    def subscription(self, written: bytes) -> Subscribed | None:
        """The subscription with this filter."""
        held = self._subscribed
        if isinstance(held, dict):
            return held.get(written)
        return held if held is not None and held.written == written else None

    def subscribe(self, subscribed: Subscribed) -> None:
        """Add a subscription, or put it in the place of the one with its filter."""
        held = self._subscribed
        if held is None or (not isinstance(held, dict) and held.written == subscribed.written):
            self._subscribed = subscribed
            return
        if not isinstance(held, dict):
            held = self._subscribed = {held.written: held}
        held[subscribed.written] = subscribed

    def unsubscribe(self, written: bytes) -> Subscribed | None:
        """Take a subscription out and return it; None when there is none."""
        held = self._subscribed
        if isinstance(held, dict):
            gone = held.pop(written, None)
            if len(held) == 1:
                (self._subscribed,) = held.values()
            return gone
        if held is None or held.written != written:
            return None
        self._subscribed = None
        return held

    def unsubscribe_all(self) -> None:
        """Forget every subscription."""
        self._subscribed = None

    def hears_itself(self, topic: bytes) -> bool:
        """Does no subscription with no local match the topic? (MQTT5 3.8.3.1)."""
        return not any(
            subscribed.options.no_local and matches(subscribed.topic_filter, topic)
            for subscribed in self.subscriptions
        )

    # ------------------------------------------------------------------ QoS 2 messages received

    @property
    def received(self) -> Iterable[int]:
        """The packet ids of QoS 2 messages that wait for PUBREL, recorded or about to be."""
        return self._received or ()

    def has_received(self, packet_id: int) -> bool:
        """Say whether the packet id stands for a message that is not to be taken again."""
        return self._received is not None and packet_id in self._received

    def receive(self, packet_id: int, waiting: Recording | None) -> None:
        """A message has come; `waiting` are those who await its record, None: it is recorded."""
        if self._received is None:
            self._received = {}
        self._received[packet_id] = waiting

    def waiting_for(self, packet_id: int) -> Recording | None:
        """Who awaits the record of a message; None when it is recorded or unknown.

        A repeat may come on another connection than the message itself, and waits with it.
        """
        return self._received.get(packet_id) if self._received is not None else None

    def release(self, packet_id: int) -> bool:
        """Free a packet id; False when it stood for nothing (MQTT5 4.3.3)."""
        if self._received is None or packet_id not in self._received:
            return False
        del self._received[packet_id]
        if not self._received:
            self._received = None
        return True

    def recorded(self, packet_id: int, waiting: Recording, code: int, matched: bool) -> None:
        """Learn that a QoS 2 message is recorded, or refused: then its packet id is free."""
        if self.waiting_for(packet_id) is waiting:
            if code:
                self.release(packet_id)
            else:
                self.receive(packet_id, None)
        for reply in waiting:
            reply(code, matched)
