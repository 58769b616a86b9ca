"""Fetch: what was asked for comes, from any core, in order, and in sessions only what is new."""

from collections.abc import Sequence

import pytest

from robustmq.broker.partition_api import Partition
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.fetch import (
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    ForgottenTopic,
    PartitionData,
)
from robustmq.kafka.rights import Operation, Resource
from robustmq.settings.kafka import KafkaRuntime
from tests.kafka_desk import CLIENT, Desk
from tests.partition_world import TOPIC, World, batch_of, payload_of

NO_ID = bytes(16)
MANY = 1 << 20


def partitions(offsets: dict[int, int], most: int = MANY) -> list[FetchPartition]:
    return [
        FetchPartition(partition=number, fetch_offset=offset, partition_max_bytes=most)
        for number, offset in offsets.items()
    ]


def request(
    offsets: dict[int, int],
    *,
    topic: str = "t",
    wait_ms: int = 500,
    most: int = MANY,
    each: int = MANY,
    session: tuple[int, int] = (0, -1),
) -> FetchRequest:
    """Ask for partitions of a topic from these offsets on."""
    topics = [FetchTopic(topic=topic, partitions=partitions(offsets, each))] if offsets else []
    return FetchRequest(
        max_wait_ms=wait_ms,
        min_bytes=1,
        max_bytes=most,
        session_id=session[0],
        session_epoch=session[1],
        topics=topics,
    )


def produce(desk: Desk, number: int, *payloads: bytes) -> None:
    for payload in payloads:
        router = desk.core.router
        router.append(Partition(TOPIC, number), batch_of(payload), None)
    desk.world.settle()


def answers(response: FetchResponse) -> dict[int, PartitionData]:
    return {data.partition_index: data for topic in response.responses for data in topic.partitions}


def payloads(data: PartitionData) -> list[bytes]:
    assert data.records is not None
    batches: Sequence[bytes] = () if isinstance(data.records, bytes) else data.records
    return [payload_of(batch) for batch in batches]


def fetch(desk: Desk, asked: FetchRequest, version: int = 12) -> FetchResponse:
    return desk.ask(ApiKey.FETCH, version, asked, FetchResponse)


def test_what_is_there_comes_from_all_cores_without_being_copied() -> None:
    desk = Desk(World(2))
    produce(desk, 0, b"a", b"b")
    produce(desk, 1, b"c")
    got = answers(fetch(desk, request({1: 0, 0: 1, 2: 0})))
    assert {number: payloads(data) for number, data in got.items()} == {0: [b"b"], 1: [b"c"], 2: []}
    assert (got[0].high_watermark, got[0].last_stable_offset, got[0].log_start_offset) == (2, 2, 0)
    records = got[0].records
    assert records is not None
    assert records[0] is desk.core.owner.logs[Partition(TOPIC, 0)][1]


def test_a_reader_waits_for_what_comes() -> None:
    desk = Desk(World(2))
    got = desk.send(ApiKey.FETCH, 12, request({0: 0, 1: 0}))
    desk.world.settle()
    assert not got
    produce(desk, 1, b"x")
    assert payloads(answers(got[0])[1]) == [b"x"]
    got = desk.send(ApiKey.FETCH, 12, request({0: 0, 1: 1}))
    desk.world.advance(600)
    desk.world.settle()
    assert payloads(answers(got[0])[1]) == []


def test_a_client_that_is_gone_waits_for_nothing() -> None:
    desk = Desk(World(2))
    topic = FetchTopic(topic="t", partitions=partitions({0: 0, 1: 0}))
    asked = FetchRequest(max_wait_ms=500, min_bytes=1, topics=[topic])
    call = Call[FetchRequest](1, 12, "client", CLIENT, asked, desk.core.turn.now_ms, print)
    desk.handlers[ApiKey.FETCH](call)
    desk.world.settle()
    owners = [core.owner for core in desk.world.cores]
    assert [owner.parked for owner in owners] == [1, 1]
    call.abandon()
    desk.world.settle()
    assert [owner.parked for owner in owners] == [0, 0]


def test_nobody_waits_longer_than_the_node_lets_them() -> None:
    desk = Desk(World(1), settings=KafkaRuntime(max_fetch_wait_ms=100))
    got = desk.send(ApiKey.FETCH, 12, request({0: 0}, wait_ms=0x7FFFFFFF))
    desk.world.advance(200)
    assert len(got) == 1


def test_each_partition_has_its_own_error() -> None:
    desk = Desk(World(1))
    desk.world.topics.move(Partition(TOPIC, 1), 2)
    response = fetch(desk, request({0: 5, 1: 0, 2: 0, 9: 0}), 16)
    got = answers(response)
    assert {number: data.error_code for number, data in got.items()} == {
        0: ErrorCode.OFFSET_OUT_OF_RANGE,
        1: ErrorCode.NOT_LEADER_OR_FOLLOWER,
        2: ErrorCode.NONE,
        9: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }
    leader = got[1].current_leader
    assert leader is not None
    assert (leader.leader_id, leader.leader_epoch) == (2, 7)
    assert [endpoint.host for endpoint in response.node_endpoints] == ["tcp2.example"]


def test_topics_that_may_not_be_read_or_are_not_there_are_refused() -> None:
    desk = Desk(World(1))
    (data,) = answers(fetch(desk, request({0: 0}, topic="u"))).values()
    assert data.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    desk.denied.add((Operation.READ, Resource.TOPIC, "t"))
    (data,) = answers(fetch(desk, request({0: 0}))).values()
    assert data.error_code == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    topic = FetchTopic(topic_id=NO_ID, partitions=partitions({0: 0}))
    (data,) = answers(fetch(desk, FetchRequest(topics=[topic]), 13)).values()
    assert data.error_code == ErrorCode.TOPIC_AUTHORIZATION_FAILED


