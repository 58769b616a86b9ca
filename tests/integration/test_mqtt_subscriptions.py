"""Subscriptions: what they match, how they overlap, and what SUBACK promises."""

from collections.abc import Iterator
from functools import partial

import pytest

from robustmq.mqtt.packets import (
    V5,
    V31,
    V311,
    Properties,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
)
from robustmq.mqtt.reasons import Reason
from tests.integration.homes import PLACES, name_on, topic_on
from tests.integration.supervised import Node, until
from tests.integration.wire_client import VERSIONS, Client, serve


def is_unwanted(says: Client, topic: str) -> bool:
    """Publish; say whether nobody wants it. A core hears a moment later that somebody has gone."""
    return says.publish(topic, b"x", 1) == Reason.NO_MATCHING_SUBSCRIBERS


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    yield from serve(
        tmp_path_factory.mktemp("subscriptions") / "data",
        "mqtt_runtime.protocol.max_subscriptions=100",
        "mqtt_runtime.protocol.max_topic_levels=8",
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("publisher", "subscriber"), PLACES)
def test_wildcards_match_by_level(
    node: Node, version: int, publisher: int, subscriber: int
) -> None:
    root = topic_on(0, "w{}")
    topics = [f"{root}{rest}" for rest in ("", "/", "/a", "/a/b", "//b", "/a/b/c", "/ü/b")]
    expected = {
        f"{root}/#": topics,
        f"{root}/+": topics[1:3],
        f"{root}/+/b": [topics[3], topics[4], topics[6]],
        f"{root}/a/+/#": [topics[3], topics[5]],
        f"+/a/b/{root}": [],
        f"{root}/ü/+": topics[6:],
    }
    with Client(node, name_on(publisher, "p"), version) as says:
        for topic_filter, matching in expected.items():
            with Client(node, name_on(subscriber, "s"), version) as hears:
                assert hears.subscribe(topic_filter, 1) == [1]
                for topic in topics:
                    says.publish(topic, topic.encode(), 1)
                heard = {message.payload.decode() for message in hears.messages(len(matching))}
                assert heard == set(matching)
                hears.ping()


def test_topics_of_the_server_are_hidden_from_wildcards(node: Node) -> None:
    name = topic_on(0, "hidden{}")
    with Client(node, name_on(0, "p")) as says, Client(node, name_on(1, "s")) as hears:
        for topic_filter in ("#", "+/#", f"+/{name}", "+/+"):
            hears.subscribe(topic_filter, 1)
        until(partial(is_unwanted, says, f"$test/{name}"), "nobody wants it")
        hears.subscribe(f"$test/{name}", 1)
        assert says.publish(f"$test/{name}", b"1", 1) == 0
        # What is not sent yet when UNSUBSCRIBE comes need not be sent (MQTT5 3.10.4).
        assert hears.payloads(1) == [b"1"]
        hears.unsubscribe(f"$test/{name}")
        hears.subscribe("$test/#", 1)
        assert says.publish(f"$test/{name}", b"2", 1) == 0
        assert says.publish(f"seen/{name}", b"3", 1) == 0
        assert hears.payloads(2) == [b"2", b"3"]
        assert says.publish("$SYS/x", b"x", 1) == Reason.NOT_AUTHORIZED
        hears.ping()


def test_publish_reasons(node: Node) -> None:
    with Client(node, name_on(0, "p")) as says:
        for owner in (0, 1):
            topic = topic_on(owner, "nobody/{}")
            until(partial(is_unwanted, says, topic), "nobody wants it any more")
            for qos in (1, 2):
                assert says.publish(topic, b"x", qos) == Reason.NO_MATCHING_SUBSCRIBERS
        deep = "/".join("123456789")
        for qos in (1, 2):
            assert says.publish(deep, b"x", qos) == Reason.TOPIC_NAME_INVALID
            assert says.publish("$SYS/a", b"x", qos) == Reason.NOT_AUTHORIZED
        says.publish(deep, b"x", 0)
        says.ping()
    for version in (V31, V311):
        # There is no word for it: what would be refused for ever is taken and thrown away.
        with Client(node, name_on(0, "p"), version) as says:
            says.publish(deep, b"x", 1)
            says.publish(deep, b"x", 2)
            says.ping()


