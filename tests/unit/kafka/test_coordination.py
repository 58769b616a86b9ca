"""Requests for coordinators go to the core that coordinates, and their answers come back."""

from typing import Any

import pytest

from robustmq import metrics
from robustmq.broker.api import Principal
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.coordination import FIRST_KIND, LAST_KIND, Kind
from robustmq.kafka.coordinator_keys import COORDINATED, group_key, transaction_key
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.group_offsets import OffsetFetchRequest, OffsetFetchRequestGroup
from robustmq.kafka.messages.groups import HeartbeatRequest, HeartbeatResponse
from robustmq.kafka.messages.transactions import InitProducerIdRequest
from tests.kafka_front import Desk, Place

KEY = group_key("default", "g")
HEARTBEAT = HeartbeatRequest(group_id="g", generation_id=7)


def _place(core: int | None, node: int = 1) -> Place:
    place = Place()
    place.coordinators[KEY] = None if core is None else (node, core)
    return place


def _pump(*desks: Desk) -> None:
    """Carry frames between the cores, which are numbered as the desks are."""
    while any(desk.sent for desk in desks):
        for source, desk in enumerate(desks):
            sent, desk.sent[:] = list(desk.sent), []
            for core, frame in sent:
                assert FIRST_KIND <= frame[0] <= LAST_KIND
                desks[core].kafka.coordination.receive(source, frame)


def test_the_coordinator_itself_handles_what_comes_in() -> None:
    desk = Desk(place=_place(0))
    client = desk.client()
    client.send(ApiKey.HEARTBEAT, 4, HEARTBEAT)
    (call,) = desk.calls
    assert (call.fault, call.is_forwarded) == (0, False)


def test_another_core_of_the_node_handles_it_and_answers() -> None:
    desks = [Desk(place=_place(1), core=core) for core in (0, 1)]
    client = desks[0].client()
    for _ in range(2):
        client.send(ApiKey.HEARTBEAT, 4, HEARTBEAT)
    _pump(*desks)
    assert desks[0].calls == []
    first, second = desks[1].calls
    assert (first.request.generation_id, first.client_id, first.fault) == (7, "me", 0)
    assert first.is_forwarded
    assert first.principal == Principal("me", None, "192.0.2.1", "kafka_tcp")
    second.answer(HeartbeatResponse(error_code=27))
    first.answer(HeartbeatResponse(error_code=25))
    _pump(*desks)
    assert [(number, answer.error_code) for number, answer in client.read()] == [(1, 25), (2, 27)]
    assert desks[0].cell(metrics.KAFKA_FORWARDED) == 2
    assert desks[0].kafka.coordination.waiting == 0


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        (_place(0, node=2), ErrorCode.NOT_COORDINATOR),
        (_place(None), ErrorCode.COORDINATOR_NOT_AVAILABLE),
    ],
)
def test_who_coordinates_elsewhere_or_is_not_known_is_a_fault(place: Place, fault: int) -> None:
    desk = Desk(place=place)
    desk.client().send(ApiKey.HEARTBEAT, 4, HEARTBEAT)
    assert [call.fault for call in desk.calls] == [fault]


def test_a_core_that_is_replaced_answers_no_more() -> None:
    desks = [Desk(place=_place(1), core=core) for core in (0, 1)]
    client = desks[0].client()
    client.send(ApiKey.HEARTBEAT, 4, HEARTBEAT)
    _pump(*desks)
    desks[0].kafka.coordination.replaced(1)
    (call,) = desks[0].calls
    assert call.fault == ErrorCode.COORDINATOR_NOT_AVAILABLE
    call.answer(HeartbeatResponse(error_code=call.fault))
    desks[1].calls[0].answer(HeartbeatResponse())
    _pump(*desks)
    assert [answer.error_code for _, answer in client.read()] == [call.fault]


def test_a_client_that_is_gone_meanwhile_is_not_answered() -> None:
    desks = [Desk(place=_place(1), core=core) for core in (0, 1)]
    client = desks[0].client()
    client.send(ApiKey.HEARTBEAT, 4, HEARTBEAT)
    _pump(*desks)
    client.connection.lost()
    desks[0].kafka.coordination.replaced(1)
    assert [call.fault for call in desks[0].calls] == [ErrorCode.COORDINATOR_NOT_AVAILABLE]
    desks[0].calls[0].answer(HeartbeatResponse())
    assert client.frames() == []


def test_the_receiver_may_know_better_who_coordinates() -> None:
    desks = [Desk(place=_place(1), core=0), Desk(place=_place(0, node=2), core=1)]
    desks[0].client().send(ApiKey.HEARTBEAT, 4, HEARTBEAT)
    _pump(*desks)
    assert [call.fault for call in desks[1].calls] == [ErrorCode.NOT_COORDINATOR]


@pytest.mark.parametrize("place", [(1, 0), (1, 1)])
def test_coordinators_ask_each_other(place: tuple[int, int]) -> None:
    desks = [Desk(core=core) for core in (0, 1)]
    answers: list[Any] = []
    who = Principal("me", "alice", tenant="acme")
    ask = desks[0].kafka.coordination.ask
    ask(place, ApiKey.HEARTBEAT, 4, who, HEARTBEAT, answers.append)
    _pump(*desks)
    (call,) = desks[place[1]].calls
    assert (call.principal, call.is_forwarded, call.request.group_id) == (who, True, "g")
    call.answer(HeartbeatResponse(error_code=27))
    _pump(*desks)
    assert [answer.error_code for answer in answers] == [27]


def test_a_coordinator_that_is_gone_answers_nothing() -> None:
    desk = Desk()
    answers: list[Any] = []
    ask = desk.kafka.coordination.ask
    ask((2, 3), ApiKey.HEARTBEAT, 4, Principal("me"), HEARTBEAT, answers.append)
    ((core, frame),) = desk.sent
    assert (core, frame[0]) == (2_003, Kind.ASKED)
    desk.kafka.coordination.replaced(2_003)
    assert answers == [None]


def test_what_names_no_coordinator_or_several_is_handled_where_it_comes_in() -> None:
    several = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=name) for name in "ab"])
    one = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id="a")])
    fetch, begin = COORDINATED[ApiKey.OFFSET_FETCH], COORDINATED[ApiKey.INIT_PRODUCER_ID]
    assert fetch("t", several) is None
    assert fetch("t", one) == group_key("t", "a")
    assert fetch("t", OffsetFetchRequest(group_id="a")) == group_key("t", "a")
    assert begin("t", InitProducerIdRequest(transactional_id=None)) is None
    assert begin("t", InitProducerIdRequest(transactional_id="x")) == transaction_key("t", "x")
