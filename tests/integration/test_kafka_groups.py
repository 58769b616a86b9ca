"""Consumer groups of Kafka with real clients, under kill -9 of workers and of everything."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import aiokafka
import confluent_kafka
import confluent_kafka.admin
import kafka
import pytest

from robustmq.kafka.coordinator_keys import group_key
from robustmq.message.tenancy import DEFAULT_TENANT
from robustmq.message.topic import stable_hash
from tests.integration.kafka_members import (
    PATIENCE_SECONDS,
    Member,
    make_topic,
    produce,
    read,
    server,
    shared,
)
from tests.integration.supervised import Node, until

SCENARIO: Final = Path(__file__).parent / "js" / "kafka_group.mjs"
WORKERS: Final = 2
PARTITIONS: Final = 4
SETTINGS: Final = (
    "kafka_runtime.groups.initial_rebalance_delay_ms=100",
    "kafka_runtime.groups.consumer_heartbeat_interval_ms=100",
)
VALUES: Final = [f"v{index}" for index in range(40)]


def make(data: Path) -> Node:
    return Node(data, workers=WORKERS, module="robustmq.cli.supervisor", settings=SETTINGS).ready()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = make(tmp_path_factory.mktemp("groups") / "data")
    yield node
    ended = node.seen("process ended")
    node.close()
    assert not ended


@pytest.fixture(scope="module")
def topic(node: Node) -> str:
    make_topic(server(node), "t", PARTITIONS)
    produce(server(node), "t", VALUES, PARTITIONS)
    return "t"


@pytest.mark.parametrize(
    "settings",
    [
        {"partition.assignment.strategy": "range"},
        {"partition.assignment.strategy": "roundrobin"},
        {"partition.assignment.strategy": "cooperative-sticky"},
        {"group.protocol": "consumer"},
        {"group.protocol": "consumer", "group.remote.assignor": "range"},
    ],
    ids=lambda settings: "-".join(settings.values()),
)
def test_a_group_of_confluent_kafka(node: Node, topic: str, settings: dict[str, str]) -> None:
    group = "-".join(settings.values())
    with Member(server(node), group, topic, settings) as first:
        read([first], VALUES)
        with Member(server(node), group, topic, settings) as second:
            shared([first, second], PARTITIONS)
            assert second.read == []
        shared([first], PARTITIONS)
    assert sorted(first.read) == sorted(VALUES)
    assert committed(server(node), group, topic) == dict.fromkeys(range(PARTITIONS), 10)
    with Member(server(node), group, topic, settings) as third:
        shared([third], PARTITIONS)
    assert third.read == []


def test_a_static_member_of_confluent_kafka_comes_back_to_its_partitions(
    node: Node, topic: str
) -> None:
    names = {"group.instance.id": "one", "partition.assignment.strategy": "range"}
    other = {"group.instance.id": "two", "partition.assignment.strategy": "range"}
    with Member(server(node), "static", topic, other) as second:
        first = Member(server(node), "static", topic, names)
        shared([first, second], PARTITIONS)
        owned, assigned = set(first.partitions), second.assigned
        first.close()
        with Member(server(node), "static", topic, names) as first:
            shared([first, second], PARTITIONS)
            assert first.partitions == owned
        assert second.assigned == assigned


def test_groups_are_listed_described_and_removed(node: Node, topic: str) -> None:
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": server(node)})
    names = [f"listed{index}" for index in range(4)]
    members = [Member(server(node), name, topic) for name in names[:2]]
    members.append(Member(server(node), names[2], topic, {"group.protocol": "consumer"}))
    for member in members:
        read([member], VALUES)
    listed = admin.list_consumer_groups(request_timeout=PATIENCE_SECONDS).result()
    found = {each.group_id: each.state.name for each in listed.valid}
    assert {name: found.get(name) for name in names} == {
        **dict.fromkeys(names[:3], "STABLE"),
        names[3]: None,
    }
    described = admin.describe_consumer_groups(names[:3], request_timeout=PATIENCE_SECONDS)
    for name in names[:3]:
        group = described[name].result()
        (each,) = group.members
        assert len(each.assignment.topic_partitions) == PARTITIONS
    removed = admin.delete_consumer_groups(names[:1])[names[0]]
    with pytest.raises(confluent_kafka.KafkaException):
        removed.result(PATIENCE_SECONDS)
    for member in members:
        member.close()
    for name in names[:3]:
        admin.delete_consumer_groups([name])[name].result(PATIENCE_SECONDS)


def test_a_group_of_aiokafka(node: Node, topic: str) -> None:
    async def run() -> list[str]:
        values: list[str] = []
        consumers = [
            aiokafka.AIOKafkaConsumer(
                topic,
                bootstrap_servers=server(node),
                group_id="aiokafka",
                auto_offset_reset="earliest",
                enable_auto_commit=False,
            )
            for _ in range(2)
        ]
        await asyncio.gather(*(consumer.start() for consumer in consumers))

        async def take(consumer: aiokafka.AIOKafkaConsumer) -> None:
            async for message in consumer:
                values.append(message.value.decode())
                await consumer.commit()

        tasks = [asyncio.create_task(take(consumer)) for consumer in consumers]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not set(VALUES) <= set(values):
                await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*(consumer.stop() for consumer in consumers))
        return values

    assert set(asyncio.run(run())) == set(VALUES)


def test_a_group_of_kafka_python(node: Node, topic: str) -> None:
    values: set[str] = set()

    def consume() -> kafka.KafkaConsumer:
        return kafka.KafkaConsumer(
            topic,
            bootstrap_servers=server(node),
            group_id="kafka-python",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )

    consumer = consume()

    def take() -> bool:
        for messages in consumer.poll(timeout_ms=200).values():
            values.update(message.value.decode() for message in messages)
        return values >= set(VALUES)

    until(take, "everything is read", PATIENCE_SECONDS)
    consumer.commit()
    consumer.close()
    consumer = consume()
    until(lambda: consumer.poll(timeout_ms=100) or consumer.assignment(), "partitions", 60)
    positions = [consumer.committed(each) for each in consumer.assignment()]
    consumer.close()
    assert positions == [len(VALUES) // PARTITIONS] * PARTITIONS


def test_a_group_of_kafkajs(node: Node, topic: str) -> None:
    done = subprocess.run(
        ["node", str(SCENARIO), server(node), topic, str(len(VALUES))],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def coordinating(group: str) -> int:
    """The core that coordinates a group of a node that is alone."""
    return stable_hash(group_key(DEFAULT_TENANT, group).encode()) % WORKERS


def commit(address: str, group: str, topic: str, offsets: dict[int, int]) -> None:
    """Commit as somebody who is no member."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": address, "group.id": group})
    wanted = [confluent_kafka.TopicPartition(topic, each, at) for each, at in offsets.items()]
    consumer.commit(offsets=wanted, asynchronous=False)
    consumer.close()


