"""Frames of WebSocket clients: what is given, what is kept, and every mistake (RFC 6455 5)."""

from types import ModuleType

import pytest

from tests.kernels import implementations
from tests.websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, masked

MOST = 1 << 20


@pytest.fixture(params=implementations("websocket"))
def kernel(request: pytest.FixtureRequest) -> ModuleType:
    module = request.param
    assert isinstance(module, ModuleType)
    return module


@pytest.mark.parametrize("size", [0, 1, 3, 4, 7, 8, 9, 125, 126, 127, 65_535, 65_536, 300_001])
def test_a_message_is_unmasked(kernel: ModuleType, size: int) -> None:
    payload = bytes(index * 7 & 255 for index in range(size))
    reader = kernel.FrameReader(MOST)
    assert reader.feed(masked(payload)) == payload
    assert (reader.failure, reader.close, reader.ping) == (None, None, None)


def test_many_frames_and_a_part_of_one_are_given_as_they_come(kernel: ModuleType) -> None:
    reader = kernel.FrameReader(MOST)
    whole = masked(b"one") + masked(b"") + masked(b"two") + masked(b"three")
    assert reader.feed(whole[:-3]) == b"onetwoth"
    assert reader.feed(whole[-3:]) == b"ree"
    assert reader.feed(b"") == b""


def test_every_byte_alone_gives_the_same(kernel: ModuleType) -> None:
    reader = kernel.FrameReader(MOST)
    stream = (
        masked(b"abc", BINARY, fin=False)
        + masked(b"beat", PING)
        + masked(b"d" * 200, CONTINUATION, fin=False)
        + masked(b"", PONG)
        + masked(b"e" * 66_000, CONTINUATION)
        + masked(b"f")
        + masked(b"\x03\xe8", CLOSE)
    )
    given = b"".join(reader.feed(stream[at : at + 1]) for at in range(len(stream)))
    assert given == b"abc" + b"d" * 200 + b"e" * 66_000 + b"f"
    assert (reader.ping, reader.close, reader.failure) == (b"beat", b"\x03\xe8", None)


def test_the_last_ping_is_the_one_to_answer(kernel: ModuleType) -> None:
    reader = kernel.FrameReader(MOST)
    assert reader.feed(masked(b"first", PING) + masked(b"x") + masked(b"p" * 125, PING)) == b"x"
    assert reader.ping == b"p" * 125
    reader.ping = None
    reader.feed(masked(b"", PING))
    assert reader.ping == b""


def test_nothing_is_taken_after_a_close(kernel: ModuleType) -> None:
    reader = kernel.FrameReader(MOST)
    assert reader.feed(masked(b"a") + masked(b"", CLOSE) + masked(b"b")) == b"a"
    assert reader.close == b""
    assert reader.feed(masked(b"c") + masked(b"d", TEXT)) == b""
    assert reader.failure is None


def flagged(bits: int) -> bytes:
    frame = masked(b"x")
    return bytes((frame[0] | bits,)) + frame[1:]


MISTAKES = {
    "a reserved bit (RSV1)": (flagged(0x40), 1002),
    "a reserved bit (RSV2)": (flagged(0x20), 1002),
    "a reserved bit (RSV3)": (flagged(0x10), 1002),
    "not masked": (b"\x82\x01x", 1002),
    "text": (masked(b"x", TEXT), 1003),
    "text, fragmented": (masked(b"x", TEXT, fin=False), 1003),
    **{f"opcode {code}": (masked(b"x", code), 1002) for code in (3, 4, 5, 6, 7)},
    **{f"opcode {code}": (masked(b"x", code), 1002) for code in (11, 12, 13, 14, 15)},
    "nothing to continue": (masked(b"x", CONTINUATION), 1002),
    "continued after its end": (masked(b"a") + masked(b"x", CONTINUATION), 1002),
    "a message within one": (masked(b"a", fin=False) + masked(b"x"), 1002),
    "text within a message": (masked(b"a", fin=False) + masked(b"x", TEXT), 1002),
    "a ping in fragments": (masked(b"x", PING, fin=False), 1002),
    "a close in fragments": (masked(b"x", CLOSE, fin=False), 1002),
    "a long ping": (masked(b"x" * 126, PING), 1002),
    "a long close": (masked(b"x" * 126, CLOSE), 1002),
    "a length of 64 bits": (b"\x82\xff" + b"\x80" + bytes(7) + b"mask", 1002),
    "a long frame": (b"\x82\xff" + (MOST + 1).to_bytes(8, "big") + b"mask", 1009),
    "a long message": (masked(bytes(MOST), fin=False) + masked(b"x", CONTINUATION), 1009),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_it(kernel: ModuleType, name: str) -> None:
    stream, code = MISTAKES[name]
    reader = kernel.FrameReader(MOST)
    given = reader.feed(masked(b"before") + stream + masked(b"after"))
    assert given.startswith(b"before")
    assert b"after" not in given
    assert reader.failure is not None
    assert reader.failure[0] == code
    assert len(reader.failure[1].encode()) <= 123
    failure = reader.failure
    assert reader.feed(masked(b"more")) == b""
    assert reader.failure == failure


def test_the_first_two_bytes_are_enough_for_a_mistake(kernel: ModuleType) -> None:
    reader = kernel.FrameReader(MOST)
    reader.feed(masked(b"x", TEXT)[:1])
    assert reader.failure is None
    reader.feed(masked(b"x", TEXT)[1:2])
    assert reader.failure is not None


def test_a_message_as_large_as_allowed_is_taken_and_the_next_one_too(kernel: ModuleType) -> None:
    reader = kernel.FrameReader(10)
    halves = masked(b"12345", fin=False) + masked(b"67890", CONTINUATION)
    assert reader.feed(halves + halves) == b"1234567890" * 2
    assert reader.failure is None


@pytest.mark.parametrize("wide", [2, 8])
def test_a_length_in_more_bytes_than_it_needs_is_taken(kernel: ModuleType, wide: int) -> None:
    reader = kernel.FrameReader(MOST)
    marker = {2: 126, 8: 127}[wide]
    frame = bytes((0x82, 0x80 | marker)) + (3).to_bytes(wide, "big") + bytes(4) + b"abc"
    assert reader.feed(frame) == b"abc"
