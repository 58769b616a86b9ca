"""What a real node tells about itself, seen with mosquitto's clients and by the administration."""

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion

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
        "mqtt_runtime.slow_subscribe.enable=true",
        "mqtt_runtime.events.enable=true",
        "mqtt_runtime.slow_subscribe.sample_ms=50",
        "mqtt_runtime.slow_subscribe.record_time=100",
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
    # Not `communicate`, which does not see what an earlier `readline` has read ahead.
    assert subscriber.stdout is not None
    with subscriber:
        return subscriber.stdout.read().splitlines()


def _alarms(node: Node) -> dict[str, dict[str, Any]]:
    status, text = node.get("/api/mqtt/system-alarm/list?state=active&limit=50")
    assert status == 200, text
    return {alarm["name"]: alarm for alarm in json.loads(text)["data"]["data"]}


def _listed(node: Node, path: str) -> list[dict[str, Any]]:
    status, text = node.get(f"/api/mqtt/{path}")
    assert status == 200, text
    found: list[dict[str, Any]] = json.loads(text)["data"]["data"]
    return found


def _post(node: Node, path: str, body: object) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"http://{node.facts['http']}/api/mqtt/{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def _client(node: Node, name: str, *, manual_ack: bool = False) -> paho.Client:
    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5, manual_ack=manual_ack
    )
    client.connect(*node.address())
    client.loop_start()
    return client


def test_who_acknowledges_late_is_listed(node: Node) -> None:
    late = _client(node, "late", manual_ack=True)
    prompt = _client(node, "prompt")
    try:
        heard: list[str] = []
        for client in (late, prompt):
            client.on_message = lambda _client, _data, message: heard.append(message.topic)
            client.subscribe("a/b", 1)
        until(lambda: len(_listed(node, "subscribe/list")) == 2, "both subscribe")

        def publish_until_heard() -> bool:
            prompt.publish("a/b", "x", 1).wait_for_publish(10)
            return len(heard) >= 2

        until(publish_until_heard, "messages arrive")
        until(lambda: _listed(node, "slow-subscribe/list"), "somebody is slow")
        entries = {each["client_id"]: each for each in _listed(node, "slow-subscribe/list")}
        assert entries["late"]["topic_name"] == "a/b"
        assert entries["late"]["time_span"] >= 100
        late.disconnect()
        until(lambda: len(_listed(node, "client/list")) == 1, "the client is gone")
        status, answer = _post(node, "slow-subscribe/clear", {})
        assert (status, answer["data"] >= 1) == (200, True)
        assert "late" not in {each["client_id"] for each in _listed(node, "slow-subscribe/list")}
    finally:
        for client in (late, prompt):
            client.disconnect()
            client.loop_stop()


def test_a_delayed_message_is_listed_and_removed(node: Node) -> None:
    client = _client(node, "publisher")
    try:
        for topic in ("a", "b"):
            client.publish(f"$delayed/600/{topic}", "12345", 1).wait_for_publish(10)
        until(lambda: len(_listed(node, "delayed/list")) == 2, "both are listed")
        first, second = sorted(_listed(node, "delayed/list"), key=lambda each: each["topic"])
        assert (first["topic"], first["qos"], first["payload_bytes"]) == ("a", 1, 5)
        assert _post(node, "delayed/delete", {"id": first["id"]})[0] == 200
        assert _post(node, "delayed/delete", {"id": first["id"]})[0] == 404
        until(lambda: _listed(node, "delayed/list") == [second], "one is left")
    finally:
        client.disconnect()
        client.loop_stop()


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


def test_it_is_seen_who_comes_and_goes(node: Node) -> None:
    watcher = _client(node, "watcher")
    heard: dict[str, Any] = {}
    try:
        watcher.on_message = lambda _client, _data, message: heard.update(
            {message.topic: json.loads(message.payload)}
        )
        watcher.subscribe([("$SYS/brokers/+/clients/visitor/+", 0), ("$SYS/events", 0)])
        host, port = node.address()
        visitor = ["mosquitto_pub", "-h", host, "-p", str(port), "-i", "visitor", "-t", "a"]
        wanted = {
            f"$SYS/brokers/1/clients/visitor/{event}" for event in ("connected", "disconnected")
        }

        def visit() -> bool:
            # What other cores know of a subscription, they know a moment later.
            subprocess.run([*visitor, "-m", "x"], check=True, timeout=60)
            return heard.keys() == {*wanted, "$SYS/events"}

        until(visit, "the visitor is seen")
        assert heard["$SYS/brokers/1/clients/visitor/disconnected"]["reason"] == (
            "normal_disconnection"
        )
        assert heard["$SYS/events"]["node_id"] == 1
        assert heard["$SYS/events"]["value"]["client_id"] in {"visitor", "watcher"}
    finally:
        watcher.disconnect()
        watcher.loop_stop()


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
