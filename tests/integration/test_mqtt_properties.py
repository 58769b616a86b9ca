"""What MQTT 5 adds to a message: aliases, expiry, sizes, and what is only passed on."""

import time
from collections.abc import Iterator

import pytest

from robustmq.mqtt.packets import (
    V5,
    V311,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Publish,
)
from robustmq.mqtt.reasons import Reason
from tests.integration.homes import PLACES, name_on, topic_on
from tests.integration.supervised import Node
from tests.integration.wire_client import VERSIONS, Client, Wire, serve

KEPT = Properties(session_expiry_interval=100)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    yield from serve(
        tmp_path_factory.mktemp("properties") / "data",
        "mqtt_runtime.protocol.max_packet_size=300000",
        "mqtt_runtime.protocol.topic_alias_max=10",
    )


@pytest.mark.parametrize(("publisher", "subscriber"), PLACES)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_what_concerns_only_the_clients_is_passed_on_as_it_is(
    node: Node, publisher: int, subscriber: int, qos: int
) -> None:
    topic = topic_on(0, "pass/{}")
    blocks = [
        Properties(payload_format=0),
        Properties(payload_format=1, content_type="", correlation_data=b""),
        Properties(response_topic="answers/ü", correlation_data=bytes(range(256))),
        Properties(user_properties=(("b", "2"), ("a", "1"), ("b", ""), ("", "x"))),
        Properties(user_properties=(("mqtt.content-type", "x"), ("robustmq.publisher", "y"))),
        Properties(user_properties=(("mqtt.user.a", "x"), ("robustmq.expires-at-ms", "z" * 8))),
        Properties(content_type="x" * 65_535, user_properties=(("y" * 65_535, "z" * 65_535),)),
    ]
    with (
        Client(node, name_on(publisher, "p")) as says,
        Client(node, name_on(subscriber, "s")) as hears,
        Client(node, name_on(subscriber, "old"), V311) as old,
    ):
        hears.subscribe(topic, 2)
        old.subscribe(topic, 2)
        for number, block in enumerate(blocks):
            says.publish(topic, b"%d" % number, qos, properties=block)
            message = hears.message()
            assert (message.payload, message.properties) == (b"%d" % number, block)
            assert old.message().payload == b"%d" % number


def test_request_and_response(node: Node) -> None:
    requests, answers = topic_on(0, "requests/{}"), topic_on(1, "answers/{}")
    with Client(node, name_on(0, "asks")) as asks, Client(node, name_on(1, "knows")) as knows:
        knows.subscribe(requests, 1)
        asks.subscribe(answers, 1)
        question = Properties(response_topic=answers, correlation_data=b"\x00\x07")
        asks.publish(requests, b"6 * 7", 1, properties=question)
        heard = knows.message().properties
        assert heard == question
        answer = Properties(correlation_data=heard.correlation_data)
        knows.publish(str(heard.response_topic), b"42", 1, properties=answer)
        message = asks.message()
        assert (message.payload, message.properties) == (b"42", answer)


def test_topic_aliases_of_a_client(node: Node) -> None:
    topics = [topic_on(core, "alias/{}") for core in (0, 1)]
    with Client(node, name_on(0, "p")) as says, Client(node, name_on(1, "s")) as hears:
        assert says.connack.properties is not None
        assert says.connack.properties.topic_alias_maximum == 10
        for topic in topics:
            hears.subscribe(topic, 2)
        for turn in range(3):
            for qos in (0, 1, 2):
                for alias, topic in zip((1, 10), topics, strict=True):
                    named = topic if turn == 0 else ""
                    says.publish(named, b"x", qos, properties=Properties(topic_alias=alias))
                    message = hears.message()
                    assert message.topic == topic.encode()
                    assert message.properties is None
        says.publish(topics[1], b"x", 1, properties=Properties(topic_alias=1))
        assert hears.message().topic == topics[1].encode()
        says.publish("", b"x", 1, properties=Properties(topic_alias=1))
        assert hears.message().topic == topics[1].encode()


