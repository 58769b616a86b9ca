"""Who wants what: targets per topic, durable or not, and a core's word across its lives."""

import pytest

from robustmq._kernel.batch import BatchBuilder
from robustmq._kernel.turn import Turn
from robustmq.broker import interests as module
from robustmq.broker.interests import CORE, DURABLE, Interests
from robustmq.message.record import NO_HEADERS
from robustmq.metrics import CELLS
from tests.books import check_books
from tests.fabric import Client, Fabric


@pytest.fixture
def interests() -> Interests:
    return Interests(1_000)


def batch(*topics: bytes) -> bytes:
    """A batch of one record for each topic."""
    row = memoryview(bytearray(8 * CELLS)).cast("Q")
    builder = BatchBuilder(Turn(row), 0, 1 << 20, None)
    for topic in topics:
        builder.append(topic, b"x", NO_HEADERS, 0, 1_000)
    return builder.take()[0]


def targets(interests: Interests, topic: bytes) -> list[int]:
    """The targets of a message to `topic`."""
    parts, unmatched = interests.split(batch(topic))
    assert unmatched == ([] if parts else [(0, 1)])
    return sorted(target for target, _ in parts)


def test_a_core_is_a_target_once_however_many_of_its_filters_match(interests: Interests) -> None:
    for topic_filter in (b"a/b", b"a/+", b"#"):
        interests.want(1, topic_filter, False)
        interests.want(1, topic_filter, False)
    interests.want(2, b"a/#", False)
    assert targets(interests, b"a/b") == [1, 2]
    assert targets(interests, b"b") == [1]
    assert targets(interests, b"$x") == []
    for topic_filter in (b"a/b", b"a/+", b"#"):
        interests.unwant(1, topic_filter)
        interests.unwant(1, topic_filter)
    assert targets(interests, b"a/b") == [2]
    interests.unwant(2, b"a/#")
    interests.unwant(2, b"never")
    assert targets(interests, b"a/b") == []
    assert not interests._filters
    assert len(interests._wild) == 0


def test_the_target_of_a_core_that_must_keep_a_message_says_so(interests: Interests) -> None:
    interests.want(1, b"a", True)
    interests.want(2, b"a", False)
    (kept, live) = sorted(targets(interests, b"a"), reverse=True)
    assert (kept & CORE, bool(kept & DURABLE)) == (1, True)
    assert live == 2


def test_durable_by_one_filter_is_durable(interests: Interests) -> None:
    interests.want(1, b"a/b", False)
    interests.want(1, b"a/+", True)
    interests.want(1, b"#", False)
    assert targets(interests, b"a/b") == [1 | DURABLE]
    assert targets(interests, b"b") == [1]
    interests.unwant(1, b"a/+")
    assert targets(interests, b"a/b") == [1]


@pytest.mark.parametrize("topic_filter", [b"a/b", b"a/+"])
def test_a_want_becomes_durable_and_plain_again(interests: Interests, topic_filter: bytes) -> None:
    found = []
    for durable in (False, True, True, False):
        interests.want(1, topic_filter, durable)
        found.append(targets(interests, b"a/b"))
    assert found == [[1], [1 | DURABLE], [1 | DURABLE], [1]]
    interests.unwant(1, topic_filter)
    assert targets(interests, b"a/b") == []
    interests.want(1, topic_filter, True)
    interests.unwant(1, topic_filter)
    assert targets(interests, b"a/b") == []


def test_core_0_can_be_durable_too(interests: Interests) -> None:
    interests.want(0, b"a", False)
    assert targets(interests, b"a") == [0]
    interests.want(0, b"a", True)
    assert targets(interests, b"a") == [DURABLE]


def test_a_batch_is_split_by_target(interests: Interests) -> None:
    interests.want(0, b"a", True)
    interests.want(1, b"#", False)
    interests.want(0, b"b", False)
    parts, unmatched = interests.split(batch(b"a", b"$x", b"b", b"a"))
    counts = {target: int.from_bytes(part[57:61], "big") for target, part in parts}
    assert counts == {DURABLE: 2, 0: 1, 1: 3}
    assert unmatched == [(1, 2)]


