"""The poller: nothing is lost at the edges, streams end in order, and once."""

import os
import socket
import struct
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from robustmq.metrics import BYTES_SENT
from tests.datapath import SIDES, Kernel, publish
from tests.publisher import Publisher
from tests.unit.kernel.poller_loop import Loop, Sink

LARGE = 3_000_000


@pytest.fixture(params=SIDES)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    loop = Loop(request.param)
    yield loop
    loop.close()


def test_poll_keeps_the_time_and_ends_its_turns(loop: Loop) -> None:
    before = time.time_ns() // 1_000_000
    loop.turn.now_ms = 0
    loop.poller.wait(0)
    assert before <= loop.turn.now_ms <= time.time_ns() // 1_000_000
    assert loop.turns == 1
    loop.turn.now_ms = 0
    loop.poller.tick()
    assert loop.turn.now_ms >= before


def test_wait_sleeps_for_its_time_and_takes_no_turn_for_nothing(loop: Loop) -> None:
    loop.poller.wait(0)
    start = time.monotonic()
    loop.poller.wait(30)
    assert time.monotonic() - start >= 0.029
    assert loop.turns == 1


def test_wait_takes_turns_while_something_is_left_to_do(loop: Loop) -> None:
    loop.quiet = False
    loop.poller.wait(20)
    assert loop.turns > 1


def test_alarm_ends_the_sleep_in_time_and_rings_once(loop: Loop) -> None:
    loop.poller.wait(0)
    due = loop.turn.now_ms + 20
    loop.poller.alarm_ms = due
    loop.poller.wait(60)
    assert len(loop.alarms) == 1
    assert loop.alarms[0] >= due
    assert (loop.poller.alarm_ms, loop.turns) == (0, 2)


def test_interrupt_ends_the_wait_after_its_turn(loop: Loop) -> None:
    read, write = os.pipe()
    loop.poller.watch(read, loop.poller.interrupt)
    os.write(write, b"x")
    start = time.monotonic()
    loop.poller.wait(-1)
    assert time.monotonic() - start < 5
    assert loop.turns == 1
    os.close(read)
    os.close(write)


def test_watch_by_level_calls_for_as_long_as_something_is_there(loop: Loop) -> None:
    calls: list[int] = []
    read, write = os.pipe()
    watch = loop.poller.watch(read, lambda: calls.append(1), edge=False)
    os.write(write, b"x")
    for _ in range(3):
        loop.poller.wait(0)
    assert len(calls) == 3
    watch.cancel()
    os.close(read)
    os.close(write)


def test_tick_makes_the_next_wait_begin_with_a_turn(loop: Loop) -> None:
    loop.poller.wait(0)
    loop.poller.tick()
    loop.poller.wait(0)
    assert loop.turns == 2


