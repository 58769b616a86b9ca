"""A Produce of one batch has the answer that it would have on the way of all requests."""

from collections.abc import Callable, Sequence

import pytest

from robustmq.broker.api import Principal
from robustmq.broker.partition_api import Appended, Fault, Partition
from robustmq.kafka import codec
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.connection import ApiVersionsRequest
from robustmq.kafka.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from robustmq.message.core_number import global_core
from robustmq.settings.kafka import KafkaRuntime
from tests.kafka_front import Client
from tests.partition_world import World, batch_of
from tests.produce_door import (
    NAMES,
    PARTITIONS,
    VERSIONS,
    Door,
    Named,
    Script,
    Spender,
    Ways,
    body,
    both,
    is_flexible,
    produce,
    sized,
    watched,
)

OUTCOMES = (
    Appended(0, 7),
    Appended(0, 1 << 40, 1_700_000_000_123, 5),
    Appended(Fault.NOT_LEADER),
    Appended(Fault.UNKNOWN),
    Appended(Fault.CORRUPT, detail="checksum"),
    Appended(Fault.TOO_LARGE, detail="too large"),
    Appended(Fault.INVALID_TIMESTAMP, -1, -1, 3, "too late"),
    Appended(Fault.UNAVAILABLE),
    Appended(Fault.BUSY),
)
EACH_VERSION = pytest.mark.parametrize("version", VERSIONS)


def _errors(frames: list[bytes], version: int) -> list[int]:
    found = []
    for frame in frames:
        _, response = codec.decode_response(ApiKey.PRODUCE, version, frame)
        assert isinstance(response, ProduceResponse)
        found += [each.error_code for t in response.responses for each in t.partition_responses]
    return found


def _paused(client: Client) -> bool:
    return client.connection.paused


def _ended(client: Client) -> bool:
    return client.closed


def _feed(client: Client, *bodies: bytes) -> None:
    client.connection.feed(b"".join(map(sized, bodies)))


@EACH_VERSION
@pytest.mark.parametrize("acks", [1, -1])
def test_answers_are_those_of_the_way_of_all_requests(version: int, acks: int) -> None:
    ways = Ways()

    def scenario(door: Door, script: Script) -> list[list[bytes]]:
        door.topics.elsewhere[Partition(b"t", 0)] = global_core(2, 0)
        client, heard = door.client(), []
        for number, outcome in enumerate((OUTCOMES[0], *OUTCOMES), -3):
            for name in NAMES:
                for partition in (0, PARTITIONS + 3):
                    asked = produce(b"data", topic=name, partition=partition, acks=acks)
                    _feed(client, body(asked, version, number))
                    script.answer(outcome)
                    heard.append(client.frames())
        return heard

    heard = both(scenario, ways)
    routes = len(NAMES) * 2
    assert ways.taken == [False] * (routes - 1) + [True] * routes * len(OUTCOMES)
    assert all(len(frames) == 1 for frames in heard)
    (refused,) = _errors(heard[3 * routes], version)
    assert refused == ErrorCode.NOT_LEADER_OR_FOLLOWER


@EACH_VERSION
def test_batches_have_any_length(version: int) -> None:
    ways = Ways()
    sizes = (5, 0, 1, 126, 127, 128, 129, 16_382, 16_383, 16_384, 2_097_150, 2_097_151, 5)

    def scenario(door: Door, script: Script) -> list[list[bytes]]:
        client, heard = door.client(), []
        for number, size in enumerate(sizes):
            _feed(client, body(produce(bytes(size)), version, number))
            script.answer(Appended(0, number))
            heard.append(client.frames())
        assert [len(batch) for _, batch in script.appended] == list(sizes)
        return heard

    both(scenario, ways)
    assert ways.taken == [True] * (len(sizes) - 1)


