"""Transactions of Kafka's clients: all of one is read or nothing, whoever is killed in between."""

import asyncio
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerFenced
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as KafkaPlace

from tests.integration.supervised import Node, until

SCENARIO: Final = Path(__file__).parent / "js" / "transactions.mjs"
PATIENCE: Final = 60.0
RECORDS: Final = 40
PARTITIONS: Final = 4
SLICE: Final = 10
STAYING: Final = {"metadata.recovery.strategy": "none"}
"""librdkafka 2.16 forgets all brokers when it has lost its connections to them (KIP-899), and then
waits for ever to send the offsets of a transaction to one that it has forgotten."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    data = tmp_path_factory.mktemp("transactions") / "data"
    settings = ("kafka_runtime.groups.initial_rebalance_delay_ms=100",)
    node = Node(data, module="robustmq.cli.supervisor", settings=settings)
    yield node.ready()
    node.close()


class Site:
    """The node as clients see it, with topics of one test."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.address = "{}:{}".format(*node.address("kafka_tcp"))
        mark = uuid.uuid4().hex[:8]
        self.source, self.target = f"source-{mark}", f"target-{mark}"
        self.group, self.id = f"group-{mark}", f"id-{mark}"
        topics = [NewTopic(self.source, PARTITIONS), NewTopic(self.target, PARTITIONS)]
        admin = AdminClient({"bootstrap.servers": self.address})
        for made in admin.create_topics(topics, operation_timeout=PATIENCE).values():
            made.result(PATIENCE)

    def fill(self, count: int = RECORDS) -> list[bytes]:
        """Write records to the source; return their values."""
        values = [b"%d" % number for number in range(count)]
        producer = Producer({"bootstrap.servers": self.address, "enable.idempotence": True})
        for number, value in enumerate(values):
            producer.produce(self.source, value, partition=number % PARTITIONS)
        assert producer.flush(PATIENCE) == 0
        return values

    def producer(self, name: str | None = None, **settings: Any) -> Producer:  # noqa: ANN401
        """A transactional producer that has begun."""
        settings = {key.replace("_", "."): value for key, value in settings.items()}
        producer = Producer(
            {
                "bootstrap.servers": self.address,
                "transactional.id": name or self.id,
                **STAYING,
                **settings,
            }
        )
        producer.init_transactions(PATIENCE)
        return producer

    def consumer(self, **settings: Any) -> Consumer:  # noqa: ANN401
        """A consumer of the group that commits nothing by itself, and has joined."""
        settings = {key.replace("_", "."): value for key, value in settings.items()}
        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": self.group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                **STAYING,
                **settings,
            }
        )
        consumer.subscribe([self.source])
        return consumer

    def read(self, topic: str, isolation: str = "read_committed") -> list[bytes]:
        """All that somebody reads who begins now, up to where the topic ends for him."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": f"reader-{uuid.uuid4().hex}",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
                "isolation.level": isolation,
            }
        )
        consumer.assign([Place(topic, number, 0) for number in range(PARTITIONS)])
        values: list[bytes] = []
        ended: set[int] = set()
        while len(ended) < PARTITIONS:
            message = consumer.poll(PATIENCE)
            assert message is not None, "a topic has no end"
            error, partition, value = message.error(), message.partition(), message.value()
            assert partition is not None
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                ended.add(partition)
            elif value is not None:
                values.append(value)
        consumer.close()
        return values

    def committed(self) -> int:
        """How many records of the source the group has committed."""
        consumer = self.consumer()
        places = [Place(self.source, number) for number in range(PARTITIONS)]
        found = consumer.committed(places, PATIENCE)
        consumer.close()
        return sum(max(place.offset, 0) for place in found)

    def is_copied(self, values: list[bytes]) -> bool:
        """Whether the target has each record once; who reads more fails."""
        found = self.read(self.target)
        assert len(found) == len(set(found)), "something is there twice"
        assert set(found) <= {value + b"!" for value in values}
        return len(found) == len(values)


@pytest.fixture
def site(node: Node) -> Site:
    return Site(node)


class Copying:
    """Copies a topic to another with confluent-kafka, a slice in a transaction, until told."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.faults: list[str] = []
        self.count = 0
        self.is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def is_beyond(self, count: int) -> bool:
        """Whether more slices are copied."""
        return self.count > count

    def end(self) -> None:
        """No more."""
        self.is_over.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self.is_over.is_set():
            consumer = self._site.consumer(session_timeout_ms=6_000)
            try:
                producer = self._site.producer()
                while not self.is_over.is_set():
                    self._copy(consumer, producer)
            except KafkaException as error:
                # The application begins anew, as if it had been restarted.
                self.faults.append(str(error))
            finally:
                consumer.close()

    def _copy(self, consumer: Consumer, producer: Producer) -> None:
        messages = [_parts(each) for each in consumer.consume(SLICE, 0.2) if each.error() is None]
        if not messages:
            return
        producer.begin_transaction()
        try:
            after: dict[int, int] = {}
            for partition, offset, value in messages:
                producer.produce(self._site.target, value + b"!", partition=partition)
                after[partition] = offset + 1
            places = [Place(self._site.source, number, at) for number, at in after.items()]
            metadata = consumer.consumer_group_metadata()
            producer.send_offsets_to_transaction(places, metadata, PATIENCE)
            producer.commit_transaction(PATIENCE)
            self.count += 1
        except KafkaException as error:
            if not error.args[0].txn_requires_abort():
                raise
            self.faults.append(str(error))
            producer.abort_transaction(PATIENCE)
            for place in consumer.committed(consumer.assignment(), PATIENCE):
                consumer.seek(Place(place.topic, place.partition, max(place.offset, 0)))


