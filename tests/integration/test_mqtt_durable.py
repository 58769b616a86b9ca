"""What survives when the server ends, in order or killed: sessions, exchanges, wills, expiries."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from robustmq.mqtt.packets import (
    V5,
    V311,
    Properties,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Will,
)
from robustmq.mqtt.reasons import Reason
from tests.integration.homes import name_on, topic_on
from tests.integration.supervised import Node, until
from tests.integration.wire_client import Client

WAYS = ("stopped", "killed")
SESSION = Properties(session_expiry_interval=3_600)

Again = Callable[[], Node]


class Lives:
    """The lives of a node on one directory."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self.node: Node | None = None

    def next(self, way: str = "killed", pause_seconds: float = 0.0) -> Node:
        """End the life that there is, wait, and begin the next one."""
        self.end(way)
        time.sleep(pause_seconds)
        self.node = Node(self._data, module="robustmq.cli.supervisor").ready()
        return self.node

    def end(self, way: str) -> None:
        """End in order, or everything at once."""
        node, self.node = self.node, None
        if node is None:
            return
        if way == "stopped":
            node.send(signal.SIGTERM)
            assert node.wait() == 0
        node.close()
        assert [event for event in node.events() if event["level"] == "error"] == []


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    lives = Lives(tmp_path / "data")
    lives.next()
    yield lives
    lives.end("killed")


def kept(version: int) -> Properties | None:
    return SESSION if version == V5 else None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", [V311, V5])
def test_a_session_and_what_it_is_owed(lives: Lives, way: str, version: int) -> None:
    assert lives.node is not None
    topics = [topic_on(core, "owed/{}") for core in (0, 1)]
    client_id = name_on(1, "owed")
    with Client(lives.node, client_id, version, clean=False, properties=kept(version)) as hears:
        assert hears.subscribe(topics[0], 1) == [1]
        assert hears.subscribe(topics[1], 2) == [2]
        hears.subscribe("gone/#", 1)
        hears.unsubscribe("gone/#")
        hears.disconnect()
    with Client(lives.node, name_on(0, "says")) as says:
        for number in range(20):
            assert says.publish(topics[number % 2], b"%d" % number, 1 + number % 2) == 0
    node = lives.next(way)
    with Client(node, name_on(0, "says")) as says:
        assert says.publish("gone/x", b"x", 1) == Reason.NO_MATCHING_SUBSCRIBERS
        with Client(node, client_id, version, clean=False, properties=kept(version)) as hears:
            assert hears.connack.session_present
            heard = hears.messages(20)
            for topic, qos in zip(topics, (1, 2), strict=True):
                mine = [message for message in heard if message.topic == topic.encode()]
                expected = [b"%d" % number for number in range(qos - 1, 20, 2)]
                assert [message.payload for message in mine] == expected
                assert {message.qos for message in mine} == {qos}
            assert says.publish(topics[1], b"live", 2) == 0
            assert hears.message().payload == b"live"


@pytest.mark.parametrize("way", WAYS)
def test_a_message_of_qos_2_is_taken_once(lives: Lives, way: str) -> None:
    assert lives.node is not None
    topic, client_id, hearer = topic_on(1, "once/{}"), name_on(0, "once"), name_on(1, "hears")
    with Client(lives.node, hearer, clean=False, properties=SESSION) as hears:
        hears.subscribe(topic, 2)
        with Client(lives.node, client_id, clean=False, properties=SESSION) as says:
            for packet_id in (1, 2):
                says.send(Publish(topic.encode(), b"%d" % packet_id, 2, packet_id=packet_id))
                assert says.expect(Pubrec) == Pubrec(packet_id)
            says.send(Pubrel(1))
            assert says.expect(Pubcomp) == Pubcomp(1)
    node = lives.next(way)
    with (
        Client(node, hearer, clean=False, properties=SESSION) as hears,
        Client(node, client_id, clean=False, properties=SESSION) as says,
    ):
        assert says.connack.session_present
        says.send(Publish(topic.encode(), b"2", 2, False, True, 2), Pubrel(2))
        assert says.expect(Pubrec) == Pubrec(2)
        assert says.expect(Pubcomp) == Pubcomp(2)
        says.send(Publish(topic.encode(), b"3", 2, packet_id=1))
        assert says.expect(Pubrec) == Pubrec(1)
        assert hears.payloads(3) == [b"1", b"2", b"3"]
        assert hears.heard() == []