def test_what_arrived_before_adoption_is_read(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    loop.peers.append(theirs)
    theirs.sendall(b"early")
    sink = Sink()
    loop.poller.adopt(ours.detach(), sink, loop.side.Outbox(loop.turn), None)
    loop.until(lambda: sink.data == b"early")


@pytest.mark.parametrize("size", [1, 262_143, 262_144, 262_145, LARGE])
def test_everything_is_read_to_the_end(loop: Loop, size: int) -> None:
    stream, peer, sink = loop.stream()
    data = os.urandom(size)
    peer.setblocking(False)
    sent = 0
    while len(sink.data) < size:
        try:
            sent += peer.send(data[sent:])
        except BlockingIOError:
            loop.poll()
        if sent == size:
            peer.setblocking(True)
            peer.shutdown(socket.SHUT_WR)
            loop.until(lambda: loop.lost)
    assert sink.data == data
    assert loop.lost == [stream]


def test_what_waits_is_sent_as_the_peer_takes_it(loop: Loop) -> None:
    stream, peer, _ = loop.stream()
    drained: list[int] = []
    stream.outbox.drained = lambda: drained.append(stream.outbox.size)
    data = os.urandom(LARGE)
    stream.outbox.put(b"head")
    stream.outbox.put(data)
    loop.poller.flush()
    assert 0 < stream.outbox.size < LARGE
    assert drained == []
    got = bytearray()
    while len(got) < LARGE + 4:
        got += peer.recv(1 << 20)
        loop.poll()
    assert got == b"head" + data
    assert loop.turn.row[BYTES_SENT] == LARGE + 4
    assert drained == [0]


def test_drained_may_put_more_and_it_goes_out_in_the_same_flush(loop: Loop) -> None:
    stream, peer, _ = loop.stream()
    rest = [b"c", b"b"]

    def drained() -> None:
        if rest:
            stream.outbox.put(rest.pop())

    stream.outbox.drained = drained
    stream.outbox.put(b"a")
    loop.poller.flush()
    assert peer.recv(10) == b"abc"
    assert loop.turn.outboxes == []


def test_close_sends_what_waits_and_waits_for_the_peer(loop: Loop) -> None:
    stream, peer, _ = loop.stream()
    data = os.urandom(LARGE)
    stream.outbox.put(data)
    stream.close()
    stream.close()
    loop.poller.flush()
    assert (stream.closing, loop.lost) == (True, [])
    peer.sendall(b"the peer still talks" * 1000)
    got = bytearray()
    while len(got) < LARGE:
        got += peer.recv(1 << 20)
        loop.poll()
    assert got == data
    assert peer.recv(1) == b""
    loop.poll()
    assert loop.lost == []
    peer.close()
    loop.until(lambda: loop.lost)
    assert (loop.lost, stream.fd) == ([stream], -1)
    stream.abort()
    stream.close()
    stream.resume()
    assert loop.lost == [stream]


def test_the_peer_hears_of_the_end_with_the_turn(loop: Loop) -> None:
    """What follows from it is on its way to other cores by then."""
    stream, peer, _ = loop.stream()
    stream.close()
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.recv(1)
    loop.poller.flush()
    peer.setblocking(True)
    assert peer.recv(1) == b""


def test_close_of_a_stream_that_a_flooding_peer_never_ends(loop: Loop) -> None:
    stream, peer, sink = loop.stream()
    stream.close()
    loop.poller.flush()
    for _ in range(40):
        peer.sendall(bytes(100_000))
        loop.poll()
    assert (len(sink.data), loop.lost) == (0, [])
    peer.shutdown(socket.SHUT_WR)
    loop.until(lambda: loop.lost)


def test_abort_loses_what_waits(loop: Loop) -> None:
    stream, peer, _ = loop.stream()
    stream.outbox.put(b"never")
    stream.abort()
    loop.poller.flush()
    assert peer.recv(10) == b""
    assert (loop.lost, stream.outbox.closed) == ([stream], True)


def test_reset_is_a_loss_told_once(loop: Loop) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    peer = socket.create_connection(listener.getsockname())
    ours, _ = listener.accept()
    lost: list[int] = []
    outbox = loop.side.Outbox(loop.turn)
    stream = loop.poller.adopt(ours.detach(), Sink(), outbox, lambda: lost.append(1))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    loop.until(lambda: lost)
    outbox.put(b"x")
    loop.poller.flush()
    stream.abort()
    loop.poll()
    assert lost == [1]
    listener.close()


def test_copy_of_the_descriptor_leaves_no_event_behind(loop: Loop) -> None:
    stream, peer, _ = loop.stream()
    copy = os.dup(stream.fd)
    stream.abort()
    del stream
    loop.lost.clear()
    for _ in range(3):
        peer.sendall(b"x")
        loop.poll()
    turns = loop.turns
    loop.poll()
    assert loop.turns == turns
    os.close(copy)


def test_paused_intake_is_not_read_and_resumed_without_loss(loop: Loop) -> None:
    publisher = Publisher(loop.side, max_packet=1000)
    publisher.turn = loop.turn
    outbox = loop.side.Outbox(loop.turn)
    intake = loop.side.Intake(loop.turn, outbox, publisher, 1000)
    intake.open = True
    intake.version = 4
    stream, peer, _ = loop.stream(intake, outbox)
    publisher.builder.blocked = True
    data = b"".join(publish(b"a", b"%05d" % i) for i in range(20_000))
    peer.setblocking(False)
    sent = 0
    for _ in range(10):
        try:
            sent += peer.send(data[sent:])
        except BlockingIOError:
            break
        loop.poll()
    assert intake.paused
    read = loop.turn.row[0]
    assert read <= 262_144
    loop.poll()
    assert loop.turn.row[0] == read
    publisher.builder.blocked = False
    stream.resume()
    while sent < len(data):
        try:
            sent += peer.send(data[sent:])
        except BlockingIOError:
            loop.poll()
    loop.until(lambda: loop.turn.row[0] == len(data))
    assert [payload for _, payload, _ in publisher.records()] == [
        b"%05d" % i for i in range(20_000)
    ]
    peer.close()
    loop.until(lambda: loop.lost)


def test_end_of_a_paused_intake_is_seen_after_it_has_read_the_rest(loop: Loop) -> None:
    publisher = Publisher(loop.side)
    publisher.intake.block()
    stream, peer, _ = loop.stream(publisher.intake, publisher.outbox)
    peer.sendall(b"\xc0\0" * 3)
    peer.close()
    loop.poll()
    assert (publisher.packets, loop.lost) == ([], [])
    stream.resume()
    assert publisher.packets == [(0xC0, b"")] * 3
    loop.until(lambda: loop.lost)


def test_closing_a_stream_within_another_ones_input_leaves_that_alone(loop: Loop) -> None:
    other, other_peer, other_sink = loop.stream()
    publisher = Publisher(loop.side)
    stream, peer, _ = loop.stream(publisher.intake, publisher.outbox)
    garbage = b"\xff" * 60_000
    seen: list[bytes] = []

    def on_packet(first_byte: int, body: bytes) -> None:
        if not seen:
            other_peer.sendall(garbage)
            other.close()
        seen.append(body)

    publisher.on_packet = on_packet  # type: ignore[method-assign]
    bodies = [b"%03d" % i for i in range(300)]
    peer.sendall(b"".join(b"\xc0\x03" + body for body in bodies))
    loop.until(lambda: len(seen) == 300)
    assert seen == bodies
    assert other_sink.data == b""
    other_peer.close()
    loop.until(lambda: loop.lost)
    assert loop.lost == [other]
    assert stream.fd >= 0


def test_stream_may_end_itself_within_its_input(loop: Loop) -> None:
    for how in ("close", "abort"):
        stream, peer, sink = loop.stream()
        end = getattr(stream, how)
        sink.then = lambda _, end=end: end()
        peer.sendall(b"bye")
        loop.until(partial(getattr, stream, "closing"))
        assert sink.data == b"bye"
        peer.close()
        loop.until(partial(loop.lost.count, stream))
        assert loop.lost.count(stream) == 1


def test_error_of_a_sink_ends_its_stream_and_no_other(loop: Loop) -> None:
    trio = [loop.stream() for _ in range(3)]

    def broken(data: bytes) -> None:
        raise RuntimeError("broken")

    trio[1][2].then = broken
    for _, peer, _ in trio:
        peer.sendall(b"x")
    loop.poll()
    assert [str(error) for error in loop.errors] == ["broken"]
    assert [sink.data for _, _, sink in trio] == [b"x"] * 3
    assert loop.lost == [trio[1][0]]
    trio[2][1].sendall(b"y")
    loop.until(lambda: trio[2][2].data == b"xy")


def test_watch_calls_until_cancelled_and_leaves_the_descriptor(loop: Loop) -> None:
    calls: list[bytes] = []
    read, write = os.pipe()
    watch = loop.poller.watch(read, lambda: calls.append(os.read(read, 10)))
    os.write(write, b"a")
    loop.poll()
    assert (calls, watch.fd) == ([b"a"], read)
    watch.cancel()
    watch.cancel()
    os.write(write, b"b")
    loop.poll()
    assert (calls, watch.fd) == ([b"a"], -1)
    assert os.read(read, 10) == b"b"
    os.close(read)
    os.close(write)


def test_watch_may_cancel_another_whose_event_is_in_the_same_round(loop: Loop) -> None:
    pipes = [os.pipe() for _ in range(2)]
    calls: list[int] = []
    watches: list[Kernel] = []

    def told(i: int) -> None:
        calls.append(i)
        watches[1 - i].cancel()
        watches[1 - i] = watches[i]

    for i, (read, _) in enumerate(pipes):
        watches.append(loop.poller.watch(read, lambda i=i: told(i)))
    for _, write in pipes:
        os.write(write, b"x")
    loop.poll()
    assert len(calls) == 1
    for read, write in pipes:
        os.close(read)
        os.close(write)


def test_adopting_what_is_no_socket_is_an_error_and_leaves_it(loop: Loop, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        outbox = loop.side.Outbox(loop.turn)
        with pytest.raises(OSError, match=r".+"):
            loop.poller.adopt(file.fileno(), Sink(), outbox, None)
        assert (outbox.stream, file.write(b"still open")) == (None, 10)


def test_foreign_owner_of_an_outbox_is_asked_to_flush(loop: Loop) -> None:
    class Transport:
        def __init__(self) -> None:
            self.sent = b""
            self.outbox = loop.side.Outbox(loop.turn)
            self.outbox.stream = self

        def flush(self) -> None:
            self.sent += self.outbox.take()

    transport = Transport()
    transport.outbox.put(b"abc")
    loop.poller.flush()
    transport.outbox.put(b"def")
    loop.poller.flush()
    assert transport.sent == b"abcdef"


def test_nothing_is_read_for_a_sink_that_is_paused(loop: Loop) -> None:
    stream, peer, sink = loop.stream()
    for sink.paused in (True, False):
        peer.sendall(b"a")
        loop.poll()
        stream.resume()
        assert sink.data == (b"" if sink.paused else b"aa")


def test_close_aborts_all(loop: Loop) -> None:
    streams = [loop.stream() for _ in range(3)]
    loop.poller.close()
    assert len(loop.lost) == 3
    assert all(peer.recv(1) == b"" for _, peer, _ in streams)


def test_streams_are_counted_while_they_are_open(loop: Loop) -> None:
    stream, _, _ = loop.stream()
    _, peer, _ = loop.stream()
    assert loop.poller.streams == 2
    stream.abort()
    stream.abort()
    assert loop.poller.streams == 1
    peer.close()
    loop.until(lambda: len(loop.lost) == 2)
    assert loop.poller.streams == 0