def _parts(message: Message) -> tuple[int, int, bytes]:
    partition, offset, value = message.partition(), message.offset(), message.value()
    assert partition is not None
    assert offset is not None
    assert value is not None
    return partition, offset, value


def test_what_is_read_is_copied_once(site: Site) -> None:
    values = site.fill()
    copying = Copying(site)
    until(lambda: site.is_copied(values), "all is copied", PATIENCE)
    copying.end()
    assert site.committed() == len(values)
    assert not copying.faults


def test_nothing_is_copied_twice_when_workers_are_killed(site: Site) -> None:
    values = site.fill(400)
    copying = Copying(site)
    try:
        for index in (0, 1):
            until(partial(copying.is_beyond, copying.count + 1), "it goes on", PATIENCE)
            victim = site.node.children()[f"worker {index}"]
            os.kill(victim, signal.SIGKILL)
        until(lambda: site.is_copied(values), "all is copied", PATIENCE)
    finally:
        copying.end()
    assert site.committed() == len(values)
    ordered = [int(value[:-1]) for value in site.read(site.target)]
    for number in range(PARTITIONS):
        mine = [value for value in ordered if value % PARTITIONS == number]
        assert mine == sorted(mine)


def test_what_is_aborted_is_not_read(site: Site) -> None:
    producer = site.producer()
    for number in range(6):
        producer.begin_transaction()
        for partition in range(PARTITIONS):
            producer.produce(site.target, b"%d" % number, partition=partition)
        assert producer.flush(PATIENCE) == 0
        if number % 2:
            producer.abort_transaction(PATIENCE)
        else:
            producer.commit_transaction(PATIENCE)

    def committed() -> list[bytes]:
        return sorted(site.read(site.target))

    wanted = sorted([b"0", b"2", b"4"] * PARTITIONS)
    until(lambda: committed() == wanted, "what is committed is read", PATIENCE)
    assert len(site.read(site.target, "read_uncommitted")) == 6 * PARTITIONS