# -------------------------------------------------------------------- lives


def test_a_replaced_core_is_taken_at_its_predecessors_word_until_it_has_told(
    interests: Interests,
) -> None:
    interests.want(1, b"gone", True)
    interests.want(1, b"gone/+", False)
    interests.want(1, b"stays", True)
    interests.want(2, b"gone", False)
    interests.replaced(1)
    assert targets(interests, b"gone") == [2, 1 | DURABLE]
    assert targets(interests, b"gone/x") == [1]
    interests.want(1, b"stays", True)
    interests.want(1, b"new", False)
    assert targets(interests, b"gone") == [2, 1 | DURABLE]
    interests.told(1)
    assert targets(interests, b"gone") == [2]
    assert targets(interests, b"gone/x") == []
    assert targets(interests, b"stays") == [1 | DURABLE]
    assert targets(interests, b"new") == [1]
    # What it wants from then on nobody takes back.
    interests.want(1, b"gone", False)
    interests.told(1)
    assert targets(interests, b"gone") == [1, 2]


def test_what_a_replaced_core_takes_back_is_gone_whatever_it_tells(interests: Interests) -> None:
    interests.want(1, b"a", True)
    interests.replaced(1)
    interests.want(1, b"a", False)
    assert targets(interests, b"a") == [1]
    interests.unwant(1, b"a")
    assert targets(interests, b"a") == []
    interests.told(1)
    assert targets(interests, b"a") == []


def test_a_core_that_is_replaced_twice_before_it_has_told(interests: Interests) -> None:
    for topic_filter in (b"first", b"both"):
        interests.want(1, topic_filter, True)
    interests.replaced(1)
    interests.want(1, b"both", True)
    interests.want(1, b"second", True)
    interests.replaced(1)
    for topic in (b"first", b"second", b"both"):
        assert targets(interests, topic) == [1 | DURABLE]
    interests.want(1, b"both", False)
    interests.told(1)
    found = {topic: targets(interests, topic) for topic in (b"first", b"second", b"both")}
    assert found == {b"first": [], b"second": [], b"both": [1]}


def test_lives_of_one_core_leave_the_others_alone(interests: Interests) -> None:
    for core in (1, 2):
        interests.want(core, b"a", True)
    interests.replaced(1)
    interests.replaced(2)
    interests.told(2)
    assert targets(interests, b"a") == [1 | DURABLE]
    interests.told(1)
    assert targets(interests, b"a") == []


def test_all_that_are_awaited_must_tell_in_whatever_life(interests: Interests) -> None:
    waits = [interests.awaited]
    interests.await_from([1, 2])
    for core in (1, 3):
        interests.told(core)
        waits.append(interests.awaited)
    interests.want(2, b"a", True)
    interests.replaced(2)
    waits.append(interests.awaited)
    interests.told(2)
    waits.append(interests.awaited)
    assert waits == [False, True, True, True, False]
    assert targets(interests, b"a") == []


# -------------------------------------------------------------------- what is remembered


def test_answers_are_remembered_within_a_bound() -> None:
    interests = Interests(10)
    interests.want(1, b"#", False)
    for number in range(100):
        assert targets(interests, b"%d" % number) == [1]
        assert len(interests._interest.targets) <= 10


