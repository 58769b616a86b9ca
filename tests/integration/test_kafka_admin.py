"""Topics and their settings by the clients of administrators of Kafka, and what they lead to."""

import asyncio
import itertools
import json
import logging
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin import NewTopic as AioTopic
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.cimpl import NewPartitions, NewTopic
from kafka.admin import KafkaAdminClient
from kafka.admin import NewTopic as PythonTopic

from robustmq.mqtt.reasons import Reason
from tests.integration.supervised import Node, until
from tests.integration.wire_client import Client

PATIENCE = 60.0
TAKEN = (Reason.SUCCESS, Reason.NO_MATCHING_SUBSCRIBERS)
SCENARIO = Path(__file__).parent / "js" / "kafka_admin.mjs"
SETTINGS = ("storage.retain_interval_ms=50", "storage.compact_records=1")
_names = itertools.count()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = started(tmp_path_factory.mktemp("kafka") / "data", 2)
    yield node
    ended = node.seen("process ended")
    node.close()
    assert not ended


def started(data: Path, workers: int) -> Node:
    module = "robustmq.cli.supervisor"
    return Node(data, module=module, workers=workers, settings=SETTINGS).ready()


def server(node: Node) -> str:
    host, port = node.address("kafka_tcp")
    return f"{host}:{port}"


def quiet(node: Node, **settings: object) -> dict[str, Any]:
    logger = logging.getLogger("quiet")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    return {"bootstrap.servers": server(node), "logger": logger, **settings}


def name() -> str:
    return f"topic-{next(_names)}"


def results(futures: dict[Any, Any]) -> list[Any]:
    return [future.result(PATIENCE) for future in futures.values()]


@contextmanager
def administrator(node: Node) -> Iterator[AdminClient]:
    """A client that lives until its requests are answered."""
    client = AdminClient(quiet(node))
    yield client
    client.poll(0)


def created(node: Node, partitions: int = 1, **config: str) -> str:
    topic = name()
    settings = {key.replace("_", "."): value for key, value in config.items()}
    with administrator(node) as admin:
        results(admin.create_topics([NewTopic(topic, partitions, config=settings)]))
    return topic


