"""Frames come out whole, however the stream is cut; the kernel and its twin agree."""

import itertools
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq._kernel.framing import Framing
from robustmq.errors import ProtocolError
from tests.kernels import implementations

MOST = 1_000


EACH = pytest.mark.parametrize("module", implementations("framing"))


def _frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def _drain(framing: Framing) -> list[bytes]:
    found = []
    while (frame := framing.next()) is not None:
        found.append(frame)
    return found


@EACH
@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(0, 400)))
def test_any_cut_gives_the_same_frames(
    module: ModuleType, bodies: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(map(_frame, bodies))
    framing, found = module.Framing(MOST), []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    given_out = 0
    for start, end in itertools.pairwise(edges):
        framing.feed(stream[start:end])
        assert framing.held == end - given_out
        if start % 2:
            found += (frames := _drain(framing))
            given_out += sum(4 + len(frame) for frame in frames)
    found += _drain(framing)
    assert found == bodies
    assert framing.held == 0


@EACH
@pytest.mark.parametrize("size", [-1, -(2**31), MOST + 1, 2**31 - 1])
def test_a_size_that_is_not_allowed_ends_the_stream(module: ModuleType, size: int) -> None:
    framing = module.Framing(MOST)
    framing.feed(_frame(b"before") + size.to_bytes(4, "big", signed=True) + _frame(b"behind"))
    assert framing.held == 4 + len(b"before"), "what comes behind it is not kept"
    assert framing.next() == b"before"
    for _ in range(2):
        with pytest.raises(ProtocolError, match=f"a request has {size} bytes: at most 1000"):
            framing.next()
    framing.feed(_frame(b"more"))
    assert framing.held == 0


@EACH
def test_how_much_is_allowed_may_change(module: ModuleType) -> None:
    framing = module.Framing(3)
    framing.feed(_frame(b"one"))
    framing.most = 4
    framing.feed(_frame(b"more"))
    assert _drain(framing) == [b"one", b"more"]


@EACH
def test_what_was_cleared_is_gone(module: ModuleType) -> None:
    framing = module.Framing(MOST)
    framing.feed(_frame(b"whole") + _frame(b"gone")[:-1])
    framing.clear()
    assert framing.held == 0
    framing.feed(_frame(b"next"))
    assert _drain(framing) == [b"next"]
    framing.feed((MOST + 1).to_bytes(4, "big"))
    framing.clear()
    framing.feed(_frame(b"anew"))
    assert _drain(framing) == [b"anew"]


@EACH
def test_a_frame_may_be_larger_than_what_is_set_aside_for_it(module: ModuleType) -> None:
    framing = module.Framing(1 << 30)
    body = bytes(range(256)) * 20_000
    stream = _frame(b"first") + _frame(body) + _frame(b"last")
    for at in range(0, len(stream), 100_003):
        framing.feed(stream[at : at + 100_003])
    assert _drain(framing) == [b"first", body, b"last"]
