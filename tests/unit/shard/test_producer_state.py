"""Producer state: repeats are refused, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq.errors import Corrupt
from robustmq.shard.producer_state import SEQUENCE_SPACE, ProducerState, own_producer


def taken(state: ProducerState, producer: int, epoch: int, first: int, count: int) -> bool:
    """Append unless it is a repeat, as a shard does; say whether it was one."""
    repeat = state.is_repeat(producer, epoch, first)
    if not repeat:
        state.take(producer, epoch, first, count)
    return repeat


@given(
    st.integers(0, SEQUENCE_SPACE - 1),
    st.lists(st.integers(1, 1_000), min_size=1, max_size=20),
    st.lists(st.integers(0, 19)),
)
def test_repeats_are_refused_exactly(start: int, counts: list[int], again: list[int]) -> None:
    state = ProducerState()
    sequence = start
    batches = []
    for count in counts:
        batches.append((sequence, count))
        assert not taken(state, 7, 1, sequence, count)
        sequence = (sequence + count) % SEQUENCE_SPACE
        for number in again:
            if number < len(batches):
                assert taken(state, 7, 1, *batches[number])


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(1, 5)), max_size=40))
def test_producers_and_epochs_are_apart(steps: list[tuple[int, int, int]]) -> None:
    state = ProducerState()
    newest: dict[int, int] = {}
    following: dict[int, int] = {}
    for producer, epoch, count in steps:
        known = newest.get(producer, -1)
        if epoch > known:
            newest[producer], following[producer] = epoch, 0
        if epoch < newest[producer]:
            assert taken(state, producer, epoch, 10_000, count)
            continue
        first = following[producer]
        assert not taken(state, producer, epoch, first, count)
        assert taken(state, producer, epoch, first, count)
        following[producer] = first + count


def test_nobody_never_repeats() -> None:
    state = ProducerState()
    assert [taken(state, -1, 0, 0, 1) for _ in range(3)] == [False] * 3


def test_a_gap_is_not_a_repeat() -> None:
    # What QoS 0 lost with a core leaves a gap in the numbers.
    state = ProducerState()
    assert [taken(state, 1, 1, first, 2) for first in (0, 10, 5, 12)] == [
        False,
        False,
        True,
        False,
    ]


def test_what_was_refused_may_come_again() -> None:
    state = ProducerState()
    assert not state.is_repeat(1, 1, 5)
    assert not state.is_repeat(1, 1, 5)


NUMBERS = st.tuples(
    st.integers(0, 3),
    st.sampled_from([0, 1, 2, 1 << 15, (1 << 32) - 2, (1 << 32) - 1]),
    st.sampled_from([0, 1, SEQUENCE_SPACE - 1, SEQUENCE_SPACE, (1 << 46) - 2, (1 << 46) - 1]),
)


@given(st.lists(NUMBERS, max_size=40), st.integers(0, 40))
def test_of_our_cores_what_is_not_later_is_a_repeat_also_after_a_restart(
    steps: list[tuple[int, int, int]], restart: int
) -> None:
    state = ProducerState()
    last: dict[int, tuple[int, int]] = {}
    for number, (core, stream, call) in enumerate(steps):
        if number == restart:
            again = ProducerState()
            again.decode(state.encode())
            state = again
        producer, epoch, first = own_producer(core, stream, call)
        assert 0 <= producer < 1 << 63
        assert 0 <= epoch < 1 << 15
        repeat = (stream, call) <= last.get(core, (-1, 0))
        # As many records as there may be: numbers are not counts of records.
        assert taken(state, producer, epoch, first, 1_000) == repeat
        if not repeat:
            last[core] = stream, call


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(0, 9)), max_size=20))
def test_others_are_known_after_a_restart(steps: list[tuple[int, int, int]]) -> None:
    state = ProducerState()
    for step in steps:
        taken(state, *step, 1)
    again = ProducerState()
    again.decode(state.encode())
    for producer, epoch, first in steps:
        assert again.is_repeat(producer, epoch, first) == state.is_repeat(producer, epoch, first)


def test_cut_state_is_corrupt() -> None:
    state = ProducerState()
    state.take(1, 1, 1, 1)
    with pytest.raises(Corrupt, match="cut"):
        ProducerState().decode(state.encode()[:-1])
