import pytest

from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.assignors import Place
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.consumer_groups import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    DescribedGroup,
    TopicPartitions,
)
from robustmq.kafka.messages.groups import (
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    JoinGroupResponse,
)
from robustmq.settings.kafka_groups import KafkaGroups
from tests.group_world import GroupWorld


class Client:
    """A member as a client is one: it tells what it reads when it has changed."""

    def __init__(self, world: GroupWorld, name: str, instance: str | None = None) -> None:
        self.world = world
        self.name = name
        self.instance = instance
        self.epoch = 0
        self.owned: set[Place] = set()
        self._is_news = False

    def join(
        self, topics: tuple[str, ...] | None = ("t",), **more: str
    ) -> ConsumerGroupHeartbeatResponse:
        self.epoch, self.owned = 0, set()
        names = None if topics is None else list(topics)
        return self._beat(
            rebalance_timeout_ms=30_000, subscribed_topic_names=names, topic_partitions=[], **more
        )

    def beat(self, **more: object) -> ConsumerGroupHeartbeatResponse:
        if self._is_news:
            by_topic: dict[bytes, list[int]] = {}
            for topic, number in sorted(self.owned):
                by_topic.setdefault(topic, []).append(number)
            more["topic_partitions"] = [
                TopicPartitions(topic_id=topic, partitions=some) for topic, some in by_topic.items()
            ]
            self._is_news = False
        return self._beat(**more)

    def _beat(self, **more: object) -> ConsumerGroupHeartbeatResponse:
        request = ConsumerGroupHeartbeatRequest(
            group_id="g",
            member_id=self.name,
            member_epoch=self.epoch,
            instance_id=self.instance,
            **more,  # type: ignore[arg-type]
        )
        kind = ConsumerGroupHeartbeatResponse
        response = self.world.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, request, kind)
        if not response.error_code:
            self.epoch = response.member_epoch
        if response.assignment is not None:
            owned = {
                (each.topic_id, number)
                for each in response.assignment.topic_partitions
                for number in each.partitions
            }
            self._is_news = owned != self.owned
            self.owned = owned
        return response

    def leave(self, epoch: int = -1) -> ConsumerGroupHeartbeatResponse:
        self.epoch = epoch
        return self._beat()


def settle(*clients: Client) -> None:
    """Let everybody send heartbeats until nothing changes; nobody ever has what another has."""
    for _ in range(10):
        before = [(client.epoch, set(client.owned)) for client in clients]
        for client in clients:
            assert client.beat().error_code == 0
            owned = [place for each in clients for place in each.owned]
            assert len(owned) == len(set(owned))
        if before == [(client.epoch, client.owned) for client in clients]:
            return
    raise AssertionError("it does not settle")


def describe(world: GroupWorld) -> DescribedGroup:
    request = ConsumerGroupDescribeRequest(group_ids=["g"])
    kind = ConsumerGroupDescribeResponse
    return world.ask(ApiKey.CONSUMER_GROUP_DESCRIBE, 1, request, kind).groups[0]


def test_the_first_member_gets_everything_and_hears_it_once() -> None:
    world = GroupWorld()
    client = Client(world, "a")
    response = client.join()
    assert (response.error_code, response.member_id, response.member_epoch) == (0, "a", 1)
    assert response.heartbeat_interval_ms == 5_000
    assert sorted(number for _, number in client.owned) == [0, 1, 2, 3]
    writes = world.store.writes
    assert client.beat().assignment is None
    assert world.store.writes == writes


def test_a_partition_goes_to_another_when_its_owner_has_let_it_go() -> None:
    world = GroupWorld()
    first, second = Client(world, "a"), Client(world, "b")
    first.join()
    second.join()
    assert second.owned == set()
    assert describe(world).group_state == "Reconciling"
    response = first.beat()
    assert response.assignment is not None
    assert len(first.owned) == 2
    second.beat()
    assert second.owned == set()
    first.beat()
    second.beat()
    assert len(second.owned) == 2
    settle(first, second)
    assert describe(world).group_state == "Stable"
    assert first.epoch == second.epoch == 2


