"""A core of another node, as this core knows it: its link, and the connection that it has now."""

import asyncio
import errno
import ipaddress
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from robustmq.broker.api import Timer
from robustmq.message.core_number import global_core
from robustmq.net.peer_connection import PeerConnection, Stage
from robustmq.net.peer_handshake import Life
from robustmq.net.peer_link import Link
from robustmq.shm.frame import MAX_FRAME_BYTES
from robustmq.workers import log

_log = log.EventLog("peers")

PAST: Final = 64
"""Lives that are remembered as over, since a word of theirs may still be on its way."""

_EPOCH_BITS: Final = 32
_UNDER_WAY: Final = frozenset({0, errno.EINPROGRESS})
_ACK_BYTES: Final = 65_536
"""Bytes that are taken until this is acknowledged at once; what is less waits a moment."""
_ACK_MS: Final = 20


class PeerNode(msgspec.Struct, frozen=True):
    """A node of the cluster, as all have agreed on it.

    `incarnation` is another whenever it was fenced or has started again: what an earlier one has
    to say is void. Its cores are reached at `address` and `port`.
    """

    node: int
    address: str
    port: int
    workers: int
    incarnation: int
    is_live: bool = True


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How a line is kept; the times in milliseconds. `stream` names what is kept for its link."""

    is_dialer: bool
    stream: bytes
    record_bytes: int
    keepalive_ms: int
    timeout_ms: int
    reconnect_min_ms: int
    reconnect_max_ms: int


class Office(Protocol):
    """What a line asks of whoever has all of them."""

    loop: asyncio.AbstractEventLoop

    def at(self, delay_ms: int, callback: Callable[[], None]) -> Timer:
        """Call back after a time."""

    def now_ms(self) -> int:
        """Return the time of this turn."""

    def tick(self) -> None:
        """Learn that a turn has to begin: something has happened outside of one."""

    def chance(self, count: int, /) -> int:
        """Return a number from 0 to count - 1."""

    def connect(self, line: "Line", fd: int) -> None:
        """Begin a connection on a socket that connects; OSError when that stays the line's."""

    def mark(self, line: "Line") -> None:
        """Learn that a line has something to say at the end of the turn."""

    def counted(self, line: "Line", change: int) -> None:
        """Learn that there is one open connection more, or less."""


