"""What the server itself publishes: below `$SYS`, where no client may."""

from collections.abc import Mapping
from typing import Any, Final

from robustmq.broker.api import SERVER, Broker, Record
from robustmq.message.record import NO_HEADERS

_FIELDS: Final = 4


class Announcements:
    """Publishes for the server on this core, on the way of every other message."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def publish(self, topic: bytes, payload: bytes, qos: int = 0, retain: bool = False) -> None:
        """Publish one message; one that is refused is counted as dropped, like any other."""
        record = Record(
            key=topic,
            value=payload,
            headers=NO_HEADERS,
            qos=qos,
            retain=retain,
            timestamp=self._broker.turn.now_ms,
        )
        self._broker.publish(SERVER, record, None)

    def asked(self, arguments: Mapping[str, Any]) -> int:
        """Publish `messages`, each of (topic, payload, qos, retain); return how many they are.

        Raises ValueError when they are none.
        """
        messages = arguments.get("messages", [])
        if not isinstance(messages, list) or any(len(each) != _FIELDS for each in messages):
            raise ValueError("each message must be topic, payload, qos and retain")
        for topic, payload, qos, retain in messages:
            self.publish(topic.encode(), payload, qos, retain)
        return len(messages)
