"""What the server process sees of its node, and whom it has publish it."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from robustmq.admin.node import Replies
from robustmq.config import Config
from robustmq.settings.mqtt import MqttRuntime
from robustmq.settings.watch import MqttSystemMonitor
from robustmq.workers.observer import ANNOUNCE, Observer, announce
from tests.unit.admin.test_app import Shown
from tests.unit.admin.workforce import Workforce


class Publishers(Workforce):
    """Workers that write down what they are to publish; `heard` has who published what."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[int, tuple[str, bytes, int, bool]]] = []

    async def ask(
        self, kind: str, arguments: Mapping[str, Any], cores: Iterable[int] | None = None
    ) -> Replies:
        assert kind == ANNOUNCE
        assert cores is not None
        (core,) = cores
        if core in self.silent:
            return Replies({}, [core])
        self.heard += [(core, each) for each in arguments["messages"]]
        return Replies({core: len(arguments["messages"])}, [])


@pytest.fixture
def node() -> Publishers:
    return Publishers()


def _observer(
    node: Publishers, settings: MqttSystemMonitor | None = None, shown: Shown | None = None
) -> Observer:
    runtime = MqttRuntime(system_monitor=settings or MqttSystemMonitor())
    config = Config(mqtt_runtime=runtime)
    return Observer(config, node, shown or Shown(), started_s=0.0, max_connections=1_000)


def test_the_first_worker_that_answers_publishes(node: Publishers) -> None:
    message = ("$SYS/a", b"1", 0, True)
    assert asyncio.run(announce(node, [message]))
    node.silent = {0}
    assert asyncio.run(announce(node, [message]))
    node.silent = {0, 1}
    assert not asyncio.run(announce(node, [message]))
    assert node.heard == [(0, message), (1, message)]


def test_a_report_is_retained(node: Publishers) -> None:
    asyncio.run(_observer(node).report())
    told = {topic: (payload, qos, retain) for _, (topic, payload, qos, retain) in node.heard}
    # The two cores that are shown have 112 and 212 connections in their cells.
    assert told["$SYS/broker/clients/connected"] == (b"324", 0, True)


@pytest.mark.parametrize(("interval_ms", "reports"), [(1, True), (0, False)])
def test_reports_come_by_themselves_unless_switched_off(
    node: Publishers, interval_ms: int, reports: bool
) -> None:
    async def observe() -> None:
        observer = _observer(node, MqttSystemMonitor(system_topic_interval_ms=interval_ms))
        observer.start()
        for _ in range(200):
            if node.heard:
                break
            await asyncio.sleep(0.001)
        observer.stop()

    asyncio.run(observe())
    assert bool(node.heard) is reports


def _told_of_workers(node: Publishers) -> list[tuple[str, int, bool]]:
    """Return what was told of workers that are down since the last call.

    The machine, which may be busy, raises alarms too.
    """
    told = [
        (topic, qos, retain)
        for _, (topic, payload, qos, retain) in node.heard
        if b'"name":"WorkerDown","message":"not ready: worker 1"' in payload
    ]
    node.heard.clear()
    return told


def test_an_alarm_is_told_when_somebody_can(node: Publishers) -> None:
    shown = Shown()
    shown.second = "ready"
    observer = _observer(node, shown=shown)
    asyncio.run(observer.check())
    assert _told_of_workers(node) == []
    shown.second = "starting"
    node.silent = {0, 1}
    asyncio.run(observer.check())
    assert node.heard == []
    node.silent = set()
    asyncio.run(observer.check())
    assert _told_of_workers(node) == [
        ("$SYS/brokers/alarms/alert", 1, False),
        ("$SYS/brokers/1/alarms/activate", 1, False),
    ]
    asyncio.run(observer.check())
    assert _told_of_workers(node) == []
