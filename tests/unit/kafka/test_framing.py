"""Requests come out whole, however the stream is cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq.errors import ProtocolError
from robustmq.kafka.framing import Framing

MOST = 1_000


def _frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def _drain(framing: Framing) -> list[bytes]:
    found = []
    while (frame := framing.next(MOST)) is not None:
        found.append(frame.data[frame.at :])
        assert frame.size == len(found[-1])
    return found


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(0, 400)))
def test_any_cut_gives_the_same_requests(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(_frame, bodies))
    framing, found = Framing(), []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        framing.feed(stream[start:end])
        found += _drain(framing)
    assert found == bodies
    assert framing.held == 0


def test_a_request_that_a_read_ends_with_is_not_copied() -> None:
    framing = Framing()
    stream = _frame(b"one") + _frame(b"two")
    framing.feed(stream)
    first, second = framing.next(MOST), framing.next(MOST)
    assert first is not None
    assert bytes(first.data[first.at :]) == b"one"
    assert second is not None
    assert second.data is stream


@pytest.mark.parametrize("size", [-1, -(2**31), MOST + 1, 2**31 - 1])
def test_a_size_that_is_not_allowed_is_refused_before_anything_is_kept(size: int) -> None:
    framing = Framing()
    framing.feed(size.to_bytes(4, "big", signed=True))
    with pytest.raises(ProtocolError, match="at most 1000"):
        framing.next(MOST)


def test_what_was_cleared_is_gone() -> None:
    framing = Framing()
    framing.feed(_frame(b"gone")[:-1])
    framing.clear()
    framing.feed(_frame(b"next"))
    assert _drain(framing) == [b"next"]
