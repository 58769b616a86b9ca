"""The bytes that wait for one connection's next send: readable twin."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from robustmq.metrics import BYTES_SENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from robustmq._kernel.pure.turn import Turn

BY_REFERENCE: Final = 1024
"""Pieces of at least this many bytes are queued by reference, smaller ones are copied."""
VECTORS: Final = 256
"""Pieces that one gathered send takes at most."""


class Flushable(Protocol):
    """What an outbox belongs to: it sends what waits when the turn ends."""

    def flush(self) -> None:
        """Send what the outbox holds, as far as the peer takes it."""

    def resume(self) -> None:
        """Let the intake beside the outbox take input again, and read on."""


class Outbox:
    """Small pieces are copied into one buffer, large ones are queued by reference.

    `size` is the number of bytes that wait. The first piece of a turn puts the outbox into
    `turn.outboxes`. `stream` is what sends it, `drained` is called with no arguments when
    everything was sent; both are None when there is nobody. A closed outbox takes nothing.
    """

    __slots__ = ("_dirty", "_pieces", "_turn", "closed", "drained", "size", "stream")

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._pieces: deque[bytearray | memoryview] = deque()
        self._dirty = False
        self.stream: Flushable | None = None
        self.drained: Callable[[], object] | None = None
        self.closed = False
        self.size = 0

    def put(self, data: bytes) -> None:
        """Queue `data` behind everything that waits."""
        self.put_slice(data, 0, len(data))

    def put_slice(self, data: bytes, start: int, end: int) -> None:
        """Queue `data[start:end]`; a large slice is kept by reference.

        Raises ValueError when the slice lies outside the data.
        """
        if not 0 <= start <= end <= len(data):
            raise ValueError("the slice lies outside the data")
        if self.closed or start == end:
            return
        if not self._dirty:
            self._dirty = True
            self._turn.outboxes.append(self)
        self.size += end - start
        if end - start >= BY_REFERENCE:
            self._pieces.append(memoryview(data)[start:end])
        elif self._pieces and isinstance(self._pieces[-1], bytearray):
            self._pieces[-1] += data[start:end]
        else:
            self._pieces.append(bytearray(data[start:end]))

    def take(self) -> bytes:
        """Return all that waits as one bytes object; the outbox is empty afterwards.

        Bytes are counted as sent where a socket takes them.
        """
        whole = b"".join(self._pieces)
        self._release()
        self._dirty = False
        return whole

    def send(self, fd: int) -> int:
        """Send what waits to the non-blocking socket `fd`.

        Returns 1 when everything was sent, 0 when the socket is full, -1 when the peer is gone.
        """
        while self.size:
            vectors = [self._pieces[i] for i in range(min(len(self._pieces), VECTORS))]
            wanted = sum(map(len, vectors))
            try:
                sent = os.writev(fd, vectors)
            except BlockingIOError:
                return 0
            except OSError:
                return -1
            self._consumed(sent)
            if sent < wanted:
                return 0
        return 1

    def settle(self) -> None:
        """Learn that the end of the turn has seen this outbox: the next put marks it anew."""
        self._dirty = False

    def close(self) -> None:
        """Forget what waits and take nothing more."""
        self.closed = True
        self._release()
        self.stream = None
        self.drained = None

    def _consumed(self, length: int) -> None:
        self._turn.row[BYTES_SENT] += length
        self.size -= length
        while length:
            piece = self._pieces[0]
            if length < len(piece):
                if isinstance(piece, bytearray):
                    del piece[:length]
                else:
                    self._pieces[0] = piece[length:]
                return
            length -= len(piece)
            self._pieces.popleft()

    def _release(self) -> None:
        self._pieces.clear()
        self.size = 0
