"""Topics made, enlarged and removed."""

from typing import Annotated

from robustmq.kafka.schema import (
    NO_ID,
    Int8,
    Int16,
    Int32,
    Message,
    Uuid,
    nullable,
    since,
    tagged,
    until,
)


class CreatableReplicaAssignment(Message):
    """The brokers on which a partition is to lie."""

    partition_index: Int32 = 0
    broker_ids: list[Int32] = []


class CreatableTopicConfig(Message):
    """A setting of a topic."""

    name: str = ""
    value: str | None = ""


class CreatableTopic(Message):
    """A topic to make; -1 partitions or replicas: as configured."""

    name: str = ""
    num_partitions: Int32 = 0
    replication_factor: Int16 = 0
    assignments: list[CreatableReplicaAssignment] = []
    configs: list[CreatableTopicConfig] = []


class CreateTopicsRequest(Message):
    """Topics to make."""

    topics: list[CreatableTopic] = []
    timeout_ms: Int32 = 60000
    validate_only: bool = False


class CreatableTopicConfigs(Message):
    """A setting of the topic that was made."""

    name: str = ""
    value: str | None = ""
    read_only: bool = False
    config_source: Int8 = -1
    is_sensitive: bool = False


class CreatableTopicResult(Message):
    """What became of a topic to make."""

    name: str = ""
    topic_id: Annotated[Uuid, since(7)] = NO_ID
    error_code: Int16 = 0
    error_message: str | None = ""
    topic_config_error_code: Annotated[Int16, since(5), tagged(0)] = 0
    num_partitions: Annotated[Int32, since(5)] = -1
    replication_factor: Annotated[Int16, since(5)] = -1
    configs: Annotated[list[CreatableTopicConfigs] | None, since(5)] = []


class CreateTopicsResponse(Message):
    """What became of the topics."""

    throttle_time_ms: Int32 = 0
    topics: list[CreatableTopicResult] = []


class DeleteTopicState(Message):
    """A topic to remove, by name or by id."""

    name: str | None = None
    topic_id: Uuid = NO_ID


class DeleteTopicsRequest(Message):
    """Topics to remove: by name up to version 5."""

    topics: Annotated[list[DeleteTopicState], since(6)] = []
    topic_names: Annotated[list[str], until(5)] = []
    timeout_ms: Int32 = 0


class DeletableTopicResult(Message):
    """What became of a topic to remove."""

    name: Annotated[str | None, nullable(6)] = ""
    topic_id: Annotated[Uuid, since(6)] = NO_ID
    error_code: Int16 = 0
    error_message: Annotated[str | None, since(5)] = None


class DeleteTopicsResponse(Message):
    """What became of the topics."""

    throttle_time_ms: Int32 = 0
    responses: list[DeletableTopicResult] = []


class CreatePartitionsAssignment(Message):
    """The brokers on which a new partition is to lie."""

    broker_ids: list[Int32] = []


class CreatePartitionsTopic(Message):
    """How many partitions a topic is to have."""

    name: str = ""
    count: Int32 = 0
    assignments: list[CreatePartitionsAssignment] | None = []


class CreatePartitionsRequest(Message):
    """Topics to enlarge."""

    topics: list[CreatePartitionsTopic] = []
    timeout_ms: Int32 = 0
    validate_only: bool = False


class CreatePartitionsTopicResult(Message):
    """What became of a topic."""

    name: str = ""
    error_code: Int16 = 0
    error_message: str | None = None


class CreatePartitionsResponse(Message):
    """What became of the topics."""

    throttle_time_ms: Int32 = 0
    results: list[CreatePartitionsTopicResult] = []