def _odd(version: int) -> dict[str, bytes]:
    """Requests that are almost like those that take the short way."""
    request = produce(b"a batch")
    plain = body(request, version)
    (data,) = request.topic_data
    two = [*data.partition_data, PartitionProduceData(index=1, records=b"other")]
    several = ProduceRequest(
        acks=-1, timeout_ms=1, topic_data=[TopicProduceData(name="t", partition_data=two)]
    )
    odd = {
        "trailing": plain + b"\0\0\0more\0\0\0",
        "zeros": plain + b"\0\0\0",
        "truncated": plain[:-1],
        "cut in the batch": plain[: plain.index(b"batch")],
        "without a batch": plain[: plain.index(b"a batch")],
        "only a header": plain[:8],
        "null": body(produce(None), version),
        "two partitions": body(several, version),
        "no topic": body(ProduceRequest(acks=-1, timeout_ms=1), version),
        "no acks": body(produce(b"a batch", acks=0), version),
        "other acks": body(produce(b"a batch", acks=2), version),
        "transactional": body(
            ProduceRequest(transactional_id="x", acks=-1, topic_data=[data]), version
        ),
        "unknown topic": body(produce(b"a batch", topic="other"), version),
        "unknown version": plain[:2] + b"\0\x63" + plain[4:],
        "no client id": body(request, version, client_id=None),
        "empty client id": body(request, version, client_id=""),
        "other client id": body(request, version, client_id="you"),
        "too small a size": plain.replace(b"a batch", b"a batchand more"),
        "too large a size": plain.replace(b"a batch", b"a bat"),
    }
    if is_flexible(version):
        odd["tags behind the batch"] = plain[:-3] + b"\1\7\3\0\0\0" + b"\0\0"
        odd["tags at the end"] = plain[:-1] + b"\1\7\3\0\0\0"
        at = 10 + len("me")
        odd["tags in the header"] = plain[:at] + b"\1\7\1x" + plain[at + 1 :]
        odd["a longer size"] = plain.replace(b"\x08a batch", b"\x88\0a batch")
    return odd


@EACH_VERSION
def test_what_is_almost_like_them_is_answered_as_ever(version: int) -> None:
    for odd in _odd(version).values():
        for order in ((0, 1, 1, 0), (1, 1, 0, 1)):

            def scenario(
                door: Door, script: Script, odd: bytes = odd, order: Sequence[int] = order
            ) -> list[list[bytes]]:
                script.at_once = Appended(0, 3)
                client, heard = door.client(), []
                for each in order:
                    _feed(client, (body(produce(b"a batch"), version), odd)[each])
                    heard.append(client.frames())
                heard.append([b"closed"] if client.closed else [])
                return heard

            both(scenario)


@EACH_VERSION
def test_what_lies_behind_a_batch_is_not_taken_for_a_part_of_the_next(version: int) -> None:
    """A batch that holds, where the trailing bytes would end the size, what looks like one."""
    trailing = bytes(40)
    size = bytes((31,)) if is_flexible(version) else (30).to_bytes(4, "big")
    first = body(produce(b"b" * 70), version) + trailing
    batch = bytearray(b"b" * 70)
    # The size is where a request of as many trailing bytes would have it.
    at = 40 - (1 if is_flexible(version) else 4)
    batch[at : at + len(size)] = size
    second = body(produce(bytes(batch)), version)

    def scenario(door: Door, script: Script) -> list[list[bytes]]:
        script.at_once = Appended(0, 3)
        client, heard = door.client(), []
        for each in (first, second, first, second):
            _feed(client, each)
            heard.append(client.frames())
        assert [len(each) for _, each in script.appended] == [70] * 4
        return heard

    both(scenario)


def test_more_topics_and_partitions_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustmq.kafka.produce_route._ROUTES", 20)
    ways = Ways()

    def scenario(door: Door, script: Script) -> list[list[bytes]]:
        names = ["n" * length for length in range(1, 14)]
        for name in names:
            door.topics.make(name)
        script.at_once = Appended(0, 3)
        client, heard = door.client(), []
        for _ in range(2):
            for name in names:
                _feed(client, body(produce(b"data", topic=name), 9))
        for number in [*range(50), *range(30, 50), *range(20)]:
            _feed(client, body(produce(b"data", partition=number), 9, number))
            heard.append(client.frames())
        return heard

    both(scenario, ways)
    assert sum(ways.taken[-20:]) == 0
    assert sum(ways.taken[-40:]) >= 10, "the last are remembered"


def test_as_many_lengths_as_are_remembered_stay_so() -> None:
    ways = Ways()
    names = ["n" * length for length in range(1, 9)]
    script = Script()
    door = Door(script=script)
    script.at_once = Appended(0, 3)
    for name in names:
        door.topics.make(name)
    client = door.client()
    with watched(ways, is_short=True):
        for _ in range(2):
            for name in names:
                for partition in range(PARTITIONS):
                    _feed(client, body(produce(b"data", topic=name, partition=partition), 9))
    assert all(ways.taken[-len(names) * PARTITIONS :])


