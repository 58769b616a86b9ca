"""Offsets of a log: looked up by time, where epochs ended, and its start moved."""

from typing import Annotated

from robustmq.kafka.schema import Int8, Int16, Int32, Int64, Message, since


class ListOffsetsPartition(Message):
    """The time (ms) or special value whose offset is looked for."""

    partition_index: Int32 = 0
    current_leader_epoch: Annotated[Int32, since(4)] = -1
    timestamp: Int64 = 0


class ListOffsetsTopic(Message):
    """What is looked for in a topic."""

    name: str = ""
    partitions: list[ListOffsetsPartition] = []


class ListOffsetsRequest(Message):
    """Offsets to look for; `isolation_level` 1: of what is committed."""

    replica_id: Int32 = 0
    isolation_level: Annotated[Int8, since(2)] = 0
    topics: list[ListOffsetsTopic] = []


class ListOffsetsPartitionResponse(Message):
    """The offset that was found, and the time of its record; -1: none."""

    partition_index: Int32 = 0
    error_code: Int16 = 0
    timestamp: Int64 = -1
    offset: Int64 = -1
    leader_epoch: Annotated[Int32, since(4)] = -1


class ListOffsetsTopicResponse(Message):
    """What was found in a topic."""

    name: str = ""
    partitions: list[ListOffsetsPartitionResponse] = []


class ListOffsetsResponse(Message):
    """The offsets that were found."""

    throttle_time_ms: Annotated[Int32, since(2)] = 0
    topics: list[ListOffsetsTopicResponse] = []


class OffsetForLeaderPartition(Message):
    """The epoch whose end is asked for."""

    partition: Int32 = 0
    current_leader_epoch: Int32 = -1
    leader_epoch: Int32 = 0


class OffsetForLeaderTopic(Message):
    """What is asked for in a topic."""

    topic: str = ""
    partitions: list[OffsetForLeaderPartition] = []


class OffsetForLeaderEpochRequest(Message):
    """Ask where epochs of leaders ended, which tells a consumer of truncation (KIP-320)."""

    replica_id: Annotated[Int32, since(3)] = -2
    topics: list[OffsetForLeaderTopic] = []


class EpochEndOffset(Message):
    """Where the epoch of a leader ended."""

    error_code: Int16 = 0
    partition: Int32 = 0
    leader_epoch: Int32 = -1
    end_offset: Int64 = -1


class OffsetForLeaderTopicResult(Message):
    """What is known of a topic."""

    topic: str = ""
    partitions: list[EpochEndOffset] = []


class OffsetForLeaderEpochResponse(Message):
    """Where the epochs ended."""

    throttle_time_ms: Int32 = 0
    topics: list[OffsetForLeaderTopicResult] = []


class DeleteRecordsPartition(Message):
    """The offset below which to forget; -1: the high watermark."""

    partition_index: Int32 = 0
    offset: Int64 = 0


class DeleteRecordsTopic(Message):
    """What to forget in a topic."""

    name: str = ""
    partitions: list[DeleteRecordsPartition] = []


class DeleteRecordsRequest(Message):
    """Records to forget."""

    topics: list[DeleteRecordsTopic] = []
    timeout_ms: Int32 = 0


class DeleteRecordsPartitionResult(Message):
    """A partition's new start."""

    partition_index: Int32 = 0
    low_watermark: Int64 = 0
    error_code: Int16 = 0


class DeleteRecordsTopicResult(Message):
    """The new starts of a topic's partitions."""

    name: str = ""
    partitions: list[DeleteRecordsPartitionResult] = []


class DeleteRecordsResponse(Message):
    """The new starts."""

    throttle_time_ms: Int32 = 0
    topics: list[DeleteRecordsTopicResult] = []
