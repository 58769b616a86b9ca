"""Overlapping subscriptions with a copy for each of them (MQTT5 3.3.4)."""

from collections.abc import Iterator

import pytest

from robustmq.mqtt.packets import V5, Properties, Publish
from tests.integration.homes import PLACES, name_on
from tests.integration.supervised import Node
from tests.integration.wire_client import VERSIONS, Client, numbered, serve

STAYS = Properties(session_expiry_interval=100)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    data = tmp_path_factory.mktemp("overlap") / "data"
    yield from serve(data, "mqtt_runtime.protocol.overlap=separate")


def subscribe(client: Client, topic: str) -> None:
    """Make three subscriptions that match `topic`/x, of QoS 0, 2 and 1."""
    for number, (topic_filter, qos) in enumerate(
        [(f"{topic}/x", 0), (f"{topic}/+", 2), (f"{topic}/#", 1)], 1
    ):
        identifier = number if client.version == V5 else 0
        assert client.subscribe(topic_filter, qos, identifier=identifier) == [qos]


def copies(heard: list[Publish]) -> list[tuple[bytes, int, tuple[int, ...]]]:
    return sorted(
        (
            one.payload,
            one.qos,
            one.properties.subscription_identifiers if one.properties is not None else (),
        )
        for one in heard
    )


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("publisher", "subscriber"), PLACES)
def test_each_subscription_has_its_copy(
    node: Node, publisher: int, subscriber: int, version: int, durable: bool
) -> None:
    topic = name_on(0, "o")
    stays = STAYS if durable and version == V5 else None
    with (
        Client(node, name_on(publisher, "p")) as says,
        Client(node, name_on(subscriber, "s"), version, clean=not durable, properties=stays) as one,
    ):
        subscribe(one, topic)
        for qos in (0, 1, 2):
            assert says.publish(f"{topic}/x", b"x", qos) == 0
            granted = [(1, 0), (2, min(qos, 2)), (3, min(qos, 1))]
            assert copies(one.messages(3)) == sorted(
                (b"x", level, (identifier,) if version == V5 else ())
                for identifier, level in granted
            )
        one.ping()


def test_two_that_are_alike_are_two_copies_with_packet_ids_of_their_own(node: Node) -> None:
    topic = name_on(0, "o")
    with Client(node, name_on(0, "s")) as one:
        for topic_filter in (f"{topic}/+", f"{topic}/#"):
            one.subscribe(topic_filter, 1)
        for payload in numbered(5):
            assert one.publish(f"{topic}/x", payload, 1) == 0
        heard = one.messages(10)
        assert sorted(message.payload for message in heard) == sorted([*numbered(5)] * 2)


def test_a_durable_session_has_all_copies_of_what_came_while_it_was_away(node: Node) -> None:
    topic, name = name_on(0, "o"), name_on(1, "s")
    with Client(node, name, clean=False, properties=STAYS) as one:
        subscribe(one, topic)
        one.disconnect()
    with Client(node, name_on(0, "p")) as says:
        for payload in numbered(30):
            assert says.publish(f"{topic}/x", payload, 2) == 0
    for start in (0, 1):
        with Client(node, name, clean=False, properties=STAYS) as one:
            if not start:
                heard = copies(one.messages(60))
                assert heard == sorted(
                    copy for n in numbered(30) for copy in ((n, 2, (2,)), (n, 1, (3,)))
                )
            # It comes once only.
            one.ping()
            one.disconnect()
