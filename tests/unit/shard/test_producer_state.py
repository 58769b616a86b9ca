"""Producer state: repeats are refused, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq.errors import Corrupt
from robustmq.shard.producer_state import SEQUENCE_SPACE, ProducerState, is_own, own_producer


def taken(state: ProducerState, producer: int, epoch: int, first: int) -> bool:
    """Append unless it is a repeat, as a shard does; say whether it was one."""
    repeat = state.is_repeat(producer, epoch, first)
    if not repeat:
        state.take(producer, epoch, first)
    return repeat


@pytest.mark.parametrize("producer", [-1, 0, 7, (1 << 62) - 1])
def test_who_is_no_core_is_not_known_here(producer: int) -> None:
    state = ProducerState()
    assert not is_own(producer)
    assert [taken(state, producer, 0, 0) for _ in range(3)] == [False] * 3
    assert state.encode() == b""


def test_a_gap_is_not_a_repeat() -> None:
    # What QoS 0 lost with a core leaves a gap in the numbers.
    state = ProducerState()
    assert is_own(own_producer(1, 1, 0).producer)
    found = [taken(state, *own_producer(1, 1, call)) for call in (0, 10, 5, 12)]
    assert found == [False, False, True, False]


def test_what_was_refused_may_come_again() -> None:
    state = ProducerState()
    assert not state.is_repeat(*own_producer(1, 1, 5))
    assert not state.is_repeat(*own_producer(1, 1, 5))


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
        assert taken(state, producer, epoch, first) == repeat
        if not repeat:
            last[core] = stream, call


def test_cut_state_is_corrupt() -> None:
    state = ProducerState()
    state.take(*own_producer(1, 1, 1))
    with pytest.raises(Corrupt, match="cut"):
        ProducerState().decode(state.encode()[:-1])
