"""Bytes of segments that are not in memory are waited for beside the loop, by a thread of its own.

The writer cannot do it: what is appended would wait for what is read.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from robustmq.storage.files import Files
from robustmq.storage.segment import Segment
from robustmq.storage.writer import Writer, WriterThread

_CHUNK: Final = 1 << 18


class ColdPlace:
    """The place of a log that is being fetched, or was; one at a time."""

    __slots__ = ("_place", "is_fetching")

    def __init__(self) -> None:
        self._place: tuple[Segment, int] | None = None
        self.is_fetching = False

    def has_come(self, segment: Segment, position: int) -> bool:
        """Say, once, whether a place was fetched: then it is read, wherever it is by now."""
        if self.is_fetching or self._place != (segment, position):
            return False
        self._place = None
        return True

    def begin(self, segment: Segment, position: int) -> bool:
        """Want a place; False: another one is being fetched."""
        if self.is_fetching:
            return False
        self._place = (segment, position)
        self.is_fetching = True
        return True

    def come(self) -> None:
        """It is in memory, or cannot be read."""
        self.is_fetching = False


class _Fetch(NamedTuple):
    cold: ColdPlace
    path: str
    size: int
    position: int


class SegmentFetches:
    """The thread begins with the first fetch. `ring` is called by it when `completed` has some."""

    def __init__(self, files: Files, ring: Callable[[], None], writer: Writer | None) -> None:
        self._files = files
        self._ring = ring
        self._writer = writer
        self._is_started = False
        self._inbox: deque[_Fetch] = deque()
        self._done: deque[ColdPlace] = deque()

    def ask(self, cold: ColdPlace, path: str, size: int, position: int) -> None:
        """Have `size` bytes at `position` of a file in memory."""
        self._inbox.append(_Fetch(cold, path, size, position))
        if self._writer is None:
            self._writer = WriterThread("fetch")
        if not self._is_started:
            self._is_started = True
            self._writer.start(self._work)
        self._writer.wake()

    def completed(self) -> None:
        """Take notice of what has come."""
        while self._done:
            self._done.popleft().come()

    def close(self) -> None:
        """End the thread."""
        self._inbox.clear()
        if self._writer is not None and self._is_started:
            self._writer.stop()

    def _work(self) -> None:
        while self._inbox:
            cold, path, size, position = self._inbox.popleft()
            try:
                fd = self._files.open(path, write=False)
                try:
                    for at in range(position, position + size, _CHUNK):
                        self._files.pread(fd, min(_CHUNK, position + size - at), at)
                finally:
                    self._files.close(fd)
            except OSError:
                # Whatever is wrong with it, the loop's own reading finds out.
                pass
            self._done.append(cold)
            self._ring()