@pytest.mark.parametrize(
    ("topic", "alias", "reason"),
    [
        (b"t", 11, Reason.TOPIC_ALIAS_INVALID),
        (b"", 11, Reason.TOPIC_ALIAS_INVALID),
        (b"", 3, Reason.PROTOCOL_ERROR),
    ],
)
def test_aliases_that_mean_nothing(node: Node, topic: bytes, alias: int, reason: Reason) -> None:
    with Client(node, name_on(0, "p")) as says:
        says.send(Publish(topic, b"x", 1, packet_id=1, properties=Properties(topic_alias=alias)))
        assert says.ending() == [Disconnect(reason)]


def test_an_alias_is_forgotten_with_its_connection(node: Node) -> None:
    client_id = name_on(0, "p")
    with Client(node, client_id, properties=KEPT) as says:
        says.publish("t", b"x", 1, properties=Properties(topic_alias=1))
    with Client(node, client_id, clean=False, properties=KEPT) as says:
        assert says.connack.session_present
        says.send(Publish(b"", b"x", properties=Properties(topic_alias=1)))
        assert says.ending() == [Disconnect(Reason.PROTOCOL_ERROR)]


def test_topic_aliases_of_the_server(node: Node) -> None:
    topics = [topic_on(core, "server-alias/{}") for core in (0, 1)]
    asks = Properties(topic_alias_maximum=65_535, session_expiry_interval=100)
    client_id = name_on(1, "s")
    with Client(node, name_on(0, "p")) as says:
        for connection in range(2):
            hears = Client(node, client_id, clean=connection == 0, properties=asks)
            known: dict[int, bytes] = {}
            for topic in topics:
                hears.subscribe(topic, connection)
            for turn in range(3):
                for topic in topics:
                    says.publish(topic, b"x", 1)
                    message = hears.message()
                    assert message.properties is not None
                    alias = message.properties.topic_alias
                    assert alias is not None
                    if turn == 0:
                        known[alias] = message.topic
                    else:
                        assert message.topic == b""
                    assert known[alias] == topic.encode()
            hears.drop()
        # Nobody gets an alias without having asked.
        with Client(node, name_on(1, "n"), properties=Properties(topic_alias_maximum=0)) as plain:
            plain.subscribe(topics[0])
            says.publish(topics[0], b"x", 1)
            assert plain.message() == Publish(topics[0].encode(), b"x")


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_remaining_expiry_interval_is_passed_on(node: Node, qos: int) -> None:
    topic, client_id = topic_on(1, "expiry/{}"), name_on(0, "s")
    with Client(node, name_on(0, "p")) as says:
        hears = Client(node, client_id, clean=False, properties=KEPT)
        hears.subscribe(topic, 2)
        for seconds in (100, 0xFFFFFFFF):
            block = Properties(message_expiry_interval=seconds, content_type="x")
            says.publish(topic, b"now", qos, properties=block)
            assert hears.message().properties == block
        if not qos:
            return
        hears.disconnect()
        for seconds in (1, 100):
            block = Properties(message_expiry_interval=seconds)
            says.publish(topic, b"%d" % seconds, qos, properties=block)
        time.sleep(2.1)
        with Client(node, client_id, clean=False, properties=KEPT) as hears:
            message = hears.message()
            assert message.payload == b"100"
            assert message.properties is not None
            left = message.properties.message_expiry_interval
            assert left is not None
            assert 70 <= left <= 98
            hears.ping()


