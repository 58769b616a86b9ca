from typing import Any

import pytest

from robustmq import metrics
from robustmq.errors import Refusal, Refused
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.classic_group import ClassicGroup
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.groups import (
    HeartbeatRequest,
    HeartbeatResponse,
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    JoinGroupResponse,
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberIdentity,
    SyncGroupRequest,
    SyncGroupRequestAssignment,
    SyncGroupResponse,
)
from robustmq.settings.kafka_groups import KafkaGroups
from tests.group_world import GroupWorld


def joining(
    member_id: str = "",
    *,
    instance: str | None = None,
    protocols: tuple[tuple[str, bytes], ...] = (("range", b"m"),),
    kind: str = "consumer",
    session_ms: int = 10_000,
) -> JoinGroupRequest:
    return JoinGroupRequest(
        group_id="g",
        session_timeout_ms=session_ms,
        rebalance_timeout_ms=30_000,
        member_id=member_id,
        group_instance_id=instance,
        protocol_type=kind,
        protocols=[JoinGroupRequestProtocol(name=n, metadata=m) for n, m in protocols],
    )


def join(world: GroupWorld, request: JoinGroupRequest, version: int = 9) -> list[Any]:
    answers = world.send(ApiKey.JOIN_GROUP, version, request)
    world.settle()
    return answers


def new_id(world: GroupWorld) -> str:
    (answer,) = join(world, joining())
    assert answer.error_code == ErrorCode.MEMBER_ID_REQUIRED
    assert isinstance(answer.member_id, str)
    return answer.member_id


def sync(
    world: GroupWorld,
    joined: JoinGroupResponse,
    assignments: dict[str, bytes] | None = None,
    instance: str | None = None,
) -> list[Any]:
    request = SyncGroupRequest(
        group_id="g",
        generation_id=joined.generation_id,
        member_id=joined.member_id,
        group_instance_id=instance,
        protocol_type="consumer",
        protocol_name=joined.protocol_name,
        assignments=[
            SyncGroupRequestAssignment(member_id=each, assignment=data)
            for each, data in (assignments or {}).items()
        ],
    )
    answers = world.send(ApiKey.SYNC_GROUP, 5, request)
    world.settle()
    return answers


def beat(world: GroupWorld, member: str, generation: int, instance: str | None = None) -> int:
    request = HeartbeatRequest(
        group_id="g", generation_id=generation, member_id=member, group_instance_id=instance
    )
    return world.ask(ApiKey.HEARTBEAT, 4, request, HeartbeatResponse).error_code


def leave(world: GroupWorld, member: str, instance: str | None = None) -> int:
    identity = MemberIdentity(member_id=member, group_instance_id=instance)
    request = LeaveGroupRequest(group_id="g", members=[identity])
    response = world.ask(ApiKey.LEAVE_GROUP, 5, request, LeaveGroupResponse)
    return response.error_code or response.members[0].error_code


def two(world: GroupWorld) -> tuple[JoinGroupResponse, JoinGroupResponse]:
    """A stable group of two; the leader is the first."""
    first = new_id(world)
    (alone,) = join(world, joining(first))
    second = new_id(world)
    waiting = join(world, joining(second))
    (leader,) = join(world, joining(first))
    (follower,) = waiting
    assert alone.generation_id + 1 == leader.generation_id == follower.generation_id
    asked = sync(world, follower)
    assert asked == []
    (own,) = sync(world, leader, {first: b"one", second: b"two"})
    assert (own.assignment, asked[0].assignment) == (b"one", b"two")
    return leader, follower


def test_a_member_gets_an_id_joins_leads_and_assigns() -> None:
    world = GroupWorld()
    member = new_id(world)
    (joined,) = join(world, joining(member))
    assert (joined.error_code, joined.generation_id, joined.leader) == (0, 1, member)
    assert (joined.protocol_type, joined.protocol_name) == ("consumer", "range")
    assert [(each.member_id, each.metadata) for each in joined.members] == [(member, b"m")]
    (synced,) = sync(world, joined, {member: b"mine"})
    assert synced.assignment == b"mine"
    assert beat(world, member, 1) == 0
    assert sync(world, joined)[0].assignment == b"mine"


def test_before_version_4_a_member_joins_without_an_id() -> None:
    world = GroupWorld()
    (joined,) = join(world, joining(), version=3)
    assert joined.member_id == joined.leader
    assert joined.generation_id == 1


