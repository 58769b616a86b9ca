from typing import Any

from robustmq import metrics
from robustmq.broker.ledger_api import Kept
from robustmq.errors import Refusal, Refused
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.group_coordinator import Reader
from robustmq.kafka.group_ledger import stamped
from robustmq.kafka.messages.group_listing import (
    DeleteGroupsRequest,
    DeleteGroupsResponse,
    DescribedGroup,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
    ListGroupsRequest,
    ListGroupsResponse,
)
from robustmq.kafka.messages.group_offsets import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
)
from robustmq.kafka.messages.groups import (
    HeartbeatRequest,
    HeartbeatResponse,
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    JoinGroupResponse,
    SyncGroupRequest,
    SyncGroupResponse,
)
from robustmq.kafka.messages.metadata import FindCoordinatorRequest, FindCoordinatorResponse
from robustmq.kafka.rights import Operation, Resource
from robustmq.settings.kafka_groups import KafkaGroups
from tests.group_world import CLIENT, GroupWorld

NOBODY = Reader()
SUBSCRIBES_TO_T = b"\0\1" + b"\0\0\0\1" + b"\0\1t" + b"\0\0\0\0"


def committing(
    offset: int, number: int = 0, topic: str = "t", note: str = "", generation: int = -1
) -> OffsetCommitRequest:
    partition = OffsetCommitRequestPartition(
        partition_index=number,
        committed_offset=offset,
        committed_metadata=note,
        committed_leader_epoch=3,
    )
    return OffsetCommitRequest(
        group_id="g",
        generation_id_or_member_epoch=generation,
        topics=[OffsetCommitRequestTopic(name=topic, partitions=[partition])],
    )


def commit(world: GroupWorld, request: OffsetCommitRequest, version: int = 9) -> int:
    response = world.ask(ApiKey.OFFSET_COMMIT, version, request, OffsetCommitResponse)
    return response.topics[0].partitions[0].error_code


def fetch(world: GroupWorld, *, stable: bool = False) -> dict[tuple[str, int], Any]:
    request = OffsetFetchRequest(
        groups=[OffsetFetchRequestGroup(group_id="g", topics=None)], require_stable=stable
    )
    (group,) = world.ask(ApiKey.OFFSET_FETCH, 9, request, OffsetFetchResponse).groups
    assert group.error_code == 0
    return {
        (topic.name, each.partition_index): each.error_code or each.committed_offset
        for topic in group.topics
        for each in topic.partitions
    }


def join(world: GroupWorld, kind: str = "consumer") -> JoinGroupResponse:
    request = JoinGroupRequest(
        group_id="g",
        session_timeout_ms=10_000,
        rebalance_timeout_ms=10_000,
        protocol_type=kind,
        protocols=[JoinGroupRequestProtocol(name="range", metadata=SUBSCRIBES_TO_T)],
    )
    return world.ask(ApiKey.JOIN_GROUP, 3, request, JoinGroupResponse)


def describe(world: GroupWorld, version: int = 6) -> DescribedGroup:
    request = DescribeGroupsRequest(groups=["g"], include_authorized_operations=True)
    response = world.ask(ApiKey.DESCRIBE_GROUPS, version, request, DescribeGroupsResponse)
    return response.groups[0]


def test_what_is_committed_is_read_back_also_after_a_restart() -> None:
    world = GroupWorld()
    assert commit(world, committing(7, note="n")) == 0
    assert commit(world, committing(8, number=1)) == 0
    assert commit(world, committing(9, number=1)) == 0
    assert world.counted(metrics.KAFKA_OFFSET_COMMITS) == 3
    for _ in range(2):
        assert fetch(world) == {("t", 0): 7, ("t", 1): 9}
        asked = OffsetFetchRequestGroup(
            group_id="g",
            topics=[OffsetFetchRequestTopics(name="t", partition_indexes=[0, 2])],
        )
        request = OffsetFetchRequest(groups=[asked])
        response = world.ask(ApiKey.OFFSET_FETCH, 9, request, OffsetFetchResponse)
        first, second = response.groups[0].topics[0].partitions
        assert (first.committed_offset, first.metadata, first.committed_leader_epoch) == (7, "n", 3)
        assert (second.committed_offset, second.metadata, second.error_code) == (-1, "", 0)
        world.restart()


def test_a_group_that_never_was_has_no_offsets_and_that_is_no_error() -> None:
    world = GroupWorld()
    assert fetch(world) == {}
    topics = [OffsetFetchRequestTopic(name="t", partition_indexes=[0])]
    for version in (1, 5, 7):
        request = OffsetFetchRequest(group_id="g", topics=topics)
        response = world.ask(ApiKey.OFFSET_FETCH, version, request, OffsetFetchResponse)
        (partition,) = response.topics[0].partitions
        assert (response.error_code, partition.error_code) == (0, 0)
        assert (partition.committed_offset, partition.committed_leader_epoch) == (-1, -1)
        assert partition.metadata == ""
    request_ = HeartbeatRequest(group_id="g", generation_id=1, member_id="m")
    answer = world.ask(ApiKey.HEARTBEAT, 4, request_, HeartbeatResponse)
    assert answer.error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert world.store.pages == {}