def test_every_filter_has_its_reason(node: Node) -> None:
    topic = topic_on(0, "reasons/{}")
    deep = "/".join("123456789")
    filters = [
        Subscription(topic, 0),
        Subscription(topic + "/#", 2),
        Subscription(deep, 1),
        Subscription("$share/g/" + topic, 1),
    ]
    for version in VERSIONS:
        refused = Reason.TOPIC_FILTER_INVALID if version == V5 else Reason.UNSPECIFIED_ERROR
        with Client(node, name_on(1, "s"), version) as hears:
            hears.send(Subscribe(9, filters))
            assert hears.receive() == Suback(9, [Reason(0), Reason(2), refused, Reason(1)])
            hears.send(Unsubscribe(10, [topic, "unknown", deep, "$share/g/" + topic]))
            gone = Reason.NO_SUBSCRIPTION_EXISTED
            reasons = [Reason(0), gone, gone, Reason(0)] if version == V5 else []
            assert hears.receive() == Unsuback(10, reasons)
            hears.publish(topic, b"x", 2)
            assert [message.qos for message in hears.heard()] == [2]


def test_a_session_has_no_more_subscriptions_than_allowed(node: Node) -> None:
    with Client(node, name_on(1, "many")) as hears:
        hears.send(Subscribe(1, [Subscription(f"many/{i % 110}", 1) for i in range(220)]))
        once = [Reason(1)] * 100 + [Reason.QUOTA_EXCEEDED] * 10
        assert hears.receive() == Suback(1, once * 2)
        assert hears.subscribe("many/3", 2) == [2]
        assert hears.subscribe("other") == [Reason.QUOTA_EXCEEDED]
        hears.unsubscribe("many/3")
        assert hears.subscribe("other") == [0]


@pytest.mark.parametrize("version", VERSIONS)
def test_overlapping_subscriptions_give_one_copy(node: Node, version: int) -> None:
    topic = topic_on(1, "overlap/{}/x")
    middle = topic.rsplit("/", 1)[0]
    with Client(node, name_on(0, "p")) as says, Client(node, name_on(1, "s"), version) as hears:
        hears.subscribe(topic, 0, identifier=1 if version == V5 else 0)
        hears.subscribe(f"{middle}/+", 2, identifier=2 if version == V5 else 0)
        hears.subscribe(f"{middle}/#", 1, identifier=268_435_455 if version == V5 else 0)
        for qos in (0, 1, 2):
            says.publish(topic, b"x", qos)
            message = hears.message()
            assert message.qos == qos
            if version == V5:
                assert message.properties is not None
                identifiers = message.properties.subscription_identifiers
                assert sorted(identifiers) == [1, 2, 268_435_455]
        hears.ping()


def test_a_subscription_that_is_repeated_is_replaced(node: Node) -> None:
    topic = topic_on(1, "replaced/{}")
    with Client(node, name_on(0, "p")) as says, Client(node, name_on(1, "s")) as hears:
        hears.subscribe(topic, 2, identifier=5)
        hears.subscribe(topic, 1, identifier=6)
        says.publish(topic, b"x", 2)
        message = hears.message()
        assert message.qos == 1
        assert message.properties == Properties(subscription_identifiers=(6,))
        hears.subscribe(topic, 0)
        says.publish(topic, b"x", 2)
        message = hears.message()
        assert (message.qos, message.properties) == (0, None)
        hears.ping()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_no_local_keeps_a_client_from_hearing_itself(node: Node, qos: int) -> None:
    topic = topic_on(1, "local/{}")
    with Client(node, name_on(0, "a")) as one, Client(node, name_on(0, "b")) as other:
        # Routes are decided before and after. An answer says that the first is on its way.
        one.publish(topic, b"0", qos)
        one.publish(topic, b"0", 1)
        one.subscribe(topic, qos, no_local=True)
        other.subscribe(topic, qos)
        one.publish(topic, b"1", qos)
        other.publish(topic, b"2", qos)
        assert one.payloads(1) == [b"2"]
        assert sorted(other.payloads(2)) == [b"1", b"2"]
        # A second subscription that matches and wants it gets it (MQTT5 3.3.4).
        one.subscribe(topic + "/#", qos)
        one.publish(topic, b"3", qos)
        assert one.payloads(1) == [b"3"]
        one.unsubscribe(topic + "/#")
        one.subscribe(topic, qos, no_local=False)
        one.publish(topic, b"4", qos)
        assert one.payloads(1) == [b"4"]
        assert other.payloads(2) == [b"3", b"4"]
        one.ping()
        other.ping()


