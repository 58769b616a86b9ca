"""Produce, fetch and offsets by real clients of Kafka: two workers, twelve partitions."""

import asyncio
import itertools
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import kafka
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as AioPartition
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic

from tests.integration.supervised import Node

PATIENCE: Final = 60.0
PARTITIONS: Final = 12
CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
SCENARIO: Final = Path(__file__).parent / "js" / "kafka.mjs"

_numbers = itertools.count()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    data = tmp_path_factory.mktemp("kafka") / "data"
    node = Node(data, module="robustmq.cli.supervisor")
    yield node.ready()
    ended = node.seen("process ended")
    node.close()
    assert not ended


@pytest.fixture(scope="module")
def address(node: Node) -> str:
    host, port = node.address("kafka_tcp")
    return f"{host}:{port}"


@pytest.fixture(scope="module")
def admin(address: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": address})


@pytest.fixture
def topic(admin: AdminClient) -> str:
    return made(admin, PARTITIONS)


def made(admin: AdminClient, partitions: int, **settings: str) -> str:
    """Make a topic, and return its name."""
    name = f"topic-{next(_numbers)}"
    new = NewTopic(name, partitions, 1, config=settings)
    admin.create_topics([new])[name].result(PATIENCE)
    return name


def producer(address: str, **settings: Any) -> Producer:  # noqa: ANN401
    named = {name.replace("_", "."): value for name, value in settings.items()}
    return Producer({"bootstrap.servers": address, **named})


def produce(
    source: Producer, topic: str, values: list[bytes], partitions: int = PARTITIONS
) -> list[KafkaError]:
    """Produce to one partition after the other; returns what went wrong."""
    errors: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: object) -> None:
        if error is not None:
            errors.append(error)

    for number, value in enumerate(values):
        source.produce(topic, value, partition=number % partitions, on_delivery=delivered)
    assert source.flush(PATIENCE) == 0
    return errors


def read(
    address: str, topic: str, count: int, partitions: int = PARTITIONS, **settings: str
) -> dict[int, list[bytes]]:
    """Read so many records with confluent-kafka, by partition."""
    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": "g", "enable.auto.commit": False, **settings}
    )
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    found: dict[int, list[bytes]] = {number: [] for number in range(partitions)}
    begin = time.monotonic()
    while sum(map(len, found.values())) < count and time.monotonic() - begin < PATIENCE:
        for message in consumer.consume(500, 0.2):
            error = message.error()
            assert error is None, error
            partition, value = message.partition(), message.value()
            assert partition is not None
            found[partition].append(value or b"")
    consumer.close()
    return found


def dealt(values: list[bytes], partitions: int = PARTITIONS) -> dict[int, list[bytes]]:
    return {number: values[number::partitions] for number in range(partitions)}


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_comes_back_as_it_was(address: str, topic: str, codec: str) -> None:
    values = [b"%d %s" % (number, b"x" * 200) for number in range(600)]
    source = producer(address, compression_type=codec, linger_ms=20)
    assert not produce(source, topic, values)
    assert read(address, topic, len(values)) == dealt(values)


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_every_acknowledgement(address: str, topic: str, acks: str) -> None:
    values = [b"%d" % number for number in range(120)]
    assert not produce(producer(address, acks=acks), topic, values)
    assert read(address, topic, len(values)) == dealt(values)


def test_an_idempotent_producer(address: str, topic: str) -> None:
    source = producer(address, enable_idempotence=True, linger_ms=1)
    values = [b"%d" % number for number in range(2_400)]
    for part in range(4):
        assert not produce(source, topic, values[part * 600 : part * 600 + 600])
    assert read(address, topic, len(values)) == dealt(values)


def test_a_record_that_is_too_large_is_refused_and_the_rest_is_not(
    address: str, admin: AdminClient
) -> None:
    name = made(admin, 1, **{"max.message.bytes": "2000"})
    assert not produce(producer(address), name, [b"small"], 1)
    errors = produce(producer(address), name, [bytes(5_000)], 1)
    assert [error.code() for error in errors] == [KafkaError.MSG_SIZE_TOO_LARGE]
    assert not produce(producer(address), name, [b"more"], 1)
    assert read(address, name, 2, 1) == {0: [b"small", b"more"]}


def test_a_reader_that_waits_hears_of_what_comes(address: str, topic: str) -> None:
    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": "g", "fetch.wait.max.ms": 50_000}
    )
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    assert consumer.poll(0.5) is None
    for number in (0, 1, 7):
        begin = time.monotonic()
        producer(address).produce(topic, b"late", partition=number)
        source = producer(address)
        source.produce(topic, b"later", partition=number)
        source.flush(PATIENCE)
        message = consumer.poll(PATIENCE)
        assert message is not None
        assert message.partition() == number
        assert time.monotonic() - begin < 40, "it came only when its time was over"
        while consumer.poll(0.2) is not None:
            pass
    consumer.close()


def test_an_offset_that_there_is_not_is_out_of_range(address: str, topic: str) -> None:
    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": "g", "auto.offset.reset": "error"}
    )
    consumer.assign([TopicPartition(topic, 0, 5)])
    message = consumer.poll(PATIENCE)
    assert message is not None
    error = message.error()
    assert error is not None
    assert error.code() == KafkaError._AUTO_OFFSET_RESET
    consumer.close()


