"""ListOffsets and its like: each partition is asked where it is led, and answered by itself."""

from robustmq.broker.partition_api import EARLIEST, LATEST, NEWEST, Partition
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.offsets import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopic,
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from robustmq.kafka.messages.placement import (
    DescribableLogDirTopic,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
)
from robustmq.kafka.messages.transaction_listing import (
    DescribeProducersRequest,
    DescribeProducersResponse,
    TopicRequest,
)
from robustmq.kafka.protocol import Room
from robustmq.kafka.rights import CLUSTER_NAME, Operation, Resource
from tests.kafka_desk import CLIENT, Desk
from tests.partition_world import TOPIC, World, batch_of


def filled(cores: int = 2) -> Desk:
    """Three records in partition 0, one in partition 1."""
    desk = Desk(World(cores))
    for number in (0, 0, 1, 0):
        desk.core.router.append(Partition(TOPIC, number), batch_of(b"x"), None)
    desk.world.settle()
    return desk


def listed(desk: Desk, times: list[tuple[int, int]], topic: str = "t") -> list[tuple[int, ...]]:
    """(error, offset, time) of each (partition, time)."""
    asked = [ListOffsetsPartition(partition_index=n, timestamp=time) for n, time in times]
    request = ListOffsetsRequest(topics=[ListOffsetsTopic(name=topic, partitions=asked)])
    response = desk.ask(ApiKey.LIST_OFFSETS, 7, request, ListOffsetsResponse)
    return [
        (slot.error_code, slot.offset, slot.timestamp)
        for each in response.topics
        for slot in each.partitions
    ]


def test_offsets_are_found_by_time_and_by_what_stands_for_one() -> None:
    # The owner of this world answers with its end, and the time that it was asked for.
    times = [(0, LATEST), (1, 12_345), (0, EARLIEST), (1, NEWEST), (0, -4), (9, LATEST), (0, -9)]
    assert listed(filled(), times) == [
        (0, 3, LATEST),
        (0, 1, 12_345),
        (0, 3, EARLIEST),
        (0, 1, NEWEST),
        (0, 3, EARLIEST),
        (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1),
        (ErrorCode.UNSUPPORTED_VERSION, -1, -1),
    ]
    assert listed(filled(), [(0, LATEST)], "u")[0][0] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_who_may_not_describe_a_topic_learns_nothing_of_it() -> None:
    desk = filled()
    desk.denied = {(Operation.DESCRIBE, Resource.TOPIC, name) for name in ("t", "u")}
    refused = (ErrorCode.TOPIC_AUTHORIZATION_FAILED, -1, -1)
    assert listed(desk, [(0, LATEST)]) == listed(desk, [(0, LATEST)], "u") == [refused]


def test_epochs_end_where_their_owner_says() -> None:
    asked = [
        OffsetForLeaderPartition(partition=number, current_leader_epoch=0, leader_epoch=4)
        for number in (0, 1, 9)
    ]
    request = OffsetForLeaderEpochRequest(
        topics=[
            OffsetForLeaderTopic(topic=name, partitions=asked[:most])
            for name, most in (("t", 3), ("u", 1))
        ]
    )
    response = filled().ask(
        ApiKey.OFFSET_FOR_LEADER_EPOCH, 4, request, OffsetForLeaderEpochResponse
    )
    unknown = (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1)
    assert [
        (slot.error_code, slot.leader_epoch, slot.end_offset)
        for each in response.topics
        for slot in each.partitions
    ] == [(0, 4, 3), (0, 4, 1), unknown, unknown]


def deleted(desk: Desk, offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    asked = [DeleteRecordsPartition(partition_index=n, offset=offset) for n, offset in offsets]
    request = DeleteRecordsRequest(topics=[DeleteRecordsTopic(name="t", partitions=asked)])
    response = desk.ask(ApiKey.DELETE_RECORDS, 2, request, DeleteRecordsResponse)
    (topic,) = response.topics
    return [(slot.error_code, slot.low_watermark) for slot in topic.partitions]


def test_records_are_forgotten_where_their_topic_lets_them_go() -> None:
    desk = filled()
    assert deleted(desk, [(0, 2), (1, 1), (0, -2)]) == [
        (0, 2),
        (0, 1),
        (ErrorCode.OFFSET_OUT_OF_RANGE, -1),
    ]
    desk.world.topics.set({"cleanup.policy": "compact"})
    assert deleted(desk, [(0, 2)]) == [(ErrorCode.POLICY_VIOLATION, -1)]
    desk.world.topics.set({"cleanup.policy": "compact, delete"})
    assert deleted(desk, [(0, 2)]) == [(0, 2)]


def test_producers_are_said_for_each_partition() -> None:
    request = DescribeProducersRequest(
        topics=[
            TopicRequest(name="t", partition_indexes=[0, 1, 9]),
            TopicRequest(name="u", partition_indexes=[0]),
        ]
    )
    response = filled().ask(ApiKey.DESCRIBE_PRODUCERS, 0, request, DescribeProducersResponse)
    slots = [slot for topic in response.topics for slot in topic.partitions]
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert [slot.error_code for slot in slots] == [0, 0, unknown, unknown]
    assert [len(slot.active_producers) for slot in slots] == [1, 1, 0, 0]
    (producer,) = slots[1].active_producers
    assert (producer.producer_id, producer.producer_epoch, producer.last_sequence) == (1, 1, 2)
    empty = filled().ask(
        ApiKey.DESCRIBE_PRODUCERS, 0, DescribeProducersRequest(), DescribeProducersResponse
    )
    assert empty.topics == []


def test_the_logs_of_all_cores_are_measured_for_whoever_may_know() -> None:
    desk = filled()
    size = len(batch_of(b"x"))
    desk.kafka.room = lambda: Room(100, 40)

    def sizes(request: DescribeLogDirsRequest, tenant: str = "default") -> dict[int, int]:
        principal = CLIENT.__class__("client", tenant=tenant)
        response = desk.ask(
            ApiKey.DESCRIBE_LOG_DIRS, 4, request, DescribeLogDirsResponse, principal
        )
        (result,) = response.results
        assert (result.total_bytes, result.usable_bytes) == (100, 40)
        return {
            each.partition_index: each.partition_size
            for topic in result.topics
            for each in topic.partitions
        }

    assert sizes(DescribeLogDirsRequest(topics=None)) == {0: 3 * size, 1: size}
    only = DescribableLogDirTopic(topic="t", partitions=[1])
    assert sizes(DescribeLogDirsRequest(topics=[only])) == {1: size}
    assert sizes(DescribeLogDirsRequest(topics=None), "other") == {}
    desk.denied.add((Operation.DESCRIBE, Resource.CLUSTER, CLUSTER_NAME))
    response = desk.ask(
        ApiKey.DESCRIBE_LOG_DIRS, 4, DescribeLogDirsRequest(), DescribeLogDirsResponse
    )
    assert response.error_code == ErrorCode.CLUSTER_AUTHORIZATION_FAILED
