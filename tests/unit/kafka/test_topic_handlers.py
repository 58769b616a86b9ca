"""Topics by Kafka's requests: described, made, enlarged, removed."""

import msgspec
import pytest

from robustmq.broker.api import Principal
from robustmq.broker.placement import Life
from robustmq.config import Config
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.metadata import (
    Cursor,
    DescribeClusterRequest,
    DescribeClusterResponse,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    TopicRequest,
)
from robustmq.kafka.messages.placement import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
    TopicPartitions,
)
from robustmq.kafka.messages.topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DeleteTopicState,
)
from robustmq.policy.access import Access
from robustmq.settings.kafka import KafkaRuntime
from tests.kafka_topics import ALICE, ROOT, Bureau

NO_AUTO = Config(kafka_runtime=KafkaRuntime(auto_create_topics_enable=False))


def created(
    bureau: Bureau, *topics: CreatableTopic, validate_only: bool = False, who: Principal = ROOT
) -> dict[str, tuple[int, str | None]]:
    request = CreateTopicsRequest(topics=[*topics], validate_only=validate_only)
    response = bureau.ask(ApiKey.CREATE_TOPICS, 7, request, CreateTopicsResponse, who)
    return {each.name: (each.error_code, each.error_message) for each in response.topics}


def topic(name: str, partitions: int = -1, **settings: str) -> CreatableTopic:
    configs = [
        CreatableTopicConfig(name=key.replace("_", "."), value=value)
        for key, value in settings.items()
    ]
    return CreatableTopic(
        name=name, num_partitions=partitions, replication_factor=-1, configs=configs
    )


def told(
    bureau: Bureau, *names: str, version: int = 12, auto: bool = False, who: Principal = ROOT
) -> MetadataResponse:
    request = MetadataRequest(
        topics=[MetadataRequestTopic(name=name) for name in names] if names else None,
        allow_auto_topic_creation=auto,
    )
    return bureau.ask(ApiKey.METADATA, version, request, MetadataResponse, who)


@pytest.mark.parametrize("version", [0, 1, 7, 8, 9, 10, 12, 13])
def test_metadata_tells_of_brokers_and_topics_in_all_versions(version: int) -> None:
    bureau = Bureau()
    created(bureau, topic("b", 2), topic("a"))
    response = told(bureau, version=version)
    if version == 0:
        request = MetadataRequest(topics=[])
        response = bureau.ask(ApiKey.METADATA, 0, request, MetadataResponse)
    assert [(each.node_id, each.port) for each in response.brokers] == [(1, 9092), (2, 9092)]
    assert response.controller_id == 1
    assert [(each.name, len(each.partitions)) for each in response.topics] == [("a", 1), ("b", 2)]
    partition = response.topics[1].partitions[1]
    assert (partition.leader_id, partition.replica_nodes, partition.isr_nodes) == (1, [1], [1])


def test_a_list_of_all_topics_is_made_anew_when_they_are_others() -> None:
    bureau = Bureau()
    created(bureau, topic("a"))
    first = told(bureau).topics
    assert told(bureau).topics[0] is first[0]
    created(bureau, topic("b"))
    assert [each.name for each in told(bureau).topics] == ["a", "b"]


def test_topics_are_found_by_id_and_by_names_that_stand_for_them() -> None:
    bureau = Bureau()
    created(bureau, topic("a"))
    (known,) = told(bureau).topics
    asked = [
        MetadataRequestTopic(topic_id=known.topic_id, name=None),
        MetadataRequestTopic(topic_id=b"x" * 16, name=None),
    ]
    response = bureau.ask(ApiKey.METADATA, 12, MetadataRequest(topics=asked), MetadataResponse)
    assert [(each.error_code, each.name) for each in response.topics] == [
        (0, "a"),
        (ErrorCode.UNKNOWN_TOPIC_ID, None),
    ]
    bureau.made.catalog.apply("default/plant/b", {"partition": 1}, 9)
    (found,) = told(bureau, "plant.b").topics
    assert (found.error_code, found.name) == (0, "plant.b")
    stranger = Principal("c", "root", tenant="acme", superuser=True)
    assert told(bureau, who=stranger).topics == []


