"""Fetch: batches to read."""

from typing import Annotated

from robustmq.kafka.messages.leaders import LeaderIdAndEpoch, NodeEndpoint
from robustmq.kafka.schema import (
    NO_ID,
    Batches,
    Int8,
    Int16,
    Int32,
    Int64,
    Message,
    Uuid,
    since,
    tagged,
    until,
)


class ReplicaState(Message):
    """The replica that fetches; -1 is a consumer."""

    replica_id: Int32 = -1
    replica_epoch: Int64 = -1


class FetchPartition(Message):
    """From where, and at most how much, to read of a partition."""

    partition: Int32 = 0
    current_leader_epoch: Annotated[Int32, since(9)] = -1
    fetch_offset: Int64 = 0
    last_fetched_epoch: Annotated[Int32, since(12)] = -1
    log_start_offset: Annotated[Int64, since(5)] = -1
    partition_max_bytes: Int32 = 0
    replica_directory_id: Annotated[Uuid, since(17), tagged(0)] = NO_ID


class FetchTopic(Message):
    """What to read of a topic, which is named by its id from version 13 on."""

    topic: Annotated[str, until(12)] = ""
    topic_id: Annotated[Uuid, since(13)] = NO_ID
    partitions: list[FetchPartition] = []


class ForgottenTopic(Message):
    """Partitions that leave the fetch session."""

    topic: Annotated[str, until(12)] = ""
    topic_id: Annotated[Uuid, since(13)] = NO_ID
    partitions: list[Int32] = []


class FetchRequest(Message):
    """What to read, for how long to wait (ms), and in which fetch session (KIP-227)."""

    cluster_id: Annotated[str | None, since(12), tagged(0)] = None
    replica_id: Annotated[Int32, until(14)] = -1
    replica_state: Annotated[ReplicaState | None, since(15), tagged(1)] = None
    max_wait_ms: Int32 = 0
    min_bytes: Int32 = 0
    max_bytes: Int32 = 2147483647
    isolation_level: Int8 = 0
    session_id: Annotated[Int32, since(7)] = 0
    session_epoch: Annotated[Int32, since(7)] = -1
    topics: list[FetchTopic] = []
    forgotten_topics_data: Annotated[list[ForgottenTopic], since(7)] = []
    rack_id: Annotated[str, since(11)] = ""


class EpochEndOffset(Message):
    """Where the epoch of a leader ended."""

    epoch: Int32 = -1
    end_offset: Int64 = -1


class SnapshotId(Message):
    """A snapshot to fetch instead; only for the replicas of metadata."""

    end_offset: Int64 = -1
    epoch: Int32 = -1


class AbortedTransaction(Message):
    """A transaction of a producer whose records from an offset on are void."""

    producer_id: Int64 = 0
    first_offset: Int64 = 0


class PartitionData(Message):
    """Batches of a partition, and the offsets between which it can be read."""

    partition_index: Int32 = 0
    error_code: Int16 = 0
    high_watermark: Int64 = 0
    last_stable_offset: Int64 = -1
    log_start_offset: Annotated[Int64, since(5)] = -1
    diverging_epoch: Annotated[EpochEndOffset | None, since(12), tagged(0)] = None
    current_leader: Annotated[LeaderIdAndEpoch | None, since(12), tagged(1)] = None
    snapshot_id: Annotated[SnapshotId | None, since(12), tagged(2)] = None
    aborted_transactions: list[AbortedTransaction] | None = []
    preferred_read_replica: Annotated[Int32, since(11)] = -1
    records: Batches = None


class FetchableTopicResponse(Message):
    """What was read of a topic."""

    topic: Annotated[str, until(12)] = ""
    topic_id: Annotated[Uuid, since(13)] = NO_ID
    partitions: list[PartitionData] = []


class FetchResponse(Message):
    """What was read."""

    throttle_time_ms: Int32 = 0
    error_code: Annotated[Int16, since(7)] = 0
    session_id: Annotated[Int32, since(7)] = 0
    responses: list[FetchableTopicResponse] = []
    node_endpoints: Annotated[list[NodeEndpoint], since(16), tagged(0)] = []