def test_topics_are_known_by_their_ids_but_not_those_of_another_tenant() -> None:
    desk = Desk(World(1))
    produce(desk, 0, b"a")
    topics = [
        FetchTopic(topic_id=NO_ID, partitions=partitions({0: 0})),
        FetchTopic(topic_id=b"\1" * 16, partitions=partitions({0: 0})),
    ]
    asked = FetchRequest(topics=topics, min_bytes=1)
    response = fetch(desk, asked, 13)
    by_id = {topic.topic_id: topic.partitions[0] for topic in response.responses}
    assert payloads(by_id[NO_ID]) == [b"a"]
    assert by_id[b"\1" * 16].error_code == ErrorCode.UNKNOWN_TOPIC_ID
    stranger = CLIENT.__class__("client", tenant="other")
    response = desk.ask(ApiKey.FETCH, 13, asked, FetchResponse, stranger)
    errors = {topic.partitions[0].error_code for topic in response.responses}
    assert errors == {ErrorCode.UNKNOWN_TOPIC_ID}


@pytest.mark.parametrize("is_in_session", [False, True])
def test_no_partition_starves_when_all_are_too_much(is_in_session: bool) -> None:
    desk = Desk(World(1))
    for number in range(4):
        produce(desk, number, bytes(1_000))
    offsets = dict.fromkeys(range(4), 0)
    served = set()
    session = (0, 0 if is_in_session else -1)
    for epoch in range(1, 5):
        response = fetch(desk, request(offsets, most=1_000, each=1_000, session=session))
        served |= {number for number, data in answers(response).items() if payloads(data)}
        if is_in_session:
            session = (response.session_id, epoch)
            offsets = {}
    assert served == {0, 1, 2, 3}


class Reader:
    """A client with a session."""

    def __init__(self, desk: Desk, version: int = 12) -> None:
        self.desk = desk
        self.version = version
        self.session = 0
        self.epoch = 0

    def fetch(
        self, offsets: dict[int, int], forgotten: Sequence[int] = ()
    ) -> dict[int, PartitionData]:
        """Fetch on, without waiting."""
        asked = request(offsets, wait_ms=0, session=(self.session, self.epoch))
        if forgotten:
            asked.forgotten_topics_data = [ForgottenTopic(topic="t", partitions=[*forgotten])]
        response = fetch(self.desk, asked, self.version)
        assert not response.error_code
        self.session = response.session_id
        self.epoch += 1
        return answers(response)


def test_in_a_session_only_what_is_new_is_said() -> None:
    desk = Desk(World(2))
    reader = Reader(desk)
    assert reader.fetch({0: 0, 1: 0, 2: 0}).keys() == {0, 1, 2}
    assert reader.session > 0
    assert reader.fetch({}) == {}
    produce(desk, 1, b"a")
    got = reader.fetch({})
    assert payloads(got[1]) == [b"a"]
    assert got.keys() == {1}
    assert reader.fetch({1: 1}) == {}
    produce(desk, 0, b"b")
    produce(desk, 2, b"c")
    assert reader.fetch({3: 0}, forgotten=[2]).keys() == {0, 3}
    assert reader.fetch({0: 1}) == {}
    # An error is said each time.
    assert reader.fetch({0: 9})[0].error_code == ErrorCode.OFFSET_OUT_OF_RANGE
    assert reader.fetch({})[0].error_code == ErrorCode.OFFSET_OUT_OF_RANGE


def test_a_session_that_there_is_not_or_is_further_is_refused() -> None:
    desk = Desk(World(1))
    reader = Reader(desk)
    reader.fetch({0: 0})

    def error(number: int, epoch: int, version: int = 12) -> int:
        return fetch(desk, request({}, wait_ms=0, session=(number, epoch)), version).error_code

    assert error(reader.session + 1, 1) == ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert error(reader.session, 2) == ErrorCode.INVALID_FETCH_SESSION_EPOCH
    assert error(reader.session, 1, 13) == ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR
    assert error(reader.session, 1) == ErrorCode.NONE
    assert error(reader.session, -1) == ErrorCode.NONE
    assert error(reader.session, 2) == ErrorCode.FETCH_SESSION_ID_NOT_FOUND


def test_a_session_is_its_clients_alone() -> None:
    desk = Desk(World(1))
    reader = Reader(desk)
    reader.fetch({0: 0})
    asked = request({}, wait_ms=0, session=(reader.session, 1))
    stranger = CLIENT.__class__("another")
    response = desk.ask(ApiKey.FETCH, 12, asked, FetchResponse, stranger)
    assert response.error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND


def test_sessions_and_what_they_hold_are_bounded_and_old_ones_make_room() -> None:
    settings = KafkaRuntime(
        max_fetch_sessions=2, max_fetch_session_partitions=4, fetch_session_idle_ms=1_000
    )
    desk = Desk(World(1), settings=settings)
    readers = [Reader(desk) for _ in range(4)]
    for reader in readers[:3]:
        reader.fetch({0: 0})
    assert [reader.session > 0 for reader in readers] == [True, True, False, False]
    desk.world.advance(900)
    readers[0].fetch({})
    desk.world.advance(200)
    readers[3].fetch({0: 0})
    assert readers[3].session > 0
    readers[0].fetch({1: 0})
    # The second one had to go, and the first is served once more when it wants too much.
    got = readers[0].fetch({2: 0, 3: 0, 4: 0})
    assert got.keys() == {2, 3, 4}
    asked = request({}, wait_ms=0, session=(readers[0].session, readers[0].epoch))
    assert fetch(desk, asked).error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND
