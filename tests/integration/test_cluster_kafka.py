"""Topics of a cluster: their partitions are spread over its nodes, and clients find them there."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from robustmq.message.crossing import partition_of
from robustmq.mqtt.packets import Properties
from tests.integration.cluster import Cluster, cluster
from tests.integration.supervised import Node, until
from tests.integration.wire_client import Client

PATIENCE = 60.0
PARTITIONS = range(6)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as nodes:
        yield nodes.start()


def server(node: Node) -> str:
    host, port = node.address("kafka_tcp")
    return f"{host}:{port}"


def leaders(node: Node) -> dict[int, int]:
    """Who leads each partition, as a node says by HTTP; -1: nobody."""
    status, text = node.get("/api/cluster/topic/detail?topic_name=orders")
    if status != 200:
        return {}
    found = json.loads(text)["data"]["partitions"]
    return {each["partition"]: -1 if each["leader"] is None else each["leader"] for each in found}


def is_led(node: Node) -> bool:
    known = leaders(node)
    return bool(known) and -1 not in known.values()


def produced(address: str, numbers: set[int]) -> set[int]:
    """Produce to these partitions by a client that knows one node; those that were acknowledged."""
    producer = Producer({"bootstrap.servers": address, "acks": "all", "log_level": 0})
    done: set[int] = set()

    def answered(error: KafkaError | None, message: "Message[bytes, bytes]") -> None:
        number = message.partition()
        if error is None and number is not None:
            done.add(number)

    for number in numbers:
        producer.produce(
            "orders",
            b"%d" % number,
            partition=number,
            on_delivery=answered,
        )
    producer.flush(PATIENCE)
    return done


def consumed(address: str, numbers: set[int], count: int) -> set[bytes]:
    consumer = Consumer({"bootstrap.servers": address, "group.id": "g", "log_level": 0})
    consumer.assign([TopicPartition("orders", number, 0) for number in numbers])
    values: set[bytes] = set()

    def has_all() -> bool:
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            values.add(message.value() or b"")
        return len(values) == count

    until(has_all, "everything is read", PATIENCE)
    consumer.close()
    return values


def published(node: Node) -> set[bytes]:
    """Publish by MQTT, once for each of some keys; those keys that a partition has taken."""
    keys = {b"key-%d" % number for number in range(30)}
    with Client(node, "publisher") as publisher:
        return {
            key
            for key in keys
            if not publisher.publish(
                "orders", key, 1, properties=Properties(user_properties=(("key", key.decode()),))
            )
        }


def test_partitions_are_spread_and_found_by_a_client_that_knows_one_node(three: Cluster) -> None:
    nodes = [three.nodes[number] for number in three.first]
    admin = AdminClient({"bootstrap.servers": server(nodes[1]), "log_level": 0})
    made = admin.create_topics([NewTopic("orders", len(PARTITIONS))])
    made["orders"].result(PATIENCE)
    for node in nodes:
        until(partial(is_led, node), "all partitions are led", PATIENCE)
    led = leaders(nodes[0])
    assert sorted(led.values()) == [1, 1, 2, 2, 3, 3]
    assert [leaders(node) for node in nodes] == [led] * 3
    everything = {*PARTITIONS}
    values = {b"%d" % number for number in PARTITIONS}
    with Client(nodes[0], "subscriber") as subscriber:
        subscriber.subscribe("orders", 1)
        assert produced(server(nodes[0]), everything) == everything
        assert {*subscriber.payloads(len(PARTITIONS))} == values
    assert consumed(server(nodes[2]), everything, len(PARTITIONS)) == values
    # What a node leads waits for it: the others go on.
    three.kill(3)
    until(lambda: set(leaders(nodes[0]).values()) == {-1, 1, 2}, "node 3 leads nothing", PATIENCE)
    rest = {number for number, node in led.items() if node != 3}
    assert produced(server(nodes[0]), rest) == rest
    kept = published(nodes[1])
    assert {partition_of(key, len(PARTITIONS)) for key in kept} == rest
    three.start(3)
    until(lambda: leaders(nodes[0]) == led, "node 3 leads again", PATIENCE)
    assert produced(server(nodes[0]), everything) == everything
    assert consumed(server(nodes[1]), everything, len(PARTITIONS) + len(kept)) == values | kept
