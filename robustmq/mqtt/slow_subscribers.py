"""Which subscribers are slow: found by looking at what waits for them, not at each message.

Now and then the oldest QoS 1 or 2 message that waits for each client is looked at; what has waited
for long is remembered with its topic. So a message that is acknowledged between two looks is not
seen, a time is measured too short by one interval at most, and messages cost nothing.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, Final

import msgspec

from robustmq import metrics
from robustmq.broker.api import Broker
from robustmq.mqtt.connection import Connection
from robustmq.settings.watch import MqttSlowSubscribe

AT_ONCE: Final = 1_000
"""Clients that are looked at in one turn."""


class Slow(msgspec.Struct, gc=False):
    """A client that was slow for a topic; times in ms, `create_time` when it was last seen so."""

    tenant: str
    client_id: str
    topic_name: str
    time_span: int
    create_time: int


class SlowSubscribers:
    """The slowest subscribers of a core; `connections` gives those that are open now."""

    def __init__(
        self,
        broker: Broker,
        settings: MqttSlowSubscribe,
        connections: Callable[[], Iterable[Connection]],
    ) -> None:
        self._broker = broker
        self._settings = settings
        self._connections = connections
        self._queued = settings.delay_type == "Internal"
        self._found: dict[tuple[str, str, str], Slow] = {}
        self._to_look: list[Connection] = []

    def start(self) -> None:
        """Look from now on, if that is wanted."""
        if self._settings.enable:
            self._later(self._settings.sample_ms)

    def _later(self, delay_ms: int) -> None:
        self._broker.at(self._broker.turn.now_ms + delay_ms, self._look)

    def _look(self) -> None:
        if not self._to_look:
            self._to_look = list(self._connections())
        some = self._to_look[-AT_ONCE:]
        del self._to_look[-AT_ONCE:]
        self._keep([slow for each in some if (slow := self._judge(each)) is not None])
        self._later(0 if self._to_look else self._settings.sample_ms)

    def _judge(self, connection: Connection) -> Slow | None:
        session = connection.session
        run = session.window.foremost(self._queued) if session is not None else None
        if session is None or run is None:
            return None
        now_ms = self._broker.turn.now_ms
        # What waited while the client was away is not its slowness.
        span = now_ms - max(run.since, connection.greeted_ms)
        if span < self._settings.record_time:
            return None
        principal = session.principal
        topic = _topic_of(run.packet(0))
        return Slow(principal.tenant, principal.client_id, topic, span, now_ms)

    def _keep(self, slow: list[Slow]) -> None:
        """Remember the slowest, each with its longest time within the window."""
        if slow or self._found:
            self._forget_old()
            for each in slow:
                key = (each.tenant, each.client_id, each.topic_name)
                known = self._found.get(key)
                if known is not None:
                    each.time_span = max(each.time_span, known.time_span)
                self._found[key] = each
            most = self._settings.max_entries
            if len(self._found) > most:
                slowest = heapq.nlargest(most, self._found.items(), key=_span)
                self._found = dict(slowest)
            self._broker.turn.row[metrics.SLOW_SUBSCRIBERS] = len(self._found)

    def _forget_old(self) -> None:
        oldest = self._broker.turn.now_ms - self._settings.window_ms
        self._found = {key: each for key, each in self._found.items() if each.create_time >= oldest}

    # ------------------------------------------------------------------ questions

    def listed(self, _arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Answer who was slow within the window, the slowest first."""
        self._forget_old()
        slowest = sorted(self._found.values(), key=attrgetter("time_span"), reverse=True)
        return [msgspec.to_builtins(each) for each in slowest]

    def clear(self, _arguments: Mapping[str, Any]) -> int:
        """Forget them all; return how many they were."""
        count = len(self._found)
        self._found.clear()
        self._broker.turn.row[metrics.SLOW_SUBSCRIBERS] = 0
        return count


def _span(item: tuple[tuple[str, str, str], Slow]) -> int:
    return item[1].time_span


def _topic_of(packet: bytes) -> str:
    """Return the topic of a PUBLISH packet as the server writes it (MQTT5 3.3)."""
    at = 1
    while packet[at] & 0x80:
        at += 1
    length = int.from_bytes(packet[at + 1 : at + 3], "big")
    return packet[at + 3 : at + 3 + length].decode()
