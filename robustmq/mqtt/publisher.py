"""What a client publishes: routes for the fast path, and every PUBLISH that is not plain."""

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from robustmq import metrics
from robustmq.broker.api import Handle, Record
from robustmq.errors import ProtocolError, Refusal, Refused
from robustmq.message.delay import delay_seconds, is_delayed
from robustmq.message.tenancy import DEFAULT_TENANT
from robustmq.message.topic import validate_name
from robustmq.mqtt import wire
from robustmq.mqtt.headers import to_headers
from robustmq.mqtt.packets import V5, Properties, Puback, Pubcomp, Publish, Pubrec, Pubrel
from robustmq.mqtt.reasons import PUBLISH_REFUSALS, SENTENCES, UNKNOWN_PACKET_ID, Reason

if TYPE_CHECKING:
    from robustmq.mqtt.connection import Connection
    from robustmq.mqtt.session import Recording, Session

_PUBACK: Final = 0x40
_PUBREC: Final = 0x50
_LOST: Final = (Refusal.QUOTA_EXCEEDED, Refusal.UNAVAILABLE, Refusal.BUSY, Refusal.INTERNAL)


class Exchanges:
    """The QoS 2 exchanges that a connection has begun or taken up.

    The intake counts a message until its PUBREC, the receive maximum until its PUBCOMP
    (MQTT5 4.9): `recorded` is what the intake no longer counts.
    """

    __slots__ = ("_packet_ids", "_tickets")

    def __init__(self) -> None:
        self._packet_ids: set[int] = set()
        self._tickets: deque[int] = deque()

    @property
    def recorded(self) -> int:
        """Exchanges that have come to PUBREC and no further."""
        return max(len(self._packet_ids) - len(self._tickets), 0)

    def begin(self, packet_id: int, ticket: int) -> None:
        """A message was taken; its PUBREC is owed under `ticket`."""
        self._packet_ids.add(packet_id)
        self._tickets.append(ticket)

    def end(self, packet_id: int) -> None:
        """The exchange is complete, or was refused."""
        self._packet_ids.discard(packet_id)

    def answered_below(self, ticket: int) -> None:
        """Every answer before that of `ticket` has gone out."""
        while self._tickets and self._tickets[0] < ticket:
            self._tickets.popleft()