def committed(address: str, group: str, topic: str) -> dict[int, int]:
    consumer = confluent_kafka.Consumer({"bootstrap.servers": address, "group.id": group})
    asked = [confluent_kafka.TopicPartition(topic, number) for number in range(PARTITIONS)]
    found = consumer.committed(asked, timeout=PATIENCE_SECONDS)
    consumer.close()
    return {each.partition: each.offset for each in found if each.offset >= 0}


def test_workers_are_killed_without_a_rebalance_and_everything_without_losing_offsets(
    tmp_path: Path,
) -> None:
    node = make(tmp_path / "data")
    address = server(node)
    make_topic(address, "t", PARTITIONS)
    produce(address, "t", VALUES, PARTITIONS)
    commit(address, "nobody", "t", {0: 7, 3: 9})
    groups = ("classic", "consumer")
    members = {
        group: [Member(address, group, "t", {"group.protocol": group}) for _ in range(2)]
        for group in groups
    }
    for some in members.values():
        shared(some, PARTITIONS)
        read(some, VALUES)
    everybody = [member for some in members.values() for member in some]
    before = [(each.assigned, set(each.partitions)) for each in everybody]
    for core in {coordinating(group) for group in groups}:
        os.kill(node.children()[f"worker {core}"], signal.SIGKILL)
    more = [f"w{index}" for index in range(40)]
    produce(address, "t", more, PARTITIONS)
    for some in members.values():
        read(some, more)
    assert [(each.assigned, each.partitions) for each in everybody] == before
    whole = dict.fromkeys(range(PARTITIONS), 20)

    def is_committed(address: str, group: str) -> bool:
        return committed(address, group, "t") == whole

    for group in groups:
        until(partial(is_committed, address, group), "what was read is committed")
    node.close()
    for member in everybody:
        member.end()
    node = make(tmp_path / "data")
    assert committed(server(node), "nobody", "t") == {0: 7, 3: 9}
    for group in groups:
        assert committed(server(node), group, "t") == whole
    node.close()
