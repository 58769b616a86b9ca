"""Idempotent producers and their transactions."""

from typing import Annotated

from robustmq.kafka.schema import Int16, Int32, Int64, Message, since


class InitProducerIdRequest(Message):
    """A producer wants an id; the times of its transactions are in ms."""

    transactional_id: str | None = ""
    transaction_timeout_ms: Int32 = 0
    producer_id: Annotated[Int64, since(3)] = -1
    producer_epoch: Annotated[Int16, since(3)] = -1


class InitProducerIdResponse(Message):
    """The producer's id and epoch."""

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    producer_id: Int64 = -1
    producer_epoch: Int16 = 0


class AddPartitionsToTxnTopic(Message):
    """Partitions that join a transaction."""

    name: str = ""
    partitions: list[Int32] = []


class AddPartitionsToTxnRequest(Message):
    """Partitions that join a transaction; the names are of versions up to 3, all that we speak."""

    v3_and_below_transactional_id: str = ""
    v3_and_below_producer_id: Int64 = 0
    v3_and_below_producer_epoch: Int16 = 0
    v3_and_below_topics: list[AddPartitionsToTxnTopic] = []


class AddPartitionsToTxnPartitionResult(Message):
    """Whether a partition has joined."""

    partition_index: Int32 = 0
    partition_error_code: Int16 = 0


class AddPartitionsToTxnTopicResult(Message):
    """Whether the partitions of a topic have joined."""

    name: str = ""
    results_by_partition: list[AddPartitionsToTxnPartitionResult] = []


class AddPartitionsToTxnResponse(Message):
    """Which partitions have joined."""

    throttle_time_ms: Int32 = 0
    results_by_topic_v3_and_below: list[AddPartitionsToTxnTopicResult] = []


class AddOffsetsToTxnRequest(Message):
    """A group's offsets join a transaction."""

    transactional_id: str = ""
    producer_id: Int64 = 0
    producer_epoch: Int16 = 0
    group_id: str = ""


class AddOffsetsToTxnResponse(Message):
    """Whether they have joined."""

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0


class EndTxnRequest(Message):
    """A transaction ends: committed, or aborted."""

    transactional_id: str = ""
    producer_id: Int64 = 0
    producer_epoch: Int16 = 0
    committed: bool = False


class EndTxnResponse(Message):
    """Whether the end was taken."""

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0


class TxnOffsetCommitRequestPartition(Message):
    """An offset that is committed with a transaction."""

    partition_index: Int32 = 0
    committed_offset: Int64 = 0
    committed_leader_epoch: Annotated[Int32, since(2)] = -1
    committed_metadata: str | None = ""


class TxnOffsetCommitRequestTopic(Message):
    """Offsets of a topic that are committed with a transaction."""

    name: str = ""
    partitions: list[TxnOffsetCommitRequestPartition] = []


class TxnOffsetCommitRequest(Message):
    """Offsets of a group that are committed when the transaction is."""

    transactional_id: str = ""
    group_id: str = ""
    producer_id: Int64 = 0
    producer_epoch: Int16 = 0
    generation_id: Annotated[Int32, since(3)] = -1
    member_id: Annotated[str, since(3)] = ""
    group_instance_id: Annotated[str | None, since(3)] = None
    topics: list[TxnOffsetCommitRequestTopic] = []


class TxnOffsetCommitResponsePartition(Message):
    """Whether an offset was taken."""

    partition_index: Int32 = 0
    error_code: Int16 = 0


class TxnOffsetCommitResponseTopic(Message):
    """What became of the offsets of a topic."""

    name: str = ""
    partitions: list[TxnOffsetCommitResponsePartition] = []


class TxnOffsetCommitResponse(Message):
    """What became of the offsets."""

    throttle_time_ms: Int32 = 0
    topics: list[TxnOffsetCommitResponseTopic] = []
