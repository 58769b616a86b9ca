"""Messages from client to client: every QoS, windows both ways, and their order."""

from collections.abc import Iterator

import pytest

from robustmq.mqtt.packets import (
    V5,
    V31,
    V311,
    Disconnect,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
)
from robustmq.mqtt.reasons import Reason
from tests.integration.homes import PLACES, name_on, topic_on
from tests.integration.supervised import Node
from tests.integration.wire_client import VERSIONS, Client, numbered, serve

OWNERS = (0, 1)


def kept(version: int) -> Properties | None:
    return Properties(session_expiry_interval=100) if version == V5 else None


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    yield from serve(
        tmp_path_factory.mktemp("delivery") / "data", "mqtt_runtime.protocol.receive_max=40"
    )


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize(("publisher", "subscriber"), PLACES)
def test_every_qos_reaches_every_core(
    node: Node, publisher: int, subscriber: int, owner: int
) -> None:
    topic = topic_on(owner, "t/{}/x")
    for version in VERSIONS:
        with (
            Client(node, name_on(subscriber, "s"), version) as hears,
            Client(node, name_on(publisher, "p"), version) as says,
        ):
            for granted in (0, 1, 2):
                assert hears.subscribe(topic, granted) == [granted]
                for qos in (0, 1, 2):
                    assert says.publish(topic, b"%d" % qos, qos) == 0
                    message = hears.message()
                    assert (message.topic, message.payload) == (topic.encode(), b"%d" % qos)
                    assert message.qos == min(qos, granted)
                    assert not message.retain
                    assert not message.dup


@pytest.mark.parametrize(("speaks", "listens"), [(V31, V5), (V5, V31), (V311, V5), (V5, V311)])
def test_versions_hear_each_other(node: Node, speaks: int, listens: int) -> None:
    topic = topic_on(0, "versions/{}")
    with (
        Client(node, name_on(0, "s"), listens) as hears,
        Client(node, name_on(1, "p"), speaks) as p,
    ):
        hears.subscribe(topic, 2)
        p.publish(topic, b"1", 2)
        message = hears.message()
        assert message.payload == b"1"
        assert message.qos == 2
        if listens == V5:
            assert message.properties is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("core", OWNERS)
def test_messages_of_one_publisher_and_topic_keep_their_order(
    node: Node, version: int, core: int
) -> None:
    count = 5_000
    topics = [topic_on(owner, "order/{}") for owner in OWNERS]
    with (
        Client(node, name_on(0, "s"), version) as hears,
        Client(node, name_on(core, "p"), version) as says,
    ):
        for topic in topics:
            hears.subscribe(topic, 1)
        for start in range(0, count, 20):
            packets = [
                Publish(topic.encode(), payload, 1, packet_id=says.next_id() % 65_535 + 1)
                for payload in numbered(20, start)
                for topic in topics
            ]
            says.send(*packets)
            assert [says.expect(Puback).packet_id for _ in packets] == [
                packet.packet_id for packet in packets
            ]
        heard: dict[bytes, list[bytes]] = {topic.encode(): [] for topic in topics}
        for _ in range(2 * count):
            message = hears.message()
            heard[message.topic].append(message.payload)
        for payloads in heard.values():
            assert payloads == list(numbered(count))


def test_acknowledgements_follow_the_order_of_the_messages(node: Node) -> None:
    """[MQTT-4.6.0-2], [MQTT-4.6.0-3], although the topics' owners answer at different times."""
    near, far = topic_on(0, "near/{}"), topic_on(1, "far/{}")
    with Client(node, name_on(0, "p")) as says:
        # That earlier subscribers have gone, the publisher's core hears a moment later.
        for topic in (far, near):
            while says.publish(topic, b"x", 1) != Reason.NO_MATCHING_SUBSCRIBERS:
                says.ping()
        for turn in range(200):
            packets = [
                Publish((far, near)[i % 2].encode(), b"x", 1 + i % 3 % 2, packet_id=100 + i)
                for i in range(20)
            ]
            says.send(*packets)
            answered: dict[int, list[int]] = {1: [], 2: []}
            for _ in packets:
                answer = says.receive()
                assert isinstance(answer, Puback | Pubrec), (turn, answer)
                assert answer.reason == Reason.NO_MATCHING_SUBSCRIBERS
                answered[1 if isinstance(answer, Puback) else 2].append(answer.packet_id)
            for qos, ids in answered.items():
                assert ids == [packet.packet_id for packet in packets if packet.qos == qos]
            for packet_id in answered[2]:
                says.send(Pubrel(packet_id))
                assert says.expect(Pubcomp) == Pubcomp(packet_id)


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("version", VERSIONS)
def test_no_more_in_flight_than_the_client_takes(node: Node, version: int, qos: int) -> None:
    properties = Properties(receive_maximum=3) if version == V5 else None
    limit = 3 if version == V5 else 1_000
    topic = topic_on(1, "window/{}")
    with (
        Client(node, name_on(0, "s"), version, properties=properties) as hears,
        Client(node, name_on(0, "p")) as says,
    ):
        hears.subscribe(topic, qos)
        for payload in numbered(limit + 5):
            says.publish(topic, payload, 1 if qos == 1 else 2)
        flying = [hears.expect(Publish) for _ in range(limit)]
        assert len({message.packet_id for message in flying}) == limit
        hears.ping()
        if qos == 2:
            hears.send(Pubrec(flying[0].packet_id))
            assert hears.expect(Pubrel).packet_id == flying[0].packet_id
            hears.ping()
            hears.send(Pubcomp(flying[0].packet_id))
        else:
            hears.send(Puback(flying[0].packet_id))
        assert hears.expect(Publish).payload == b"%d" % limit
        hears.ping()