class Line:
    """One link and its connection, made anew as often as it breaks when it is ours to dial."""

    def __init__(self, office: Office, node: PeerNode, index: int, settings: Terms) -> None:
        self._office = office
        self._settings = settings
        self.node = node
        self.index = index
        self.core = global_core(node.node, index)
        self.name = f"{node.node}/{index}"
        self.link = Link(settings.record_bytes, MAX_FRAME_BYTES)
        self.stream = settings.stream
        self.is_dialer = settings.is_dialer
        self.life: Life | None = None
        self.past: deque[bytes] = deque(maxlen=PAST)
        self.connection: PeerConnection | None = None
        self.is_marked = False
        self.since_ms = office.now_ms()
        self.trouble = "it has not been connected yet"
        self.is_open = False
        self._said_trouble = ""
        self._wait_ms = settings.reconnect_min_ms
        self._heard_ms = 0
        self._tries = 0
        self._redial: Timer | None = None
        self._watch: Timer | None = None
        self._acknowledging = False
        self._resolving: asyncio.Task[None] | None = None
        self._is_shut = False

    @property
    def epoch(self) -> int:
        """The number of the life that was met last, the same in no other; 0 for none."""
        if self.life is None:
            return 0
        return int.from_bytes(self.life.boot) << _EPOCH_BITS | self.life.epoch

    @property
    def backlog_bytes(self) -> int:
        """Bytes that were not sent, or not acknowledged."""
        return self.link.backlog_bytes

    def send(self, frame: bytes) -> None:
        """Queue a frame; it leaves with the turn, or when there is a connection."""
        self.link.send(frame)
        if not self.is_marked:
            self._office.mark(self)

    def flush(self) -> None:
        """Give the connection what waits, and say what was taken when it is much."""
        self.is_marked = False
        connection = self.connection
        if connection is None or connection.stage != Stage.OPEN:
            return
        connection.pump()
        owed = self.link.owed_bytes
        if owed >= _ACK_BYTES:
            connection.acknowledge()
        elif owed and not self._acknowledging:
            self._acknowledging = True
            self._office.at(_ACK_MS, self._acknowledge)

    def _acknowledge(self) -> None:
        self._acknowledging = False
        if self.link.owed_bytes and self.connection is not None:
            self.connection.acknowledge()

    # ------------------------------------------------------------------ dialling

    def dial(self) -> None:
        """Look for the node's address, then connect."""
        self._redial = None
        host = self.node.address
        try:
            version = ipaddress.ip_address(host).version
        except ValueError:
            self._resolving = self._office.loop.create_task(self._resolve(host))
        else:
            family = socket.AF_INET6 if version == 6 else socket.AF_INET
            self._connect(family, (host, self.node.port))

    async def _resolve(self, host: str) -> None:
        port = self.node.port
        try:
            found = await self._office.loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            self._office.tick()
            self.failed(f"{host} has no address: {error.strerror}")
            return
        self._office.tick()
        if not self._is_shut:
            # The next one next time: this one may lead nowhere.
            family, _, _, _, address = found[self._tries % len(found)]
            self._tries += 1
            self._connect(family, address)

    def _connect(self, family: int, address: tuple[object, ...]) -> None:
        fd = -1
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = sock.connect_ex(address)
            fd = sock.detach()
            if code not in _UNDER_WAY:
                raise OSError(code, os.strerror(code))
            self._office.connect(self, fd)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            self.failed(f"{address[0]}:{address[1]}: {error.strerror or error}")

    # ------------------------------------------------------------------ the connection's life

    def opened(self) -> None:
        """Frames flow from now on."""
        self.is_open = True
        self.trouble = self._said_trouble = ""
        self._wait_ms = self._settings.reconnect_min_ms
        self.since_ms = self._heard_ms = self._office.now_ms()
        self._office.counted(self, 1)
        _log.info("link connected", peer=self.name, backlog=self.backlog_bytes)
        if not self.is_marked:
            self._office.mark(self)
        self._beat()

    def _beat(self) -> None:
        """Look whether the other side lives, and let it know that we do."""
        connection = self.connection
        assert connection is not None
        assert connection.transport is not None
        now_ms = self._office.now_ms()
        if connection.heard:
            connection.heard = False
            self._heard_ms = now_ms
        elif now_ms - self._heard_ms >= self._settings.timeout_ms:
            connection.fail(f"it gave no sign of life for {now_ms - self._heard_ms} ms")
            return
        if not connection.said and not connection.transport.backlog:
            connection.acknowledge()
        connection.said = False
        self._watch = self._office.at(self._settings.keepalive_ms, self._beat)

    def failed(self, why: str) -> None:
        """The connection is over, or there was none; ours to dial is dialled again later."""
        was_open = self._close()
        self.trouble = why or "the connection was lost"
        if self._is_shut:
            return
        if was_open or self.trouble != self._said_trouble:
            self._said_trouble = self.trouble
            _log.warning("link not connected", peer=self.name, reason=self.trouble)
        if self.is_dialer:
            # Links of many cores must not come back in step.
            wait = self._office.chance(self._wait_ms) + self._wait_ms // 2
            self._redial = self._office.at(wait, self.dial)
            self._wait_ms = min(2 * self._wait_ms, self._settings.reconnect_max_ms)

    def give_way(self, connection: PeerConnection) -> None:
        """End the connection that was there before this one."""
        before = self.connection
        if before is not connection:
            self._close()
            if before is not None:
                before.fail("another connection has taken its place")
            self.connection = connection

    def shut(self) -> None:
        """End for ever; what was not sent is forgotten."""
        self._is_shut = True
        connection = self.connection
        self._close()
        if self._redial is not None:
            self._redial.cancel()
        if self._resolving is not None:
            self._resolving.cancel()
        if connection is not None:
            connection.fail("the cluster has changed")

    def _close(self) -> bool:
        was_open, self.is_open = self.is_open, False
        self.connection = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if was_open:
            self.since_ms = self._office.now_ms()
            self._office.counted(self, -1)
        return was_open