def test_another_member_rebalances_the_group() -> None:
    world = GroupWorld()
    leader, follower = two(world)
    assert world.counted(metrics.KAFKA_REBALANCES) == 2
    assert world.counted(metrics.KAFKA_GROUPS) == 1
    assert follower.members == []
    assert len(leader.members) == 2
    third = new_id(world)
    waiting = join(world, joining(third))
    assert beat(world, leader.member_id, 2) == ErrorCode.REBALANCE_IN_PROGRESS
    again = join(world, joining(leader.member_id)) + join(world, joining(follower.member_id))
    assert {each.generation_id for each in again + waiting} == {3}
    assert beat(world, follower.member_id, 2) == ErrorCode.ILLEGAL_GENERATION
    assert beat(world, follower.member_id, 3) == 0


def test_who_has_an_id_and_does_not_come_holds_up_the_group_until_its_session_is_over() -> None:
    world = GroupWorld()
    first = new_id(world)
    second = new_id(world)
    waiting = join(world, joining(first))
    assert waiting == []
    world.wait(10_000)
    assert waiting[0].generation_id == 1
    assert join(world, joining(second))[0].error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_who_does_not_join_again_in_time_is_out() -> None:
    world = GroupWorld(settings=KafkaGroups(initial_rebalance_delay_ms=0))
    leader, follower = two(world)
    waiting = join(world, joining(leader.member_id))
    for _ in range(4):
        world.wait(7_500)
        beat(world, follower.member_id, 2)
    assert [each.member_id for each in waiting[0].members] == [leader.member_id]
    assert beat(world, follower.member_id, 3) == ErrorCode.UNKNOWN_MEMBER_ID


def test_who_is_silent_is_out_and_the_others_rebalance() -> None:
    world = GroupWorld()
    leader, follower = two(world)
    world.wait(6_000)
    assert beat(world, follower.member_id, 2) == 0
    world.wait(6_000)
    assert beat(world, follower.member_id, 2) == ErrorCode.REBALANCE_IN_PROGRESS
    (joined,) = join(world, joining(follower.member_id))
    assert joined.leader == follower.member_id
    assert beat(world, leader.member_id, 3) == ErrorCode.UNKNOWN_MEMBER_ID


def test_who_joins_and_never_syncs_is_out() -> None:
    world = GroupWorld()
    first, second = new_id(world), new_id(world)
    (one, two_) = join(world, joining(first)) or [], join(world, joining(second))
    assert two_[0].generation_id == 1
    assert one == []
    for _ in range(4):
        world.wait(7_500)
        beat(world, first, 1)
        beat(world, second, 1)
    assert beat(world, first, 1) == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_leader_that_leaves_is_followed_by_another() -> None:
    world = GroupWorld()
    leader, follower = two(world)
    assert leave(world, leader.member_id) == 0
    assert beat(world, follower.member_id, 2) == ErrorCode.REBALANCE_IN_PROGRESS
    (joined,) = join(world, joining(follower.member_id))
    assert joined.leader == follower.member_id
    assert leave(world, leader.member_id) == ErrorCode.UNKNOWN_MEMBER_ID
    assert leave(world, follower.member_id) == 0
    assert beat(world, follower.member_id, 3) == ErrorCode.UNKNOWN_MEMBER_ID


def test_an_empty_group_waits_for_more_members() -> None:
    world = GroupWorld(settings=KafkaGroups(initial_rebalance_delay_ms=3_000))
    first = join(world, joining(new_id(world)))
    world.wait(2_000)
    second = join(world, joining(new_id(world)))
    world.wait(1_500)
    assert first == [] == second
    world.wait(3_000)
    assert first[0].generation_id == second[0].generation_id == 1


def test_the_assignor_is_one_that_all_have() -> None:
    world = GroupWorld()
    first, second = new_id(world), new_id(world)
    one = join(world, joining(first, protocols=(("a", b""), ("b", b"x"), ("c", b""))))
    (joined,) = join(world, joining(second, protocols=(("c", b""), ("b", b"y"))))
    assert joined.protocol_name in {"b", "c"}
    assert one[0].protocol_name == joined.protocol_name
    (refused,) = join(world, joining(protocols=(("a", b""),)))
    assert refused.error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    (refused,) = join(world, joining(kind="connect"))
    assert refused.error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL


def test_a_static_member_comes_back_without_a_rebalance() -> None:
    world = GroupWorld()
    (first,) = join(world, joining(instance="i"))
    (synced,) = sync(world, first, {first.member_id: b"mine"}, "i")
    assert synced.error_code == 0
    (second,) = join(world, joining(instance="i"))
    assert second.member_id != first.member_id
    assert (second.generation_id, second.skip_assignment) == (1, True)
    assert sync(world, second, {}, "i")[0].assignment == b"mine"
    assert beat(world, first.member_id, 1, "i") == ErrorCode.FENCED_INSTANCE_ID
    assert beat(world, second.member_id, 1, "i") == 0
    (third,) = join(world, joining(instance="i"), version=5)
    assert third.leader == second.member_id
    assert third.members == []
    assert leave(world, "", "i") == 0
    assert beat(world, third.member_id, 1, "i") == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_waiting_static_member_is_fenced_by_the_one_that_has_its_id_now() -> None:
    world = GroupWorld(settings=KafkaGroups(initial_rebalance_delay_ms=1_000))
    first = join(world, joining(instance="i"))
    second = join(world, joining(instance="i"))
    assert first[0].error_code == ErrorCode.FENCED_INSTANCE_ID
    world.wait(1_000)
    assert second[0].generation_id == 1


@pytest.mark.parametrize("session_ms", [5_999, 1_800_001])
def test_a_session_timeout_has_bounds(session_ms: int) -> None:
    world = GroupWorld()
    (refused,) = join(world, joining(session_ms=session_ms))
    assert refused.error_code == ErrorCode.INVALID_SESSION_TIMEOUT


def test_a_group_has_bounds() -> None:
    world = GroupWorld(settings=KafkaGroups(initial_rebalance_delay_ms=0, max_members=2))
    leader, _ = two(world)
    assert join(world, joining())[0].error_code == ErrorCode.GROUP_MAX_SIZE_REACHED
    world = GroupWorld(settings=KafkaGroups(initial_rebalance_delay_ms=0, max_page_bytes=1_024))
    (refused,) = join(world, joining(protocols=(("range", b"m" * 2_000),)))
    assert refused.error_code == ErrorCode.GROUP_MAX_SIZE_REACHED
    leader, _ = two(world)
    (refused,) = sync(world, leader, {leader.member_id: b"a" * 2_000})
    assert refused.error_code == ErrorCode.GROUP_MAX_SIZE_REACHED


def test_heartbeats_write_nothing() -> None:
    world = GroupWorld()
    leader, follower = two(world)
    writes = world.store.writes
    for _ in range(10):
        world.wait(1_000)
        assert beat(world, leader.member_id, 2) == 0 == beat(world, follower.member_id, 2)
    assert world.store.writes == writes


def test_nobody_hears_of_a_generation_or_an_assignment_before_it_is_kept() -> None:
    world = GroupWorld()
    member = new_id(world)
    joined = world.send(ApiKey.JOIN_GROUP, 9, joining(member))
    assert joined == []
    world.settle()
    request = SyncGroupRequest(group_id="g", generation_id=1, member_id=member)
    first, second = (world.send(ApiKey.SYNC_GROUP, 5, request) for _ in range(2))
    assert first == second == []
    world.settle()
    assert [each.error_code for each in first + second] == [0, 0]


def test_a_coordinator_that_is_killed_costs_no_rebalance() -> None:
    world = GroupWorld()
    leader, follower = two(world)
    world.restart()
    assert beat(world, leader.member_id, 2) == 0
    world.wait(6_000)
    assert beat(world, follower.member_id, 2) == 0
    assert beat(world, leader.member_id, 2) == 0
    assert sync(world, follower)[0].assignment == b"two"


def test_after_a_restart_whoever_does_not_come_back_is_out() -> None:
    world = GroupWorld()
    leader, follower = two(world)
    world.restart()
    assert beat(world, follower.member_id, 2) == 0
    world.wait(6_000)
    assert beat(world, follower.member_id, 2) == 0
    world.wait(6_000)
    assert beat(world, follower.member_id, 2) == ErrorCode.REBALANCE_IN_PROGRESS
    assert join(world, joining(follower.member_id))[0].generation_id == 3
    assert beat(world, leader.member_id, 3) == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_restart_between_join_and_sync_goes_on_there() -> None:
    world = GroupWorld()
    member = new_id(world)
    (joined,) = join(world, joining(member))
    world.restart()
    (synced,) = sync(world, joined, {member: b"mine"})
    assert synced.assignment == b"mine"


