"""What crosses between MQTT and Kafka, with their own clients, in both directions."""

import asyncio
import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as AioPartition
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from kafka import KafkaConsumer
from kafka import TopicPartition as PythonPartition
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes

from robustmq.mqtt.packets import Properties
from tests.integration.homes import name_on
from tests.integration.supervised import Node, until
from tests.integration.test_clients_paho import V5, V311, Client, block
from tests.integration.wire_client import Client as Wire

PATIENCE = 60.0
RULES = """
[[topic_rules]]
filter = "plant/#"
retention_records = 100000
kafka_topic = "plants"

[[topic_rules]]
filter = "own/#"
own_shard = true
"""
_names = itertools.count()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    place = tmp_path_factory.mktemp("crossing")
    node = started(place)
    yield node
    ended = node.seen("process ended")
    node.close()
    assert not ended


def started(place: Path) -> Node:
    """A node on a directory, in its first life or a later one."""
    config = place / "server.toml"
    config.write_text(RULES)
    return Node(place / "data", "--config", str(config), module="robustmq.cli.supervisor").ready()


def servers(node: Node) -> str:
    host, port = node.address("kafka_tcp")
    return f"{host}:{port}"


def topic_of(node: Node, partitions: int = 1) -> str:
    """A new topic."""
    name = f"crossing-{next(_names)}"
    client = AdminClient(quiet(node))
    made = client.create_topics([NewTopic(name, partitions)], operation_timeout=PATIENCE)
    made[name].result(PATIENCE)
    return name


def quiet(node: Node, **settings: object) -> dict[str, Any]:
    """The configuration of a client of librdkafka, whose log goes nowhere."""
    logger = logging.getLogger("quiet")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    return {"bootstrap.servers": servers(node), "logger": logger, **settings}


def producer(node: Node, **settings: object) -> Producer:
    return Producer(quiet(node, **{"linger.ms": 5, **settings}))


def produce(
    client: Producer,
    topic: str,
    *values: bytes | None,
    key: str | None = None,
    headers: Sequence[tuple[str, bytes | None]] = (),
) -> None:
    """Produce, and wait for the acknowledgements."""
    errors: list[object] = []
    for value in values:
        client.produce(
            topic,
            value,
            key=key,
            headers=[*headers],
            on_delivery=lambda error, _: errors.append(error),
        )
    assert client.flush(PATIENCE) == 0
    assert errors == [None] * len(values)


def consumed(node: Node, topic: str, count: int, partitions: int = 1) -> list[Message]:
    """The first records of a topic."""
    client = Consumer(quiet(node, **{"group.id": "none", "enable.auto.commit": False}))
    client.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    found: list[Message] = []
    end = time.monotonic() + PATIENCE
    while len(found) < count and time.monotonic() < end:
        message = client.poll(0.1)
        if message is not None:
            assert message.error() is None, message.error()
            found.append(message)
    client.close()
    assert len(found) == count
    return found


def listener(node: Node, topic: str, version: MQTTProtocolVersion = V5) -> Client:
    """A subscriber, on the core that is not the topic's as often as on the one that is."""
    client = Client(node, next(_names) % 2, version)
    assert client.subscribe(topic, 1) == [1]
    return client


def properties(message: paho.MQTTMessage) -> dict[str, Any]:
    said: Any = message.properties
    return dict(said.json()) if said is not None else {}


# -------------------------------------------------------------------- from MQTT to Kafka


@pytest.mark.parametrize("version", [V311, V5])
def test_each_message_is_a_record(node: Node, version: MQTTProtocolVersion) -> None:
    topic = topic_of(node)
    client = Client(node, 0, version)
    before = time.time() * 1_000
    for qos in (0, 1, 2):
        client.publish(topic, b"qos %d" % qos, qos)
    client.publish(topic, b"kept", 1, retain=True)
    client.publish(topic, b"", 1)
    client.close()
    found = consumed(node, topic, 5)
    assert [each.value() for each in found] == [b"qos 0", b"qos 1", b"qos 2", b"kept", b""]
    assert {each.key() for each in found} == {topic.encode()}
    assert [each.headers() for each in found] == [None] * 5
    assert [each.offset() for each in found] == [0, 1, 2, 3, 4]
    assert all(before - 1_000 <= each.timestamp()[1] <= time.time() * 1_000 for each in found)