def _remade(door: Door) -> None:
    door.topics.drop("t")
    door.topics.make("t")


CHANGES: dict[str, Callable[[Door, Client], object]] = {
    "a topic goes": lambda door, _: door.topics.drop("t"),
    "a topic is made anew": lambda door, _: _remade(door),
    "it wants more replicas": lambda door, _: door.topics.want("t", 2),
    "a right is taken": lambda door, _: door.forbid("t"),
    "a quota appears": lambda door, _: door.limit(Spender()),
    "another principal": lambda _, client: client.connection.welcome(Principal("other")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_decided_is_decided_anew_when_something_changes(change: str) -> None:
    ways = Ways()

    def scenario(door: Door, script: Script) -> list[list[bytes]]:
        client, heard = door.client(), []
        for number in range(8):
            if number == 3:
                CHANGES[change](door, client)
            _feed(client, body(produce(b"data"), 11, number))
            # Those of before the change are under way.
            if number > 4:
                script.answer(Appended(0, number))
            heard.append(client.frames())
            door.wait(10)
        while script.waiting:
            script.answer(Appended(0, 99))
        return [*heard, client.frames()]

    both(scenario, ways)
    assert ways.taken[:3] == [True, True, False]


def test_who_may_not_any_more_hears_it_at_once() -> None:
    script = Script()
    door = Door(script=script)
    script.at_once = Appended(0, 3)
    client = door.client()
    codes = []
    for is_denied in (False, False, True, True, False, False):
        door.forbid("t", is_denied=is_denied)
        _feed(client, body(produce(b"data"), 9))
        codes += _errors(client.frames(), 9)
    failed = ErrorCode.TOPIC_AUTHORIZATION_FAILED
    assert codes == [0, 0, failed, failed, 0, 0]


def test_a_quota_counts_all_that_comes_since() -> None:
    script = Script()
    door = Door(script=script)
    script.at_once = Appended(0, 3)
    client, spender = door.client(), Spender()
    for number in range(6):
        if number == 3:
            door.limit(spender)
        _feed(client, body(produce(b"data"), 9, number))
        client.frames()
        door.wait(100)
    assert spender.produced == [len(body(produce(b"data"), 9))] * 3


def test_what_takes_too_long_is_answered_in_order() -> None:
    ways = Ways()

    def scenario(door: Door, script: Script) -> list[list[bytes]]:
        client, heard = door.client(), []
        _feed(client, body(produce(b"data"), 9, 0))
        script.answer(Appended(0, 0))
        for number, timeout_ms in enumerate((3_000, 1_000, 2_000, 1_000, 0, -5), 1):
            _feed(client, body(produce(b"data", timeout_ms=timeout_ms), 9, number))
        for _ in range(8):
            door.wait(500)
            heard.append(client.frames())
        while script.waiting:
            script.answer(Appended(0, 99))
        return [*heard, client.frames()]

    heard = both(scenario, ways)
    assert [len(frames) for frames in heard] == [1, 0, 0, 0, 0, 6, 0, 0, 0]
    assert set(_errors(heard[5], 9)) == {ErrorCode.REQUEST_TIMED_OUT}


def test_a_shorter_timeout_that_comes_later_is_kept() -> None:
    def scenario(door: Door, script: Script) -> list[list[bytes]]:
        client, heard = door.client(), []
        for timeout_ms in (9_000, 500, 9_000, 500):
            _feed(client, body(produce(b"data", timeout_ms=timeout_ms), 9))
        script.answer(Appended(0, 1), 2)
        for _ in range(20):
            door.wait(500)
            heard.append(client.frames())
        return heard

    heard = both(scenario)
    assert [len(frames) for frames in heard] == [0] * 17 + [4, 0, 0]


def test_what_begins_when_others_are_given_up_takes_no_time_from_those_that_wait() -> None:
    def scenario(door: Door, script: Script) -> list[list[bytes]]:
        client, heard = door.client(), []
        for timeout_ms in (50, 1_000, 30_000):
            _feed(client, body(produce(b"data", timeout_ms=timeout_ms), 9))
            script.answer(Appended(0, 1))
        client.frames()
        # As many as may be: the third waits for the first to be given up.
        for timeout_ms in (50, 1_000, 30_000):
            _feed(client, body(produce(b"data", timeout_ms=timeout_ms), 9))
        for passed_ms in (50, 500, 450, 1_000):
            door.wait(passed_ms)
            heard.append(client.frames())
        return heard

    heard = both(scenario, settings=KafkaRuntime(max_inflight_requests=2))
    assert [len(frames) for frames in heard] == [1, 0, 1, 0]


@pytest.mark.parametrize("is_known_anew", [False, True])
def test_a_client_that_is_gone_leaves_nothing(is_known_anew: bool) -> None:
    data = body(produce(b"data"), 9)
    script = Script()
    door = Door(script=script, pressure_bytes=2 * len(data))
    client = door.client()
    _feed(client, data)
    script.answer(Appended(0, 1))
    _feed(client, data)
    if is_known_anew:
        client.connection.welcome(Principal("other"))
        _feed(client, data)
    client.connection.lost()
    door.wait(60_000)
    script.answer(Appended(0, 1))
    script.answer(Appended(0, 1))
    other = door.client()
    _feed(other, data, data)
    assert not _paused(other), "nothing counts as under way"
    _feed(other, data)
    assert _paused(other)
    assert client.frames() == []


@pytest.mark.parametrize("is_known_anew", [False, True])
def test_a_client_that_is_gone_leaves_no_timer(is_known_anew: bool) -> None:
    script = Script()
    door = Door(script=script)
    client = door.client()
    data = body(produce(b"data", timeout_ms=600_000), 9)
    before = door.live_timers()
    for _ in range(3):
        _feed(client, data)
        script.answer(Appended(0, 1))
    _feed(client, data)
    if is_known_anew:
        client.connection.welcome(Principal("other"))
        _feed(client, data)
        script.answer(Appended(0, 1), 1)
        _feed(client, data)
    assert door.live_timers() > before
    client.connection.lost()
    # Its own was there before.
    assert door.live_timers() == before - 1


def test_a_core_that_stops_answers_what_it_has_begun() -> None:
    def scenario(door: Door, script: Script) -> list[list[bytes]]:
        client, heard = door.client(), []
        for number in range(3):
            _feed(client, body(produce(b"data"), 9, number))
        script.answer(Appended(0, 1))
        door.front.shut_down()
        _feed(client, body(produce(b"data"), 9, 9))
        heard.append(client.frames())
        script.answer(Appended(Fault.NOT_LEADER))
        assert not _ended(client)
        script.answer(Appended(0, 5))
        assert _ended(client)
        return [*heard, client.frames()]

    heard = both(scenario)
    assert [len(frames) for frames in heard] == [1, 2]


@pytest.mark.parametrize("which", range(3))
def test_others_in_between_keep_the_order(which: int) -> None:
    def scenario(door: Door, script: Script) -> list[list[bytes]]:
        client, heard = door.client(), []
        software = ApiVersionsRequest(client_software_name="a", client_software_version="1")
        asked = b"".join(codec.encode_request(ApiKey.API_VERSIONS, 3, 50, "me", software))
        _feed(client, body(produce(b"data"), 9, 0), asked, body(produce(b"more"), 9, 1), asked)
        _feed(client, body(produce(b"data", acks=0), 9, 2), body(produce(b"end"), 9, 3), asked)
        while script.waiting:
            script.answer(Appended(0, len(script.waiting)), which)
            heard.append(client.frames())
        return heard

    heard = both(scenario)
    numbers = [int.from_bytes(frame[:4], "big") for frames in heard for frame in frames]
    assert numbers == [0, 50, 1, 50, 3, 50]


def test_partitions_of_other_cores_are_reached_as_well() -> None:
    found = []
    for is_short in (True, False):
        ways = Ways()
        door = Door(World(2, topics=Named(2)))
        client, heard = door.client(), []
        with watched(ways, is_short=is_short):
            for number in range(12):
                records = batch_of(bytes((number,)))
                _feed(client, body(produce(records, partition=number % 3), 9, number))
                if number % 4 == 3:
                    door.world.settle()
                heard.append(client.frames())
        logs = [core.owner.logs for core in door.world.cores]
        found.append((heard, logs))
        assert sum(map(len, heard)) == 12
        assert sum(ways.taken) == (9 if is_short else 0)
    assert found[0] == found[1]
