"""Where partitions lie: their logs, leaders and moves."""

from typing import Annotated

from robustmq.kafka.schema import Int8, Int16, Int32, Int64, Message, since


class DescribableLogDirTopic(Message):
    """Partitions of a topic whose logs are asked for."""

    topic: str = ""
    partitions: list[Int32] = []


class DescribeLogDirsRequest(Message):
    """Ask how large these logs are; None: all."""

    topics: list[DescribableLogDirTopic] | None = []


class DescribeLogDirsPartition(Message):
    """The log of a partition, in bytes."""

    partition_index: Int32 = 0
    partition_size: Int64 = 0
    offset_lag: Int64 = 0
    is_future_key: bool = False


class DescribeLogDirsTopic(Message):
    """The logs of a topic."""

    name: str = ""
    partitions: list[DescribeLogDirsPartition] = []


class DescribeLogDirsResult(Message):
    """A directory with the logs in it."""

    error_code: Int16 = 0
    log_dir: str = ""
    topics: list[DescribeLogDirsTopic] = []
    total_bytes: Annotated[Int64, since(4)] = -1
    usable_bytes: Annotated[Int64, since(4)] = -1


class DescribeLogDirsResponse(Message):
    """The directories."""

    throttle_time_ms: Int32 = 0
    error_code: Annotated[Int16, since(3)] = 0
    results: list[DescribeLogDirsResult] = []


class TopicPartitions(Message):
    """Partitions whose leaders are to be elected."""

    topic: str = ""
    partitions: list[Int32] = []


class ElectLeadersRequest(Message):
    """Leaders to elect: 0 the preferred one, 1 any; None: for all partitions."""

    election_type: Annotated[Int8, since(1)] = 0
    topic_partitions: list[TopicPartitions] | None = []
    timeout_ms: Int32 = 60000


class PartitionResult(Message):
    """Whether a partition got the leader."""

    partition_id: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = ""


class ReplicaElectionResult(Message):
    """What became of the elections of a topic."""

    topic: str = ""
    partition_result: list[PartitionResult] = []


class ElectLeadersResponse(Message):
    """What became of the elections."""

    throttle_time_ms: Int32 = 0
    error_code: Annotated[Int16, since(1)] = 0
    replica_election_results: list[ReplicaElectionResult] = []


class ListPartitionReassignmentsTopics(Message):
    """Partitions whose moves are asked for."""

    name: str = ""
    partition_indexes: list[Int32] = []


class ListPartitionReassignmentsRequest(Message):
    """Ask which of these partitions move; None: of all."""

    timeout_ms: Int32 = 60000
    topics: list[ListPartitionReassignmentsTopics] | None = None


class OngoingPartitionReassignment(Message):
    """A partition that moves."""

    partition_index: Int32 = 0
    replicas: list[Int32] = []
    adding_replicas: list[Int32] = []
    removing_replicas: list[Int32] = []


class OngoingTopicReassignment(Message):
    """The moves of a topic."""

    name: str = ""
    partitions: list[OngoingPartitionReassignment] = []


class ListPartitionReassignmentsResponse(Message):
    """The moves."""

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = ""
    topics: list[OngoingTopicReassignment] = []
