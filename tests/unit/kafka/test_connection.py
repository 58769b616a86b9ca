"""Requests are started and answered in order; too much of anything stops the reading."""

import itertools
import random
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq import metrics
from robustmq.errors import Refusal, Refused
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.connection import ApiVersionsRequest
from robustmq.kafka.messages.fetch import FetchRequest, FetchResponse
from robustmq.kafka.messages.metadata import MetadataRequest, MetadataResponse
from robustmq.kafka.messages.produce import ProduceRequest, ProduceResponse
from robustmq.settings.kafka import KafkaRuntime
from robustmq.settings.users import MqttAuth, User
from tests.kafka_front import Client, Desk

SOFTWARE = ApiVersionsRequest(client_software_name="test", client_software_version="1.0")


def _ask(client: Client) -> None:
    client.send(ApiKey.METADATA, 9, MetadataRequest())


def _answer(call: Call[Any], name: str) -> None:
    call.answer(MetadataResponse(cluster_id=name))


def _paused(client: Client) -> bool:
    return client.connection.paused


def _ended(client: Client) -> bool:
    return client.closed


def _names(client: Client) -> list[tuple[int, str]]:
    return [(number, answer.cluster_id) for number, answer in client.read()]


def test_answers_leave_in_the_order_of_the_requests() -> None:
    desk = Desk()
    client = desk.client()
    for _ in range(3):
        _ask(client)
    assert len(desk.calls) == 3
    _answer(desk.calls[2], "c")
    _answer(desk.calls[1], "b")
    assert client.read() == []
    _answer(desk.calls[0], "a")
    assert _names(client) == [(1, "a"), (2, "b"), (3, "c")]


@given(st.lists(st.integers(0, 200), max_size=20), st.randoms(use_true_random=False))
def test_any_cut_and_any_order_of_work_give_the_same_answers(
    cuts: list[int], chance: random.Random
) -> None:
    desk = Desk()
    client = desk.client()
    stream = b"".join(client.bytes_of(ApiKey.METADATA, 9, MetadataRequest()) for _ in range(5))
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        client.connection.feed(stream[start:end])
    numbered = list(enumerate(desk.calls, 1))
    chance.shuffle(numbered)
    for number, call in numbered:
        _answer(call, str(number))
    assert _names(client) == [(number, str(number)) for number in range(1, 6)]


def test_a_request_that_wants_no_answer_has_none() -> None:
    desk = Desk()
    client = desk.client()
    client.send(ApiKey.PRODUCE, 9, ProduceRequest(acks=0))
    _ask(client)
    desk.calls[0].answer(None)
    _answer(desk.calls[1], "a")
    assert _names(client) == [(2, "a")]


def test_as_many_requests_as_may_be_are_under_way_and_no_more() -> None:
    desk = Desk(KafkaRuntime(max_inflight_requests=2))
    client = desk.client()
    for _ in range(4):
        _ask(client)
    assert len(desk.calls) == 2
    assert _paused(client)
    _answer(desk.calls[0], "a")
    assert len(desk.calls) == 3
    for call in desk.calls[1:]:
        _answer(call, "b")
    _answer(desk.calls[3], "b")
    assert [number for number, _ in client.read()] == [1, 2, 3, 4]
    assert not _paused(client)
    assert client.resumed


def test_who_does_not_take_answers_is_not_read() -> None:
    desk = Desk(KafkaRuntime(max_backlog_bytes=1_024))
    client = desk.client()
    _ask(client)
    _answer(desk.calls[0], "a" * 2_000)
    assert _paused(client)
    _ask(client)
    assert len(desk.calls) == 1
    client.read()
    assert len(desk.calls) == 2


def test_a_fetch_waits_for_the_one_before_and_so_does_what_follows() -> None:
    desk = Desk()
    client = desk.client()
    for _ in range(2):
        client.send(ApiKey.FETCH, 11, FetchRequest())
    _ask(client)
    assert [call.api for call in desk.calls] == [ApiKey.FETCH]
    desk.calls[0].answer(FetchResponse())
    assert [call.api for call in desk.calls] == [ApiKey.FETCH, ApiKey.FETCH, ApiKey.METADATA]


