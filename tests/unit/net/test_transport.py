"""The pipeline between a socket and an endpoint: what it bounds by itself."""

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from robustmq import metrics
from robustmq._kernel.poller import Poller
from robustmq._kernel.turn import Turn
from robustmq.net.layer import Facts
from robustmq.net.transport import UNHEARD_BYTES, Pipeline
from robustmq.net.websocket import Terms, WebSocket
from tests.websocket import PING, masked, request


class End:
    """An endpoint that takes everything."""

    paused = False

    def __init__(self) -> None:
        self.heard = b""
        self.is_lost = False

    def feed(self, data: bytes) -> None:
        self.heard += data

    def drained(self) -> None:
        pass

    def lost(self) -> None:
        self.is_lost = True


class Host:
    """A poller with one pipeline; the peer's end is `peer`."""

    def __init__(self) -> None:
        self.turn = Turn(memoryview(bytearray(8 * metrics.CELLS)).cast("Q"))
        self.errors: list[Exception] = []
        self.poller = Poller(self.turn, self._end_turn, lambda: None, self.errors.append)
        self.end = End()
        self.broken: list[str] = []
        self.pipeline = Pipeline(
            self.turn,
            WebSocket(Terms("/mqtt", (), 4_096, 1 << 20)),
            Facts(),
            self.end,
            opened=lambda _: None,
            broken=lambda _, why: self.broken.append(why),
            closing=lambda _: None,
        )
        self.peer, ours = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        self.pipeline.adopt(self.poller, ours.detach())
        self.say(request())

    def _end_turn(self) -> bool:
        self.poller.flush()
        return True

    def say(self, data: bytes) -> None:
        self.peer.sendall(data)
        self.poller.wait(0)


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    with closing(host.poller), host.peer:
        yield host
    assert host.errors == []


def test_who_pings_and_never_reads_is_ended(host: Host) -> None:
    rounds = 0
    while not host.end.is_lost:
        host.say(masked(b"p" * 125, PING))
        rounds += 1
        assert rounds < UNHEARD_BYTES
    assert rounds * 127 > UNHEARD_BYTES
    assert len(host.broken) == 1


def test_who_pings_and_reads_may_do_so_for_ever(host: Host) -> None:
    for _ in range(3 * UNHEARD_BYTES // 127):
        host.say(masked(b"p" * 125, PING))
        assert host.peer.recv(65_536)
    host.say(masked(b"more"))
    assert (host.end.heard, host.broken, host.end.is_lost) == (b"more", [], False)
