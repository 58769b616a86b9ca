"""Transactions as no good client asks for them, and what a partition has forgotten."""

import os
import signal
import time
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from robustmq.kafka.api_keys import ApiKey, InnerKey
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.inner import SettleOffsetsRequest
from robustmq.kafka.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from robustmq.kafka.messages.transactions import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
    EndTxnRequest,
    InitProducerIdRequest,
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from tests.copying import PATIENCE, Site
from tests.integration.kafka_wire import Ended, KafkaWire
from tests.integration.supervised import Node, until
from tests.produced import TRANSACTIONAL, produced

LATER = {
    ErrorCode.CONCURRENT_TRANSACTIONS,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.NOT_COORDINATOR,
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.REQUEST_TIMED_OUT,
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    data = tmp_path_factory.mktemp("transaction-wire") / "data"
    node = Node(data, module="robustmq.cli.supervisor")
    yield node.ready()
    node.close()


class Talk:
    """A transactional producer that says what it is told to."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.site = Site(node.address("kafka_tcp"))
        self.id = uuid.uuid4().hex
        self.producer_id = self.epoch = -1

    def ask(self, api: int, version: int, request: Any) -> Any:  # noqa: ANN401
        """Ask on a connection of its own."""
        with KafkaWire(self.node) as wire:
            return wire.ask(api, version, request)

    def has_another(self, name: str, victim: int) -> bool:
        """Whether a process was replaced."""
        return self.node.children().get(name) not in {None, victim}

    def begin(self) -> None:
        """InitProducerId."""
        request = InitProducerIdRequest(transactional_id=self.id, transaction_timeout_ms=60_000)

        def is_done() -> bool:
            answer = self.ask(ApiKey.INIT_PRODUCER_ID, 4, request)
            self.producer_id, self.epoch = answer.producer_id, answer.producer_epoch
            return answer.error_code not in LATER

        until(is_done, "a producer begins", PATIENCE)

    def add(self, partition: int) -> int:
        """AddPartitionsToTxn."""
        request = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=self.id,
            v3_and_below_producer_id=self.producer_id,
            v3_and_below_producer_epoch=self.epoch,
            v3_and_below_topics=[
                AddPartitionsToTxnTopic(name=self.site.target, partitions=[partition])
            ],
        )
        code = int(ErrorCode.CONCURRENT_TRANSACTIONS)

        def is_done() -> bool:
            nonlocal code
            (topic,) = self.ask(
                ApiKey.ADD_PARTITIONS_TO_TXN, 3, request
            ).results_by_topic_v3_and_below
            code = topic.results_by_partition[0].partition_error_code
            return code not in LATER

        until(is_done, "a partition is added", PATIENCE)
        return code

    def produce(self, value: bytes, partition: int, first: int, epoch: int | None = None) -> int:
        """Produce; returns the code."""
        batch = produced(
            value,
            producer=self.producer_id,
            epoch=self.epoch if epoch is None else epoch,
            first=first,
            attributes=TRANSACTIONAL,
            # What is older than the topic keeps would be removed.
            times=(time.time_ns() // 1_000_000,),
        )
        part = PartitionProduceData(index=partition, records=batch)
        request = ProduceRequest(
            transactional_id=self.id,
            acks=-1,
            timeout_ms=30_000,
            topic_data=[TopicProduceData(name=self.site.target, partition_data=[part])],
        )
        answer = self.ask(ApiKey.PRODUCE, 9, request)
        return int(answer.responses[0].partition_responses[0].error_code)

    def end(self, is_committed: bool = True) -> int:
        """EndTxn."""
        request = EndTxnRequest(
            transactional_id=self.id,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            committed=is_committed,
        )
        return int(self.ask(ApiKey.END_TXN, 3, request).error_code)

    def commit_offset(self) -> int:
        """TxnOffsetCommit."""
        part = TxnOffsetCommitRequestPartition(partition_index=0, committed_offset=5)
        topic = TxnOffsetCommitRequestTopic(name=self.site.source, partitions=[part])
        request = TxnOffsetCommitRequest(
            transactional_id=self.id,
            group_id=self.site.group,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            topics=[topic],
        )
        answer = self.ask(ApiKey.TXN_OFFSET_COMMIT, 3, request)
        return int(answer.topics[0].partitions[0].error_code)


@pytest.fixture
def talk(node: Node) -> Talk:
    return Talk(node)


def test_what_belongs_to_no_transaction_is_refused(talk: Talk) -> None:
    talk.begin()
    assert talk.produce(b"early", 0, 0) == ErrorCode.INVALID_TXN_STATE
    assert talk.commit_offset() == ErrorCode.INVALID_TXN_STATE
    assert talk.add(0) == ErrorCode.NONE
    assert talk.produce(b"other", 1, 0) == ErrorCode.INVALID_TXN_STATE
    assert talk.commit_offset() == ErrorCode.INVALID_TXN_STATE
    assert talk.produce(b"good", 0, 0) == ErrorCode.NONE
    assert talk.end() == ErrorCode.NONE
    until(lambda: talk.site.read(talk.site.target) == [b"good"], "it is read", PATIENCE)
    assert talk.produce(b"late", 0, 1) == ErrorCode.INVALID_TXN_STATE
    assert talk.end() == ErrorCode.NONE, "said again"
    assert talk.end(is_committed=False) == ErrorCode.INVALID_TXN_STATE
    old = talk.epoch
    talk.begin()
    assert talk.add(0) == ErrorCode.NONE
    assert talk.produce(b"new", 0, 0) == ErrorCode.NONE
    assert talk.produce(b"zombie", 0, 1, epoch=old) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert talk.end(is_committed=False) == ErrorCode.NONE
    assert talk.site.read(talk.site.target) == [b"good"]


@pytest.mark.timeout(300)
def test_a_partition_whose_core_has_died_hears_of_the_transaction_again(talk: Talk) -> None:
    talk.begin()
    for partition in range(4):
        assert talk.add(partition) == ErrorCode.NONE
    for index in range(2):
        victim = talk.node.children()[f"worker {index}"]
        os.kill(victim, signal.SIGKILL)
        until(partial(talk.has_another, f"worker {index}", victim), "it is back", PATIENCE)

    def is_written(partition: int) -> bool:
        try:
            code = talk.produce(b"%d" % partition, partition, 0)
        except (Ended, OSError):
            return False
        assert code in {ErrorCode.NONE, *LATER}
        return code == ErrorCode.NONE

    for partition in range(4):
        until(partial(is_written, partition), "it is taken", PATIENCE)
    assert talk.end() == ErrorCode.NONE
    wanted = [b"0", b"1", b"2", b"3"]
    until(lambda: sorted(talk.site.read(talk.site.target)) == wanted, "all is read", PATIENCE)


def test_no_client_asks_what_cores_ask_each_other(talk: Talk) -> None:
    with KafkaWire(talk.node) as wire, pytest.raises(Ended):
        wire.ask(InnerKey.SETTLE_OFFSETS, 0, SettleOffsetsRequest(group_id="g", committed=True))
