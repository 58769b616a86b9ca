"""Transactions of a shard: what is stable, what was aborted, as in a list of all that happened."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq.errors import Corrupt
from robustmq.shard.transactions import Transactions


class Event(NamedTuple):
    """At its place in the list is its offset: a batch (None) or a marker of a producer."""

    producer: int
    committed: bool | None


events = st.lists(
    st.builds(Event, st.integers(1, 4), st.sampled_from([None, None, True, False])), max_size=40
)


def spans(happened: list[Event]) -> list[tuple[int, int, int, bool | None]]:
    """All transactions: producer, first offset, offset of the marker, whether it is committed."""
    found: list[tuple[int, int, int, bool | None]] = []
    open_at: dict[int, int] = {}
    for offset, (producer, committed) in enumerate(happened):
        if committed is None:
            open_at.setdefault(producer, offset)
        elif producer in open_at:
            found.append((producer, open_at.pop(producer), offset, committed))
    found += [(producer, first, 1 << 40, None) for producer, first in open_at.items()]
    return found


@given(events, st.integers(0, 40), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40))))
def test_as_in_a_list_of_all_that_happened(
    happened: list[Event], restart: int, ranges: list[tuple[int, int]]
) -> None:
    transactions = Transactions()
    for offset, (producer, committed) in enumerate(happened):
        if offset == restart:
            again = Transactions()
            again.decode(transactions.encode())
            transactions = again
        if committed is None:
            transactions.begin(producer, offset)
        else:
            transactions.end(producer, offset, committed)
    all_spans = spans(happened)
    end = len(happened)
    firsts = [first for _, first, _, committed in all_spans if committed is None]
    assert transactions.stable_offset(end) == min([*firsts, end])
    for producer in range(1, 5):
        opened = [first for each, first, _, done in all_spans if each == producer and done is None]
        assert transactions.open_offset(producer) == (opened[0] if opened else -1)
        for offset in range(end):
            void = any(
                each == producer and first <= offset <= last and committed is False
                for each, first, last, committed in all_spans
            )
            assert transactions.is_void(producer, offset) == void
    for start, size in ranges:
        told = {
            (each.producer_id, each.first) for each in transactions.aborted(start, start + size)
        }
        expected = {
            (producer, first)
            for producer, first, last, committed in all_spans
            if committed is False and last >= start and first < start + size
        }
        assert told == expected


def test_a_marker_that_may_be_lost_holds_what_is_stable() -> None:
    transactions = Transactions()
    transactions.begin(1, 0)
    transactions.end(1, 5, False)
    assert [transactions.stable_offset(reached) for reached in (3, 5, 6)] == [0, 0, 6]


def test_what_is_dropped_is_forgotten() -> None:
    transactions = Transactions()
    for number in range(4):
        transactions.begin(1 + number % 2, 2 * number)
        transactions.end(1 + number % 2, 2 * number + 1, False)
    transactions.trim(4)
    assert [each.first for each in transactions.aborted(0, 100)] == [4, 6]
    assert not transactions.is_void(1, 0)
    assert transactions.is_void(1, 4)
    transactions.trim(100)
    assert transactions.aborted(0, 100) == []


def test_who_has_begun_is_let_in_until_the_marker() -> None:
    transactions = Transactions()
    assert not transactions.lets_in(1, 3)
    transactions.expect(1, 3)
    assert transactions.lets_in(1, 3)
    assert not transactions.lets_in(1, 4)
    transactions.begin(1, 10)
    assert transactions.lets_in(1, 4), "its transaction is open"
    transactions.end(1, 11, True)
    assert not transactions.lets_in(1, 3)


def test_a_cut_state_is_corrupt() -> None:
    transactions = Transactions()
    transactions.begin(1, 0)
    for data in (b"", transactions.encode()[:-1], transactions.encode() + b"x"):
        with pytest.raises(Corrupt, match="cut"):
            Transactions().decode(data)
