"""Bridges to a real mosquitto and from one, and between nodes of ours."""

import json
import signal
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from robustmq.mqtt.packets import V5, V311, Properties
from robustmq.mqtt.reasons import Reason
from tests import authority
from tests.integration import secure
from tests.integration.homes import name_on
from tests.integration.mosquitto import Mosquitto
from tests.integration.supervised import Node, until
from tests.integration.wire_client import Client, numbered

Start = Callable[..., Node]

BRIDGE = """
[[mqtt_runtime.bridges]]
name = "{name}"
address = "mqtt://{host}:{port}"
topics = {topics}
protocol_version = {version}
reconnect_min_ms = 20
reconnect_max_ms = 100
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start nodes, each with bridges in its configuration; `data` tells them apart."""
    nodes: list[Node] = []

    def begin(*bridges: str, data: str = "data", settings: tuple[str, ...] = ()) -> Node:
        file = tmp_path / f"{data}.toml"
        file.write_text("".join(bridges), encoding="utf-8")
        node = Node(
            tmp_path / data,
            "-c",
            str(file),
            module="robustmq.cli.supervisor",
            settings=settings,
        )
        nodes.append(node)
        return node.ready()

    yield begin
    for node in nodes:
        node.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Mosquitto]:
    mosquitto = Mosquitto(tmp_path / "other")
    yield mosquitto
    mosquitto.stop(signal.SIGKILL)


def bridge(other: Node | Mosquitto, topics: list[str], version: int = V5, name: str = "b") -> str:
    host, port = other.address()
    return BRIDGE.format(
        name=name, host=host, port=port, topics=json.dumps(topics), version=version
    )


def broker(other: Mosquitto) -> Node:
    """The other broker, for clients that only ask where it listens."""
    return cast("Node", other)


def connected(node: Node, count: int = 1) -> None:
    """Wait until the bridges are connected, and subscribed on both sides."""
    until(
        lambda: (
            sum(node.sample(f'mqtt_bridges_connected{{core="{core}"}}') for core in (0, 1)) == count
        ),
        "the bridge is connected",
    )


def through(here: Client, there: Client, source: str, target: str) -> None:
    """Publish until a message arrives: then the bridge has subscribed."""
    there.subscribe(target, 0)
    there.socket.settimeout(0.2)
    while True:
        here.publish(source, b"probe")
        try:
            assert there.message().payload == b"probe"
            break
        except TimeoutError:
            continue
    there.unsubscribe(target)
    there.socket.settimeout(20)
    while there.waits():
        there.message()


@pytest.mark.parametrize("version", [V311, V5])
def test_messages_go_both_ways_under_other_names_and_never_in_circles(
    start: Start, other: Mosquitto, version: int
) -> None:
    node = start(bridge(other, ["# both 2 hall/ site/hall/"], version))
    connected(node)
    with Client(node, name_on(0, "here")) as here, Client(broker(other), "there") as there:
        through(here, there, "hall/probe", "site/hall/probe")
        through(there, here, "site/hall/probe", "hall/probe")
        here.subscribe("hall/#", 2)
        there.subscribe("site/#", 2)
        for qos in (0, 1, 2):
            here.publish(f"hall/{qos}", b"out", qos)
            heard = there.message()
            assert (heard.topic, heard.payload, heard.qos) == (
                f"site/hall/{qos}".encode(),
                b"out",
                qos,
            )
            mine = here.message()
            assert (mine.topic, mine.payload) == (f"hall/{qos}".encode(), b"out")
            there.publish(f"site/hall/{qos}", b"in", qos)
            heard = here.message()
            assert (heard.topic, heard.payload, heard.qos) == (f"hall/{qos}".encode(), b"in", qos)
            assert there.message().payload == b"in"
        # Whatever went in circles would be here by now: it is ahead of this.
        for client, topic in ((here, "hall/end"), (there, "site/hall/end")):
            client.publish(topic, b"end", 1)
            assert here.message().payload == b"end"
            assert there.message().payload == b"end"