def test_properties_are_headers(node: Node) -> None:
    topic = topic_of(node)
    client = Client(node, 1, V5)
    said = block(
        PacketTypes.PUBLISH,
        UserProperty=[("a", "1"), ("key", "k"), ("a", "2"), ("mqtt.x", "3")],
        ContentType="text/plain",
        ResponseTopic="answers",
        CorrelationData=b"\0\xff",
        PayloadFormatIndicator=1,
        MessageExpiryInterval=3_600,
    )
    client.paho.publish(topic, b"text", 1, properties=said).wait_for_publish(PATIENCE)
    client.close()
    (found,) = consumed(node, topic, 1)
    assert found.key() == b"k"
    headers: Any = found.headers()
    assert [each for each in headers if not each[0].startswith("mqtt.")] == [
        ("a", b"1"),
        ("a", b"2"),
    ]
    assert {name: value for name, value in headers if name.startswith("mqtt.")} == {
        "mqtt.user.mqtt.x": b"3",
        "mqtt.content-type": b"text/plain",
        "mqtt.response-topic": b"answers",
        "mqtt.correlation-data": b"\0\xff",
        "mqtt.payload-format": b"1",
        "mqtt.message-expiry-interval": b"3600",
    }


def test_other_clients_read_them_too(node: Node) -> None:
    """QoS and retain are noted in a byte that they must not look at."""
    topic = topic_of(node)
    client = Client(node, 0, V5)
    for qos in (0, 1, 2):
        client.publish(topic, b"%d" % qos, qos, retain=True)
    client.close()
    expected = [(topic.encode(), b"%d" % qos) for qos in (0, 1, 2)]

    async def by_aiokafka() -> list[tuple[bytes | None, bytes | None]]:
        consumer = AIOKafkaConsumer(bootstrap_servers=servers(node), group_id=None)
        await consumer.start()
        try:
            consumer.assign([AioPartition(topic, 0)])
            await consumer.seek_to_beginning()
            found = [await asyncio.wait_for(consumer.getone(), PATIENCE) for _ in expected]
        finally:
            await consumer.stop()
        return [(each.key, each.value) for each in found]

    assert asyncio.run(by_aiokafka()) == expected
    python = KafkaConsumer(bootstrap_servers=servers(node), consumer_timeout_ms=PATIENCE * 1_000)
    python.assign([PythonPartition(topic, 0)])
    python.seek_to_beginning()
    assert [(each.key, each.value) for each in itertools.islice(python, 3)] == expected
    python.close()


def test_keys_go_where_producers_of_kafka_send_them(node: Node) -> None:
    topic = topic_of(node, 3)
    keys = [f"key-{number}" for number in range(12)]
    client = Client(node, 0, V5)
    for key in keys:
        said = block(PacketTypes.PUBLISH, UserProperty=[("key", key)])
        client.paho.publish(topic, b"mqtt", 1, properties=said).wait_for_publish(PATIENCE)
    client.close()
    sender = producer(node, partitioner="murmur2_random")
    for key in keys:
        produce(sender, topic, b"kafka", key=key)
    found = consumed(node, topic, 24, 3)
    mqtt, kafka = (
        {each.key(): each.partition() for each in found if each.value() == value}
        for value in (b"mqtt", b"kafka")
    )
    assert len(mqtt) == 12
    assert mqtt == kafka
    assert set(mqtt.values()) == {0, 1, 2}


def test_without_keys_each_publisher_keeps_its_order(node: Node) -> None:
    topic = topic_of(node, 3)
    clients = [Client(node, core, V5) for core in (0, 1)]
    for number in range(20):
        for core, client in enumerate(clients):
            client.publish(topic, b"%d %d" % (core, number), 1)
    for client in clients:
        client.close()
    found = consumed(node, topic, 40, 3)
    for core in (0, 1):
        mine = [each for each in found if (each.value() or b"").startswith(b"%d " % core)]
        assert [each.value() for each in mine] == [b"%d %d" % (core, i) for i in range(20)]
        assert len({each.partition() for each in mine}) == 1


def test_the_topics_of_a_rule_are_one_topic(node: Node) -> None:
    clients = [Client(node, core, V5) for core in (0, 1)]
    for number in range(6):
        clients[number % 2].publish(f"plant/{number % 3}/alarm", b"%d" % number, 1)
    for client in clients:
        client.close()
    found = consumed(node, "plants", 6, 2)
    assert sorted((each.key(), each.value()) for each in found) == sorted(
        (f"plant/{number % 3}/alarm".encode(), b"%d" % number) for number in range(6)
    )
    assert {each.partition() for each in found} == {0, 1}


def test_a_topic_of_mqtt_has_a_name_for_kafka(node: Node) -> None:
    name = f"own/room/{next(_names)}"
    written = name.replace("/", ".")
    client = listener(node, name)
    client.publish(name, b"from mqtt", 1)
    assert client.heard(1)[0].payload == b"from mqtt"
    (found,) = consumed(node, written, 1)
    assert (found.key(), found.value()) == (name.encode(), b"from mqtt")
    produce(producer(node), written, b"from kafka")
    (heard,) = client.heard(1)
    assert (heard.topic, heard.payload) == (name, b"from kafka")
    client.close()


# -------------------------------------------------------------------- from Kafka to MQTT