def test_of_two_that_take_themselves_for_the_coordinator_one_is_told() -> None:
    world = GroupWorld()
    leader, _ = two(world)
    world.leader, world.lives = 1, 1
    world.learn(1)
    assert beat(world, leader.member_id, 2) == 0
    world.restart(1)
    world.leader = 0
    old = world.hosts[0].coordinator
    (group,) = old
    assert isinstance(group.machine, ClassicGroup)
    third = new_id(world)
    waiting = world.send(ApiKey.JOIN_GROUP, 9, joining(third))
    again = world.send(ApiKey.JOIN_GROUP, 9, joining(leader.member_id))
    world.wait(30_000)
    assert waiting[0].error_code == again[0].error_code == ErrorCode.NOT_COORDINATOR
    assert list(old) == []
    assert world.counted(metrics.KAFKA_GROUPS_LOST) == 1
    world.lead(1)
    assert beat(world, leader.member_id, 2) == 0


def test_who_waits_where_it_is_not_coordinated_any_more_is_told_at_once() -> None:
    world = GroupWorld()
    leader, _ = two(world)
    waiting = join(world, joining(leader.member_id))
    world.lead(1)
    assert waiting[0].error_code == ErrorCode.NOT_COORDINATOR
    assert beat(world, leader.member_id, 2) == 0


def test_a_page_that_cannot_be_written_is_an_answer() -> None:
    world = GroupWorld()
    member = new_id(world)
    answers = world.send(ApiKey.JOIN_GROUP, 9, joining(member))
    world.host.ledger.refusal = Refused(Refusal.UNAVAILABLE, "nobody leads")
    world.settle()
    assert answers[0].error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert list(world.host.coordinator) == []


def test_who_waits_too_many_for_a_group_is_asked_to_come_again() -> None:
    world = GroupWorld(settings=KafkaGroups(max_waiting=2))
    request = HeartbeatRequest(group_id="g", generation_id=1, member_id="m")
    answers = [world.send(ApiKey.HEARTBEAT, 4, request) for _ in range(3)]
    assert answers[2][0].error_code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    world.settle()
    codes = [answer[0].error_code for answer in answers[:2]]
    assert codes == [ErrorCode.UNKNOWN_MEMBER_ID] * 2


def test_groups_that_are_only_asked_for_take_no_memory() -> None:
    world = GroupWorld(settings=KafkaGroups(max_groups=1, initial_rebalance_delay_ms=0))
    for index in range(3):
        request = HeartbeatRequest(group_id=f"g{index}", generation_id=1, member_id="m")
        response = world.ask(ApiKey.HEARTBEAT, 4, request, HeartbeatResponse)
        assert response.error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert world.counted(metrics.KAFKA_GROUPS) == 0
    member = new_id(world)
    assert world.counted(metrics.KAFKA_GROUPS) == 1
    request = HeartbeatRequest(group_id="h", generation_id=1, member_id="m")
    response = world.ask(ApiKey.HEARTBEAT, 4, request, HeartbeatResponse)
    assert response.error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE
    world.wait(10_000)
    assert world.counted(metrics.KAFKA_GROUPS) == 0
    assert join(world, joining(member))[0].error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_group_that_is_not_used_makes_room() -> None:
    world = GroupWorld(settings=KafkaGroups(max_groups=1, initial_rebalance_delay_ms=0))
    leader, follower = two(world)
    assert leave(world, leader.member_id) == leave(world, follower.member_id) == 0
    request = joining()
    request.group_id = "h"
    assert join(world, request)[0].error_code == ErrorCode.MEMBER_ID_REQUIRED
    assert world.counted(metrics.KAFKA_GROUPS) == 1


def test_sync_says_what_is_wrong() -> None:
    world = GroupWorld()
    leader, follower = two(world)
    (answer,) = sync(world, leader.__class__(generation_id=2, member_id="?"))
    assert answer.error_code == ErrorCode.UNKNOWN_MEMBER_ID
    (answer,) = sync(world, leader.__class__(generation_id=1, member_id=follower.member_id))
    assert answer.error_code == ErrorCode.ILLEGAL_GENERATION
    other = leader.__class__(generation_id=2, member_id=follower.member_id, protocol_name="x")
    assert sync(world, other)[0].error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    join(world, joining(new_id(world)))
    request = SyncGroupRequest(group_id="g", generation_id=2, member_id=leader.member_id)
    response = world.ask(ApiKey.SYNC_GROUP, 5, request, SyncGroupResponse)
    assert response.error_code == ErrorCode.REBALANCE_IN_PROGRESS


def test_a_group_without_a_name_or_with_a_nul_is_none() -> None:
    world = GroupWorld()
    for name in ("", "a\0b"):
        request = HeartbeatRequest(group_id=name, generation_id=1, member_id="m")
        response = world.ask(ApiKey.HEARTBEAT, 4, request, HeartbeatResponse)
        assert response.error_code == ErrorCode.INVALID_GROUP_ID
