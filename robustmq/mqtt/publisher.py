"""What a client publishes: routes for the fast path, and every PUBLISH that is not plain."""

from functools import partial
from typing import TYPE_CHECKING, Final

from robustmq import metrics
from robustmq.broker.api import Handle, Record
from robustmq.errors import ProtocolError, Refusal, Refused
from robustmq.message.topic import validate_name
from robustmq.mqtt.headers import to_headers
from robustmq.mqtt.packets import V5, Properties, Pubcomp, Publish, Pubrel
from robustmq.mqtt.reasons import PUBLISH_REFUSALS, Reason, is_error

if TYPE_CHECKING:
    from robustmq.mqtt.connection import Connection
    from robustmq.mqtt.session import Session

_PUBACK: Final = 0x40
_PUBREC: Final = 0x50
_LOST: Final = (Refusal.UNAVAILABLE, Refusal.BUSY, Refusal.INTERNAL)


class Publisher:
    """The receiving half of a connection's message flow (MQTT5 4.3, 4.9)."""

    __slots__ = ("_aliases", "_connection", "_recording", "_session")

    def __init__(self, connection: "Connection", session: "Session") -> None:
        self._connection = connection
        self._session = session
        self._aliases: dict[int, bytes] | None = None
        # QoS 2 messages that are not answered with PUBREC yet: counted twice otherwise.
        self._recording = 0

    def route(self, topic: bytes) -> Handle | None:
        """The handle for plain messages to a topic; None when each must be looked at."""
        validate_name(topic)
        session = self._session
        if not session.hears_itself(topic):
            return None
        if self._connection.mqtt.limits.max_message_expiry_interval:
            return None
        decided = self._connection.broker.route(session.principal, topic)
        return None if isinstance(decided, Refused) else decided

    def publish(self, packet: Publish) -> None:
        """Take a PUBLISH that is not plain: QoS 2, retained, with properties, or refused."""
        connection = self._connection
        session = self._session
        properties = packet.properties
        topic = packet.topic
        if properties is not None:
            topic = self._named(topic, properties)
        cells = connection.broker.turn.row
        if packet.qos:
            self._check_quota()
        if packet.qos == 2 and packet.packet_id in session.received:
            # A repeat: the message was taken, only the answer is given again ([MQTT-4.3.3-10]).
            ticket = connection.intake.admit(packet.packet_id, _PUBREC)
            connection.intake.settle(ticket, 0, True)
            return
        cells[metrics.MESSAGES_RECEIVED] += 1
        now_ms = connection.broker.turn.now_ms
        publisher = 0 if session.hears_itself(topic) else session.window.key
        record = Record(
            key=topic,
            value=packet.payload,
            headers=to_headers(
                properties, now_ms, connection.mqtt.limits.max_message_expiry_interval, publisher
            ),
            qos=packet.qos,
            retain=packet.retain,
            timestamp=now_ms,
        )
        if packet.qos == 0:
            connection.broker.publish(session.principal, record, None)
            return
        if packet.qos == 2:
            session.received.add(packet.packet_id)
            self._recording += 1
        ticket = connection.intake.admit(packet.packet_id, _PUBACK if packet.qos == 1 else _PUBREC)
        reply = partial(self._settle, ticket, packet.qos)
        refused = connection.broker.publish(session.principal, record, reply)
        if refused is not None:
            reply(refused.code, True)

    def _settle(self, ticket: int, qos: int, code: int, matched: bool) -> None:
        if qos == 2:
            self._recording -= 1
        self._connection.intake.settle(ticket, code, matched)

    def settled(self, kind: int, packet_id: int, code: int, matched: bool) -> int:
        """The reason to answer a PUBLISH with that was refused, or that nobody wanted."""
        connection = self._connection
        if code == 0:
            return 0 if matched else Reason.NO_MATCHING_SUBSCRIBERS
        if connection.version < V5:
            # MQTT 3 cannot refuse. What may succeed later must not be acknowledged; what never
            # will is, or the client would send it for ever.
            if code in _LOST:
                connection.fail(Reason.SERVER_UNAVAILABLE, "the message could not be stored")
            return 0
        reason = PUBLISH_REFUSALS[Refusal(code)]
        if kind == _PUBREC and is_error(reason):
            self._session.received.discard(packet_id)
        return reason

    def release(self, packet: Pubrel) -> None:
        """Answer PUBREL: from here on the packet id may be used anew (MQTT5 4.3.3)."""
        received = self._session.received
        reason = Reason.SUCCESS
        if packet.packet_id not in received:
            reason = Reason.PACKET_IDENTIFIER_NOT_FOUND
        received.discard(packet.packet_id)
        self._connection.send(Pubcomp(packet.packet_id, reason))

    def _check_quota(self) -> None:
        connection = self._connection
        unanswered = connection.intake.outstanding - self._recording
        if unanswered + len(self._session.received) >= connection.mqtt.limits.receive_max:
            if connection.version == V5:
                raise ProtocolError(
                    Reason.RECEIVE_MAXIMUM_EXCEEDED, "the receive maximum is exceeded"
                )
            if unanswered >= connection.mqtt.limits.receive_max * 2:
                raise ProtocolError(Reason.QUOTA_EXCEEDED, "too many messages are unacknowledged")

    def _named(self, topic: bytes, properties: Properties) -> bytes:
        """The topic that a PUBLISH means, by name or by alias (MQTT5 3.3.2.3.4)."""
        if properties.subscription_identifiers:
            raise ProtocolError(
                Reason.PROTOCOL_ERROR, "a PUBLISH to the server has a subscription identifier"
            )
        alias = properties.topic_alias
        if alias is None:
            return topic
        if alias > self._connection.mqtt.limits.topic_alias_max:
            raise ProtocolError(
                Reason.TOPIC_ALIAS_INVALID, f"the topic alias {alias} is above the maximum"
            )
        if self._aliases is None:
            self._aliases = {}
        if topic:
            self._aliases[alias] = topic
            return topic
        known = self._aliases.get(alias)
        if known is None:
            raise ProtocolError(Reason.PROTOCOL_ERROR, f"the topic alias {alias} has no topic")
        return known