def test_no_local_survives_the_connection(node: Node) -> None:
    topic, client_id = topic_on(0, "local/{}"), name_on(1, "kept")
    expiring = Properties(session_expiry_interval=100)
    with Client(node, client_id, clean=False, properties=expiring) as client:
        client.subscribe(topic, 1, no_local=True)
    with Client(node, client_id, clean=False, properties=expiring) as client:
        assert client.connack.session_present
        assert client.publish(topic, b"x", 1) == 0
        client.ping()


@pytest.mark.parametrize("version", VERSIONS)
def test_unsubscribe_ends_it(node: Node, version: int) -> None:
    topic = topic_on(1, "ends/{}")
    with Client(node, name_on(0, "p")) as says, Client(node, name_on(0, "s"), version) as hears:
        hears.subscribe(topic, 1)
        hears.subscribe(topic + "/#", 1)
        says.publish(topic, b"1", 1)
        hears.unsubscribe(topic)
        says.publish(topic, b"2", 1)
        hears.unsubscribe(topic + "/#")
        until(partial(is_unwanted, says, topic), "the interest is withdrawn")
        assert hears.payloads(2) == [b"1", b"2"]
        hears.ping()


@pytest.mark.parametrize("wildcard", [False, True])
@pytest.mark.parametrize(("publisher", "subscriber"), PLACES)
def test_nothing_is_missed_after_suback(
    node: Node, publisher: int, subscriber: int, wildcard: bool
) -> None:
    """The publisher says its word the moment that SUBACK is seen, on every owner."""
    with (
        Client(node, name_on(publisher, "p")) as says,
        Client(node, name_on(subscriber, "s")) as hears,
    ):
        for number in range(1_000):
            topic = f"race/{publisher}{subscriber}{wildcard}/{number}"
            topic_filter = f"race/+/{number}" if wildcard else topic
            hears.send(Subscribe(number + 1, [Subscription(topic_filter, 1)]))
            assert hears.expect(Suback).packet_id == number + 1
            says.send(Publish(topic.encode(), b"%d" % number, 1, packet_id=1))
            message = hears.expect(Publish)
            assert message.payload == b"%d" % number
            hears.send(Puback(message.packet_id), Unsubscribe(1, [topic_filter]))
            hears.expect(Unsuback)
            assert says.expect(Puback) == Puback(1)


def test_many_filters_in_one_packet_and_as_many_unsubscribed(node: Node) -> None:
    filters = [topic_on(i % 2, "bulk/{}") for i in range(50)] + [f"bulk/{i}/+/#" for i in range(50)]
    with Client(node, name_on(0, "p")) as says, Client(node, name_on(1, "s")) as hears:
        for _ in range(20):
            hears.send(Subscribe(1, [Subscription(one, 1) for one in filters]))
            assert hears.expect(Suback).reasons == [1] * 100
            for topic in filters[:50:7]:
                assert says.publish(topic, topic.encode(), 1) == 0
                assert hears.message().payload == topic.encode()
            assert hears.unsubscribe(*filters) == [0] * 100
        until(partial(is_unwanted, says, filters[0]), "the interest is withdrawn")
        hears.ping()
