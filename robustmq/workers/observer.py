"""The server process looks at its node now and then, and tells MQTT clients what it sees."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, Final, TypeAlias

import msgspec

from robustmq.admin.alarms import Alarm, Alarms
from robustmq.admin.node import Node
from robustmq.admin.prometheus import Snapshot
from robustmq.admin.system_topics import Identity, SystemTopics
from robustmq.config import Config
from robustmq.workers import log
from robustmq.workers.vitals import Vitals

Message: TypeAlias = tuple[str, bytes, int, bool]
"""What is to be published: topic, payload, QoS, retain."""

ANNOUNCE: Final = "mqtt.announce"
"""The question that has a worker publish for the server."""

UNTOLD: Final = 100
"""Messages about alarms that wait for a worker to publish them."""

_log = log.EventLog("observer")


class Observer:
    """Reports below `$SYS`, and raises alarms.

    `started_s` is when the node began, on the wall clock; `max_connections` is for one worker.
    """

    def __init__(
        self,
        config: Config,
        node: Node,
        snapshot: Snapshot,
        *,
        started_s: float,
        max_connections: int,
    ) -> None:
        self._settings = config.mqtt_runtime.system_monitor
        self._node = node
        self._snapshot = snapshot
        self._started_s = started_s
        version = f"robustmq version {metadata.version('robustmq')}"
        identity = Identity(config.broker_id, config.broker_ip, version)
        self._topics = SystemTopics(identity)
        self.alarms = Alarms(self._settings.max_alarm_history)
        tls = config.mqtt_runtime.tls
        self._vitals = Vitals(self._settings, tls, snapshot, max_connections)
        self._node_id = config.broker_id
        self._untold: deque[Message] = deque(maxlen=UNTOLD)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, within the running loop."""
        if interval_ms := self._settings.system_topic_interval_ms:
            self._tasks.append(asyncio.create_task(_every(interval_ms, self.report)))
        if self._settings.enable:
            interval_ms = self._settings.check_interval_ms
            self._tasks.append(asyncio.create_task(_every(interval_ms, self.check)))

    def stop(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()

    async def report(self) -> None:
        """Publish what the node is now below `$SYS`."""
        now_s = time.time()
        payloads = self._topics.report(
            now_s, now_s - self._started_s, self._snapshot.cores(), self._snapshot.processes()
        )
        # All of it, also what has not changed: a worker that hung may have told an older report.
        await announce(self._node, [(topic, payloads[topic], 0, True) for topic in payloads])

    async def check(self) -> None:
        """Raise and clear alarms, and tell of it; what could not be told is told later."""
        for alarm in self.alarms.look(time.time(), self._vitals.read()):
            if alarm.activated:
                _log.warning("alarm", name=alarm.name, reason=alarm.message)
            else:
                _log.info("alarm has ended", name=alarm.name)
            self._untold += self._tidings(alarm)
        if self._untold and await announce(self._node, tuple(self._untold)):
            self._untold.clear()

    def _tidings(self, alarm: Alarm) -> Iterator[Message]:
        payload = msgspec.json.encode(alarm)
        what = "activate" if alarm.activated else "deactivate"
        yield "$SYS/brokers/alarms/alert", payload, 1, False
        yield f"$SYS/brokers/{self._node_id}/alarms/{what}", payload, 1, False


async def announce(node: Node, messages: Sequence[Message]) -> bool:
    """Publish (topic, payload, QoS, retain) by the first worker that can; False when none can."""
    arguments: Mapping[str, Any] = {"messages": list(messages)}
    for core in range(node.workers):
        if core in (await node.ask(ANNOUNCE, arguments, (core,))).values:
            return True
    return False


async def _every(interval_ms: int, step: Callable[[], Any]) -> None:
    while True:
        await asyncio.sleep(interval_ms / 1_000)
        try:
            await step()
        except Exception:
            # What comes next must not fail with it.
            _log.error("the node could not be observed")
