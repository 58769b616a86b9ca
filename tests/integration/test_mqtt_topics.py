"""Rewritten topics, subscriptions by rule, payload formats: with clients on both cores."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from robustmq.mqtt.packets import V5, Connack, Connect, Properties, Publish, Will
from robustmq.mqtt.reasons import Reason
from tests.integration.homes import PLACES, name_on
from tests.integration.supervised import Node
from tests.integration.wire_client import VERSIONS, Client, Wire, serve

CONFIG: Final = """
[[mqtt_runtime.topic_rewrite]]
source_topic = "old/#"
regex = "^old/(.+)$"
dest_topic = "new/$1"

[[mqtt_runtime.topic_rewrite]]
action = "publish"
source_topic = "old/mine/+"
regex = "^old/mine/(.+)$"
dest_topic = "of/${clientid}/$1"

[[mqtt_runtime.topic_rewrite]]
action = "publish"
source_topic = "none/#"
regex = "^none/(.*)$"
dest_topic = "$1"

[[mqtt_runtime.auto_subscribe]]
topic = "auto/${clientid}/#"
qos = 1

[[mqtt_runtime.auto_subscribe]]
topic = "$share/auto/all/${username}"

[[topic_rules]]
filter = "text/#"
check_payload_format = true
"""
TEXT: Final = Properties(payload_format=1)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    yield from serve(tmp_path_factory.mktemp("topics") / "data", config=CONFIG)


@pytest.mark.parametrize(("publisher", "subscriber"), PLACES)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_first_message_goes_where_it_is_rewritten_to(
    node: Node, publisher: int, subscriber: int, version: int, qos: int
) -> None:
    name = name_on(0, "first")
    with (
        Client(node, name_on(publisher, "p"), version) as says,
        Client(node, name_on(subscriber, "s"), version) as hears,
    ):
        assert hears.subscribe(f"new/{name}", 2) == [2]
        for payload in (b"1", b"2"):
            says.publish(f"old/{name}", payload, qos)
        heard = hears.messages(2)
        assert [one.topic.decode() for one in heard] == [f"new/{name}"] * 2
        assert [one.payload for one in heard] == [b"1", b"2"]
        says.publish(f"$delayed/0/old/{name}", b"3", qos)
        assert hears.message().payload == b"3"
        assert hears.unsubscribe(f"old/{name}") in ([Reason.SUCCESS], [])
        says.publish(f"old/{name}", b"4", qos)
        says.ping()
        hears.ping()


def test_subscriptions_and_aliases_are_rewritten(node: Node) -> None:
    name = name_on(0, "sub")
    with Client(node, name_on(1, "s")) as hears, Client(node, name_on(0, "p")) as says:
        assert hears.subscribe(f"old/{name}/#", 1) == [1]
        assert hears.subscribe(f"$share/g/old/{name}/+", 1) == [1]
        for payload in (b"1", b"2"):
            topic = f"new/{name}/x" if payload == b"1" else ""
            assert says.publish(topic, payload, 1, properties=Properties(topic_alias=1)) == 0
        assert sorted(hears.payloads(4)) == [b"1", b"1", b"2", b"2"]
        assert hears.unsubscribe(f"$share/g/old/{name}/+", f"new/{name}/#") == [0, 0]
        assert says.publish(f"new/{name}/x", b"3", 1) == Reason.NO_MATCHING_SUBSCRIBERS


def test_the_last_rule_holds_and_may_name_the_client(node: Node) -> None:
    with Client(node, name_on(0, "p")) as says, Client(node, name_on(1, "s")) as hears:
        hears.subscribe(f"of/{says.client_id}/+")
        says.publish("old/mine/x", b"1")
        assert hears.message().topic == f"of/{says.client_id}/x".encode()


@pytest.mark.parametrize("qos", [1, 2])
def test_what_becomes_no_topic_is_refused(node: Node, qos: int) -> None:
    with Client(node, name_on(0, "p")) as says:
        assert says.publish("none/", b"1", qos) == Reason.TOPIC_NAME_INVALID
        assert says.publish("none/x", b"1", qos) == Reason.NO_MATCHING_SUBSCRIBERS
    with Wire(node) as wire:
        wire.send(Connect(name_on(0, "w"), will=Will(b"none/")))
        assert wire.expect(Connack).reason == Reason.TOPIC_NAME_INVALID


def test_a_will_and_a_retained_message_are_rewritten(node: Node) -> None:
    name = name_on(0, "will")
    with Client(node, name_on(1, "s")) as hears:
        hears.subscribe(f"new/{name}/will")
        Client(node, name_on(0, "w"), will=Will(f"old/{name}/will".encode(), b"bye")).drop()
        assert hears.message().payload == b"bye"
        hears.publish(f"old/{name}/kept", b"kept", 1, retain=True)
        hears.subscribe(f"old/{name}/kept")
        assert hears.message().payload == b"kept"
        hears.publish(f"old/{name}/kept", b"", 1, retain=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_client_is_subscribed_by_rule(node: Node, version: int) -> None:
    name = name_on(1, "auto")
    with Client(node, name_on(0, "p")) as says:
        says.publish(f"auto/{name}/a", b"retained", 1, retain=True)
        with Client(node, name, version) as hears:
            assert hears.message().payload == b"retained"
            assert says.publish(f"auto/{name}/a", b"1", 1) == 0
            heard = hears.message()
            assert (heard.payload, heard.qos) == (b"1", 1)
        says.publish(f"auto/{name}/a", b"", 1, retain=True)


def test_a_session_keeps_what_it_has_by_rule(tmp_path: Path) -> None:
    stays = Properties(session_expiry_interval=100)
    name = name_on(1, "kept")
    data = tmp_path / "data"
    for life in (1, 2):
        for node in serve(data, config=CONFIG):
            with Client(node, name, clean=False, properties=stays) as hears:
                assert hears.connack.session_present == (life == 2)
                if life == 2:
                    assert hears.message().payload == b"while away"
                # It was made once: one message is one copy, and it can be ended once.
                hears.publish(f"auto/{name}/a", b"1", 1)
                assert hears.message().payload == b"1"
                hears.ping()
                if life == 2:
                    assert hears.unsubscribe(f"auto/{name}/#") == [Reason.SUCCESS]
                    assert hears.unsubscribe(f"auto/{name}/#") == [Reason.NO_SUBSCRIPTION_EXISTED]
                hears.disconnect()
            with Client(node, name_on(0, "p")) as says:
                says.publish(f"auto/{name}/a", b"while away", 1)


@pytest.mark.parametrize("name", ["wild/#", "a+b", "sl/ash"])
def test_a_name_with_a_wildcard_is_subscribed_to_nothing(node: Node, name: str) -> None:
    with Client(node, name) as hears, Client(node, name_on(0, "p")) as says:
        hears.ping()
        for topic in ("auto/wild/x", "auto/aXb/x", "auto/sl/ash/x"):
            assert says.publish(topic, b"x", 1) == Reason.NO_MATCHING_SUBSCRIBERS


def test_text_has_to_be_text_where_a_rule_asks(node: Node) -> None:
    with Client(node, name_on(0, "p")) as says, Client(node, name_on(1, "s")) as hears:
        hears.subscribe("text/+", 2)
        hears.subscribe("bytes", 2)
        for qos in (1, 2):
            refused = says.publish("text/a", b"\xff", qos, properties=TEXT)
            assert refused == Reason.PAYLOAD_FORMAT_INVALID
        says.publish("text/a", b"\xff", 0, properties=TEXT)
        for topic, payload, block in (
            ("text/a", "grün".encode(), TEXT),
            ("text/a", b"\xff", None),
            ("text/a", b"\xfe", Properties(payload_format=0)),
            ("bytes", b"\xfd", TEXT),
        ):
            assert says.publish(topic, payload, 1, properties=block) == 0
        assert hears.payloads(4) == ["grün".encode(), b"\xff", b"\xfe", b"\xfd"]
        hears.ping()
    with Wire(node, V5) as wire:
        wire.send(Connect(name_on(0, "w"), will=Will(b"text/a", b"\xff", properties=TEXT)))
        assert wire.expect(Connack).reason == Reason.PAYLOAD_FORMAT_INVALID


def test_a_packet_id_of_a_refused_exchange_is_free(node: Node) -> None:
    with Client(node, name_on(0, "p")) as says:
        refused = Publish(b"text/a", b"\xff", 2, packet_id=7, properties=TEXT)
        taken = Publish(b"text/a", b"x", 2, packet_id=7, properties=TEXT)
        says.send(refused, taken)
        answers = [says.receive(), says.receive()]
        assert [getattr(one, "reason", None) for one in answers] == [
            Reason.PAYLOAD_FORMAT_INVALID,
            Reason.NO_MATCHING_SUBSCRIBERS,
        ]