def test_offsets_of_a_topic_that_is_gone_are_not_those_of_another_by_its_name() -> None:
    world = GroupWorld()
    assert commit(world, committing(7)) == 0
    world.topics.drop("t")
    assert fetch(world) == {("t", 0): 7}
    world.topics.make("u", 1)
    world.topics.make("t", 1)
    assert fetch(world) == {("t", 0): -1}
    assert commit(world, committing(1)) == 0
    assert fetch(world) == {("t", 0): 1}


def test_who_may_commit() -> None:
    world = GroupWorld()
    assert commit(world, committing(1, generation=4)) == ErrorCode.ILLEGAL_GENERATION
    joined = join(world)
    assert commit(world, committing(1)) == ErrorCode.UNKNOWN_MEMBER_ID
    request = committing(1, generation=1)
    request.member_id = joined.member_id
    assert commit(world, request) == ErrorCode.REBALANCE_IN_PROGRESS
    request.generation_id_or_member_epoch = 2
    assert commit(world, request) == ErrorCode.ILLEGAL_GENERATION
    world.wait(20_000)
    assert commit(world, committing(1)) == 0


def test_what_may_be_committed() -> None:
    world = GroupWorld(settings=KafkaGroups(offset_metadata_max_bytes=3, max_offsets=1))
    assert commit(world, committing(1, topic="?")) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert commit(world, committing(1, note="abcd")) == ErrorCode.OFFSET_METADATA_TOO_LARGE
    assert commit(world, committing(1, note="abc")) == 0
    assert commit(world, committing(1, number=1)) == ErrorCode.INVALID_COMMIT_OFFSET_SIZE
    assert commit(world, committing(2)) == 0
    world.denied = {(Operation.READ, Resource.TOPIC, "t")}
    assert commit(world, committing(1)) == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    world.denied = {(Operation.READ, Resource.GROUP, "g")}
    assert commit(world, committing(1)) == ErrorCode.GROUP_AUTHORIZATION_FAILED


def test_a_commit_whose_fate_is_not_known_is_read_anew() -> None:
    world = GroupWorld()
    commit(world, committing(1))
    kept = stamped(Kept(5), world.topics.topics["t"].id)
    world.store.commit(world.key("g"), world.store.version(world.key("g")), {"0/t": kept})
    assert fetch(world) == {("t", 0): 1}
    world.host.ledger.refusal = Refused(Refusal.UNAVAILABLE, "nobody leads")
    assert commit(world, committing(6)) == ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert fetch(world) == {("t", 0): 5}
    world.host.ledger.refusal = Refused(Refusal.BUSY, "later")
    assert commit(world, committing(6)) == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert commit(world, committing(6)) == 0


def test_a_coordinator_that_was_replaced_commits_nothing() -> None:
    world = GroupWorld()
    commit(world, committing(1))
    world.leader, world.lives = 1, 1
    world.learn(1)
    assert fetch(world) == {("t", 0): 1}
    world.leader = 0
    assert commit(world, committing(2)) == ErrorCode.NOT_COORDINATOR
    assert fetch(world) == {("t", 0): 1}


def test_a_coordinator_that_was_not_for_a_while_reads_anew() -> None:
    world = GroupWorld()
    commit(world, committing(1))
    world.lead(1)
    assert fetch(world) == {("t", 0): 1}
    assert commit(world, committing(2)) == 0
    world.lead(0)
    assert fetch(world) == {("t", 0): 2}
    writes = world.store.writes
    world.lead(0)
    assert fetch(world) == {("t", 0): 2}
    assert world.store.writes == writes


def test_offsets_of_a_transaction_count_when_it_is_committed() -> None:
    world = GroupWorld()
    errors: list[ErrorCode] = []

    def pend(serial: int, offset: int) -> None:
        offsets = {("t", 0): Kept(offset)}
        producing = 5, serial
        world.host.coordinator.pend(CLIENT.tenant, "g", NOBODY, producing, offsets, errors.append)
        world.settle()

    def settle(serial: int, is_committed: bool) -> None:
        world.host.coordinator.settle(CLIENT.tenant, "g", (5, serial), is_committed, errors.append)
        world.settle()

    pend(1, 1)
    assert fetch(world) == {("t", 0): -1}
    assert fetch(world, stable=True) == {("t", 0): ErrorCode.UNSTABLE_OFFSET_COMMIT}
    world.restart()
    assert fetch(world, stable=True) == {("t", 0): ErrorCode.UNSTABLE_OFFSET_COMMIT}
    settle(1, True)
    settle(1, True)
    assert fetch(world, stable=True) == {("t", 0): 1}
    pend(2, 2)
    settle(2, False)
    assert fetch(world, stable=True) == {("t", 0): 1}
    assert set(errors) == {ErrorCode.NONE}
    assert set(world.store.offsets[world.key("g")]) == {"0/t"}


