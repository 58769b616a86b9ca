"""A pipeline over a real socket pair, with a layer that says what it is told to."""

import gc
import socket
import weakref
from collections.abc import Callable, Iterator

import pytest

from robustmq import metrics
from robustmq._kernel.poller import Poller
from robustmq._kernel.turn import Turn
from robustmq.net.layer import Broken, Facts
from robustmq.net.transport import Pipeline


class Shout:
    """Upper case below, lower case above; "open" is its handshake, "." the peer's end."""

    def __init__(self) -> None:
        self.is_open = False
        self.has_ended = False
        self.words = b""

    def receive(self, data: bytes) -> bytes:
        if b"BAD" in data:
            self.words = b"ALERT"
            raise Broken("it is bad")
        if not self.is_open:
            self.is_open = data.startswith(b"OPEN")
            self.words = b"WELCOME"
            data = data[4:]
        self.has_ended = data.endswith(b".")
        return data.removesuffix(b".").lower()

    def send(self, data: bytes) -> bytes:
        if b"!" in data:
            raise Broken("it cannot be said")
        return data.upper()

    def outgoing(self) -> bytes:
        words, self.words = self.words, b""
        return words

    def close(self) -> bytes:
        return b"BYE"

    def tell(self, facts: Facts) -> None:
        facts.certified = "somebody"


class End:
    """An endpoint that writes down what it is told."""

    def __init__(self) -> None:
        self.paused = False
        self.data = b""
        self.drains = 0
        self.losses = 0

    def feed(self, data: bytes) -> None:
        self.data += data

    def drained(self) -> None:
        self.drains += 1

    def lost(self) -> None:
        self.losses += 1


class Line:
    """A pipeline, its endpoint and its peer."""

    def __init__(self) -> None:
        self.turn = Turn(memoryview(bytearray(8 * metrics.CELLS)).cast("Q"))
        self.errors: list[Exception] = []
        self.poller = Poller(self.turn, self.end_turn, lambda: None, self.errors.append)
        self.said: list[str] = []
        self.closings = 0
        self.end = End()
        self.pipeline = Pipeline(
            self.turn,
            Shout(),
            Facts(),
            self.end,
            opened=lambda pipeline: self.said.append(f"open {pipeline.facts.certified}"),
            broken=lambda _, why: self.said.append(why),
            closing=lambda _: self.close(),
        )
        ours, self.peer = socket.socketpair()
        self.peer.settimeout(5)
        self.pipeline.adopt(self.poller, ours.detach())

    def close(self) -> None:
        self.closings += 1

    def end_turn(self) -> bool:
        self.poller.flush()
        return True

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(500):
            if condition():
                return
            self.poller.wait(10)
        raise AssertionError("it did not come true")

    def opened(self) -> None:
        self.peer.sendall(b"OPEN")
        self.until(lambda: self.said)
        assert self.peer.recv(100) == b"WELCOME"


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.poller.close()
    line.peer.close()
    assert line.errors == []


def test_a_handshake_and_bytes_both_ways(line: Line) -> None:
    line.opened()
    assert line.said == ["open somebody"]
    line.peer.sendall(b"HELLO")
    line.until(lambda: line.end.data == b"hello")
    line.pipeline.write(b"you")
    assert line.pipeline.backlog == 3
    drains = line.end.drains
    line.poller.tick()
    line.until(lambda: line.end.drains > drains)
    assert (line.pipeline.backlog, line.peer.recv(100)) == (0, b"YOU")


def test_bytes_are_counted_as_they_are_on_the_socket(line: Line) -> None:
    line.peer.sendall(b"OPENABC")
    line.until(lambda: line.end.data)
    # The endpoint counts its three by itself.
    assert line.turn.row[metrics.BYTES_RECEIVED] == 4
    assert line.turn.row[metrics.BYTES_SENT] == len(b"WELCOME")


def test_nothing_is_read_for_an_endpoint_that_is_paused(line: Line) -> None:
    line.opened()
    line.end.paused = True
    line.peer.sendall(b"ONE")
    line.poller.tick()
    line.poller.wait(10)
    assert line.end.data == b""
    line.end.paused = False
    line.pipeline.resume()
    assert line.end.data == b"one"


def test_a_peer_that_breaks_the_rules_hears_so_and_is_lost_once(line: Line) -> None:
    line.opened()
    line.peer.sendall(b"BAD")
    line.until(lambda: line.end.losses)
    assert line.said[1:] == ["it is bad"]
    assert line.peer.recv(100) == b"ALERT"
    assert line.peer.recv(100) == b""
    line.peer.close()
    line.until(lambda: line.poller.streams == 0)
    assert (line.end.losses, line.closings) == (1, 1)


def test_what_a_layer_cannot_send_ends_the_connection(line: Line) -> None:
    line.opened()
    line.pipeline.write(b"x!")
    assert (line.said[1:], line.end.losses) == (["it cannot be said"], 1)
    line.pipeline.write(b"more")
    line.poller.flush()
    assert line.peer.recv(100) == b""


def test_the_peers_end_is_answered(line: Line) -> None:
    line.opened()
    line.peer.sendall(b"LAST.")
    line.until(lambda: line.end.losses)
    assert line.end.data == b"last"
    assert line.peer.recv(100) == b"BYE"


def test_close_sends_what_waits_and_the_last_words(line: Line) -> None:
    line.opened()
    line.pipeline.write(b"end")
    line.pipeline.close()
    line.pipeline.close()
    line.poller.flush()
    assert line.peer.recv(100) == b"ENDBYE"
    assert line.peer.recv(100) == b""
    line.peer.sendall(b"MORE")
    line.peer.close()
    line.until(lambda: line.end.losses)
    assert (line.end.data, line.closings) == (b"", 1)


def test_abort_ends_at_once(line: Line) -> None:
    line.opened()
    line.pipeline.abort()
    assert (line.end.losses, line.poller.streams) == (1, 0)
    line.pipeline.abort()
    line.pipeline.resume()
    assert line.end.losses == 1


def test_nothing_of_one_that_has_ended_is_left_for_the_collector(line: Line) -> None:
    line.opened()
    line.peer.close()
    line.until(lambda: line.end.losses)
    end, pipeline = weakref.ref(line.end), line.pipeline
    gc.disable()
    try:
        del line.end
        assert end() is None
        del line.pipeline
        assert not gc.get_referrers(pipeline)
    finally:
        gc.enable()
