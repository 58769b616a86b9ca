"""Where requests begin and end in a stream: each has its size in four bytes before it."""

from collections import deque
from itertools import islice
from typing import Final, NamedTuple

from robustmq.errors import ProtocolError

SIZE_BYTES: Final = 4


class Frame(NamedTuple):
    """A request: it begins at `at` in `data`, and ends where that ends."""

    data: bytes
    at: int

    @property
    def size(self) -> int:
        """Bytes of the request."""
        return len(self.data) - self.at


class Framing:
    """Collects what a stream brings, and gives it out by requests, each in one piece.

    What is read is kept as it came; a request that came in several reads is joined once, and one
    that a read ends with is not copied at all.
    """

    __slots__ = ("_at", "_pieces", "held")

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        # How much of the first piece was given out.
        self._at = 0
        self.held = 0
        """Bytes that were not given out yet."""

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        if data:
            self._pieces.append(data)
            self.held += len(data)

    def next(self, most: int) -> Frame | None:
        """Give out the next request; None until it is whole.

        Raises ProtocolError when it has more than `most` bytes, or fewer than none.
        """
        if self.held < SIZE_BYTES:
            return None
        size = self._size()
        if not 0 <= size <= most:
            raise ProtocolError(
                0, f"a request has {size} bytes: at most {most} are taken (kafka_runtime)"
            )
        if self.held < SIZE_BYTES + size:
            return None
        return self._take(SIZE_BYTES + size)

    def clear(self) -> None:
        """Forget what is here."""
        self._pieces.clear()
        self._at = self.held = 0

    def _size(self) -> int:
        head = self._pieces[0][self._at : self._at + SIZE_BYTES]
        for piece in islice(self._pieces, 1, SIZE_BYTES):
            head += piece[: SIZE_BYTES - len(head)]
        return int.from_bytes(head, "big", signed=True)

    def _take(self, length: int) -> Frame:
        self.held -= length
        first, at = self._pieces[0], self._at
        end = at + length
        if end > len(first):
            return Frame(self._joined(length), SIZE_BYTES)
        if end == len(first):
            self._pieces.popleft()
            self._at = 0
            return Frame(first, at + SIZE_BYTES)
        self._at = end
        return Frame(first[at + SIZE_BYTES : end], 0)

    def _joined(self, length: int) -> bytes:
        """Take so many bytes from several pieces; the last of them may hold more."""
        parts = [memoryview(self._pieces.popleft())[self._at :]]
        self._at = 0
        missing = length - len(parts[0])
        while missing:
            piece = self._pieces[0]
            parts.append(memoryview(piece)[:missing])
            if len(piece) > missing:
                self._at = missing
                break
            self._pieces.popleft()
            missing -= len(piece)
        return b"".join(parts)
