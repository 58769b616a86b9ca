"""Reading of segment files on the loop: descriptors held open, batches walked."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from robustmq.storage.files import Files
from robustmq.storage.header import HEADER, Header, fault_of, header_at
from robustmq.storage.segment import Place, Segment

HEADERS_WINDOW = 16_384
"""Bytes that are read at once where only headers are wanted."""


class Damage(Exception):
    """A batch that is not whole; not for the outside, which gets Corrupt."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(reason)
        self.place = place
        self.reason = reason


class Found(NamedTuple):
    """A batch in a segment: its position, its header, and where in `buffer` it begins."""

    position: int
    header: Header
    buffer: bytes
    at: int


class SegmentReader:
    """Descriptors of segments, the least recently used ones closed beyond `open_files`."""

    def __init__(self, files: Files, open_files: int) -> None:
        self._files = files
        self._open_files = open_files
        self._open: OrderedDict[Segment, int] = OrderedDict()

    def pread(self, segment: Segment, size: int, at: int) -> bytes:
        """Read bytes of a segment."""
        return self._files.pread(self._fd(segment), size, at)

    def in_memory(self, segment: Segment, size: int, at: int) -> bool:
        """Say whether `pread` would not wait; if it would, begin to fetch."""
        return self._files.in_memory(self._fd(segment), size, at)

    def forget(self, segment: Segment) -> None:
        """Close what is open of a segment."""
        fd = self._open.pop(segment, None)
        if fd is not None:
            self._files.close(fd)

    def close(self) -> None:
        """Close everything."""
        for segment in list(self._open):
            self.forget(segment)

    def walk(
        self, segment: Segment, place: Place, window: int, bodies: bool, dense: bool
    ) -> Iterator[Found]:
        """Yield the batches from `place` on; with `bodies` each is wholly in its buffer.

        `window` bytes are read at once. Damaged structure raises Damage; checksums are not
        looked at.
        """
        position, expected = place
        buffer, origin = b"", 0
        while position < segment.readable:
            gap = segment.gaps.get(position)
            if gap is not None:
                position, expected = gap
                continue
            at = position - origin
            if not 0 <= at <= len(buffer) - HEADER:
                size = min(max(window, HEADER), segment.readable - position)
                buffer, origin, at = self.pread(segment, size, position), position, 0
            if len(buffer) - at < HEADER:
                raise Damage(Place(position, expected), "cut short")
            header = header_at(buffer, at)
            reason = fault_of(header, expected, dense)
            if reason is None and position + header.size > segment.readable:
                reason = f"a batch of {header.size} bytes at the end"
            if reason is None and bodies and at + header.size > len(buffer):
                size = min(max(window, header.size), segment.readable - position)
                buffer, origin, at = self.pread(segment, size, position), position, 0
                if len(buffer) < header.size:
                    reason = "cut short"
            if reason is not None:
                raise Damage(Place(position, expected), reason)
            yield Found(position, header, buffer, at)
            position += header.size
            expected = header.next_offset

    def _fd(self, segment: Segment) -> int:
        fd = self._open.get(segment)
        if fd is not None:
            self._open.move_to_end(segment)
            return fd
        path = segment.path
        try:
            fd = self._files.open(path, write=False)
        except FileNotFoundError:
            # The writer may just have given a draft its final name.
            if segment.path == path:
                raise
            fd = self._files.open(segment.path, write=False)
        self._open[segment] = fd
        if len(self._open) > self._open_files:
            _, oldest = self._open.popitem(last=False)
            self._files.close(oldest)
        return fd
