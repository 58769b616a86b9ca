"""Delayed publish with real processes: from any core, in every version, and over a crash of all."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustmq.mqtt.packets import Properties, Puback, Publish, Will
from robustmq.mqtt.reasons import Reason
from tests.integration.homes import PLACES, name_on
from tests.integration.supervised import Node, until
from tests.integration.wire_client import VERSIONS, Client, serve

SESSION = Properties(session_expiry_interval=3_600)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    yield from serve(tmp_path_factory.mktemp("delayed") / "data")


@pytest.mark.parametrize(("core", "home"), PLACES)
def test_a_message_waits_and_is_what_it_was(node: Node, core: int, home: int) -> None:
    given = Properties(
        payload_format=1,
        content_type="text/plain",
        response_topic="answers",
        correlation_data=b"\0\1",
        user_properties=(("a", "1"), ("a", "2")),
    )
    topic = name_on(core, "/waits//")
    with Client(node, name_on(home, "hears")) as hears, Client(node, name_on(core, "p")) as client:
        hears.subscribe(topic, 2)
        begin = time.monotonic()
        for qos in range(3):
            reason = client.publish(f"$delayed/1/{topic}", b"%d" % qos, qos, properties=given)
            assert reason == Reason.SUCCESS
        hears.ping()
        for qos, message in enumerate(hears.messages(3)):
            assert (message.topic.decode(), message.payload) == (topic, b"%d" % qos)
            assert (message.qos, message.properties) == (qos, given)
        assert time.monotonic() - begin >= 1.0


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_it(node: Node, version: int) -> None:
    with Client(node, name_on(0, "any"), version) as client:
        client.subscribe("any/#", 2)
        for qos in range(3):
            client.publish("$delayed/1/any/a", b"%d" % qos, qos)
        assert sorted(client.payloads(3)) == [b"0", b"1", b"2"]


def test_a_run_of_plain_messages_is_delayed_too(node: Node) -> None:
    with Client(node, name_on(0, "hears")) as hears, Client(node, name_on(1, "run")) as client:
        hears.subscribe("run", 1)
        client.send(
            *(Publish(b"$delayed/1/run", b"%d" % n, 1, False, False, n) for n in range(1, 501))
        )
        assert [client.expect(Puback) for _ in range(500)] == [Puback(n) for n in range(1, 501)]
        hears.ping()
        assert hears.payloads(500) == [b"%d" % n for n in range(1, 501)]


def test_bad_forms_are_refused(node: Node) -> None:
    with Client(node, name_on(0, "bad")) as client:
        for topic in ("$delayed/x/t", "$delayed/5/", "$delayed/5", "$delayed/5000000/t"):
            for qos in (1, 2):
                assert client.publish(topic, b"x", qos) == Reason.TOPIC_NAME_INVALID
        assert client.publish("$delayed/5/$SYS/t", b"x", 1) == Reason.NOT_AUTHORIZED


def test_retained_when_it_is_due(node: Node) -> None:
    with Client(node, name_on(0, "r")) as client:
        client.publish("retained", b"old", 1, retain=True)
        client.publish("$delayed/1/retained", b"new", 1, retain=True)
        client.subscribe("retained", 1)
        assert client.payloads(2) == [b"old", b"new"]
        client.publish("$delayed/1/retained", b"", 1, retain=True)
        assert client.payloads(1) == [b""]
    with Client(node, name_on(1, "r")) as client:
        client.subscribe("retained", 1)
        client.ping()


def test_no_local_holds_when_it_is_due(node: Node) -> None:
    with Client(node, name_on(0, "own")) as client, Client(node, name_on(1, "other")) as other:
        client.publish("$delayed/1/own", b"x", 1)
        client.subscribe("own", 1, no_local=True)
        other.subscribe("own", 1)
        assert other.payloads(1) == [b"x"]
        client.ping()


def test_expiry_counts_while_it_waits(node: Node) -> None:
    with Client(node, name_on(0, "e")) as client:
        client.subscribe("expires", 1)
        for seconds in (1, 60):
            left = Properties(message_expiry_interval=seconds)
            client.publish("$delayed/2/expires", b"%d" % seconds, 1, properties=left)
        message = client.message()
        assert message.payload == b"60"
        assert message.properties is not None
        assert message.properties.message_expiry_interval in range(10, 59)


def test_a_will_may_be_delayed(node: Node) -> None:
    will = Will(b"$delayed/1/will", b"gone", 1)
    with Client(node, name_on(0, "hears")) as hears:
        hears.subscribe("will", 1)
        Client(node, name_on(1, "w"), will=will).close()
        assert hears.payloads(1) == [b"gone"]


def waiting(node: Node) -> list[float]:
    return [node.sample(f'mqtt_delayed_messages{{core="{core}"}}') for core in (0, 1)]


def test_nothing_is_lost_when_all_is_killed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ids = [name_on(core, "durable") for core in (0, 1)]
    node = Node(data, module="robustmq.cli.supervisor")
    try:
        node.ready()
        for client_id in ids:
            with Client(node, client_id, properties=SESSION) as client:
                client.subscribe("t/#", 2)
        with Client(node, name_on(0, "p")) as client:
            for number, seconds in enumerate((3, 1, 2, 120)):
                for qos in (1, 2):
                    topic = f"$delayed/{seconds}/t/{qos}"
                    assert client.publish(topic, b"%d" % number, qos) == 0
        before = time.monotonic()
    finally:
        node.close()
    time.sleep(max(before + 2.5 - time.monotonic(), 0))
    node = Node(data, module="robustmq.cli.supervisor")
    try:
        node.ready()
        for client_id in ids:
            with Client(node, client_id, clean=False, properties=SESSION) as client:
                assert client.connack.session_present
                messages = client.messages(6)
                for qos in (1, 2):
                    payloads = [m.payload for m in messages if m.topic == b"t/%d" % qos]
                    assert payloads == [b"1", b"2", b"0"]
                client.ping()
        # What came due is taken off the core's list once the others have confirmed it.
        until(lambda: waiting(node) == [2, 0], "nothing waits but what is not due")
    finally:
        node.close()
