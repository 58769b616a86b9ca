"""A session: what the server keeps for a client across its connections (MQTT5 4.1)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from robustmq.broker.api import Options, Principal, Timer, Window
from robustmq.message.topic import matches
from robustmq.mqtt.packets import Will

if TYPE_CHECKING:
    from robustmq.mqtt.connection import Connection

NEVER: Final = 0xFFFFFFFF
"""A session expiry interval that never ends (MQTT5 3.1.2.11.2)."""


Recording: TypeAlias = list[Callable[[int, bool], None]]
"""Who awaits that a QoS 2 message is recorded: called with (code, matched)."""


class Subscribed(NamedTuple):
    """A subscription of a session; `group` is the shared group's name, or None."""

    topic_filter: bytes
    options: Options
    group: bytes | None


class Session:
    """State of one client id. Its `window` holds what goes out, `received` what came in at QoS 2.

    `received` has None for a packet id that is recorded and waits for PUBREL, and before that
    those who wait; a repeat may come on another connection than the message itself.
    `expiry` is in seconds; 0 ends the session with its connection.
    """

    __slots__ = (
        "client_id",
        "connection",
        "expiry",
        "expiry_timer",
        "principal",
        "received",
        "subscriptions",
        "will",
        "will_timer",
        "window",
    )

    def __init__(self, client_id: str, window: Window, principal: Principal) -> None:
        self.client_id = client_id
        self.window = window
        self.principal = principal
        self.expiry = 0
        self.subscriptions: dict[str, Subscribed] = {}
        self.received: dict[int, Recording | None] = {}
        self.connection: Connection | None = None
        self.will: Will | None = None
        self.will_timer: Timer | None = None
        self.expiry_timer: Timer | None = None
        window.session = self

    def recorded(self, packet_id: int, waiting: Recording, code: int, matched: bool) -> None:
        """Learn that a QoS 2 message is recorded, or refused: then its packet id is free."""
        if self.received.get(packet_id) is waiting:
            if code:
                del self.received[packet_id]
            else:
                self.received[packet_id] = None
        for reply in waiting:
            reply(code, matched)

    def hears_itself(self, topic: bytes) -> bool:
        """Does no subscription with no local match the topic? (MQTT5 3.8.3.1)."""
        return not any(
            subscribed.options.no_local and matches(subscribed.topic_filter, topic)
            for subscribed in self.subscriptions.values()
        )
