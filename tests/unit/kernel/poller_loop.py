"""A poller that takes turns for tests, whichever side it is of."""

import socket
import time
from collections.abc import Callable

from tests.datapath import Kernel, Side


class Sink:
    """What is read, and what to do about it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.paused = False
        self.then: Callable[[bytes], object] = lambda _: None

    def feed(self, data: bytes) -> None:
        self.data += data
        self.then(data)


class Loop:
    """A poller whose turns end with a flush, and the peers of its streams."""

    def __init__(self, kind: str) -> None:
        self.side = Side(kind)
        self.turn = self.side.turn()
        self.turns = 0
        self.errors: list[Exception] = []
        self.alarms: list[int] = []
        self.quiet = True
        self.poller = self.side.Poller(self.turn, self.end_turn, self.ring, self.errors.append)
        self.peers: list[socket.socket] = []
        self.lost: list[Kernel] = []

    def end_turn(self) -> bool:
        self.turns += 1
        self.poller.flush()
        return self.quiet

    def ring(self) -> None:
        self.alarms.append(self.turn.now_ms)

    def stream(
        self, sink: Kernel = None, turn_outbox: Kernel = None
    ) -> tuple[Kernel, socket.socket, Kernel]:
        """Return a stream, its peer and its sink."""
        ours, theirs = socket.socketpair()
        theirs.settimeout(5)
        self.peers.append(theirs)
        sink = sink if sink is not None else Sink()
        outbox = turn_outbox if turn_outbox is not None else self.side.Outbox(self.turn)
        streams: list[Kernel] = []
        streams.append(
            self.poller.adopt(ours.detach(), sink, outbox, lambda: self.lost.append(streams[0]))
        )
        return streams[0], theirs, sink

    def until(self, condition: Callable[[], object]) -> None:
        """Take turns until the condition holds; fails after five seconds."""
        end = time.monotonic() + 5
        while not condition():
            self.poller.wait(50)
            assert time.monotonic() < end

    def poll(self) -> None:
        """Take turns until nothing is ready."""
        turns = -1
        while turns != self.turns:
            turns = self.turns
            self.poller.wait(0)

    def close(self) -> None:
        self.poller.close()
        for peer in self.peers:
            peer.close()