def test_what_is_not_there_is_made_when_it_may_be() -> None:
    bureau = Bureau()
    codes = [each.error_code for each in told(bureau, "new", "a/b").topics]
    assert codes == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.INVALID_TOPIC_EXCEPTION]
    response = told(bureau, "new", "new", "a/b", auto=True)
    assert [each.error_code for each in response.topics] == [0, 17]
    assert told(bureau, "other", version=1).topics[0].error_code == 0
    off = Bureau(NO_AUTO)
    assert told(off, "new", auto=True).topics[0].error_code == 3


def test_rights_are_told_as_bits() -> None:
    bureau = Bureau(access=Access((), "Deny"))
    created(bureau, topic("a"))
    request = MetadataRequest(
        topics=[MetadataRequestTopic(name="a")],
        include_cluster_authorized_operations=True,
        include_topic_authorized_operations=True,
    )
    response = bureau.ask(ApiKey.METADATA, 8, request, MetadataResponse)
    assert response.topics[0].topic_authorized_operations == 0b1101_1111_1000
    assert response.cluster_authorized_operations == 0b1_1111_1010_0000
    other = bureau.ask(ApiKey.METADATA, 8, request, MetadataResponse, ALICE)
    assert other.topics[0].error_code == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    assert other.cluster_authorized_operations == 0
    assert told(bureau, who=ALICE).topics == []


def test_a_partition_without_a_leader_is_told_so() -> None:
    bureau = Bureau()
    created(bureau, topic("a"))
    bureau.made.placement.node = 1
    bureau.made.placement.update({1: Life(1, 1)})
    (partition,) = told(bureau, "a").topics[0].partitions
    assert (partition.error_code, partition.leader_id) == (ErrorCode.LEADER_NOT_AVAILABLE, -1)
    request = ElectLeadersRequest(topic_partitions=[TopicPartitions(topic="a", partitions=[0, 1])])
    response = bureau.ask(ApiKey.ELECT_LEADERS, 2, request, ElectLeadersResponse)
    (result,) = response.replica_election_results
    assert [each.error_code for each in result.partition_result] == [83, 3]


def test_topics_are_described_page_by_page() -> None:
    bureau = Bureau(Config(kafka_runtime=KafkaRuntime(max_describe_topic_partitions=3)))
    created(bureau, topic("a", 2), topic("b", 5), topic("c"))
    cursor: Cursor | None = None
    seen: list[tuple[str | None, list[int]]] = []
    for _ in range(4):
        request = DescribeTopicPartitionsRequest(cursor=cursor, response_partition_limit=10)
        response = bureau.ask(
            ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, request, DescribeTopicPartitionsResponse
        )
        seen += [
            (each.name, [one.partition_index for one in each.partitions])
            for each in response.topics
        ]
        cursor = response.next_cursor
        if cursor is None:
            break
    assert seen == [("a", [0, 1]), ("b", [0]), ("b", [1, 2, 3]), ("b", [4]), ("c", [0])]
    request = DescribeTopicPartitionsRequest(topics=[TopicRequest(name="no")])
    response = bureau.ask(
        ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, request, DescribeTopicPartitionsResponse
    )
    assert response.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_the_cluster_is_described_and_nothing_moves() -> None:
    bureau = Bureau()
    request = DescribeClusterRequest(include_cluster_authorized_operations=True)
    response = bureau.ask(ApiKey.DESCRIBE_CLUSTER, 2, request, DescribeClusterResponse)
    assert [each.broker_id for each in response.brokers] == [1, 2]
    assert response.cluster_authorized_operations > 0
    other = DescribeClusterRequest(endpoint_type=2)
    refused = bureau.ask(ApiKey.DESCRIBE_CLUSTER, 1, other, DescribeClusterResponse)
    assert refused.error_code == ErrorCode.MISMATCHED_ENDPOINT_TYPE
    moves = bureau.ask(
        ApiKey.LIST_PARTITION_REASSIGNMENTS,
        0,
        ListPartitionReassignmentsRequest(),
        ListPartitionReassignmentsResponse,
    )
    assert (moves.error_code, moves.topics) == (0, [])


def test_topics_are_made_each_for_itself_and_echoed() -> None:
    bureau = Bureau()
    assigned = [CreatableReplicaAssignment(partition_index=0, broker_ids=[1])]
    done = created(
        bureau,
        topic("good", 3, retention_ms="9"),
        topic("a/b"),
        topic("few", 0),
        topic("many", 100_000),
        topic("odd", retention_ms="soon"),
        topic("twice"),
        topic("twice"),
        CreatableTopic(name="copies", num_partitions=1, replication_factor=3),
        CreatableTopic(
            name="placed", num_partitions=-1, replication_factor=-1, assignments=assigned
        ),
    )
    assert {name: code for name, (code, _) in done.items()} == {
        "good": 0,
        "a/b": ErrorCode.INVALID_TOPIC_EXCEPTION,
        "few": ErrorCode.INVALID_PARTITIONS,
        "many": ErrorCode.INVALID_PARTITIONS,
        "odd": ErrorCode.INVALID_CONFIG,
        "twice": ErrorCode.INVALID_REQUEST,
        "copies": ErrorCode.INVALID_REPLICATION_FACTOR,
        "placed": ErrorCode.INVALID_REPLICA_ASSIGNMENT,
    }
    assert all(sentence for code, sentence in done.values() if code)
    assert created(bureau, topic("good"))["good"][0] == ErrorCode.TOPIC_ALREADY_EXISTS
    request = CreateTopicsRequest(topics=[topic("tried", cleanup_policy="compact")])
    request.validate_only = True
    response = bureau.ask(ApiKey.CREATE_TOPICS, 7, request, CreateTopicsResponse)
    (result,) = response.topics
    assert (result.error_code, result.num_partitions) == (0, 1)
    found = {each.name: (each.value, each.config_source) for each in result.configs or []}
    assert found["cleanup.policy"] == ("compact", 1)
    assert bureau.made.catalog.find("default", "tried") is None


def test_who_may_not_make_or_remove_topics_does_not() -> None:
    bureau = Bureau(access=Access((), "Deny"))
    assert created(bureau, topic("a"), who=ALICE)["a"][0] == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    created(bureau, topic("a"))
    request = DeleteTopicsRequest(topic_names=["a"])
    response = bureau.ask(ApiKey.DELETE_TOPICS, 5, request, DeleteTopicsResponse, ALICE)
    assert response.responses[0].error_code == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    assert bureau.made.catalog.find("default", "a") is not None


def test_topics_are_removed_by_name_and_by_id() -> None:
    bureau = Bureau()
    created(bureau, topic("a"), topic("b"), topic("c"))
    request = DeleteTopicsRequest(topic_names=["a", "no"])
    response = bureau.ask(ApiKey.DELETE_TOPICS, 3, request, DeleteTopicsResponse)
    assert [each.error_code for each in response.responses] == [0, 3]
    topic_id = bureau.made.topic("b").id
    states = [
        DeleteTopicState(topic_id=topic_id),
        DeleteTopicState(name="c"),
        DeleteTopicState(name="c", topic_id=topic_id),
        DeleteTopicState(topic_id=b"x" * 16),
    ]
    by_id = DeleteTopicsRequest(topics=states)
    response = bureau.ask(ApiKey.DELETE_TOPICS, 6, by_id, DeleteTopicsResponse)
    assert [(each.name, each.error_code) for each in response.responses] == [
        ("b", 0),
        ("c", 0),
        ("c", ErrorCode.INVALID_REQUEST),
        (None, ErrorCode.UNKNOWN_TOPIC_ID),
    ]
    assert [*bureau.made.catalog.walk("default")] == []


def test_topics_get_more_partitions_and_never_less() -> None:
    bureau = Bureau()
    created(bureau, topic("a", 2))
    counts = {"a": 4, "no": 2}
    asked = [
        CreatePartitionsTopic(name=name, count=n, assignments=None) for name, n in counts.items()
    ]
    request = CreatePartitionsRequest(topics=asked, validate_only=True)
    response = bureau.ask(ApiKey.CREATE_PARTITIONS, 3, request, CreatePartitionsResponse)
    assert [each.error_code for each in response.results] == [0, 3]
    assert bureau.made.topic("a").partitions == 2
    request = msgspec.structs.replace(request, validate_only=False)
    bureau.ask(ApiKey.CREATE_PARTITIONS, 3, request, CreatePartitionsResponse)
    assert bureau.made.topic("a").partitions == 4
    response = bureau.ask(ApiKey.CREATE_PARTITIONS, 3, request, CreatePartitionsResponse)
    assert response.results[0].error_code == ErrorCode.INVALID_PARTITIONS