def test_a_core_with_too_much_to_do_reads_on_when_some_is_done() -> None:
    desk = Desk(pressure_bytes=30)
    first, second = desk.client(), desk.client()
    _ask(first)
    _ask(second)
    assert not _paused(first)
    assert _paused(second)
    _ask(second)
    assert len(desk.calls) == 2
    _answer(desk.calls[0], "a")
    assert len(desk.calls) == 3


def test_who_goes_while_the_core_has_too_much_to_do_counts_no_more() -> None:
    desk = Desk(pressure_bytes=30)
    first, second = desk.client(), desk.client()
    _ask(first)
    _ask(second)
    first.connection.lost()
    assert not _paused(second)
    _answer(desk.calls[0], "nobody hears it")
    assert desk.cell(metrics.KAFKA_CONNECTIONS) == 1


def test_what_waits_for_a_client_that_is_gone_is_told() -> None:
    desk = Desk()
    client = desk.client()
    client.send(ApiKey.FETCH, 11, FetchRequest())
    told: list[bool] = []
    desk.calls[0].abandoned = lambda: told.append(True)
    client.connection.lost()
    assert told == [True]
    desk.calls[0].answer(FetchResponse())
    assert client.frames() == []


@pytest.mark.parametrize("size", [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"])
def test_a_size_that_cannot_be_ends_the_connection(size: bytes) -> None:
    desk = Desk()
    client = desk.client()
    client.connection.feed(size)
    assert _ended(client)
    assert "at most 104857600" in desk.said[0]


def test_what_has_come_of_requests_has_a_bound_for_all_together() -> None:
    desk = Desk(KafkaRuntime(max_unfinished_bytes=1_000))
    first, second = desk.client(), desk.client()
    start = (500_000).to_bytes(4, "big")
    first.connection.feed(start + bytes(500))
    second.connection.feed(start + bytes(400))
    assert not _ended(first)
    second.connection.feed(bytes(100))
    assert (_ended(first), _ended(second)) == (False, True)
    third = desk.client()
    third.connection.feed(start + bytes(400))
    first.connection.lost()
    third.connection.feed(bytes(500))
    assert not _ended(third)
    assert "max_unfinished_bytes" in desk.said[0]


def test_garbage_ends_the_connection_after_what_was_asked_before_it() -> None:
    desk = Desk()
    client = desk.client()
    _ask(client)
    client.connection.feed(b"\0\0\0\4abcd")
    _ask(client)
    assert not _ended(client)
    assert len(desk.calls) == 1
    _answer(desk.calls[0], "a")
    assert _ended(client)
    assert _names(client) == [(1, "a")]


def test_a_request_that_ends_too_early_ends_the_connection() -> None:
    client = Desk().client()
    client.connection.feed(b"\0\0\0\x0b\0\3\0\x0c\0\0\0\1\xff\xff\0")
    assert _ended(client)


def test_garbage_does_not_wait_for_a_fetch_that_waits() -> None:
    desk = Desk()
    client = desk.client()
    client.send(ApiKey.FETCH, 11, FetchRequest())
    desk.calls[0].abandoned = lambda: None
    client.connection.feed(b"\0\0\0\4abcd")
    assert _ended(client)


@pytest.mark.parametrize(
    ("api", "version"), [(ApiKey.METADATA, 99), (4, 0), (ApiKey.PRODUCE, 2), (999, 0)]
)
def test_what_is_not_offered_ends_the_connection(api: int, version: int) -> None:
    desk = Desk()
    client = desk.client()
    header = api.to_bytes(2, "big") + version.to_bytes(2, "big") + b"\0\0\0\1\xff\xff\0"
    client.connection.feed(len(header).to_bytes(4, "big") + header)
    assert _ended(client)
    assert "is not offered" in desk.said[0]
    assert desk.cell(metrics.PROTOCOL_ERRORS) == 1


@pytest.mark.parametrize("version", range(5))
def test_api_versions_names_what_there_is(version: int) -> None:
    answer = Desk().client().ask(ApiKey.API_VERSIONS, version, SOFTWARE)
    named = {row.api_key: (row.min_version, row.max_version) for row in answer.api_keys}
    assert named[ApiKey.API_VERSIONS] == (0, 4)
    assert named[ApiKey.PRODUCE] == (0, 11)
    assert named[ApiKey.SASL_HANDSHAKE] == (0, 1)


def test_a_newer_api_versions_is_answered_as_version_0() -> None:
    client = Desk().client()
    client.connection.feed(b"\0\0\0\x0b\0\x12\0\x63\0\0\0\7\xff\xff\0")
    (data,) = client.frames()
    assert data == b"\0\0\0\7" + b"\0\x23" + b"\0\0\0\1" + b"\0\x12\0\0\0\4"
    assert not _ended(client)


def test_software_without_a_name_is_told() -> None:
    answer = Desk().client().ask(ApiKey.API_VERSIONS, 3, ApiVersionsRequest())
    assert answer.error_code == ErrorCode.INVALID_REQUEST


class _Used(NamedTuple):
    produced: int
    consumed: int


class _Allowance:
    def __init__(self, wait_ms: int) -> None:
        self.wait_ms = wait_ms
        self.used: list[_Used] = []

    def take(self, produced: int, consumed: int, busy_ns: int, now_ms: int) -> int:
        del busy_ns, now_ms
        self.used.append(_Used(produced, consumed))
        return self.wait_ms


def test_who_exceeds_a_quota_is_answered_at_once_and_read_later() -> None:
    desk = Desk()
    desk.allowance = allowance = _Allowance(500)
    client = desk.client()
    client.send(ApiKey.PRODUCE, 9, ProduceRequest())
    desk.calls[0].answer(ProduceResponse())
    ((_, answer),) = client.read()
    assert answer.throttle_time_ms == 500
    assert allowance.used[0].produced > 0
    _ask(client)
    desk.wait(499)
    assert len(desk.calls) == 1
    desk.wait(1)
    assert len(desk.calls) == 2
    assert desk.cell(metrics.KAFKA_THROTTLED) == 1


def test_who_says_nothing_is_closed_after_a_while() -> None:
    desk = Desk(KafkaRuntime(idle_timeout_ms=60_000))
    silent, idle = desk.client(), desk.client()
    _ask(idle)
    desk.wait(10_000)
    assert (silent.closed, idle.closed) == (True, False)
    _answer(desk.calls[0], "a")
    desk.wait(40_000)
    _ask(idle)
    _answer(desk.calls[1], "a")
    desk.wait(59_999)
    assert not _ended(idle)
    desk.wait(10_001)
    assert _ended(idle)


def test_a_ban_sends_away_who_is_here_and_keeps_out_who_comes() -> None:
    desk = Desk()
    client = desk.client()
    _ask(client)
    assert desk.gate.inside == 1
    desk.gate.refusal = Refused(Refusal.BANNED, "it is banned")
    desk.calls[0].abandoned = lambda: None
    desk.front.banned()
    assert _ended(client)
    late = desk.client()
    _ask(late)
    assert _ended(late)
    assert desk.said == ["it is banned", "it is banned"]
    assert len(desk.calls) == 1


def test_where_users_are_needed_nobody_comes_without_one() -> None:
    password = "SCRAM-SHA-256$4096:AAAA$" + "A" * 43 + "=:" + "A" * 43 + "="
    desk = Desk(auth=MqttAuth(), users=[User(username="alice", password=password)])
    client = desk.client()
    _ask(client)
    assert _ended(client)
    assert "user name" in desk.said[0]
    assert desk.cell(metrics.LOGINS_REFUSED) == 1


def test_a_core_that_stops_answers_what_it_has_begun() -> None:
    desk = Desk()
    client = desk.client()
    _ask(client)
    desk.front.shut_down()
    _ask(client)
    assert not _ended(client)
    _answer(desk.calls[0], "a")
    assert _ended(client)
    assert _names(client) == [(1, "a")]
    assert len(desk.calls) == 1