def test_what_comes_late_for_a_transaction_that_is_over_counts_for_nothing() -> None:
    world = GroupWorld()
    errors: list[ErrorCode] = []

    def pend(serial: int, offset: int) -> ErrorCode:
        offsets = {("t", 0): Kept(offset)}
        producing = 5, serial
        world.host.coordinator.pend(CLIENT.tenant, "g", NOBODY, producing, offsets, errors.append)
        world.settle()
        return errors.pop()

    def settle(serial: int, is_committed: bool) -> None:
        world.host.coordinator.settle(CLIENT.tenant, "g", (5, serial), is_committed, errors.append)
        world.settle()
        assert errors.pop() is ErrorCode.NONE

    assert commit(world, committing(9, number=1)) == 0
    settle(3, False)
    assert pend(3, 1) is ErrorCode.INVALID_TXN_STATE
    assert pend(4, 2) is ErrorCode.NONE
    # Said again, as who said it first had not heard the answer.
    settle(3, True)
    assert fetch(world, stable=True)["t", 0] == ErrorCode.UNSTABLE_OFFSET_COMMIT
    # What was left behind by a transaction whose end the group's core has forgotten.
    assert pend(6, 3) is ErrorCode.NONE
    assert pend(5, 4) is ErrorCode.INVALID_TXN_STATE
    settle(7, True)
    assert fetch(world, stable=True) == {("t", 1): 9}
    assert set(world.store.offsets[world.key("g")]) == {"1/t"}


def test_offsets_of_a_transaction_are_those_of_a_member() -> None:
    world = GroupWorld()
    joined = join(world)
    errors: list[ErrorCode] = []
    for reader in (
        Reader(),
        Reader(joined.member_id, None, 1),
        Reader(joined.member_id, None, 0),
        Reader("?", None, 1),
    ):
        offsets = {("t", 0): Kept(1)}
        world.host.coordinator.pend(CLIENT.tenant, "g", reader, (1, 0), offsets, errors.append)
        world.settle()
    assert errors == [0, 0, ErrorCode.ILLEGAL_GENERATION, ErrorCode.UNKNOWN_MEMBER_ID]


def test_offsets_are_removed_but_for_topics_that_are_read() -> None:
    world = GroupWorld({"t": 1, "u": 1})
    topics = [
        OffsetDeleteRequestTopic(name=name, partitions=[OffsetDeleteRequestPartition()])
        for name in ("t", "u")
    ]
    request = OffsetDeleteRequest(group_id="g", topics=topics)

    def delete() -> OffsetDeleteResponse:
        return world.ask(ApiKey.OFFSET_DELETE, 0, request, OffsetDeleteResponse)

    assert delete().error_code == ErrorCode.GROUP_ID_NOT_FOUND
    commit(world, committing(1))
    commit(world, committing(1, topic="u"))
    join(world)
    answer = delete()
    codes = [each.partitions[0].error_code for each in answer.topics]
    assert codes == [ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC, 0]
    assert fetch(world) == {("t", 0): 1}
    world.wait(20_000)
    join(world, "connect")
    assert delete().error_code == ErrorCode.NON_EMPTY_GROUP


def test_an_empty_group_is_removed_with_its_offsets() -> None:
    world = GroupWorld()
    request = DeleteGroupsRequest(groups_names=["g", "h"])

    def delete() -> list[int]:
        response = world.ask(ApiKey.DELETE_GROUPS, 2, request, DeleteGroupsResponse)
        return [each.error_code for each in response.results]

    commit(world, committing(1))
    join(world)
    assert delete() == [ErrorCode.NON_EMPTY_GROUP, ErrorCode.GROUP_ID_NOT_FOUND]
    world.wait(20_000)
    assert delete() == [0, ErrorCode.GROUP_ID_NOT_FOUND]
    assert world.store.pages == {} == world.store.offsets
    assert fetch(world) == {}
    assert commit(world, committing(2)) == 0
    assert fetch(world) == {("t", 0): 2}


