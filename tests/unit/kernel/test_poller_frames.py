"""A stream whose sink has a framing: frames come out whole, however they arrive."""

import random
import socket
import time
from collections.abc import Iterator, Sequence

import pytest

from robustmq.errors import ProtocolError
from tests.datapath import SIDES, Kernel
from tests.unit.kernel.poller_loop import Loop

MOST = 6_000_000
READ = 262_144
"""Bytes that one read takes besides those of a frame under way."""
SET_ASIDE = 2_097_152
"""What is set aside for a frame before so much of it has come."""


class Framed:
    """A sink as a connection of Kafka is one; it pauses after every `pause_after` frames."""

    def __init__(self, loop: Loop, *, pause_after: int = 0) -> None:
        self.framing = loop.side.Framing(MOST)
        self.stream: Kernel = None
        self.frames: list[bytes] = []
        self.told = 0
        self.paused = False
        self.fault: str | None = None
        self._pause_after = pause_after

    def feed(self, data: bytes) -> None:
        """Take bytes where nobody else puts them into the framing."""
        self.framing.feed(data)
        self.arrived(len(data))

    def arrived(self, size: int) -> None:
        """Take what is whole."""
        self.told += size
        self.take()

    def take(self) -> None:
        """Take frames for as long as there is no pause."""
        try:
            while not self.paused and (frame := self.framing.next()) is not None:
                self.frames.append(frame)
                self.paused = bool(self._pause_after) and not len(self.frames) % self._pause_after
        except ProtocolError as error:
            self.fault = error.detail
            self.stream.abort()

    def go_on(self) -> None:
        """End the pause."""
        self.paused = False
        self.take()
        if not self.paused:
            self.stream.resume()


@pytest.fixture(params=SIDES)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    loop = Loop(request.param)
    yield loop
    loop.close()


def _framed(loop: Loop, *, pause_after: int = 0) -> tuple[Framed, socket.socket]:
    sink = Framed(loop, pause_after=pause_after)
    sink.stream, peer, _ = loop.stream(sink)
    return sink, peer


def _bodies(sizes: Sequence[int], seed: int = 1) -> list[bytes]:
    chance = random.Random(seed)
    return [chance.randbytes(size) for size in sizes]


def _stream(bodies: list[bytes]) -> bytes:
    return b"".join(len(body).to_bytes(4, "big") + body for body in bodies)


def _send(loop: Loop, peer: socket.socket, data: bytes, sink: Framed) -> None:
    """Send all of it; what is full is read, and a pause ended."""
    rest = memoryview(data)
    end = time.monotonic() + 30
    peer.setblocking(False)
    while rest:
        try:
            rest = rest[peer.send(rest) :]
        except BlockingIOError:
            loop.poll()
            if sink.paused:
                sink.go_on()
        assert time.monotonic() < end
    loop.poll()


SMALL = [0, 0, 1, 2, 3, 4, 5, 255, 0, 70_000, 1]
EDGES = [
    READ - 5, READ - 4, READ - 3, READ, READ + 1, 0, 2 * READ - 8, SET_ASIDE - 1, SET_ASIDE,
    SET_ASIDE + 1, 7,
]  # fmt: skip
LARGE = [5_000_000, 10, SET_ASIDE * 2, 0]


