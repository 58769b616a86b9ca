"""Transactions of Kafka's clients: all of one is read or nothing, whoever is killed in between."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerFenced
from confluent_kafka import KafkaError, KafkaException
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as KafkaPlace

from tests.copying import PARTITIONS, PATIENCE, SLICE, Copying, Site
from tests.integration.supervised import Node, until

SCENARIO: Final = Path(__file__).parent / "js" / "transactions.mjs"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    data = tmp_path_factory.mktemp("transactions") / "data"
    settings = ("kafka_runtime.groups.initial_rebalance_delay_ms=100",)
    node = Node(data, module="robustmq.cli.supervisor", settings=settings)
    yield node.ready()
    node.close()


@pytest.fixture
def site(node: Node) -> Site:
    return Site(node.address("kafka_tcp"))


def test_what_is_read_is_copied_once(site: Site) -> None:
    values = site.fill()
    copying = Copying(site)
    until(lambda: site.is_copied(values), "all is copied", PATIENCE)
    copying.end()
    assert site.committed() == len(values)
    assert not copying.faults


@pytest.mark.timeout(400)
def test_nothing_is_copied_twice_when_workers_are_killed(node: Node, site: Site) -> None:
    values = site.fill(200)
    copying = Copying(site)
    try:
        for index in (0, 1):
            until(partial(copying.is_beyond, copying.count + 1), "it goes on", 2 * PATIENCE)
            victim = node.children()[f"worker {index}"]
            os.kill(victim, signal.SIGKILL)
        until(lambda: site.is_copied(values), "all is copied", 2 * PATIENCE)
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