def test_a_producer_that_was_replaced_writes_nothing_more(site: Site) -> None:
    zombie = site.producer()
    zombie.begin_transaction()
    zombie.produce(site.target, b"zombie", partition=0)
    assert zombie.flush(PATIENCE) == 0
    heir = site.producer()
    with pytest.raises(KafkaException) as caught:
        zombie.commit_transaction(PATIENCE)
    assert caught.value.args[0].code() in {KafkaError._FENCED, KafkaError.PRODUCER_FENCED}
    heir.begin_transaction()
    heir.produce(site.target, b"heir", partition=0)
    heir.commit_transaction(PATIENCE)
    until(lambda: site.read(site.target) == [b"heir"], "the heir is read", PATIENCE)


def test_what_is_open_for_too_long_is_aborted(site: Site) -> None:
    producer = site.producer(transaction_timeout_ms=1_500)
    producer.begin_transaction()
    producer.produce(site.target, b"late", partition=0)
    assert producer.flush(PATIENCE) == 0
    other = site.producer(site.id + "-other")
    other.begin_transaction()
    other.produce(site.target, b"behind", partition=0)
    other.commit_transaction(PATIENCE)
    until(lambda: site.read(site.target) == [b"behind"], "nobody waits for ever", PATIENCE)
    with pytest.raises(KafkaException):
        producer.commit_transaction(PATIENCE)


def test_aiokafka_copies_and_hears_that_it_is_fenced(site: Site) -> None:
    values = site.fill()

    async def begun() -> AIOKafkaProducer:
        producer = AIOKafkaProducer(bootstrap_servers=site.address, transactional_id=site.id)
        await producer.start()
        return producer

    async def scenario() -> None:
        consumer = AIOKafkaConsumer(
            site.source,
            bootstrap_servers=site.address,
            group_id=site.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        await consumer.start()
        producer = await begun()
        left = len(values)
        while left:
            batches = await consumer.getmany(timeout_ms=500, max_records=SLICE)
            async with producer.transaction():
                after: dict[TopicPartition, int] = {}
                for place, messages in batches.items():
                    for message in messages:
                        value = message.value + b"!"
                        await producer.send(site.target, value, partition=place.partition)
                        left -= 1
                    after[place] = messages[-1].offset + 1
                if after:
                    await producer.send_offsets_to_transaction(after, site.group)
        heir = await begun()
        with pytest.raises(ProducerFenced):
            async with producer.transaction():
                await producer.send_and_wait(site.target, b"zombie", partition=0)
        for each in (heir, producer, consumer):
            await each.stop()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
    until(lambda: site.is_copied(values), "all is copied", PATIENCE)
    assert site.committed() == len(values)


def test_kafka_python_copies_and_lists(site: Site) -> None:
    values = site.fill()
    consumer = KafkaConsumer(
        site.source,
        bootstrap_servers=site.address,
        group_id=site.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    producer = KafkaProducer(bootstrap_servers=site.address, transactional_id=site.id)
    producer.init_transactions()
    left = len(values)
    while left:
        batches = consumer.poll(500, max_records=SLICE)
        if not batches:
            continue
        producer.begin_transaction()
        after: dict[KafkaPlace, OffsetAndMetadata] = {}
        for place, messages in batches.items():
            for message in messages:
                producer.send(site.target, message.value + b"!", partition=place.partition)
                left -= 1
            after[place] = OffsetAndMetadata(messages[-1].offset + 1, "", -1)
        producer.send_offsets_to_transaction(after, consumer.group_metadata())
        producer.commit_transaction()
    admin = KafkaAdminClient(bootstrap_servers=site.address)
    assert site.id in str(admin.list_transactions())
    assert site.id in str(admin.describe_transactions([site.id]))
    for each in (admin, producer, consumer):
        each.close()
    until(lambda: site.is_copied(values), "all is copied", PATIENCE)
    assert site.committed() == len(values)


def test_kafkajs_copies_and_aborts(site: Site) -> None:
    values = site.fill()
    arguments = (site.address, site.source, site.target, site.group, site.id, str(len(values)))
    run = subprocess.run(
        ["node", str(SCENARIO), *arguments],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    until(lambda: site.is_copied(values), "all is copied", PATIENCE)
    assert site.committed() == len(values)