class Publisher:
    """The receiving half of a connection's message flow (MQTT5 4.3, 4.9)."""

    __slots__ = ("_aliases", "_connection", "_exchanges", "_session", "_why")

    def __init__(self, connection: "Connection", session: "Session") -> None:
        self._connection = connection
        self._session = session
        self._aliases: dict[int, bytes] | None = None
        # Most publishers never use QoS 2.
        self._exchanges: Exchanges | None = None
        # Why the message is refused that is being settled, where more is known than the code.
        self._why = ""

    def route(self, topic: bytes) -> Handle | None:
        """The handle for plain messages to a topic; None when each must be looked at."""
        wire.text_of(topic, "topic name")
        validate_name(topic)
        session = self._session
        broker = self._connection.broker
        key = broker.topics.name(session.principal, topic)
        if isinstance(key, Refused) or not session.hears_itself(key):
            return None
        if broker.topics.names_publishers:
            return None
        if self._connection.mqtt.limits.max_message_expiry_interval:
            return None
        decided = broker.route(session.principal, key)
        if not isinstance(decided, Handle):
            return None
        if self._connection.mqtt.rates is not None:
            decided.meter = self._connection.mqtt.rates.of_topic(key)
        return decided

    def publish(self, packet: Publish) -> None:
        """Take a PUBLISH that is not plain: QoS 2, retained, with properties, or refused."""
        connection = self._connection
        session = self._session
        properties = packet.properties
        topic = packet.topic
        if properties is not None:
            topic = self._named(topic, properties)
        ticket = self._admit(packet) if packet.qos else 0
        if packet.qos == 2 and session.has_received(packet.packet_id):
            self._repeated(packet.packet_id, ticket)
            return
        connection.broker.turn.row[metrics.MESSAGES_RECEIVED] += 1
        decided = self._decide(topic, packet)
        if isinstance(decided, Refused):
            connection.broker.turn.row[metrics.MESSAGES_DROPPED_REFUSED] += 1
            if packet.qos:
                self._why = decided.detail
                self._settle(ticket, decided.code, True)
                self._why = ""
            return
        self._take(packet, decided, ticket)

    def _decide(self, topic: bytes, packet: Publish) -> bytes | Refused:
        """Return the topic that the message goes to, or why it goes nowhere."""
        topics = self._connection.broker.topics
        principal = self._session.principal
        is_known = principal.tenant == DEFAULT_TENANT and not topic.startswith(b"$")
        if topics.rewrites or not is_known:
            decided = topics.name(principal, topic)
            if isinstance(decided, Refused):
                return decided
            topic = decided
        properties = packet.properties
        if properties is not None and properties.payload_format == 1:
            return topics.payload(topic, packet.payload) or topic
        return topic

    def _take(self, packet: Publish, topic: bytes, ticket: int) -> None:
        """Hand a message for `topic` to the broker."""
        connection = self._connection
        rates = connection.mqtt.rates
        meter = rates.of_topic(topic) if rates is not None else None
        if meter is not None:
            meter.charge(connection.intake, 1, len(packet.payload))
        session = self._session
        now_ms = connection.broker.turn.now_ms
        # Which subscriptions there will be when a delayed message is due, nobody knows.
        hears = session.hears_itself(topic) and not is_delayed(topic)
        publisher = 0 if hears else session.window.key
        most = connection.mqtt.limits.max_message_expiry_interval
        if most:
            # The bound is for what was published, as far as the client wished it so.
            most += delay_seconds(topic, now_ms)
        record = Record(
            key=topic,
            value=packet.payload,
            headers=to_headers(
                packet.properties, now_ms, most, publisher, session.said_by(connection.broker)
            ),
            qos=packet.qos,
            retain=packet.retain,
            timestamp=now_ms,
        )
        if packet.qos == 0:
            connection.broker.publish(session.principal, record, None)
            self._pause_if_blocked()
            return
        if packet.qos == 2:
            self._publish_once(packet.packet_id, record, ticket)
        else:
            reply = partial(self._settle, ticket)
            refused = connection.broker.publish(session.principal, record, reply)
            if refused is not None:
                self._why = refused.detail
                reply(refused.code, True)
                self._why = ""
        self._pause_if_blocked()

    def _publish_once(self, packet_id: int, record: Record, ticket: int) -> None:
        """Publish a message of QoS 2 and remember its packet id, on disk if the session is there.

        PUBREC follows when both are done (MQTT5 4.3.3).
        """
        session = self._session
        broker = self._connection.broker
        sessions = self._connection.mqtt.sessions
        waiting: Recording = [partial(self._settle, ticket)]
        session.receive(packet_id, waiting)
        reply = partial(sessions.recorded, session, packet_id, waiting)
        durable = session.is_durable
        refused = broker.publish(session.principal, record, reply, once=durable)
        if refused is None and durable and session.has_received(packet_id):
            sessions.rows.put_received(session, packet_id)
        if refused is not None:
            self._why = refused.detail
            session.recorded(packet_id, waiting, refused.code, True)
            self._why = ""

    def _pause_if_blocked(self) -> None:
        """Read no further while some core is behind: what waits for it is bounded."""
        broker = self._connection.broker
        if broker.blocked:
            self._connection.intake.block()

    def _repeated(self, packet_id: int, ticket: int) -> None:
        """Answer a repeat of a QoS 2 message that was taken, when its PUBREC is due.

        The message itself is not taken again ([MQTT-4.3.3-10]).
        """
        waiting = self._session.waiting_for(packet_id)
        if waiting is None:
            self._settle(ticket, 0, True)
        else:
            waiting.append(partial(self._settle, ticket))

    def _settle(self, ticket: int, code: int, matched: bool) -> None:
        intake = self._connection.intake
        intake.settle(ticket, code, matched)
        if not intake.outstanding:
            self._allow(ticket + 1)

    def settled(self, kind: int, packet_id: int, code: int, matched: bool) -> int | bytes:
        """The reason, or the whole answer, for a PUBLISH that was refused or that nobody wanted."""
        connection = self._connection
        if code == 0:
            return 0 if matched else Reason.NO_MATCHING_SUBSCRIBERS
        if connection.version < V5:
            # MQTT 3 cannot refuse. What may succeed later must not be acknowledged; what never
            # will is, or the client would send it for ever.
            if code in _LOST:
                connection.fail(Reason.SERVER_UNAVAILABLE, "the message could not be stored")
            return 0
        if kind == _PUBREC and self._exchanges is not None:
            self._exchanges.end(packet_id)
        refusal = Refusal(code)
        answer = Puback if kind == _PUBACK else Pubrec
        return connection.wording.encode(
            answer(packet_id, PUBLISH_REFUSALS[refusal]), self._why or SENTENCES[refusal]
        )

    def release(self, packet: Pubrel) -> None:
        """Answer PUBREL: from here on the packet id may be used anew (MQTT5 4.3.3)."""
        session = self._session
        connection = self._connection
        known = session.release(packet.packet_id)
        if self._exchanges is not None:
            self._exchanges.end(packet.packet_id)
            self._allow(0)
        if not known:
            answer = Pubcomp(packet.packet_id, Reason.PACKET_IDENTIFIER_NOT_FOUND)
            connection.refuse(answer, UNKNOWN_PACKET_ID)
        elif session.is_durable:
            # A packet id that came back with the row would swallow the message that has it next.
            connection.mqtt.sessions.rows.delete_received(session, packet.packet_id)
            answer = Pubcomp(packet.packet_id)
            connection.broker.state.then(partial(connection.send_if_open, answer))
        else:
            connection.send(Pubcomp(packet.packet_id))

    def _admit(self, packet: Publish) -> int:
        """Count a message of QoS 1 or 2 and return its ticket (MQTT5 3.3.4, 4.9).

        Raises ProtocolError 0x93; MQTT 3 has no such limit, its intake is paused for a while.
        """
        connection = self._connection
        intake = connection.intake
        ticket: int = intake.admit(packet.packet_id, _PUBACK if packet.qos == 1 else _PUBREC)
        if packet.qos == 2:
            if self._exchanges is None:
                self._exchanges = Exchanges()
            self._exchanges.begin(packet.packet_id, ticket)
        self._allow(ticket + 1 - intake.outstanding)
        if connection.version == V5 and intake.outstanding > intake.receive_max:
            raise ProtocolError(Reason.RECEIVE_MAXIMUM_EXCEEDED, "the receive maximum is exceeded")
        return ticket

    def _allow(self, first_unanswered: int) -> None:
        """Leave to the intake what exchanges beyond PUBREC leave of the receive maximum."""
        if self._exchanges is not None:
            self._exchanges.answered_below(first_unanswered)
            if self._connection.version == V5:
                limit = self._connection.mqtt.limits.receive_max
                self._connection.intake.receive_max = max(limit - self._exchanges.recorded, 0)

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
