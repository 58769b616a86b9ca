"""Wills: taken from their sessions, and published once (MQTT5 3.1.2.5, 3.1.3.2)."""

from collections.abc import Callable
from functools import partial

from robustmq import metrics
from robustmq.broker.api import Broker, Principal, Record
from robustmq.errors import Refused
from robustmq.mqtt.headers import to_headers
from robustmq.mqtt.packets import Will
from robustmq.mqtt.session import Session
from robustmq.settings.mqtt import MqttProtocol


def will_delay(will: Will) -> int:
    """Seconds between the end of the connection and the will (MQTT5 3.1.3.2.2)."""
    return (will.properties.will_delay_interval or 0) if will.properties is not None else 0


def will_ms(session: Session) -> int | None:
    """When the will of an offline session is due; None when it has none."""
    return None if session.will is None else session.ended_ms + will_delay(session.will) * 1_000


class LastWills:
    """Publishes the wills of a core's sessions."""

    def __init__(self, broker: Broker, limits: MqttProtocol) -> None:
        self._broker = broker
        self._limits = limits

    def take(self, session: Session) -> Callable[[], None] | None:
        """Take the will from its session, and return what publishes it.

        Whoever publishes it changes the session's row in the same turn: so it is published exactly
        once, also when the server dies now.
        """
        will, session.will = session.will, None
        if will is None:
            return None
        now_ms = self._broker.turn.now_ms
        topic = self._broker.topics.name(session.principal, will.topic)
        if isinstance(topic, Refused):
            # The rules were others when the client connected.
            self._count(metrics.MESSAGES_DROPPED_REFUSED)
            return None
        publisher = 0 if session.hears_itself(topic) else session.window.key
        record = Record(
            key=topic,
            value=will.payload,
            headers=to_headers(
                will.properties,
                now_ms,
                self._limits.max_message_expiry_interval,
                publisher,
                session.said_by(self._broker),
            ),
            qos=will.qos,
            retain=will.retain,
            timestamp=now_ms,
        )
        return partial(self._publish, session.principal, record, session.stored)

    def _publish(self, principal: Principal, record: Record, stored: bool) -> None:
        # While the disk fails only those who are connected are told, and maybe again by a restart.
        once = stored and self._broker.state.refusal is None
        if self._broker.publish(principal, record, None, once) is None:
            self._count(metrics.WILLS_PUBLISHED)

    def _count(self, cell: int) -> None:
        self._broker.turn.row[cell] += 1
