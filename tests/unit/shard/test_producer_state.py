"""Producer state: repeats are refused, and nothing else is."""

from hypothesis import given
from hypothesis import strategies as st

from robustmq.shard.producer_state import SEQUENCE_SPACE, ProducerState


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
        assert not state.is_repeat(7, 1, sequence, count)
        sequence = (sequence + count) % SEQUENCE_SPACE
        for number in again:
            if number < len(batches):
                assert state.is_repeat(7, 1, *batches[number])


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
            assert state.is_repeat(producer, epoch, 10_000, count)
            continue
        first = following[producer]
        assert not state.is_repeat(producer, epoch, first, count)
        assert state.is_repeat(producer, epoch, first, count)
        following[producer] = first + count


def test_nobody_never_repeats() -> None:
    state = ProducerState()
    assert [state.is_repeat(-1, 0, 0, 1) for _ in range(3)] == [False] * 3


def test_a_gap_is_not_a_repeat() -> None:
    # What QoS 0 lost with a core leaves a gap in the numbers.
    state = ProducerState()
    assert [state.is_repeat(1, 1, first, 2) for first in (0, 10, 5, 12)] == [
        False,
        False,
        True,
        False,
    ]