@pytest.mark.parametrize(
    ("sizes", "pieces"),
    [
        (SMALL, (1,)),
        (SMALL, (3, 5, 1, 2_000)),
        (SMALL, (1 << 30,)),
        (EDGES, (1 << 30,)),
        (EDGES, (READ, 4)),
        (EDGES, (100_003, 1, 3)),
        (LARGE, (1 << 30,)),
        (LARGE, (1_000_003, 2)),
    ],
)
@pytest.mark.parametrize("pause_after", [0, 1, 3])
def test_frames_come_out_whole(
    loop: Loop, sizes: list[int], pieces: tuple[int, ...], pause_after: int
) -> None:
    bodies = _bodies(sizes)
    data = _stream(bodies)
    if pieces == (1,):
        data = data[:600]
    sink, peer = _framed(loop, pause_after=pause_after)
    sent, number = 0, 0
    while sent < len(data):
        piece = data[sent : sent + pieces[number % len(pieces)]]
        _send(loop, peer, piece, sink)
        sent += len(piece)
        number += 1
        if sink.paused and number % 3 == 0:
            sink.go_on()
    while sink.told < len(data) or sink.paused:
        sink.go_on()
        loop.poll()
    assert sink.told == len(data)
    whole = len(sink.frames)
    assert sink.frames == bodies[:whole]
    assert sink.framing.held == len(data) - sum(4 + len(each) for each in bodies[:whole])
    assert whole == len(bodies) or pieces == (1,)
    assert not loop.lost


def test_several_streams_do_not_mix(loop: Loop) -> None:
    chance = random.Random(3)
    ends = [_framed(loop, pause_after=each % 3) for each in range(4)]
    bodies = [_bodies([chance.randrange(400_000) for _ in range(6)], each) for each in range(4)]
    rests = [_stream(each) for each in bodies]
    while any(rests):
        which = chance.randrange(4)
        size = chance.choice((1, 3, 1_000, 200_000, 500_000))
        piece, rests[which] = rests[which][:size], rests[which][size:]
        _send(loop, ends[which][1], piece, ends[which][0])
    for (sink, _), expected in zip(ends, bodies, strict=True):
        while sink.paused:
            sink.go_on()
        assert sink.frames == expected
        assert sink.told == sum(4 + len(each) for each in expected)


@pytest.mark.parametrize("cut", [2, 4, 5, 300_000, 2_500_000])
def test_a_connection_that_ends_in_the_middle_gives_what_was_whole(loop: Loop, cut: int) -> None:
    first, second = _bodies([100, 3_000_000])
    data = _stream([first, second])[: 104 + cut]
    sink, peer = _framed(loop)
    _send(loop, peer, data, sink)
    peer.close()
    loop.until(lambda: loop.lost)
    assert loop.lost == [sink.stream]
    assert (sink.frames, sink.told) == ([first], len(data))


@pytest.mark.parametrize("size", [MOST + 1, -1])
@pytest.mark.parametrize("piece", [1 << 30, 200_001])
def test_a_size_that_is_not_allowed_ends_it_behind_what_was_whole(
    loop: Loop, size: int, piece: int
) -> None:
    bodies = _bodies([400_000, 10])
    data = _stream(bodies) + size.to_bytes(4, "big", signed=True)
    sink, peer = _framed(loop)
    for at in range(0, len(data), piece):
        _send(loop, peer, data[at : at + piece], sink)
    loop.until(lambda: loop.lost)
    assert sink.frames == bodies
    assert sink.fault is not None
    assert f"a request has {size} bytes" in sink.fault
    assert sink.told == len(data)


def test_what_is_forgotten_in_the_middle_is_followed_by_what_comes(loop: Loop) -> None:
    """As a connection does that is about to end: what is read then has no place any more."""
    sink, peer = _framed(loop)
    first, second = _bodies([1_000_000, 100])
    _send(loop, peer, _stream([first])[:600_000], sink)
    assert sink.framing.held == 600_000
    sink.framing.clear()
    assert sink.framing.held == 0
    _send(loop, peer, _stream([second]), sink)
    assert sink.frames == [second]


def test_a_frame_that_is_given_out_stays_as_it_is(loop: Loop) -> None:
    """Nothing is read into an object that somebody has."""
    sink, peer = _framed(loop)
    bodies = _bodies([300_000] * 6)
    for body in bodies:
        _send(loop, peer, _stream([body])[:7], sink)
        _send(loop, peer, _stream([body])[7:], sink)
        kept = memoryview(sink.frames[-1])
        assert kept == body
    assert sink.frames == bodies