def test_properties_and_the_retain_flag_are_kept(start: Start, other: Mosquitto) -> None:
    node = start(bridge(other, ["kept/# both 1"]))
    connected(node)
    block = Properties(
        content_type="text/plain",
        correlation_data=b"c",
        response_topic="kept/answers",
        user_properties=(("a", "1"), ("a", "2")),
    )
    with Client(node, name_on(0, "here")) as here, Client(broker(other), "there") as there:
        through(here, there, "kept/probe", "kept/probe")
        there.subscribe("kept/#", 1, retain_as_published=True)
        here.publish("kept/x", b"x", 1, retain=True, properties=block)
        heard = there.message()
        assert heard.retain
        assert heard.properties is not None
        assert heard.properties.user_properties[:2] == block.user_properties
        assert heard.properties.content_type == "text/plain"
        assert heard.properties.correlation_data == b"c"
    with Client(broker(other), "later") as later:
        later.subscribe("kept/x", 1)
        assert later.message().retain


@pytest.mark.parametrize("version", [V311, V5])
def test_what_goes_out_waits_on_disk_while_the_other_side_is_away(
    start: Start, other: Mosquitto, version: int
) -> None:
    node = start(bridge(other, ["# out 2 queue/"], version))
    kept = Properties(session_expiry_interval=1_000)
    with Client(node, name_on(0, "here")) as here, Client(broker(other), "first") as first:
        through(here, first, "queue/probe", "probe")
    with Client(broker(other), "there", clean=False, properties=kept) as there:
        there.subscribe("x", 2)
    other.stop()
    with Client(node, name_on(1, "here")) as here:
        for payload in numbered(200):
            assert here.publish("queue/x", payload, 2) == 0
    node.process.send_signal(signal.SIGKILL)
    node.process.wait()
    again = start(bridge(other, ["# out 2 queue/"], version))
    other.start()
    connected(again)
    with Client(broker(other), "there", clean=False, properties=kept) as there:
        assert there.connack.session_present
        assert there.payloads(200) == list(numbered(200))
        assert not there.waits()


def test_what_comes_in_is_exactly_once_through_a_kill(start: Start, other: Mosquitto) -> None:
    rule = bridge(other, ["in/# in 2"])
    node = start(rule)
    kept = Properties(session_expiry_interval=1_000)
    durable = name_on(1, "here")
    with Client(node, durable, clean=False, properties=kept) as here:
        with Client(broker(other), "probe") as there:
            through(there, here, "in/probe", "in/probe")
        here.subscribe("in/x", 2)
    with Client(broker(other), "there") as there:
        for number, payload in enumerate(numbered(300)):
            there.publish("in/x", payload, 2)
            if number == 100:
                node.process.send_signal(signal.SIGKILL)
                node.process.wait()
            if number == 200:
                node = start(rule)
    with Client(node, durable, clean=False, properties=kept) as here:
        assert here.connack.session_present
        assert here.payloads(300) == list(numbered(300))
        assert not here.waits()


@pytest.mark.parametrize("version", ["mqttv311", "mqttv50"])
def test_mosquitto_bridges_to_us(start: Start, tmp_path: Path, version: str) -> None:
    node = start()
    host, port = node.address()
    mosquitto = Mosquitto(
        tmp_path / "bridge",
        "connection ours",
        f"address {host}:{port}",
        "topic # both 1 m/ r/",
        f"bridge_protocol_version {version}",
        "restart_timeout 1",
        "cleansession true",
    )
    try:
        with Client(node, name_on(0, "here")) as here, Client(broker(mosquitto), "there") as there:
            through(here, there, "r/probe", "m/probe")
            through(there, here, "m/probe", "r/probe")
            here.subscribe("r/#", 1)
            there.subscribe("m/#", 1)
            here.publish("r/x", b"1", 1)
            assert there.message().payload == b"1"
            assert here.message().payload == b"1"
            there.publish("m/x", b"2", 1)
            assert here.message().payload == b"2"
            assert there.message().payload == b"2"
            here.publish("r/end", b"end", 1)
            assert here.message().payload == b"end"
            assert there.message().payload == b"end"
            there.publish("m/end", b"end", 1)
            assert here.message().payload == b"end"
    finally:
        mosquitto.stop(signal.SIGKILL)