def test_sets_of_targets_are_kept_within_a_bound(
    interests: Interests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_TUPLES", 2)
    for number in range(12):
        interests.want(number % 3, b"t/%d" % number, number % 2 == 0)
        interests.want(number * 5 % 3, b"t/%d" % number, number % 4 == 0)
        assert len(interests._tuples) <= 2
    for number in range(12):
        cores = {number % 3, number * 5 % 3}
        found = targets(interests, b"t/%d" % number)
        assert {target & CORE for target in found} == cores
        assert len(found) == len(cores)
        assert len(interests._tuples) <= 2


def test_equal_answers_are_one_object_so_that_runs_stay_together(interests: Interests) -> None:
    interests.want(1, b"a", False)
    interests.want(2, b"a", True)
    interests.want(2, b"+", True)
    interests.want(1, b"b", False)
    whole = batch(b"a", b"b")
    parts, _ = interests.split(whole)
    assert [part for _, part in parts] == [whole, whole]


def test_many_known_topics_are_forgotten_at_once_for_a_wildcard(interests: Interests) -> None:
    topics = [b"t/%d" % number for number in range(300)]
    interests.want(1, b"t/#", False)
    assert [targets(interests, topic) for topic in topics] == [[1]] * 300
    interests.want(2, b"t/+", True)
    assert [targets(interests, topic) for topic in topics] == [[1, 2 | DURABLE]] * 300
    interests.unwant(1, b"t/#")
    assert [targets(interests, topic) for topic in topics] == [[2 | DURABLE]] * 300


def test_only_topics_that_a_filter_matches_are_decided_anew(interests: Interests) -> None:
    for topic in (b"a/b", b"a/c", b"b"):
        targets(interests, topic)
    known = interests._interest.targets
    interests.want(1, b"b", False)
    assert set(known) == {b"a/b", b"a/c"}
    interests.want(1, b"a/+", False)
    assert set(known) == set()


# -------------------------------------------------------------------- on cores


def test_a_topic_is_routed_anew_when_interests_change() -> None:
    fabric = Fabric(3)
    heard: dict[str, list[int]] = {}
    clients: list[Client] = []
    filters = ("t/0", "t/#", "+/+")
    for step, topic_filter in enumerate(filters):
        clients.append(fabric.nodes[step % 3].client())
        clients[-1].subscribe(topic_filter)
        fabric.settle()
        fabric.nodes[0].publish("t/0", f"in {step}")
        fabric.settle()
    for step, topic_filter in enumerate(filters):
        clients[step].unsubscribe(topic_filter)
        fabric.settle()
        fabric.nodes[0].publish("t/0", f"out {step}")
        fabric.settle()
    for number, client in enumerate(clients):
        for payload in client.payloads:
            heard.setdefault(payload, []).append(number)
    assert heard == {
        "in 0": [0],
        "in 1": [0, 1],
        "in 2": [0, 1, 2],
        "out 0": [1, 2],
        "out 1": [2],
    }


def test_a_core_tells_a_replacement_all_that_it_wants_before_it_says_so() -> None:
    fabric = Fabric(3)
    client = fabric.nodes[0].client()
    filters = ["a", "a/+", "b/#"]
    for topic_filter in filters:
        client.subscribe(topic_filter)
    fabric.settle()
    node = fabric.replace(2)
    fabric.notice(0, 2)
    fabric.turn(0)
    fabric.turn(2, frames=len(filters))
    assert set(node.interests._filters) == {b"a", b"a/+", b"b/#"}
    assert node.interests._awaited == {0, 1}
    fabric.turn(2, frames=1)
    assert node.interests._awaited == {1}
    fabric.settle()
    check_books(fabric)


def test_a_departed_core_wants_nothing_and_is_not_waited_for(interests: Interests) -> None:
    interests.await_from([1_024, 1_025])
    interests.want(1_024, b"a/+", True)
    interests.want(1_024, b"a/b", False)
    interests.want(1_025, b"a/b", False)
    interests.replaced(1_024)
    assert targets(interests, b"a/b") == [1_025, 1_024 | DURABLE]
    interests.departed(1_024)
    assert targets(interests, b"a/b") == [1_025]
    assert interests.awaiting == {1_025}
    interests.departed(1_025)
    assert not interests.awaited
    assert targets(interests, b"a/b") == []
    interests.told(1_024)
    assert targets(interests, b"a/b") == []
