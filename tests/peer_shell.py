"""Cores of several nodes in one thread, with real sockets, and a proxy that harms connections."""

import asyncio
import contextlib
import os
import random
import selectors
import socket
import struct
import time
from array import array
from collections.abc import Callable, Mapping
from typing import Final

from robustmq._kernel.poller import Poller
from robustmq._kernel.turn import Turn
from robustmq.broker.timers import Timers
from robustmq.message.core_number import global_core
from robustmq.metrics import CELLS
from robustmq.net.trust import Trust
from robustmq.settings.cluster import Cluster
from robustmq.workers.peer_line import PeerNode
from robustmq.workers.peers import Peers

PATIENCE_SECONDS: Final = 60.0
SETTINGS: Final = Cluster(
    peer_keepalive_ms=50,
    peer_timeout_ms=400,
    peer_handshake_timeout_ms=1_000,
    peer_reconnect_min_ms=20,
    peer_reconnect_max_ms=100,
)


class Shell:
    """One life of a core: a poller, timers and its peers, and what they have told it."""

    def __init__(
        self,
        node: int,
        index: int = 0,
        *,
        workers: int = 1,
        epoch: int = 1,
        boot: bytes = b"",
        trust: Trust = Trust(b"the secret of these tests"),  # noqa: B008
        settings: Cluster = SETTINGS,
        port: int = 0,
    ) -> None:
        self.node = node
        self.core = global_core(node, index)
        self.known: set[int] = set()
        self.row = memoryview(array("Q", bytes(8 * CELLS)))
        turn = Turn(self.row)
        self.timers = Timers(10)
        self.poller = Poller(turn, self._end_turn, lambda: self.timers.run(turn.now_ms), self._fail)
        self.turn = turn
        self.heard: list[tuple[int, object]] = []
        self.handed: list[tuple[int, int, bytes]] = []
        self.loop = asyncio.new_event_loop()
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.peers = Peers(
            settings=settings,
            trust=trust,
            node=node,
            index=index,
            workers=workers,
            boot=boot or b"boot of %d" % node,
            epoch=epoch,
            poller=self.poller,
            row=self.row,
            loop=self.loop,
            clock=self.timers,
            now_ms=lambda: turn.now_ms,
            chance=random.Random(node).randrange,
        )
        self.peers.handle = lambda source, frame: self.heard.append((source, frame))
        self.peers.replaced = lambda core: self.heard.append((core, "replaced"))
        self.peers.changed = self._changed
        self.peers.listen(self.listener, lambda *handed: self.handed.append(handed))
        self.failures: list[Exception] = []

    def _changed(self, nodes: Mapping[int, PeerNode]) -> None:
        now = set(nodes) - {self.node}
        self.heard += [(global_core(node, 0), "departed") for node in sorted(self.known - now)]
        self.heard += [(global_core(node, 0), "joined") for node in sorted(now - self.known)]
        self.known = now

    def _fail(self, error: Exception) -> None:
        self.failures.append(error)

    def _end_turn(self) -> bool:
        self.peers.receive()
        self.peers.flush()
        self.poller.flush()
        self.poller.alarm_ms = self.timers.next_ms or 0
        return not self.peers.has_events

    def step(self) -> None:
        """Take a turn or two."""
        self.poller.tick()
        self.poller.wait(0)
        assert not self.failures, self.failures

    def frames(self, source: int) -> list[bytes]:
        """Return the frames of one core."""
        return [what for core, what in self.heard if core == source and isinstance(what, bytes)]

    def is_linked(self, core: int) -> bool:
        """Say whether there is a connection to a core."""
        line = self.peers.lines.get(core)
        return line is not None and line.is_open

    def die(self) -> None:
        """End as a process that was killed does."""
        self.peers.shut()
        self.poller.close()
        self.loop.close()


class Proxy:
    """Forwards connections to `target`; `stalled` are the directions in which nothing moves.

    Direction 0 is that of who dials, 1 that of who answers.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.stalled: set[int] = set()
        self.refuses = False
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []

    def step(self) -> None:
        """Move what can be moved."""
        with contextlib.suppress(BlockingIOError):
            dialer, _ = self._listener.accept()
            self.accepted += 1
            answerer = socket.socket()
            if self.refuses or answerer.connect_ex(("127.0.0.1", self.target)):
                dialer.close()
                answerer.close()
            else:
                self._pairs.append((dialer, answerer))
        for pair in list(self._pairs):
            for direction in {0, 1} - self.stalled:
                if not self._move(pair[direction], pair[1 - direction]):
                    self._end(pair)
                    break

    def _move(self, source: socket.socket, target: socket.socket) -> bool:
        try:
            with selectors.PollSelector() as ready:
                ready.register(target, selectors.EVENT_WRITE)
                if not ready.select(0):
                    return True
            data = source.recv(16_384, socket.MSG_DONTWAIT)
            if data:
                target.sendall(data)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(data)

    def cut(self) -> None:
        """Break every connection, as the end of a machine does."""
        for pair in list(self._pairs):
            for end in pair:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._end(pair)

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self._pairs.remove(pair)
        for end in pair:
            end.close()

    def close(self) -> None:
        """End."""
        self.cut()
        self._listener.close()


class Street:
    """Shells and proxies that are stepped together."""

    def __init__(self) -> None:
        self.shells: list[Shell] = []
        self.proxies: list[Proxy] = []

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Step all of them until a condition holds."""
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() - begin < PATIENCE_SECONDS, f"{what}: not in time"
            self.step()

    def step(self) -> None:
        """Let each take a turn."""
        for shell in self.shells:
            shell.step()
        for proxy in self.proxies:
            proxy.step()
        time.sleep(0)

    def pass_time(self, seconds: float) -> None:
        """Step all of them for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.step()

    def close(self) -> None:
        """End them all."""
        for shell in self.shells:
            shell.die()
        for proxy in self.proxies:
            proxy.close()


def nodes(*known: tuple[int, int], incarnation: int = 1, workers: int = 1) -> list[PeerNode]:
    """Return what an image says of nodes, each (number, port)."""
    return [PeerNode(node, "127.0.0.1", port, workers, incarnation) for node, port in known]


def names(count: int) -> list[bytes]:
    """Return frames that tell their place, of different sizes."""
    return [b"%08d" % n + os.urandom(n % 300) for n in range(count)]