def test_who_leaves_makes_room_at_once() -> None:
    world = GroupWorld()
    first, second = Client(world, "a"), Client(world, "b")
    first.join()
    second.join()
    settle(first, second)
    assert second.leave().member_epoch == -1
    settle(first)
    assert len(first.owned) == 4


def test_who_is_silent_or_keeps_what_it_must_let_go_is_out() -> None:
    world = GroupWorld()
    first, second = Client(world, "a"), Client(world, "b")
    first.join()
    second.join()
    first.beat()
    first.owned = set()
    for _ in range(4):
        world.wait(9_000)
        second.beat()
        assert first._beat().error_code in {0, ErrorCode.UNKNOWN_MEMBER_ID}
    assert first._beat().error_code == ErrorCode.UNKNOWN_MEMBER_ID
    settle(second)
    assert len(second.owned) == 4
    world.wait(45_000)
    assert second._beat().error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_who_knows_less_or_more_than_it_was_told_is_fenced() -> None:
    world = GroupWorld()
    first, second = Client(world, "a"), Client(world, "b")
    first.join()
    second.join()
    settle(first, second)
    first.epoch = 1
    assert first._beat().assignment is not None
    assert first.epoch == 2
    first.epoch = 9
    assert first._beat().error_code == ErrorCode.FENCED_MEMBER_EPOCH
    assert len(first.owned) == 2


def test_topics_by_pattern_and_topics_that_come_and_grow() -> None:
    world = GroupWorld({"a1": 1, "b1": 1})
    client = Client(world, "a")
    assert client.join(None, subscribed_topic_regex="a.*").error_code == 0
    assert len(client.owned) == 1
    world.topics.make("a2", 2)
    settle(client)
    assert len(client.owned) == 3
    world.topics.make("a1", 3)
    settle(client)
    assert len(client.owned) == 5
    world.topics.drop("a2")
    settle(client)
    assert len(client.owned) == 3
    epoch = client.epoch
    world.topics.make("c", 3)
    settle(client)
    assert client.epoch == epoch
    response = Client(world, "b").join(None, subscribed_topic_regex="(")
    assert response.error_code == ErrorCode.INVALID_REGULAR_EXPRESSION


def test_a_static_member_that_is_away_keeps_its_partitions() -> None:
    world = GroupWorld()
    first, second = Client(world, "a", "one"), Client(world, "b", "two")
    first.join()
    second.join()
    settle(first, second)
    owned = set(first.owned)
    other = Client(world, "c", "one")
    assert other.join().error_code == ErrorCode.UNRELEASED_INSTANCE_ID
    assert first.leave(-2).member_epoch == -2
    settle(second)
    assert len(second.owned) == 2
    assert other.join().error_code == 0
    assert other.owned == owned
    first.epoch = 2
    assert first._beat().error_code == ErrorCode.FENCED_INSTANCE_ID
    assert first.leave().error_code == ErrorCode.FENCED_INSTANCE_ID
    settle(other, second)


