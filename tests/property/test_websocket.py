"""WebSocket: the twin and the kernel agree on any bytes, and no split of them changes anything."""

import contextlib
import itertools
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from robustmq.net.layer import Broken
from robustmq.net.websocket import Terms, WebSocket
from tests.kernels import modules
from tests.websocket import frames, masked, request

MOST = 500
CUTS = st.lists(st.integers(0, 2_000), max_size=12)
KERNELS = modules("websocket")


@st.composite
def conversations(draw: st.DrawFn, text: bool = True) -> bytes:
    """Frames that are mostly right, with something wrong now and then."""
    opcodes = (0, 2, 2, 2, 9, 10, 8, 5, *((1,) if text else ()))
    stream = b""
    for _ in range(draw(st.integers(0, 6))):
        opcode = draw(st.sampled_from(opcodes))
        payload = draw(st.binary(max_size=140))
        frame = masked(payload, opcode, draw(st.booleans()) or opcode >= 8)
        if text and draw(st.integers(0, 15)) == 0:
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


def judged(stream: bytes) -> tuple[bytes, set[int]]:
    """Return the bytes of whole data frames, and the Close codes that fit the library's."""
    library = Protocol(Side.SERVER, state=State.OPEN, max_size=MOST)
    library.receive_data(stream)
    frames_read = [each for each in library.events_received() if isinstance(each, Frame)]
    plain = b"".join(each.data for each in frames_read if each.opcode <= Opcode.BINARY)
    close = library.close_sent
    if close is None:
        return plain, {0}
    # It answers a Close frame that has no code with one that has none either; we say 1000. It
    # takes one within a message for a mistake, which RFC 6455 5.4 does not.
    lenient = close.reason == "incomplete fragmented message"
    code = 1000 if close.code == 1005 else close.code
    return plain, set(range(1_000, 5_000)) if lenient else {code}


@given(conversations(text=False))
def test_a_library_that_many_use_judges_the_same(stream: bytes) -> None:
    layer = WebSocket(Terms("/mqtt", (), 1_000, MOST))
    layer.receive(request())
    layer.outgoing()
    ours = b""
    with contextlib.suppress(Broken):
        ours = layer.receive(stream)
    theirs, codes = judged(stream)
    closes = [payload for first, payload in frames(layer.outgoing()) if first == 0x88]
    found = int.from_bytes(closes[0][:2], "big") if closes else 0
    assert ours.startswith(theirs)
    assert found in codes


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
