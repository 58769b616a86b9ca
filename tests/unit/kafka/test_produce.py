"""Produce: every batch is appended or refused by itself, and all are answered together."""

import pytest

from robustmq.broker.partition_api import Fault, Partition
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from robustmq.kafka.rights import Operation, Resource
from tests.kafka_desk import CLIENT, Desk
from tests.partition_world import TOPIC, World, batch_of, payload_of


def request(
    *payloads: bytes, topic: str = "t", acks: int = -1, transaction: str | None = None
) -> ProduceRequest:
    """A request with a batch for each partition from 0 on."""
    data = [
        PartitionProduceData(index=number, records=batch_of(payload))
        for number, payload in enumerate(payloads)
    ]
    topics = [TopicProduceData(name=topic, partition_data=data)]
    return ProduceRequest(
        transactional_id=transaction, acks=acks, timeout_ms=30_000, topic_data=topics
    )


def slots(response: ProduceResponse) -> list[PartitionProduceResponse]:
    return [slot for topic in response.responses for slot in topic.partition_responses]


def errors(desk: Desk, asked: ProduceRequest, version: int = 9) -> list[int]:
    response = desk.ask(ApiKey.PRODUCE, version, asked, ProduceResponse)
    return [slot.error_code for slot in slots(response)]


@pytest.mark.parametrize("acks", [1, -1])
def test_batches_are_answered_together_when_all_are_kept(acks: int) -> None:
    desk = Desk(World(2))
    answers = desk.send(ApiKey.PRODUCE, 9, request(b"a", b"b", b"c", acks=acks))
    desk.world.turn(0)
    assert not answers, "the other core has not answered"
    desk.world.settle()
    got = slots(answers[0])
    assert [(slot.index, slot.error_code, slot.base_offset) for slot in got] == [
        (0, 0, 0),
        (1, 0, 0),
        (2, 0, 0),
    ]
    owners = [core.owner for core in desk.world.cores]
    kept = [payload_of(owners[number % 2].logs[Partition(TOPIC, number)][0]) for number in range(3)]
    assert kept == [b"a", b"b", b"c"]


def test_without_acknowledgement_nothing_is_answered_and_everything_is_kept() -> None:
    desk = Desk(World(2))
    answers = desk.send(ApiKey.PRODUCE, 9, request(b"a", b"b", acks=0))
    desk.world.settle()
    assert answers == [None]
    assert Partition(TOPIC, 1) in desk.world.cores[1].owner.logs


def test_an_error_without_acknowledgement_ends_the_connection() -> None:
    desk = Desk(World(1))
    desk.core.owner.faults[Partition(TOPIC, 1)] = Fault.NOT_LEADER
    said: list[str] = []
    for payloads in ([b"a"], [b"a", b"b"]):
        asked = request(*payloads, acks=0)
        now_ms = desk.core.turn.now_ms
        call = Call[ProduceRequest](0, 9, "client", CLIENT, asked, now_ms, lambda _: None)
        call.hang_up = said.append
        desk.handlers[ApiKey.PRODUCE](call)
        desk.world.settle()
    assert said == [
        "partition 1 of t refused with NOT_LEADER_OR_FOLLOWER what wants no answer (acks=0)"
    ]


def test_a_request_without_batches_is_answered() -> None:
    assert errors(Desk(World(1)), ProduceRequest(acks=1)) == []


def test_one_partition_that_is_refused_leaves_the_others() -> None:
    desk = Desk(World(2))
    desk.world.cores[1].owner.faults[Partition(TOPIC, 1)] = Fault.OUT_OF_SEQUENCE
    assert errors(desk, request(b"a", b"b", b"c")) == [
        ErrorCode.NONE,
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode.NONE,
    ]


def test_what_may_not_be_written_is_refused_with_a_sentence() -> None:
    desk = Desk(World(1))
    desk.denied.add((Operation.WRITE, Resource.TOPIC, "t"))
    desk.denied.add((Operation.WRITE, Resource.TOPIC, "u"))
    for topic in ("t", "u"):
        asked = request(b"a", topic=topic)
        (slot,) = slots(desk.ask(ApiKey.PRODUCE, 9, asked, ProduceResponse))
        assert slot.error_code == ErrorCode.TOPIC_AUTHORIZATION_FAILED
        assert slot.error_message == "not allowed to write to this topic"
    assert not desk.core.owner.logs


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (request(b"a", topic="u"), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (request(*[b"a"] * 9), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (request(b"a", acks=2), ErrorCode.INVALID_REQUIRED_ACKS),
        (request(b"a", acks=-2), ErrorCode.INVALID_REQUIRED_ACKS),
        (
            request(b"a", transaction="x"),
            ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ),
    ],
)
def test_what_cannot_be_done_has_its_error(asked: ProduceRequest, error: ErrorCode) -> None:
    desk = Desk(World(1))
    desk.denied.add((Operation.WRITE, Resource.TRANSACTIONAL_ID, "x"))
    assert errors(desk, asked)[-1] == error


def test_more_replicas_than_there_are_cannot_acknowledge() -> None:
    desk = Desk(World(1))
    desk.world.topics.set({"min.insync.replicas": "2"})
    assert errors(desk, request(b"a")) == [ErrorCode.NOT_ENOUGH_REPLICAS]
    assert errors(desk, request(b"a", acks=1)) == [ErrorCode.NONE]


def test_who_leads_instead_is_said_with_its_address() -> None:
    desk = Desk(World(1))
    desk.world.topics.move(Partition(TOPIC, 0), 2)
    response = desk.ask(ApiKey.PRODUCE, 10, request(b"a"), ProduceResponse)
    (slot,) = slots(response)
    assert slot.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert slot.current_leader is not None
    assert (slot.current_leader.leader_id, slot.current_leader.leader_epoch) == (2, 7)
    (endpoint,) = response.node_endpoints
    assert (endpoint.node_id, endpoint.host) == (2, "tcp2.example")
    assert errors(desk, request(b"a"), 9) == [ErrorCode.NOT_LEADER_OR_FOLLOWER]


def test_what_takes_too_long_is_answered_so_and_only_once() -> None:
    desk = Desk(World(2))
    desk.world.stalled.add((0, 1))
    answers = desk.send(ApiKey.PRODUCE, 9, request(b"a", b"b"))
    desk.world.settle()
    desk.world.advance(31_000)
    assert [slot.error_code for slot in slots(answers[0])] == [0, ErrorCode.REQUEST_TIMED_OUT]
    desk.world.stalled.clear()
    desk.world.settle()
    assert len(answers) == 1