def test_a_refused_pubrec_frees_the_window(node: Node) -> None:
    topic = topic_on(0, "refused/{}")
    with (
        Client(node, name_on(1, "s"), properties=Properties(receive_maximum=1)) as hears,
        Client(node, "p") as says,
    ):
        hears.subscribe(topic, 2)
        says.publish(topic, b"1", 2)
        says.publish(topic, b"2", 2)
        hears.send(Pubrec(hears.expect(Publish).packet_id, Reason.QUOTA_EXCEEDED))
        assert hears.message().payload == b"2"


@pytest.mark.parametrize("qos", [1, 2])
def test_a_client_that_exceeds_our_receive_maximum_is_disconnected(node: Node, qos: int) -> None:
    with Client(node, name_on(0, "p")) as says:
        assert says.connack.properties is not None
        assert says.connack.properties.receive_maximum == 40
        topic = topic_on(1, "flood/{}").encode()
        says.send(*[Publish(topic, b"x", qos, packet_id=i + 1) for i in range(2_000)])
        packets = says.ending()
        assert packets[-1] == Disconnect(Reason.RECEIVE_MAXIMUM_EXCEEDED)
        assert len(packets) <= 41


def test_exactly_the_receive_maximum_may_be_unreleased(node: Node) -> None:
    topic = topic_on(1, "quota/{}").encode()
    with Client(node, name_on(0, "p")) as says:
        says.send(*[Publish(topic, b"x", 2, packet_id=i + 1) for i in range(40)])
        assert [says.expect(Pubrec).packet_id for _ in range(40)] == list(range(1, 41))
        says.send(Pubrel(7))
        assert says.expect(Pubcomp) == Pubcomp(7)
        says.send(Publish(topic, b"x", 1, packet_id=7))
        assert says.expect(Puback).packet_id == 7
        says.send(Publish(topic, b"x", 2, packet_id=7))
        assert says.expect(Pubrec).packet_id == 7
        says.send(Publish(topic, b"x", 1, packet_id=41))
        assert says.ending() == [Disconnect(Reason.RECEIVE_MAXIMUM_EXCEEDED)]


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("version", [V31, V311])
def test_mqtt_3_knows_no_receive_maximum_and_is_slowed_down_instead(
    node: Node, version: int, retain: bool
) -> None:
    count = 2_000
    topic = topic_on(1, "slowed/{}").encode()
    with Client(node, name_on(0, "p"), version) as says:
        for start in range(0, count, 500):
            says.send(
                *[Publish(topic, b"x", 1, retain, packet_id=start + i + 1) for i in range(500)]
            )
        assert [says.expect(Puback).packet_id for _ in range(count)] == list(range(1, count + 1))


@pytest.mark.parametrize("version", VERSIONS)
def test_qos_2_is_exactly_once_whatever_is_repeated(node: Node, version: int) -> None:
    """A client that loses every answer, and its connection, between any two packets."""
    topic = topic_on(1, "once/{}")
    client_id = name_on(0, "p")

    def connect() -> Client:
        return Client(node, client_id, version, clean=False, properties=kept(version))

    with Client(node, name_on(1, "s")) as hears:
        hears.subscribe(topic, 2)
        says = connect()
        for number in range(30):
            packet_id = number % 3 + 1
            packet = Publish(topic.encode(), b"%d" % number, 2, packet_id=packet_id)
            says.send(packet)
            packet.dup = True
            if number % 2:
                says.close()
                says = connect()
                says.send(packet)
            if number % 3 == 0:
                says.send(packet)
                assert says.expect(Pubrec).packet_id == packet_id
            assert says.expect(Pubrec) == Pubrec(packet_id)
            if number % 5 == 0:
                says.drop()
                says = connect()
            says.send(Pubrel(packet_id))
            if number % 7 == 0:
                says.close()
                says = connect()
                says.send(Pubrel(packet_id))
            reason = says.expect(Pubcomp).reason
            assert reason in {0, Reason.PACKET_IDENTIFIER_NOT_FOUND}
            if number % 4 == 0:
                says.send(Pubrel(packet_id))
                again = says.expect(Pubcomp).reason
                assert again == (Reason.PACKET_IDENTIFIER_NOT_FOUND if version == V5 else 0)
        says.publish(topic, b"end", 2)
        says.close()
        assert hears.payloads(31) == [*numbered(30), b"end"]


@pytest.mark.parametrize("version", VERSIONS)
def test_repeats_after_a_reconnect_are_no_new_messages_for_the_quota(
    node: Node, version: int
) -> None:
    topic = topic_on(1, "repeats/{}").encode()
    client_id = name_on(0, "p")
    packets = [Publish(topic, b"x", 2, packet_id=i + 1) for i in range(40)]
    with Client(node, client_id, version, clean=False, properties=kept(version)) as says:
        says.send(*packets)
        for _ in packets:
            says.expect(Pubrec)
    for packet in packets:
        packet.dup = True
    with Client(node, client_id, version, clean=False, properties=kept(version)) as says:
        says.send(*packets)
        assert [says.expect(Pubrec).packet_id for _ in packets] == list(range(1, 41))
        says.send(*[Pubrel(packet.packet_id) for packet in packets])
        assert [says.expect(Pubcomp) for _ in packets] == [Pubcomp(i) for i in range(1, 41)]


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_in_flight_is_sent_again_to_a_client_that_returns(
    node: Node, version: int, qos: int
) -> None:
    topic = topic_on(0, "again/{}")
    client_id = name_on(1, "s")
    with Client(node, name_on(0, "p")) as says:
        hears = Client(node, client_id, version, clean=False, properties=kept(version))
        hears.subscribe(topic, qos)
        for payload in numbered(4):
            says.publish(topic, payload, 2)
        first = [hears.expect(Publish) for _ in range(4)]
        assert [message.dup for message in first] == [False] * 4
        if qos == 1:
            hears.send(Puback(first[1].packet_id))
        else:
            hears.send(Pubrec(first[1].packet_id))
            assert hears.expect(Pubrel).packet_id == first[1].packet_id
        hears.ping()
        hears.drop()
        says.publish(topic, b"4", 2)
        hears = Client(node, client_id, version, clean=False, properties=kept(version))
        assert hears.connack.session_present == (version != V31 or hears.connack.session_present)
        if qos == 2:
            assert hears.expect(Pubrel).packet_id == first[1].packet_id
            hears.send(Pubcomp(first[1].packet_id))
        again = hears.messages(4)
        assert [message.payload for message in again] == [b"0", b"2", b"3", b"4"]
        assert [message.dup for message in again] == [True, True, True, False]
        assert [message.packet_id for message in again[:3]] == [
            first[i].packet_id for i in (0, 2, 3)
        ]
        hears.disconnect()


def test_acknowledgements_that_nobody_waits_for(node: Node) -> None:
    with Client(node, name_on(0, "a")) as client:
        client.send(Puback(9), Pubcomp(9), Pubrec(9))
        assert client.expect(Pubrel) == Pubrel(9, Reason.PACKET_IDENTIFIER_NOT_FOUND)
        client.send(Pubrel(9))
        assert client.expect(Pubcomp) == Pubcomp(9, Reason.PACKET_IDENTIFIER_NOT_FOUND)
        client.ping()


def test_a_client_that_does_not_read_loses_qos_0_and_nothing_else(node: Node) -> None:
    topic = topic_on(0, "lagging/{}")
    payload = bytes(20_000)
    with (
        Client(node, name_on(1, "s"), receive_buffer=8_192) as slow,
        Client(node, name_on(0, "p")) as says,
    ):
        slow.subscribe(topic, 1)
        for number in range(1_500):
            says.publish(topic, payload + b"%d" % number, 1 if number % 50 == 0 else 0)
        assert says.publish(topic, b"end", 1) == 0
        heard: list[int] = []
        while True:
            message = slow.message()
            if message.payload == b"end":
                break
            heard.append(int(message.payload[20_000:]))
        assert heard == sorted(heard)
        assert [number for number in heard if number % 50 == 0] == list(range(0, 1_500, 50))
        assert len(heard) < 1_500