def test_a_message_that_expires_at_once_is_not_delivered(node: Node) -> None:
    topic, client_id = topic_on(1, "gone/{}"), name_on(0, "s")
    with Client(node, name_on(0, "p")) as says:
        with Client(node, client_id, V311, clean=False) as hears:
            hears.subscribe(topic, 1)
            hears.disconnect()
        says.publish(topic, b"1", 1, properties=Properties(message_expiry_interval=0))
        says.publish(topic, b"2", 1)
        with Client(node, client_id, V311, clean=False) as hears:
            assert hears.payloads(1) == [b"2"]
            hears.ping()
            hears.disconnect()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_client_gets_no_packet_larger_than_it_takes(node: Node, qos: int) -> None:
    topic = topic_on(1, "size/{}")
    limit = 100
    largest = Properties(maximum_packet_size=limit)
    head = 2 + 2 + len(topic) + (2 if qos else 0) + 1
    with (
        Client(node, name_on(0, "p")) as says,
        Client(node, name_on(0, "s"), properties=largest) as hears,
        Client(node, name_on(0, "all")) as hears_all,
    ):
        hears.subscribe(topic, qos)
        hears_all.subscribe(topic, qos)
        for size in (limit - head, limit - head + 1, 1_000, 70_000, 1):
            says.publish(topic, bytes(size), qos)
        block = Properties(user_properties=(("a", "x" * 100),))
        says.publish(topic, b"", qos, properties=block)
        says.publish(topic, b"end", qos)
        assert [len(payload) for payload in hears.payloads(3)] == [limit - head, 1, 3]
        assert [len(payload) for payload in hears_all.payloads(7)][:5] == [
            limit - head, limit - head + 1, 1_000, 70_000, 1,
        ]  # fmt: skip
        hears.ping()


def test_a_client_may_send_as_much_as_the_server_says(node: Node) -> None:
    topic = topic_on(1, "large/{}")
    for version in VERSIONS:
        with Client(node, name_on(0, "p"), version) as says:
            says.subscribe(topic, 1)
            head = 1 + 3 + 2 + len(topic) + 2 + (1 if version == V5 else 0)
            assert says.publish(topic, bytes(300_000 - head), 1) == 0
            assert len(says.message().payload) == 300_000 - head
            says.send_bytes(b"\x32" + b"\xdf\xa7\x12")
            told = [Disconnect(Reason.PACKET_TOO_LARGE)] if version == V5 else []
            assert 1 + 3 + (0x5F | 0x27 << 7 | 0x12 << 14) > 300_000
            says.send_bytes(b"\0")
            assert says.ending() == told


def test_what_connack_says_about_this_server(node: Node) -> None:
    asked = Properties(session_expiry_interval=0xFFFFFFFF, request_problem_information=0)
    with Client(node, name_on(0, "c"), keep_alive=10, properties=asked) as client:
        assert client.connack == Connack(
            Reason.SUCCESS,
            False,
            Properties(
                session_expiry_interval=604_800,
                receive_maximum=1_024,
                maximum_packet_size=300_000,
                topic_alias_maximum=10,
            ),
        )
        client.disconnect()


def test_an_authentication_method_is_refused(node: Node) -> None:
    with Wire(node) as wire:
        wire.send(Connect("a", properties=Properties(authentication_method="SCRAM-SHA-256")))
        assert wire.ending() == [Connack(Reason.BAD_AUTHENTICATION_METHOD)]


def test_plain_messages_and_others_keep_their_order(node: Node) -> None:
    """Some take the fast way through the kernel and some do not: on one topic nobody overtakes."""
    topic = topic_on(1, "mixed/{}")
    with Client(node, name_on(0, "p")) as says, Client(node, name_on(0, "s")) as hears:
        hears.subscribe(topic, 1)
        packets = []
        for number in range(1_000):
            block = Properties(content_type="x") if number % 3 == 0 else None
            packets.append(
                Publish(
                    topic.encode(),
                    b"%d" % number,
                    number % 2,
                    number % 7 == 0,
                    packet_id=number + 1 if number % 2 else 0,
                    properties=block,
                )
            )
        says.send(*packets, Pingreq())
        answers = [says.receive() for _ in range(501)]
        assert [packet.packet_id for packet in answers if isinstance(packet, Puback)] == list(
            range(2, 1_001, 2)
        )
        assert sum(isinstance(packet, Pingresp) for packet in answers) == 1
        heard = hears.messages(1_000)
        assert [int(message.payload) for message in heard] == list(range(1_000))
        assert all(
            (message.properties is not None) == (int(message.payload) % 3 == 0) for message in heard
        )
