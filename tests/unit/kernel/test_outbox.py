"""Outboxes: order of copied and referenced pieces, partial sends, and no growth."""

import gc
import random
import resource
import socket
import sys
from collections.abc import Iterator

import pytest

from robustmq import metrics
from tests.datapath import SIDES, Side

LARGE = 1024


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Side:
    return Side(request.param)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


def received(peer: socket.socket) -> bytes:
    out = b""
    while True:
        try:
            data = peer.recv(1 << 20)
        except BlockingIOError:
            return out
        if not data:
            return out
        out += data


def test_pieces_come_out_in_order(side: Side) -> None:
    turn = side.turn()
    outbox = side.Outbox(turn)
    chance = random.Random(4)
    expected = b""
    for _ in range(300):
        data = chance.randbytes(chance.choice([0, 1, 20, 900, LARGE, 5000, 40_000]))
        start = chance.randint(0, len(data))
        end = chance.randint(start, len(data))
        outbox.put(data)
        outbox.put_slice(data, start, end)
        expected += data + data[start:end]
        assert outbox.size == len(expected)
    assert turn.outboxes == [outbox]
    assert outbox.take() == expected
    assert (outbox.size, outbox.take()) == (0, b"")
    assert turn.row[metrics.BYTES_SENT] == 0


def test_outbox_marks_itself_once_a_turn(side: Side) -> None:
    turn = side.turn()
    outbox = side.Outbox(turn)
    outbox.put(b"")
    assert turn.outboxes == []
    outbox.put(b"a")
    outbox.put(bytes(LARGE))
    assert turn.outboxes == [outbox]
    outbox.settle()
    outbox.put(b"b")
    assert turn.outboxes == [outbox, outbox]


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 1), (0, 4), (4, 4)])
def test_slice_outside_the_data_is_refused(side: Side, start: int, end: int) -> None:
    outbox = side.Outbox(side.turn())
    with pytest.raises(ValueError, match="outside"):
        outbox.put_slice(b"abc", start, end)


def test_closed_outbox_forgets_and_takes_nothing(side: Side) -> None:
    outbox = side.Outbox(side.turn())
    outbox.put(b"a")
    outbox.stream = outbox.drained = print
    outbox.close()
    outbox.put(bytes(LARGE))
    outbox.put(b"b")
    assert (outbox.closed, outbox.size, outbox.take()) == (True, 0, b"")
    assert (outbox.stream, outbox.drained) == (None, None)


def test_large_pieces_are_held_by_reference_until_sent(
    side: Side, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    outbox = side.Outbox(side.turn())
    large, small = bytearray(b"x" * 3000), bytearray(b"y" * 100)
    kept, copied = bytes(large), bytes(small)
    before = sys.getrefcount(kept), sys.getrefcount(copied)
    for _ in range(3):
        outbox.put(kept)
        outbox.put_slice(copied, 0, 99)
    assert sys.getrefcount(kept) > before[0]
    assert sys.getrefcount(copied) == before[1]
    while outbox.send(ours.fileno()) == 0:
        received(theirs)
    gc.collect()
    assert (sys.getrefcount(kept), sys.getrefcount(copied)) == before
    outbox.put(kept)
    outbox.close()
    gc.collect()
    assert sys.getrefcount(kept) == before[0]
    thrown_away = side.Outbox(side.turn())
    thrown_away.put(kept)
    del thrown_away
    gc.collect()
    assert sys.getrefcount(kept) == before[0]


@pytest.mark.parametrize("seed", range(5))
def test_partial_sends_lose_and_repeat_nothing(
    side: Side, pair: tuple[socket.socket, socket.socket], seed: int
) -> None:
    ours, theirs = pair
    turn = side.turn()
    outbox = side.Outbox(turn)
    chance = random.Random(seed)
    expected, got = bytearray(), bytearray()
    full = 0
    for _ in range(120):
        for _ in range(chance.randint(0, 12)):
            data = chance.randbytes(chance.choice([3, 30, 1000, 1500, 4000]))
            outbox.put(data)
            expected += data
        full += outbox.send(ours.fileno()) == 0
        assert turn.row[metrics.BYTES_SENT] + outbox.size == len(expected)
        if chance.random() < 0.7:
            got += theirs.recv(chance.choice([1, 700, 60_000])) if outbox.size else b""
    assert full > 15
    while outbox.size:
        outbox.send(ours.fileno())
        got += received(theirs)
    got += received(theirs)
    assert got == expected


def test_send_says_when_the_peer_is_gone(
    side: Side, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    outbox = side.Outbox(side.turn())
    assert outbox.send(ours.fileno()) == 1
    outbox.put(b"a")
    theirs.close()
    assert outbox.send(ours.fileno()) == -1


def test_outbox_that_is_never_quite_drained_does_not_grow(
    side: Side, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    outbox = side.Outbox(side.turn())
    small, large = b"s" * 900, bytes(2000)
    put = got = 0

    def turn() -> None:
        nonlocal put, got
        while outbox.size < 40_000:
            outbox.put(small)
            outbox.put(large)
            put += len(small) + len(large)
        assert outbox.send(ours.fileno()) == 0
        got += len(received(theirs))

    for _ in range(200):
        turn()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(4000):
        turn()
    assert got > 8_000_000
    assert put - got == outbox.size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2_000
