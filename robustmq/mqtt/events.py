"""What happens to clients, told to clients: who comes and goes, and who subscribes to what.

Each event goes to `$SYS/events`, in the envelope of RobustMQ, and to a topic of its own for each
client, `$SYS/brokers/<broker_id>/clients/<client_id>/connected` and so on, in the client's tenant.
"""

from typing import Final

import msgspec

from robustmq.broker.api import Principal
from robustmq.message.tenancy import qualified
from robustmq.mqtt.announcements import Announcements

_ALL: Final = b"$SYS/events"
_NOT_IN_TOPICS: Final = frozenset("+#/\0")


class Events:
    """Publishes the events of a core at QoS 0; `node_id` and `node_ip` say whose they are."""

    def __init__(self, announcements: Announcements, node_id: int, node_ip: str) -> None:
        self._announcements = announcements
        self._node_id = node_id
        self._node_ip = node_ip

    def connected(self, principal: Principal, version: int, keep_alive_s: int, now_ms: int) -> None:
        """A client was told that it is connected."""
        fields: dict[str, str | int] = {"protocol": f"mqtt{version}", "keep_alive": keep_alive_s}
        self._tell("connected", principal, fields, now_ms)

    def disconnected(self, principal: Principal, reason: str, now_ms: int) -> None:
        """The connection of such a client has ended."""
        self._tell("disconnected", principal, {"reason": reason}, now_ms)

    def subscribed(self, principal: Principal, topic_filter: str, qos: int, now_ms: int) -> None:
        """A subscription was granted, also one in the place of another."""
        self._tell("subscribed", principal, {"path": topic_filter, "qos": qos}, now_ms)

    def unsubscribed(self, principal: Principal, topic_filter: str, now_ms: int) -> None:
        """A client has ended a subscription."""
        self._tell("unsubscribed", principal, {"path": topic_filter}, now_ms)

    def _tell(
        self, event: str, principal: Principal, fields: dict[str, str | int], now_ms: int
    ) -> None:
        client_id = principal.client_id
        value: dict[str, str | int | None] = {
            "event": event,
            "tenant": principal.tenant,
            "client_id": client_id,
            "username": principal.username,
            "source_ip": principal.address,
            "listener": principal.listener,
            **fields,
            "timestamp": now_ms,
        }
        envelope = {
            "node_id": self._node_id,
            "node_ip": self._node_ip,
            "ts": now_ms // 1_000,
            "value": value,
        }
        self._announcements.publish(_ALL, msgspec.json.encode(envelope))
        if _NOT_IN_TOPICS.isdisjoint(client_id):
            topic = f"$SYS/brokers/{self._node_id}/clients/{client_id}/{event}".encode()
            self._announcements.publish(
                qualified(principal.tenant, topic), msgspec.json.encode(value)
            )