def test_a_coordinator_that_is_killed_is_not_noticed() -> None:
    world = GroupWorld()
    first, second = Client(world, "a"), Client(world, "b")
    first.join()
    second.join()
    world.restart()
    settle(first, second)
    assert len(first.owned) == len(second.owned) == 2
    epochs = (first.epoch, second.epoch)
    world.restart()
    settle(first, second)
    assert epochs == (first.epoch, second.epoch)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"member_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"instance_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"rack_id": "r" * 300}, ErrorCode.INVALID_REQUEST),
        ({"rebalance_timeout_ms": -1}, ErrorCode.INVALID_REQUEST),
        ({"subscribed_topic_names": None}, ErrorCode.INVALID_REQUEST),
        ({"topic_partitions": [TopicPartitions(partitions=[1])]}, ErrorCode.INVALID_REQUEST),
        ({"member_epoch": -2}, ErrorCode.INVALID_REQUEST),
        ({"member_epoch": -3}, ErrorCode.INVALID_REQUEST),
        ({"server_assignor": "?"}, ErrorCode.UNSUPPORTED_ASSIGNOR),
        ({"member_epoch": 7}, ErrorCode.GROUP_ID_NOT_FOUND),
        ({"group_id": ""}, ErrorCode.INVALID_GROUP_ID),
    ],
)
def test_a_heartbeat_says_what_is_wrong(changes: dict[str, object], error: ErrorCode) -> None:
    world = GroupWorld()
    request = ConsumerGroupHeartbeatRequest(
        group_id="g",
        member_id="a",
        member_epoch=0,
        rebalance_timeout_ms=1_000,
        subscribed_topic_names=["t"],
        topic_partitions=[],
    )
    for name, value in changes.items():
        setattr(request, name, value)
    kind = ConsumerGroupHeartbeatResponse
    response = world.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, request, kind)
    assert response.error_code == error
    assert world.store.pages == {}


def test_the_assignor_that_most_ask_for_is_taken() -> None:
    world = GroupWorld({"t": 2, "u": 2})
    first, second = Client(world, "a"), Client(world, "b")
    first.join(("t", "u"), server_assignor="range")
    second.join(("t", "u"))
    settle(first, second)
    assert describe(world).assignor_name == "range"
    assert [number for _, number in sorted(first.owned)] == [0, 0]


def test_a_group_has_bounds() -> None:
    world = GroupWorld(settings=KafkaGroups(max_members=1))
    assert Client(world, "a").join().error_code == 0
    assert Client(world, "b").join().error_code == ErrorCode.GROUP_MAX_SIZE_REACHED
    error = Client(world, "b").join(None, subscribed_topic_regex="t").error_code
    assert error == ErrorCode.GROUP_MAX_SIZE_REACHED
    world = GroupWorld(settings=KafkaGroups(max_page_bytes=2_000))
    client = Client(world, "a")
    assert client.join().error_code == 0
    error = client.beat(subscribed_topic_names=["t" * 3_000]).error_code
    assert error == ErrorCode.GROUP_MAX_SIZE_REACHED
    assert client.beat().error_code == 0


def test_an_empty_group_may_change_its_protocol_and_one_with_members_not() -> None:
    world = GroupWorld()
    client = Client(world, "a")
    client.join()
    request = JoinGroupRequest(
        group_id="g",
        session_timeout_ms=10_000,
        rebalance_timeout_ms=10_000,
        protocol_type="consumer",
        protocols=[JoinGroupRequestProtocol(name="range")],
    )
    joined = world.ask(ApiKey.JOIN_GROUP, 3, request, JoinGroupResponse)
    assert joined.error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    client.leave()
    joined = world.ask(ApiKey.JOIN_GROUP, 3, request, JoinGroupResponse)
    assert (joined.error_code, joined.generation_id) == (0, 3)
    assert client.join().error_code == ErrorCode.GROUP_ID_NOT_FOUND
    assert describe(world).error_code == ErrorCode.GROUP_ID_NOT_FOUND


def test_how_a_group_is_described() -> None:
    world = GroupWorld()
    Client(world, "a").join()
    group = describe(world)
    assert (group.group_epoch, group.assignment_epoch, group.assignor_name) == (1, 1, "uniform")
    (member,) = group.members
    assert (member.client_id, member.client_host, member.member_type) == ("app", "/10.0.0.1", 1)
    assert member.subscribed_topic_names == ["t"]
    assert member.assignment.topic_partitions[0].topic_name == "t"
    assert member.target_assignment.topic_partitions[0].partitions == [0, 1, 2, 3]
