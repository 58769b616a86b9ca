"""WebSocket: the twin and the kernel agree on any bytes, and no split of them changes anything."""

import contextlib
import itertools
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq.net.layer import Broken
from robustmq.net.websocket import Terms, WebSocket
from tests.kernels import modules
from tests.websocket import masked, request

MOST = 500
CUTS = st.lists(st.integers(0, 2_000), max_size=12)
KERNELS = modules("websocket")


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """Frames that are mostly right, with something wrong now and then."""
    stream = b""
    for _ in range(draw(st.integers(0, 6))):
        opcode = draw(st.sampled_from((0, 2, 2, 2, 9, 10, 8, 1, 5)))
        payload = draw(st.binary(max_size=140))
        frame = masked(payload, opcode, draw(st.booleans()) or opcode >= 8)
        if draw(st.integers(0, 15)) == 0:
            at = draw(st.integers(0, len(frame) - 1))
            frame = frame[:at] + draw(st.binary(min_size=1, max_size=1)) + frame[at + 1 :]
        stream += frame
    return stream


STREAMS = conversations() | st.binary(max_size=200)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def taken(kernel: ModuleType, parts: list[bytes]) -> tuple[object, ...]:
    reader = kernel.FrameReader(MOST)
    plain = b"".join(reader.feed(part) for part in parts)
    return plain, reader.ping, reader.close, reader.failure


@given(STREAMS, CUTS)
def test_twin_and_kernel_agree_however_it_is_split(data: bytes, cuts: list[int]) -> None:
    results = [taken(kernel, parts) for kernel in KERNELS for parts in ([data], pieces(data, cuts))]
    assert results.count(results[0]) == len(results)


def conversed(parts: list[bytes]) -> tuple[bytes, bool, bool, bytes]:
    layer = WebSocket(Terms("/mqtt", (), 1_000, MOST))
    plain = b""
    for part in parts:
        with contextlib.suppress(Broken):
            plain += layer.receive(part)
        if layer.has_ended:
            break
    said = layer.outgoing()
    # Of several pings in one read only the last is answered.
    close = said.rfind(b"\x88")
    return plain, layer.is_open, layer.has_ended, said[close:] if layer.has_ended else b""


@given(STREAMS, CUTS)
def test_no_split_changes_what_rises(data: bytes, cuts: list[int]) -> None:
    stream = request(Date=None) + data
    assert conversed(pieces(stream, cuts)) == conversed([stream])


@given(st.binary(max_size=400), CUTS)
def test_garbage_is_broken_or_waited_for(data: bytes, cuts: list[int]) -> None:
    layer = WebSocket(Terms("/mqtt", (), 200, MOST))
    with contextlib.suppress(Broken):
        for part in pieces(b"G" + data + b"\r\n\r\n", cuts):
            assert layer.receive(part) == b""
    assert not layer.is_open


@pytest.mark.parametrize("at", range(0, len(request()), 7))
def test_a_damaged_request_is_accepted_or_refused(at: int) -> None:
    stream = request()
    for byte in (b"\0", b"\xff", b"\r", b"\n", b" ", b":"):
        layer = WebSocket(Terms("/mqtt", (), 1_000, MOST))
        with contextlib.suppress(Broken):
            layer.receive(stream[:at] + byte + stream[at + 1 :])
        words = layer.outgoing()
        assert words == b"" or words.startswith(b"HTTP/1.1 ")
        assert not words.startswith(b"HTTP/1.1 500")