def test_offsets_by_time(address: str, admin: AdminClient, topic: str) -> None:
    source = producer(address)
    # Of the present: what is older than retention.ms is trimmed.
    first_ms = int(time.time() * 1_000)
    for number in range(30):
        source.produce(topic, b"x", partition=number % 3, timestamp=first_ms + number)
    source.flush(PATIENCE)

    def offsets(spec: OffsetSpec) -> list[int]:
        asked = {TopicPartition(topic, number): spec for number in range(4)}
        found = admin.list_offsets(asked)
        return [found[each].result(PATIENCE).offset for each in asked]

    make: Any = OffsetSpec
    assert offsets(make.earliest()) == [0, 0, 0, 0]
    assert offsets(make.latest()) == [10, 10, 10, 0]
    assert offsets(make.for_timestamp(first_ms + 14)) == [5, 5, 4, -1]
    assert offsets(make.for_timestamp(first_ms + 1_000_000)) == [-1, -1, -1, -1]
    assert offsets(make.max_timestamp()) == [9, 9, 9, -1]


def test_records_are_deleted_up_to_an_offset(address: str, admin: AdminClient, topic: str) -> None:
    assert not produce(producer(address), topic, [b"%d" % number for number in range(36)])
    asked = [TopicPartition(topic, 0, 2), TopicPartition(topic, 1, -1)]
    found = admin.delete_records(asked)
    assert [found[each].result(PATIENCE).low_watermark for each in asked] == [2, 3]
    future = admin.delete_records([TopicPartition(topic, 2, 99)])
    with pytest.raises(KafkaException) as refused:
        next(iter(future.values())).result(PATIENCE)
    assert refused.value.args[0].code() == KafkaError.OFFSET_OUT_OF_RANGE
    consumer = Consumer({"bootstrap.servers": address, "group.id": "g"})
    bounds = [consumer.get_watermark_offsets(TopicPartition(topic, n), PATIENCE) for n in range(3)]
    assert bounds == [(2, 3), (3, 3), (0, 3)]
    consumer.close()


def test_kafka_python_reads_in_a_session(address: str, topic: str) -> None:
    source = kafka.KafkaProducer(bootstrap_servers=address, acks="all", compression_type="lz4")
    consumer = kafka.KafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest")
    partitions = [kafka.TopicPartition(topic, number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    found: list[tuple[int, int, bytes]] = []
    expected = []
    for turn in range(5):
        for number in range(turn, PARTITIONS, 3):
            value = b"%d %d" % (turn, number)
            sent = source.send(topic, value, partition=number, headers=[("h", b"v")])
            expected.append((number, sent.get(PATIENCE).offset, value))
        begin = time.monotonic()
        while len(found) < len(expected) and time.monotonic() - begin < PATIENCE:
            for records in consumer.poll(timeout_ms=200).values():
                found += [(record.partition, record.offset, record.value) for record in records]
    assert sorted(found) == sorted(expected)
    ends = consumer.end_offsets(partitions)
    assert sum(ends.values()) == len(expected)
    times = consumer.offsets_for_times(dict.fromkeys(partitions[:2], 1))
    assert [times[each].offset for each in partitions[:2]] == [0, 0]
    source.close()
    consumer.close()


async def _aiokafka(address: str, topic: str) -> None:
    for codec in (None, "gzip", "snappy", "lz4", "zstd"):
        source = AIOKafkaProducer(
            bootstrap_servers=address, compression_type=codec, enable_idempotence=True
        )
        await source.start()
        for number in range(24):
            partition = number % PARTITIONS
            await source.send_and_wait(topic, f"{codec} {number}".encode(), partition=partition)
        await source.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest")
    await consumer.start()
    partitions = [AioPartition(topic, number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    await consumer.seek_to_beginning()
    values: list[bytes] = []
    while len(values) < 120:
        found = await asyncio.wait_for(consumer.getmany(timeout_ms=500), PATIENCE)
        values += [record.value for records in found.values() for record in records]
    assert len({*values}) == 120
    assert sum((await consumer.end_offsets(partitions)).values()) == 120
    await consumer.stop()


def test_aiokafka(address: str, topic: str) -> None:
    asyncio.run(asyncio.wait_for(_aiokafka(address, topic), 3 * PATIENCE))


@pytest.mark.parametrize("codec", CODECS)
def test_kcat(address: str, topic: str, codec: str) -> None:
    def kcat(*words: str, given: bytes = b"") -> bytes:
        command = ["kcat", "-b", address, "-t", topic, *words]
        done = subprocess.run(
            command, input=given, capture_output=True, check=True, timeout=PATIENCE
        )
        return done.stdout

    lines = b"".join(b"%d %s\n" % (number, b"y" * 100) for number in range(50))
    kcat("-P", "-p", "5", "-z", codec, given=lines)
    assert kcat("-C", "-p", "5", "-o", "beginning", "-e", "-q") == lines
    assert kcat("-C", "-p", "5", "-o", "-2", "-e", "-q") == b"".join(lines.splitlines(True)[-2:])


def test_kafkajs(address: str) -> None:
    done = subprocess.run(
        ["node", str(SCENARIO), address, f"js-{next(_numbers)}"],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.stdout == "done\n", done.stdout + done.stderr