def test_nodes_that_bridge_to_each_other_pass_a_message_once_around(start: Start) -> None:
    port = "mqtt_runtime.server.tcp_port"
    first = start(data="first", settings=("cluster_name=first",))
    second = start(bridge(first, ["# both 1"]), data="second", settings=("cluster_name=second",))
    connected(second)
    host, number = first.address()
    first.close()
    first = start(
        bridge(second, ["# both 1"]),
        data="first",
        settings=("cluster_name=first", f"{port}={number}"),
    )
    assert first.address() == (host, number)
    connected(first)
    connected(second)
    with Client(first, name_on(0, "one")) as one, Client(second, name_on(0, "two")) as two:
        through(one, two, "ring/probe", "ring/probe")
        # Not of the probe, whose other copy may still be on its way.
        for topic in ("ring/x", "ring/end"):
            two.subscribe(topic, 1)
        one.publish("ring/x", b"x", 1)
        assert two.message().payload == b"x"
        one.publish("ring/end", b"end", 1)
        heard = [two.message().payload]
        while heard[-1] != b"end":
            heard.append(two.message().payload)
        # Two bridges carry it over; neither brings it back for another round.
        assert heard.count(b"x") <= 1


def test_a_bridge_says_what_is_wrong(start: Start, other: Mosquitto) -> None:
    other.stop()
    node = start(bridge(other, ["# out 0"]))

    def told() -> list[dict[str, object]]:
        host, port = node.address("http")
        url = f"http://{host}:{port}/api/mqtt/bridge/list"
        with urllib.request.urlopen(url, timeout=60) as answer:
            found = json.loads(answer.read())
        return list(found["data"]["data"])

    until(lambda: told()[0]["trouble"], "the bridge's trouble is told")
    assert told()[0]["connected"] is False
    other.start()
    connected(node)
    assert told()[0]["connected"] is True
    # Nobody but the bridge has its session.
    assert Client(node, "$bridge/b").connack.reason == Reason.CLIENT_IDENTIFIER_NOT_VALID
    with Client(node, name_on(0, "state")) as client:
        client.subscribe("$SYS/broker/connection/b/state", 1)
        assert client.message().payload == b"1"
        other.stop()
        assert client.message().payload == b"0"


def test_a_bridge_over_tls(start: Start, tmp_path: Path) -> None:
    directory = authority.made(tmp_path / "certificates")
    far = start(data="far", settings=tuple(secure.settings(directory)))
    host, port = far.address("mqtt_tls")
    rule = BRIDGE.format(name="t", host=host, port=port, topics='["# out 1"]', version=V5)
    trusted = rule.replace("mqtt://", "mqtts://") + f'tls_ca = "{directory}/ca.pem"\n'
    near = start(trusted, data="near")
    connected(near)
    with Client(near, name_on(0, "near")) as here, Client(far, name_on(1, "far")) as there:
        through(here, there, "tls/probe", "tls/probe")
        there.subscribe("tls/x", 1)
        here.publish("tls/x", b"x", 1)
        assert there.message().payload == b"x"
    doubting = start(rule.replace("mqtt://", "mqtts://"), data="doubting")

    def trouble() -> str:
        told = doubting.seen("bridge not connected")
        return str(told[0]["reason"]) if told else ""

    until(trouble, "an unknown certificate is refused")
    assert "certificate is refused" in trouble()