@pytest.mark.parametrize("expiry", [0, 3_600])
@pytest.mark.parametrize("way", WAYS)
def test_the_will_of_whoever_was_connected(lives: Lives, way: str, expiry: int) -> None:
    assert lives.node is not None
    topic, hearer = topic_on(0, "will/{}"), name_on(1, "hears")
    with Client(lives.node, hearer, clean=False, properties=SESSION) as hears:
        hears.subscribe(topic, 2)
        hears.disconnect()
    will = Will(topic.encode(), b"gone", 2)
    properties = Properties(session_expiry_interval=expiry)
    client = Client(lives.node, name_on(0, "w"), clean=False, will=will, properties=properties)
    taking_leave = Client(lives.node, name_on(1, "l"), will=will)
    taking_leave.disconnect()
    node = lives.next(way)
    client.close()
    with Client(node, hearer, clean=False, properties=SESSION) as hears:
        assert hears.message().payload == b"gone"
        assert hears.heard() == []
    node = lives.next(way)
    with Client(node, hearer, clean=False, properties=SESSION) as hears:
        time.sleep(0.3)
        assert hears.heard() == []


def test_time_spent_down_counts(lives: Lives) -> None:
    assert lives.node is not None
    topic, hearer = topic_on(0, "down/{}"), name_on(1, "hears")
    names = {name: name_on(0, name) for name in ("brief", "long", "will")}
    brief, long = (Properties(session_expiry_interval=seconds) for seconds in (2, 600))
    delayed = Will(topic.encode(), b"delayed", 1, properties=Properties(will_delay_interval=2))
    with Client(lives.node, hearer, clean=False, properties=long) as hears:
        hears.subscribe(topic, 1)
        hears.disconnect()
    for name, properties, will in (
        ("brief", brief, None),
        ("long", long, None),
        ("will", long, delayed),
    ):
        Client(lives.node, names[name], clean=False, properties=properties, will=will).drop()
    node = lives.next(pause_seconds=2.0)
    with Client(node, hearer, clean=False, properties=long) as hears:
        assert hears.message().payload == b"delayed"
    for name, present in (("brief", False), ("long", True), ("will", True)):
        with Client(node, names[name], clean=False, properties=long) as client:
            assert client.connack.session_present is present


def test_an_ended_session_does_not_come_back(lives: Lives) -> None:
    assert lives.node is not None
    ended, clean = name_on(0, "ended"), name_on(1, "clean")
    with Client(lives.node, ended, clean=False, properties=SESSION) as client:
        client.subscribe("x", 1)
        client.disconnect(Properties(session_expiry_interval=0))
    with Client(lives.node, clean, clean=False, properties=SESSION) as client:
        client.subscribe("x", 1)
        client.disconnect()
    with Client(lives.node, clean) as client:
        client.disconnect()
    node = lives.next()
    for client_id in (ended, clean):
        with Client(node, client_id, clean=False, properties=SESSION) as client:
            assert not client.connack.session_present
    with Client(node, name_on(0, "p")) as says:
        nobody = Reason.NO_MATCHING_SUBSCRIBERS
        until(lambda: says.publish("x", b"x", 1) == nobody, "the interest is withdrawn")


def test_a_shared_subscription_is_joined_again(lives: Lives) -> None:
    assert lives.node is not None
    topic, client_id = topic_on(1, "shared/{}"), name_on(0, "member")
    with Client(lives.node, client_id, clean=False, properties=SESSION) as member:
        member.subscribe(f"$share/g/{topic}", 1)
    node = lives.next()
    with (
        Client(node, client_id, clean=False, properties=SESSION) as member,
        Client(node, name_on(1, "p")) as says,
    ):
        assert says.publish(topic, b"x", 1) == 0
        assert member.message().payload == b"x"