def set_for(node: Node, topic: str, **config: str) -> None:
    entries = [
        ConfigEntry(key.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for key, value in config.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    with administrator(node) as admin:
        results(admin.incremental_alter_configs([resource]))


def produced(node: Node, topic: str, values: list[bytes], **options: object) -> list[object]:
    """Produce one by one, each a batch of its own; what became of each."""
    producer = Producer(quiet(node, **{"linger.ms": 0, "message.max.bytes": 10_000_000}))
    outcomes: list[object] = []

    def answered(error: KafkaError | None, message: "Message[bytes, bytes]") -> None:
        outcomes.append(message.timestamp() if error is None else error.name())

    for value in values:
        producer.produce(topic, value, on_delivery=answered, **options)  # type: ignore[arg-type]
        producer.flush(PATIENCE)
    return outcomes


def bounds(node: Node, topic: str, partition: int = 0) -> tuple[int, int]:
    consumer = Consumer(quiet(node, **{"group.id": "g"}))
    try:
        found = consumer.get_watermark_offsets(TopicPartition(topic, partition), PATIENCE)
        assert found is not None
        return found
    finally:
        consumer.close()


def values_of(node: Node, topic: str, partitions: int = 1) -> list[bytes]:
    """All that is there now."""
    settings = {"group.id": "g", "enable.partition.eof": True}
    consumer = Consumer(quiet(node, **settings))
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    found: list[bytes] = []
    ended: set[int | None] = set()

    def has_all() -> bool:
        message = consumer.poll(0.1)
        if message is not None:
            error = message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
            elif error is None:
                found.append(message.value() or b"")
        return len(ended) == partitions

    until(has_all, "everything is read", PATIENCE)
    consumer.close()
    return found


# ---------------------------------------------------------------------- clients


def test_confluent_kafka_administers(node: Node) -> None:
    admin = AdminClient(quiet(node))
    topic = created(node, 2, retention_ms="60000")
    results(admin.create_partitions([NewPartitions(topic, 4)]))
    described = admin.list_topics(timeout=PATIENCE).topics[topic]
    assert [each.leader for each in described.partitions.values()] == [1] * 4
    resource = ConfigResource(ResourceType.TOPIC, topic)
    (configs,) = results(admin.describe_configs([resource]))
    assert configs["retention.ms"].value == "60000"
    binding = AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        "User:alice",
        "*",
        AclOperation.READ,
        AclPermissionType.ALLOW,
    )
    every = AclBindingFilter(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.ANY,
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    results(admin.create_acls([binding]))
    assert admin.describe_acls(every).result(PATIENCE) == [binding]
    # A topic that has ACLs is for those alone whom they allow, on every core a moment later.
    until(lambda: topic not in admin.list_topics(timeout=PATIENCE).topics, "hidden", PATIENCE)
    assert results(admin.delete_acls([every])) == [[binding]]
    until(lambda: topic in admin.list_topics(timeout=PATIENCE).topics, "shown", PATIENCE)
    results(admin.delete_topics([topic]))
    until(lambda: topic not in admin.list_topics(timeout=PATIENCE).topics, "gone", PATIENCE)


def test_acls_hold_for_mqtt_too(node: Node) -> None:
    topic = name()
    binding = AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.PREFIXED,
        "User:alice",
        "*",
        AclOperation.ALL,
        AclPermissionType.ALLOW,
    )
    with administrator(node) as admin, Client(node, "mqtt") as client:
        assert client.publish(topic, b"x", 1) in TAKEN
        results(admin.create_acls([binding]))
        # The core of this client hears of it a moment later, and its route is decided anew.
        denied = partial(client.publish, topic, b"x", 1)
        until(lambda: denied() == Reason.NOT_AUTHORIZED, "it is denied", PATIENCE)
        assert client.subscribe(topic + "/#") == [Reason.NOT_AUTHORIZED]
        everything = AclBindingFilter(
            ResourceType.TOPIC,
            topic,
            ResourcePatternType.PREFIXED,
            None,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        assert results(admin.delete_acls([everything])) == [[binding]]
        until(lambda: denied() in TAKEN, "it is taken again", PATIENCE)


def room(said: dict[str, Any]) -> tuple[int, int]:
    """The size of a broker's disk, and what is free of it."""
    (directory,) = said["log_dirs"]
    return directory["total_bytes"], directory["usable_bytes"]


def test_kafka_python_administers(node: Node, tmp_path: Path) -> None:
    admin = KafkaAdminClient(bootstrap_servers=[server(node)])
    try:
        topic = name()
        admin.create_topics([PythonTopic(topic, 2, 1)])
        assert topic in admin.list_topics()
        (described,) = admin.describe_topics([topic])
        assert len(described["partitions"]) == 2
        assert admin.describe_cluster()["brokers"]
        (said,) = {*map(room, admin.describe_log_dirs())}
        disk = shutil.disk_usage(tmp_path)
        assert said[0] == disk.total
        assert abs(said[1] - disk.free) < disk.total / 10
        admin.delete_topics([topic])
        until(lambda: topic not in admin.list_topics(), "gone", PATIENCE)
    finally:
        admin.close()


def test_aiokafka_administers(node: Node) -> None:
    async def administer() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=server(node))
        await admin.start()
        try:
            topic = name()
            made = await admin.create_topics([AioTopic(topic, 2, 1)])
            assert [code for _, code, *_ in made.topic_errors] == [0]
            (described,) = await admin.describe_topics([topic])
            assert len(described["partitions"]) == 2
            gone = await admin.delete_topics([topic])
            assert [code for _, code in gone.topic_error_codes] == [0]
        finally:
            await admin.close()

    asyncio.run(administer())


def test_kafkajs_administers(node: Node) -> None:
    command = ["node", str(SCENARIO), server(node), name()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stdout.strip() == "done", done.stderr


# ---------------------------------------------------------------------- what takes effect


def test_the_largest_message_and_the_time_of_append_are_as_set(node: Node) -> None:
    topic = created(node, max_message_bytes="2000")
    assert produced(node, topic, [b"x" * 5_000]) == ["MSG_SIZE_TOO_LARGE"]
    set_for(node, topic, max_message_bytes="100000", message_timestamp_type="LogAppendTime")
    timestamps: list[object] = []

    def is_stamped() -> bool:
        timestamps[:] = produced(node, topic, [b"x" * 5_000], timestamp=12_345)
        return isinstance(timestamps[0], tuple) and timestamps[0][1] != 12_345

    # The core that leads the partition hears of the change a moment later.
    until(is_stamped, "it is taken and stamped", PATIENCE)


def test_retention_drops_what_is_old_or_too_much(node: Node) -> None:
    by_size = created(node, segment_bytes="1024", retention_bytes="2048")
    by_age = created(node, segment_bytes="1024")
    for topic in (by_size, by_age):
        produced(node, topic, [b"%d" % number + b"x" * 300 for number in range(20)])
    until(lambda: bounds(node, by_size)[0] > 5, "what is too much is gone", PATIENCE)
    assert bounds(node, by_age) == (0, 20)
    set_for(node, by_age, retention_ms="1")
    until(lambda: bounds(node, by_age)[0] > 15, "what is old is gone", PATIENCE)


def test_compaction_keeps_the_latest_of_each_key(node: Node) -> None:
    topic = created(node, segment_bytes="1024")
    produced(node, topic, [b"%d" % number + b"x" * 300 for number in range(30)], key=b"k")
    assert len(values_of(node, topic)) == 30
    set_for(node, topic, cleanup_policy="compact")
    until(lambda: len(values_of(node, topic)) < 10, "it is compacted", PATIENCE)
    assert values_of(node, topic)[-1].startswith(b"29x")
    assert bounds(node, topic)[1] == 30


def test_a_topic_stays_what_it_is_with_other_workers(tmp_path: Path) -> None:
    first = started(tmp_path / "data", 2)
    topic = created(first, 5, segment_bytes="1024", retention_ms="-1")
    values = [b"%d" % number for number in range(5)]
    for partition, value in enumerate(values):
        produced(first, topic, [value], partition=partition)
    topic_id = detail(first, topic)["topic_info"]["topic_id"]
    first.send(signal.SIGTERM)
    first.wait()
    first.close()
    second = started(tmp_path / "data", 3)
    try:
        found = detail(second, topic)
        assert found["topic_info"]["topic_id"] == topic_id
        assert found["config"]["segment.bytes"] == "1024"
        assert len({each["core"] for each in found["partitions"]}) == 3
        assert sorted(values_of(second, topic, 5)) == values
        with administrator(second) as admin:
            results(admin.delete_topics([topic]))
            results(admin.create_topics([NewTopic(topic, 5)]))
        until(lambda: bounds(second, topic) == (0, 0), "it begins anew", PATIENCE)
    finally:
        second.close()


def detail(node: Node, topic: str) -> dict[str, Any]:
    status, text = node.get(f"/api/cluster/topic/detail?topic_name={topic}")
    assert status == 200, text
    found: dict[str, Any] = json.loads(text)["data"]
    return found