def test_offsets_of_groups_that_nobody_uses_are_forgotten() -> None:
    day = 86_400_000
    world = GroupWorld(
        settings=KafkaGroups(
            offsets_retention_minutes=1_440, offsets_retention_check_interval_ms=600_000
        )
    )
    commit(world, committing(1))
    world.wait(day // 2)
    commit(world, committing(2, number=1))
    world.wait(day // 2 + 600_000)
    assert fetch(world) == {("t", 1): 2}
    world.restart()
    world.wait(day)
    assert world.store.pages == {} == world.store.offsets


def test_groups_that_have_members_keep_their_offsets() -> None:
    settings = KafkaGroups(
        offsets_retention_minutes=1,
        offsets_retention_check_interval_ms=60_000,
        initial_rebalance_delay_ms=0,
    )
    world = GroupWorld(settings=settings)
    commit(world, committing(1))
    joined = join(world)
    request = SyncGroupRequest(group_id="g", generation_id=1, member_id=joined.member_id)
    assert world.ask(ApiKey.SYNC_GROUP, 3, request, SyncGroupResponse).error_code == 0
    for _ in range(100):
        world.wait(9_000)
        beat = HeartbeatRequest(group_id="g", generation_id=1, member_id=joined.member_id)
        assert world.ask(ApiKey.HEARTBEAT, 4, beat, HeartbeatResponse).error_code == 0
    assert fetch(world) == {("t", 0): 1}
    world.wait(200_000)
    assert fetch(world) == {}


def test_how_groups_are_described_and_listed() -> None:
    world = GroupWorld()
    assert describe(world, 5).group_state == "Dead"
    assert describe(world, 5).error_code == 0
    assert describe(world).error_code == ErrorCode.GROUP_ID_NOT_FOUND
    joined = join(world)
    group = describe(world)
    assert (group.group_state, group.protocol_type) == ("CompletingRebalance", "consumer")
    assert group.members[0].member_id == joined.member_id
    assert group.authorized_operations == 1 << 3 | 1 << 6 | 1 << 8
    commit_request = committing(1)
    commit_request.group_id = "h"
    commit(world, commit_request)

    def listed(**filters: list[str]) -> list[tuple[str, str, str, str]]:
        request = ListGroupsRequest(**filters)
        response = world.ask(ApiKey.LIST_GROUPS, 5, request, ListGroupsResponse)
        assert response.error_code == 0
        return [
            (each.group_id, each.protocol_type, each.group_state, each.group_type)
            for each in response.groups
        ]

    first = ("g", "consumer", "CompletingRebalance", "classic")
    second = ("h", "", "Empty", "classic")
    assert listed() == [first, second]
    assert listed(states_filter=["empty"]) == [second]
    assert listed(types_filter=["consumer"]) == []
    world.restart()
    assert listed(types_filter=["Classic"]) == [first, second]
    world.denied = {
        (Operation.DESCRIBE, Resource.CLUSTER, "kafka-cluster"),
        (Operation.DESCRIBE, Resource.GROUP, "g"),
    }
    assert listed() == [second]


def test_many_groups_are_listed_a_few_at_a_time() -> None:
    world = GroupWorld()
    for number in range(200):
        request = committing(1)
        request.group_id = f"g{number}"
        commit(world, request)
    world.restart()
    answers = world.send(ApiKey.LIST_GROUPS, 5, ListGroupsRequest())
    world.host.ledger.step()
    assert len(world.host.ledger.asked) < 100
    world.settle()
    assert len(answers[0].groups) == 200
    for number in range(100):
        request = committing(1)
        request.group_id = f"g{number}"
        commit(world, request)
    assert (
        len(world.ask(ApiKey.LIST_GROUPS, 5, ListGroupsRequest(), ListGroupsResponse).groups) == 200
    )


def test_the_coordinator_is_found() -> None:
    world = GroupWorld()
    world.lead(1)

    def find(version: int, kind: int = 0) -> list[tuple[int, str, int]]:
        request = FindCoordinatorRequest(key="g", key_type=kind, coordinator_keys=["g", "h"])
        response = world.ask(ApiKey.FIND_COORDINATOR, version, request, FindCoordinatorResponse)
        if version < 4:
            return [(response.node_id, response.host, response.error_code)]
        return [(each.node_id, each.host, each.error_code) for each in response.coordinators]

    assert find(2) == [(1, "tcp1.example", 0)]
    assert find(4, kind=1) == [(1, "tcp1.example", 0)] * 2
    assert find(3, kind=2) == [(-1, "", ErrorCode.INVALID_REQUEST)]
    world.denied = {(Operation.DESCRIBE, Resource.GROUP, "g")}
    assert find(5)[0] == (-1, "", ErrorCode.GROUP_AUTHORIZATION_FAILED)
    world.lead(None)
    host = world.hosts[0]
    request = FindCoordinatorRequest(key="h")
    (answer,) = world.send(ApiKey.FIND_COORDINATOR, 2, request, host)
    assert answer.error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE
