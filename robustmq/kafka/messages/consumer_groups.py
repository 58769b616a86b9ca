"""The consumer group protocol whose assignments the coordinator makes (KIP-848)."""

from typing import Annotated

from msgspec import field

from robustmq.kafka.schema import NO_ID, Int8, Int16, Int32, Message, Uuid, since


class TopicPartitions(Message):
    """Partitions of a topic: owned, or assigned."""

    topic_id: Uuid = NO_ID
    partitions: list[Int32] = []


class ConsumerGroupHeartbeatRequest(Message):
    """A member is alive; what is None has not changed since it last said so.

    `member_epoch` 0 joins, -1 leaves, -2 leaves to come back (a static member).
    """

    group_id: str = ""
    member_id: str = ""
    member_epoch: Int32 = 0
    instance_id: str | None = None
    rack_id: str | None = None
    rebalance_timeout_ms: Int32 = -1
    subscribed_topic_names: list[str] | None = None
    subscribed_topic_regex: Annotated[str | None, since(1)] = None
    server_assignor: str | None = None
    topic_partitions: list[TopicPartitions] | None = None


class Assignment(Message):
    """What a member may read."""

    topic_partitions: list[TopicPartitions] = []


class ConsumerGroupHeartbeatResponse(Message):
    """The epoch of the member, and its assignment when that has changed."""

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = None
    member_id: str | None = None
    member_epoch: Int32 = 0
    heartbeat_interval_ms: Int32 = 0
    assignment: Assignment | None = None


class ConsumerGroupDescribeRequest(Message):
    """Ask how these groups are."""

    group_ids: list[str] = []
    include_authorized_operations: bool = False


class DescribedTopicPartitions(Message):
    """Partitions of a topic that a member has, or is to have (Kafka: `TopicPartitions`)."""

    topic_id: Uuid = NO_ID
    topic_name: str = ""
    partitions: list[Int32] = []


class DescribedAssignment(Message):
    """What a member has, or is to have (Kafka: `Assignment`)."""

    topic_partitions: list[DescribedTopicPartitions] = []


class Member(Message):
    """A member of a group; `member_type` -1: not known, 0: classic, 1: consumer."""

    member_id: str = ""
    instance_id: str | None = None
    rack_id: str | None = None
    member_epoch: Int32 = 0
    client_id: str = ""
    client_host: str = ""
    subscribed_topic_names: list[str] = []
    subscribed_topic_regex: str | None = None
    assignment: DescribedAssignment = field(default_factory=DescribedAssignment)
    target_assignment: DescribedAssignment = field(default_factory=DescribedAssignment)
    member_type: Annotated[Int8, since(1)] = -1


class DescribedGroup(Message):
    """A group, its state and its members."""

    error_code: Int16 = 0
    error_message: str | None = None
    group_id: str = ""
    group_state: str = ""
    group_epoch: Int32 = 0
    assignment_epoch: Int32 = 0
    assignor_name: str = ""
    members: list[Member] = []
    authorized_operations: Int32 = -2147483648


class ConsumerGroupDescribeResponse(Message):
    """The groups."""

    throttle_time_ms: Int32 = 0
    groups: list[DescribedGroup] = []
