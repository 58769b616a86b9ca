"""Where frames begin and end in a stream: each has its size in four bytes before it."""

from collections import deque
from typing import Final

from robustmq.errors import ProtocolError

SIZE_BYTES: Final = 4


class Framing:
    """Collects what a stream brings, and gives it out by frames, each an object of its own.

    A frame may have `most` bytes: a size that is not allowed ends the stream, and what comes
    behind it is forgotten. `held`: bytes that have come and were not given out, sizes included.
    """

    __slots__ = ("_fault", "_frames", "_rest", "held", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self._frames: deque[bytes] = deque()
        self._rest = bytearray()
        self._fault: ProtocolError | None = None

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        if self._fault is not None:
            return
        self.held += len(data)
        rest = self._rest
        rest += data
        at = 0
        while len(rest) >= at + SIZE_BYTES:
            begin = at + SIZE_BYTES
            size = int.from_bytes(rest[at:begin], "big", signed=True)
            if not 0 <= size <= self.most:
                self._refuse(size)
                return
            if len(rest) < begin + size:
                break
            at = begin + size
            self._frames.append(bytes(rest[begin:at]))
        del rest[:at]

    def next(self) -> bytes | None:
        """Give out the next frame; None until it is whole.

        Raises ProtocolError when it has more than `most` bytes, or fewer than none.
        """
        if self._frames:
            frame = self._frames.popleft()
            self.held -= SIZE_BYTES + len(frame)
            return frame
        if self._fault is not None:
            raise self._fault
        return None

    def clear(self) -> None:
        """Forget what is here."""
        self._frames.clear()
        self._rest.clear()
        self._fault = None
        self.held = 0

    def _refuse(self, size: int) -> None:
        sentence = f"a request has {size} bytes: at most {self.most} are taken"
        self._fault = ProtocolError(0, sentence)
        self._rest.clear()
        self.held = sum(SIZE_BYTES + len(frame) for frame in self._frames)
