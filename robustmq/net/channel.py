"""Messages between two processes of a node over a Unix socket that keeps their boundaries."""

import socket
from collections import deque
from collections.abc import Callable
from typing import Final

PIECE_BYTES: Final = 32_768
"""Bytes of a message that travel at once; every socket buffer has room for some of them."""

_FIRST: Final = 1
_LAST: Final = 2
_BUFFER_BYTES: Final = 1 << 20


def pair() -> tuple[socket.socket, socket.socket]:
    """Make the two ends: nonblocking, and the same for every life of either process."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return ends


class Channel:
    """One end. Messages arrive whole and in order, or not at all when a process ended midway.

    `blocked()` is called when the socket takes no more: `flush` must be called again when it is
    writable. What waits for that is `backlog_bytes`; whoever sends looks at it.
    """

    def __init__(self, end: socket.socket, blocked: Callable[[], None]) -> None:
        self._end = end
        self._blocked = blocked
        self._leaving: deque[bytes] = deque()
        self._arriving: bytearray | None = None
        self.backlog_bytes = 0

    def fileno(self) -> int:
        """Return the descriptor to be watched."""
        return self._end.fileno()

    def send(self, message: bytes) -> None:
        """Send a message, or keep it until `flush` can."""
        idle = not self._leaving
        for start in range(0, len(message) or 1, PIECE_BYTES):
            piece = message[start : start + PIECE_BYTES]
            flags = (_FIRST if start == 0 else 0) | (
                _LAST if start + PIECE_BYTES >= len(message) else 0
            )
            self._leaving.append(bytes((flags,)) + piece)
            self.backlog_bytes += len(piece)
        if idle:
            self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        while self._leaving:
            try:
                self._end.send(self._leaving[0])
            except BlockingIOError:
                self._blocked()
                return
            self.backlog_bytes -= len(self._leaving.popleft()) - 1

    def clear(self) -> None:
        """Forget what was not sent yet."""
        self._leaving.clear()
        self.backlog_bytes = 0

    def receive(self) -> list[bytes]:
        """Take all messages that are complete."""
        messages: list[bytes] = []
        while True:
            try:
                packet = self._end.recv(PIECE_BYTES + 1)
            except BlockingIOError:
                return messages
            if not packet:
                return messages
            if packet[0] & _FIRST:
                # What an earlier life of the other process left incomplete is dropped.
                self._arriving = bytearray()
            if self._arriving is None:
                continue
            self._arriving += packet[1:]
            if packet[0] & _LAST:
                messages.append(bytes(self._arriving))
                self._arriving = None
