"""Connections of Kafka clients to a node of two workers, each of which is a broker of its own."""

import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Final

import pytest
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient

from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.connection import ApiVersionsRequest
from robustmq.kafka.messages.groups import HeartbeatRequest
from robustmq.kafka.messages.metadata import MetadataRequest
from robustmq.kafka.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from robustmq.kafka.messages.quotas import (
    AlterClientQuotasRequest,
    AlterEntryData,
    EntityData,
    OpData,
)
from tests.integration.kafka_wire import Ended, KafkaWire
from tests.integration.supervised import Node, until

CORES: Final = ("kafka_tcp_core_0", "kafka_tcp_core_1")
SOFTWARE: Final = ApiVersionsRequest(client_software_name="wire", client_software_version="1")
NO_TOPICS: Final = MetadataRequest(topics=[])


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    data = tmp_path_factory.mktemp("kafka") / "data"
    settings = (
        "kafka_runtime.advertise=core",
        "kafka_runtime.max_request_bytes=65536",
    )
    found = Node(data, module="robustmq.cli.supervisor", settings=settings)
    try:
        yield found.ready()
    finally:
        found.close()


def _brokers(node: Node) -> dict[int, int]:
    """Return the brokers by the ports that clients are told."""
    return {1_024 + core: node.address(name)[1] for core, name in enumerate(CORES)}


def test_requests_in_pieces_are_answered_in_order(node: Node) -> None:
    with KafkaWire(node) as wire:
        stream = wire.bytes_of(ApiKey.API_VERSIONS, 3, SOFTWARE)
        stream += b"".join(wire.bytes_of(ApiKey.METADATA, 12, NO_TOPICS) for _ in range(20))
        for at in range(0, len(stream), 7):
            wire.socket.sendall(stream[at : at + 7])
        number, versions = wire.receive(ApiKey.API_VERSIONS, 3)
        assert (number, versions.error_code) == (1, 0)
        answers = [wire.receive(ApiKey.METADATA, 12) for _ in range(20)]
    assert [number for number, _ in answers] == [*range(2, 22)]
    told = {broker.node_id: broker.port for broker in answers[0][1].brokers}
    assert told == _brokers(node)


@pytest.mark.parametrize("core", CORES)
def test_any_core_takes_requests_for_any_group(node: Node, core: str) -> None:
    unknown = [HeartbeatRequest(group_id=f"group {n}", member_id="nobody") for n in range(8)]
    with KafkaWire(node, core) as wire:
        answers = [wire.ask(ApiKey.HEARTBEAT, 4, request).error_code for request in unknown]
    assert answers == [ErrorCode.UNKNOWN_MEMBER_ID] * 8
    assert node.sum("kafka_requests_forwarded_total") > 0


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x00\x01",
        b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00\x00\x08\x00\x03\x00\x63\x00\x00\x00\x01",
        b"\x00\x00\x00\x0b\x00\x03\x00\x0c\x00\x00\x00\x01\xff\xff\x00" + b"\xff" * 8,
    ],
    ids=["too large", "negative", "another protocol", "version", "cut"],
)
def test_who_breaks_the_rules_is_sent_away_and_nobody_else(node: Node, data: bytes) -> None:
    with KafkaWire(node, CORES[0]) as good, KafkaWire(node, CORES[0]) as bad:
        good.ask(ApiKey.API_VERSIONS, 3, SOFTWARE)
        bad.socket.sendall(data)
        bad.socket.shutdown(1)
        with pytest.raises(Ended):
            bad.frame()
        assert good.ask(ApiKey.METADATA, 12, NO_TOPICS).brokers


def test_clients_find_the_brokers(node: Node) -> None:
    servers = "{}:{}".format(*node.address("kafka_tcp"))
    listed = AdminClient({"bootstrap.servers": servers}).list_topics(timeout=60)
    assert {each.id: each.port for each in listed.brokers.values()} == _brokers(node)
    admin = KafkaAdminClient(bootstrap_servers=servers)
    described = admin.describe_cluster()
    admin.close()
    assert {each["broker_id"]: each["port"] for each in described["brokers"]} == _brokers(node)
    shown = subprocess.run(
        ["kcat", "-L", "-b", servers], capture_output=True, text=True, timeout=60, check=True
    )
    assert "2 brokers" in shown.stdout


def _produce(wire: KafkaWire, size: int) -> int:
    """Send a Produce for a topic that is not there; return how long the client is to wait."""
    records = bytes(size)
    data = [PartitionProduceData(index=0, records=records)]
    topics = [TopicProduceData(name="nowhere", partition_data=data)]
    request = ProduceRequest(acks=-1, timeout_ms=1_000, topic_data=topics)
    throttle_ms: int = wire.ask(ApiKey.PRODUCE, 9, request).throttle_time_ms
    return throttle_ms


def test_a_quota_holds_for_whom_it_is(node: Node) -> None:
    entity = [EntityData(entity_type="client-id", entity_name="wire")]
    rate = [OpData(key="producer_byte_rate", value=20_000.0)]
    request = AlterClientQuotasRequest(entries=[AlterEntryData(entity=entity, ops=rate)])
    with KafkaWire(node) as admin:
        answer = admin.ask(ApiKey.ALTER_CLIENT_QUOTAS, 1, request)
        assert [entry.error_code for entry in answer.entries] == [0]
        until(lambda: _produce(admin, 20_000) > 0, "the quota holds")
    assert node.sum("kafka_throttled_total") >= 1
    gone = [OpData(key="producer_byte_rate", remove=True)]
    with KafkaWire(node) as admin:
        request = AlterClientQuotasRequest(entries=[AlterEntryData(entity=entity, ops=gone)])
        assert admin.ask(ApiKey.ALTER_CLIENT_QUOTAS, 1, request).entries[0].error_code == 0


def test_connections_are_counted(node: Node) -> None:
    until(lambda: node.sum("kafka_connections") == 0, "those of others are gone")
    before = node.sum("kafka_requests_total")
    with KafkaWire(node) as wire:
        wire.ask(ApiKey.METADATA, 12, NO_TOPICS)
        assert node.sum("kafka_connections") == 1
    until(lambda: node.sum("kafka_connections") == 0, "this one is gone")
    assert node.sum("kafka_requests_total") == before + 1


def test_a_worker_that_is_killed_takes_nobody_along(node: Node) -> None:
    killed = node.children()["worker 1"]
    with KafkaWire(node, CORES[0]) as stays, KafkaWire(node, CORES[1]) as goes:
        goes.ask(ApiKey.METADATA, 12, NO_TOPICS)
        os.kill(killed, signal.SIGKILL)
        with pytest.raises(Ended):
            goes.frame()
        assert stays.ask(ApiKey.METADATA, 12, NO_TOPICS).brokers
        # Requests for groups of the killed core are refused, or wait until it is there again.
        refused = {0, ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.COORDINATOR_NOT_AVAILABLE}
        refused |= {ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS}
        for n in range(8):
            request = HeartbeatRequest(group_id=f"group {n}", member_id="nobody")
            assert stays.ask(ApiKey.HEARTBEAT, 4, request).error_code in refused
    with KafkaWire(node, CORES[1]) as back:
        assert back.ask(ApiKey.METADATA, 12, NO_TOPICS).brokers


def test_a_node_that_stops_closes_its_connections_at_once(node: Node) -> None:
    with KafkaWire(node) as wire:
        wire.ask(ApiKey.METADATA, 12, NO_TOPICS)
        node.send(signal.SIGTERM)
        with pytest.raises(Ended):
            wire.frame()
    assert node.process.wait(timeout=60) == 0
