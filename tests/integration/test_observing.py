"""What a real node tells about itself, seen with mosquitto's clients and by the administration."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.homes import name_on
from tests.integration.supervised import Node, until

MODULE = "robustmq.cli.supervisor"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    settings = (
        "admin.answer_timeout_ms=200",
        "mqtt_runtime.system_monitor.system_topic_interval_ms=200",
        "mqtt_runtime.system_monitor.check_interval_ms=200",
        "mqtt_runtime.system_monitor.os_memory_high_watermark=0",
    )
    node = Node(tmp_path / "data", module=MODULE, settings=settings)
    try:
        yield node.ready()
    finally:
        node.close()


def _subscribe(node: Node, topic: str, count: int, *options: str) -> subprocess.Popen[str]:
    """Start mosquitto_sub, which prints `retained topic payload` of the first messages."""
    host, port = node.address()
    command = ["mosquitto_sub", "-h", host, "-p", str(port), "-t", topic, "-C", str(count)]
    return subprocess.Popen(
        [*command, "-W", "30", "-F", "%r %t %p", *options], stdout=subprocess.PIPE, text=True
    )


def _heard(subscriber: subprocess.Popen[str]) -> list[str]:
    text, _ = subscriber.communicate(timeout=40)
    return text.splitlines()


def _alarms(node: Node) -> dict[str, dict[str, Any]]:
    status, text = node.get("/api/mqtt/system-alarm/list?state=active&limit=50")
    assert status == 200, text
    return {alarm["name"]: alarm for alarm in json.loads(text)["data"]["data"]}


def test_mosquitto_sees_the_tree_and_the_alarms(node: Node) -> None:
    (version,) = _heard(_subscribe(node, "$SYS/broker/version", 1))
    assert " $SYS/broker/version robustmq version " in version
    (retained,) = _heard(_subscribe(node, "$SYS/broker/version", 1))
    assert retained == "1" + version[1:]
    (stats,) = _heard(_subscribe(node, "$SYS/brokers/stats/connections", 1))
    value = json.loads(stats.split(" ", 2)[2])
    assert (value["node_id"], value["node_ip"]) == (1, "127.0.0.1")
    assert value["value"] in {0, 1}
    until(lambda: "HighMemoryUsage" in _alarms(node), "the alarm is listed")
    assert _alarms(node)["HighMemoryUsage"]["activated"] is True
    assert node.sample('robustmq_alarm_active{name="HighMemoryUsage"}') == 1
    assert node.sample('robustmq_alarm_active{name="StorageRefusing"}') == 0
    assert any(line["name"] == "HighMemoryUsage" for line in node.seen("alarm"))


def test_the_tree_goes_on_while_a_worker_hangs(node: Node) -> None:
    name = name_on(1, "watcher")
    subscriber = _subscribe(node, "$SYS/broker/uptime", 4, "-i", name)
    assert subscriber.stdout is not None
    assert subscriber.stdout.readline().endswith(" seconds\n")
    worker = psutil.Process(node.children()["worker 0"])
    worker.suspend()
    try:
        assert len(_heard(subscriber)) == 3
    finally:
        if worker.is_running():
            worker.resume()
