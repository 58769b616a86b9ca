"""A consumer group of three nodes whose coordinator's node is killed."""

from pathlib import Path

import confluent_kafka.admin

from tests.integration.cluster import cluster
from tests.integration.kafka_members import (
    PATIENCE_SECONDS,
    Member,
    make_topic,
    produce,
    read,
    server,
)
from tests.integration.supervised import until

SETTINGS = ("kafka_runtime.groups.initial_rebalance_delay_ms=0",)


def leader_of(admin: confluent_kafka.admin.AdminClient, topic: str) -> int:
    """The node that leads the one partition of a topic; 0: nobody does yet."""
    found = admin.list_topics(topic, timeout=PATIENCE_SECONDS).topics[topic].partitions
    return found[0].leader if found and not found[0].error else 0


def test_a_group_goes_on_with_its_offsets_when_its_coordinator_is_lost(tmp_path: Path) -> None:
    with cluster(tmp_path, settings=SETTINGS) as nodes:
        nodes.start()
        addresses = ",".join(server(nodes.nodes[number]) for number in nodes.first)
        admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": addresses})
        make_topic(addresses, "t", 1)
        until(lambda: leader_of(admin, "t") > 0, "somebody leads", PATIENCE_SECONDS)
        leader = leader_of(admin, "t")
        first = [f"v{index}" for index in range(20)]
        produce(addresses, "t", first, 1)

        def coordinator_of(group: str) -> int:
            described = admin.describe_consumer_groups([group], request_timeout=PATIENCE_SECONDS)
            number: int = described[group].result().coordinator.id
            return number

        group = next(name for name in map(str, range(100)) if coordinator_of(name) != leader)
        member = Member(addresses, group, "t")
        read([member], first)
        assigned = member.assigned
        nodes.kill(coordinator_of(group))
        more = [f"w{index}" for index in range(20)]
        produce(addresses, "t", more, 1)
        read([member], more)
        until(lambda: committed(addresses, group) == 40, "all is committed", PATIENCE_SECONDS)
        assert member.assigned == assigned
        assert sorted(member.read) == sorted(first + more)
        member.close()


def committed(addresses: str, group: str) -> int:
    """How far a group has read."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": addresses, "group.id": group})
    try:
        (found,) = consumer.committed([confluent_kafka.TopicPartition("t", 0)], timeout=5)
    except confluent_kafka.KafkaException:
        return -1
    finally:
        consumer.close()
    offset: int = found.offset
    return offset