@pytest.mark.parametrize("version", [V311, V5])
def test_each_record_is_a_message(node: Node, version: MQTTProtocolVersion) -> None:
    topic = topic_of(node)
    client = listener(node, topic, version)
    headers = [
        ("a", b"1"),
        ("mqtt.content-type", b"text/plain"),
        ("mqtt.message-expiry-interval", b"3600"),
        ("binary", b"\xff"),
        ("null", None),
    ]
    produce(producer(node), topic, b"value", None, key="k", headers=headers)
    heard = client.heard(2)
    client.close()
    assert [(each.payload, each.qos, each.retain) for each in heard] == [
        (b"value", 1, False),
        (b"", 1, False),
    ]
    if version == V5:
        for each in heard:
            said = properties(each)
            assert said["UserProperty"] == [("key", "k"), ("a", "1")]
            assert said["ContentType"] == "text/plain"
            assert 3_500 <= said["MessageExpiryInterval"] <= 3_600


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches_arrive_whole(node: Node, codec: str) -> None:
    topic = topic_of(node)
    client = listener(node, topic)
    values = [f"value {number} ".encode() * 10 for number in range(100)]

    async def by_aiokafka() -> None:
        sender = AIOKafkaProducer(
            bootstrap_servers=servers(node), compression_type=codec, linger_ms=20
        )
        await sender.start()
        try:
            sent = [await sender.send(topic, value) for value in values]
            await asyncio.wait_for(asyncio.gather(*sent), PATIENCE)
        finally:
            await sender.stop()

    produce(producer(node, **{"compression.type": codec, "linger.ms": 20}), topic, *values)
    asyncio.run(by_aiokafka())
    assert [each.payload for each in client.heard(200)] == values * 2
    client.close()


def test_what_is_aborted_is_not_heard_of(node: Node) -> None:
    topic = topic_of(node)
    client = listener(node, topic)
    sender = producer(node, **{"transactional.id": topic})
    sender.init_transactions(PATIENCE)
    for number, is_committed in enumerate([True, False, True, False]):
        sender.begin_transaction()
        produce(sender, topic, b"%d" % number)
        if is_committed:
            sender.commit_transaction(PATIENCE)
        else:
            sender.abort_transaction(PATIENCE)
    produce(producer(node), topic, b"end")
    assert [each.payload for each in client.heard(3)] == [b"0", b"2", b"end"]
    client.close()


def test_both_ways_at_once_nothing_comes_twice(node: Node) -> None:
    topic = topic_of(node)
    client = listener(node, topic)
    sender = producer(node)
    for number in range(20):
        client.publish(topic, b"m%d" % number, number % 3)
        produce(sender, topic, b"k%d" % number)
    heard = [each.payload for each in client.heard(40)]
    for letter in (b"m", b"k"):
        mine = [each for each in heard if each.startswith(letter)]
        assert mine == [letter + b"%d" % number for number in range(20)]
    client.publish(topic, b"end", 1)
    assert client.heard(1)[0].payload == b"end"
    client.close()
    assert len(consumed(node, topic, 41)) == 41


# -------------------------------------------------------------------- a node that is killed


def test_who_is_away_gets_all_although_all_is_killed(tmp_path: Path) -> None:
    node = started(tmp_path)
    topics = [topic_of(node, 2) for _ in range(2)]
    session = Properties(session_expiry_interval=3_600)
    names = [name_on(core, "away") for core in (0, 1)]
    for name in names:
        with Wire(node, name, properties=session) as client:
            assert [client.subscribe(topic, 1) for topic in topics] == [[1], [1]]
    sent = [b"%d" % number for number in range(300)]
    acknowledged: list[bytes] = []
    sender = producer(node, **{"enable.idempotence": True})

    def note(value: bytes) -> Callable[[object, object], None]:
        return lambda error, _: acknowledged.append(value) if error is None else None

    for value in sent[:150]:
        sender.produce(topics[len(value) % 2], value, key=value, on_delivery=note(value))
    until(lambda: (sender.poll(0.01), acknowledged)[1], "some are acknowledged")
    # A worker with what it has not handed on, then the node.
    worker = node.children()["worker 0"]
    os.kill(worker, signal.SIGKILL)
    until(lambda: node.children().get("worker 0", worker) != worker, "another worker is there")
    assert sender.flush(PATIENCE) == 0
    for value in sent[150:]:
        sender.produce(topics[len(value) % 2], value, key=value, on_delivery=note(value))
    until(lambda: (sender.poll(0.01), len(acknowledged) > 150)[1], "more are acknowledged")
    node.close()
    promised = set(acknowledged)
    sender.purge()
    node = started(tmp_path)
    for name in names:
        heard: list[bytes] = []
        with Wire(node, name, properties=session, clean=False) as client:
            while promised - set(heard):
                heard.append(client.message().payload)
        assert promised <= set(heard) <= set(sent)
    assert [event for event in node.events() if event["level"] == "error"] == []
    node.close()
