"""Idempotent producers: repeats, gaps, epochs, markers, and who is forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq.errors import Corrupt
from robustmq.shard.fault import Fault
from robustmq.shard.producers import SEQUENCES, Producers, Taken

NOW = 1_000
P = 77


def take(producers: Producers, first: int, count: int, epoch: int = 0, producer: int = P) -> Taken:
    """Append a batch that must be taken."""
    assert producers.judge(producer, epoch, first, count, NOW) is None
    taken = Taken(first, count, 1_000_000 + first, -1)
    producers.take(producer, epoch, taken, NOW)
    return taken


def again(producers: Producers) -> Producers:
    """The same after a restart."""
    other = Producers()
    other.decode(producers.encode(), NOW)
    return other


@given(
    st.sampled_from([0, 5, SEQUENCES - 1, SEQUENCES - 40]),
    st.lists(st.integers(1, 20), min_size=1, max_size=20),
    st.booleans(),
)
def test_each_batch_is_taken_once_and_the_last_five_are_known(
    start: int, counts: list[int], restarts: bool
) -> None:
    producers = Producers()
    batches: list[Taken] = []
    sequence = start
    for count in counts:
        batches.append(take(producers, sequence, count))
        sequence = (sequence + count) % SEQUENCES
        if restarts:
            producers = again(producers)
        for number, each in enumerate(reversed(batches)):
            expected = each if number < 5 else Fault.DUPLICATE_SEQUENCE
            assert producers.judge(P, 0, each.first, each.records, NOW) == expected
        skipped = (sequence + 1) % SEQUENCES
        assert producers.judge(P, 0, skipped, 1, NOW) is Fault.OUT_OF_SEQUENCE


def test_what_was_never_taken_is_no_repeat() -> None:
    producers = Producers()
    take(producers, 100, 10)
    assert producers.judge(P, 0, 99, 1, NOW) is Fault.OUT_OF_SEQUENCE
    assert producers.judge(P, 0, 95, 10, NOW) is Fault.OUT_OF_SEQUENCE
    assert producers.judge(P, 0, 105, 10, NOW) is Fault.OUT_OF_SEQUENCE
    assert producers.judge(P, 0, 102, 3, NOW) is Fault.DUPLICATE_SEQUENCE


def test_a_newer_epoch_begins_with_0_and_fences_the_older() -> None:
    producers = Producers()
    take(producers, 0, 3, epoch=4)
    assert producers.judge(P, 5, 3, 1, NOW) is Fault.OUT_OF_SEQUENCE
    take(producers, 0, 1, epoch=5)
    assert producers.judge(P, 4, 3, 1, NOW) is Fault.FENCED_PRODUCER
    assert producers.judge(P, 5, 0, 3, NOW) is Fault.OUT_OF_SEQUENCE


def test_what_follows_a_refused_batch_is_not_taken_before_it() -> None:
    producers = Producers()
    producers.refused(P, 0, 0)
    producers.refused(P, 0, 5)
    assert producers.judge(P, 0, 5, 1, NOW) is Fault.OUT_OF_SEQUENCE
    take(producers, 0, 5)
    take(producers, 5, 1)
    producers.refused(P, 0, 6)
    assert producers.judge(P, 0, 6, 1, NOW) is None


def test_after_a_start_who_is_unknown_begins_with_0() -> None:
    producers = Producers(strict_until_ms=NOW + 1)
    assert producers.judge(P, 0, 3, 1, NOW) is Fault.OUT_OF_SEQUENCE
    assert producers.judge(P, 0, 3, 1, NOW + 1) is None
    take(producers, 0, 3)
    take(producers, 3, 1)


def test_refused_producers_are_not_remembered_without_end() -> None:
    producers = Producers()
    for number in range(10_100):
        producers.refused(number, 0, 0)
    assert producers.judge(0, 0, 7, 1, NOW) is None
    assert producers.judge(10_000, 0, 7, 1, NOW) is Fault.OUT_OF_SEQUENCE


def test_markers_fence_and_are_repeated() -> None:
    producers = Producers()
    take(producers, 0, 3, epoch=1)
    assert producers.judge_marker(P, 1, 6) is False
    producers.take_marker(P, 1, 6, NOW)
    for _ in range(2):
        assert producers.judge_marker(P, 1, 6) is True
        assert producers.judge_marker(P, 1, 7) is False
        assert producers.judge_marker(P, 1, 5) is Fault.FENCED_PRODUCER
        assert producers.judge_marker(P, 0, 7) is Fault.FENCED_PRODUCER
        assert producers.has_ended(P, 1, 6)
        assert not producers.has_ended(P, 1, 7)
        assert not producers.has_ended(1, 0, 0)
        producers = again(producers)
    producers.take_marker(P, 2, 7, NOW)
    assert producers.judge(P, 1, 3, 1, NOW) is Fault.FENCED_PRODUCER
    assert producers.judge(P, 2, 3, 1, NOW) is Fault.OUT_OF_SEQUENCE
    take(producers, 0, 1, epoch=2)
    (standing,) = producers.standings()
    assert standing == (P, 2, 0, NOW, 7)


def test_who_is_idle_or_one_too_many_is_forgotten_but_for_the_held() -> None:
    producers = Producers(most=3)
    for number in range(6):
        taken = Taken(0, 1, number, -1)
        producers.take(number, 0, taken, NOW + number)
    producers.expire(0, lambda producer: producer == 1)
    assert [each.producer_id for each in producers.standings()] == [1, 4, 5]
    producers.expire(NOW + 5, lambda producer: producer == 1)
    assert [each.producer_id for each in producers.standings()] == [1, 5]
    assert producers.judge(4, 0, 9, 1, NOW) is None


def test_a_cut_state_is_corrupt() -> None:
    producers = Producers()
    take(producers, 0, 1)
    with pytest.raises(Corrupt, match="cut"):
        Producers().decode(producers.encode()[:-1], NOW)
