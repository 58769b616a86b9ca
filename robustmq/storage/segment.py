"""One file of a segment log: its place, its extent, its sparse indexes."""

import struct
from array import array
from bisect import bisect_left, bisect_right
from typing import Final, NamedTuple

from robustmq._kernel.crc import crc32c

_INDEX_HEAD: Final = struct.Struct(">4sHxxqqqqqI")
_INDEX_MAGIC: Final = b"rmqi"
_INDEX_VERSION: Final = 1
UNKNOWN_MS: Final = -1
"""The newest timestamp of nothing."""


DRAFT: Final = ".draft"
"""How the file of a compacted segment ends until it takes its place."""


class Place(NamedTuple):
    """A byte position in a segment, and the offset of the batch that begins there."""

    position: int
    offset: int


class SparseIndex:
    """Every so many bytes: a position, its offset, and the newest timestamp before it."""

    def __init__(self) -> None:
        self.offsets = array("q")
        self.positions = array("q")
        self.times = array("q")

    def add(self, offset: int, position: int, newest_before_ms: int) -> None:
        """Note the batch that begins at `position`."""
        self.offsets.append(offset)
        self.positions.append(position)
        self.times.append(newest_before_ms)

    def by_offset(self, offset: int, start: Place) -> Place:
        """The last noted place at or before `offset`; `start` when there is none."""
        at = bisect_right(self.offsets, offset) - 1
        return Place(self.positions[at], self.offsets[at]) if at >= 0 else start

    def by_time(self, timestamp_ms: int, start: Place) -> Place:
        """The last noted place that only older batches come before; `start` if there is none."""
        at = bisect_left(self.times, timestamp_ms) - 1
        return Place(self.positions[at], self.offsets[at]) if at >= 0 else start

    def cut(self, position: int) -> None:
        """Forget what was noted from `position` on."""
        self.forget(position, 1 << 62)

    def forget(self, first: int, below: int) -> None:
        """Forget what was noted at positions from `first` on and below `below`."""
        start, stop = bisect_left(self.positions, first), bisect_left(self.positions, below)
        for column in (self.offsets, self.positions, self.times):
            del column[start:stop]


class Segment:
    """A segment file, named by the offset that it begins with.

    The loop's side: `end` is the next offset, `size` the bytes given to it, `readable` the bytes
    that are surely in the file, `gaps` the damage that reading has found, by position, `was_cut`
    whether it was truncated, `heir` what comes behind it when it is dropped. The writer's side,
    touched by nobody else: `fd`, `allocated`, `written`, `synced`, `listed` (its name is on the
    disk), `suspect` (a sync of it has failed), `draft` (it has not yet taken the place of the
    segment that it was compacted from).
    """

    __slots__ = (
        "_indexed", "allocated", "base", "directory", "draft", "dropped", "end", "fd", "first_ms",
        "gaps", "heir", "index", "listed", "newest_ms", "readable", "sealed", "size", "suspect",
        "synced", "was_cut", "written",
    )  # fmt: skip

    def __init__(self, directory: str, base: int) -> None:
        self.directory = directory
        self.base = self.end = base
        self.size = self.readable = 0
        self.first_ms = self.newest_ms = UNKNOWN_MS
        self.index = SparseIndex()
        self._indexed = 0
        self.gaps: dict[int, Place] = {}
        self.sealed = False
        self.dropped = False
        self.draft = False
        self.was_cut = False
        self.heir: Segment | None = None
        self.fd: int | None = None
        self.allocated = self.written = self.synced = 0
        self.listed = False
        self.suspect = False

    @property
    def path(self) -> str:
        """The file of the batches."""
        return f"{self.directory}/{self.base:020d}{DRAFT if self.draft else '.log'}"

    @property
    def index_path(self) -> str:
        """The file of the indexes, which may be missing."""
        return f"{self.directory}/{self.base:020d}.index"

    @property
    def last_heir(self) -> "Segment | None":
        """The first segment behind this dropped one that is not dropped too."""
        heir = self.heir
        while heir is not None and heir.dropped:
            heir = heir.heir
        return heir

    def add(self, next_offset: int, size: int, newest_ms: int, interval: int) -> int:
        """Take a batch of `size` bytes behind the last one; returns its position."""
        position = self.size
        if position == 0:
            self.first_ms = newest_ms
        elif position - self._indexed >= interval:
            self.index.add(self.end, position, self.newest_ms)
            self._indexed = position
        self.size = position + size
        self.end = next_offset
        self.newest_ms = max(self.newest_ms, newest_ms)
        return position

    def place_of(self, offset: int) -> Place:
        """A place at or before the batch that holds `offset`."""
        return self.index.by_offset(offset, Place(0, self.base))

    def place_at(self, timestamp_ms: int) -> Place:
        """A place that only batches older than `timestamp_ms` come before."""
        return self.index.by_time(timestamp_ms, Place(0, self.base))

    def add_gap(self, position: int, behind: Place) -> None:
        """Note that what lies from `position` to `behind` is damaged."""
        self.gaps[position] = behind
        self.index.forget(position + 1, behind.position)

    def cut(self, place: Place) -> None:
        """Forget what begins at `place` or behind it; the newest timestamp may stay too new."""
        self.size = place.position
        self.end = place.offset
        self.readable = min(self.readable, place.position)
        self.index.cut(place.position)
        self._indexed = self.index.positions[-1] if self.index.positions else 0
        self.gaps = {at: gap for at, gap in self.gaps.items() if at < place.position}
        self.sealed = False
        self.was_cut = True

    def dump_index(self) -> bytes:
        """The index file: what is known of the segment, and both indexes, with a checksum."""
        body = b"".join(
            column.tobytes()
            for column in (self.index.offsets, self.index.positions, self.index.times)
        )
        fields = (self.size, self.end, self.first_ms, self.newest_ms, len(self.index.offsets))
        head = _INDEX_HEAD.pack(_INDEX_MAGIC, _INDEX_VERSION, *fields, 0)[:-4]
        return b"".join((head, crc32c(body, crc32c(head)).to_bytes(4, "big"), body))

    def load_index(self, data: bytes | None, file_bytes: int) -> bool:
        """Take an index file; False when it is missing, torn or of another state of the file."""
        if data is None or len(data) < _INDEX_HEAD.size:
            return False
        magic, version, size, end, first, newest, entries, crc = _INDEX_HEAD.unpack_from(data)
        body = data[_INDEX_HEAD.size :]
        if (magic, version, size) != (_INDEX_MAGIC, _INDEX_VERSION, file_bytes):
            return False
        if crc32c(body, crc32c(data[: _INDEX_HEAD.size - 4])) != crc or len(body) != entries * 24:
            return False
        columns = (self.index.offsets, self.index.positions, self.index.times)
        for number, column in enumerate(columns):
            column.frombytes(body[number * entries * 8 : (number + 1) * entries * 8])
        self.size = self.readable = size
        self.end, self.first_ms, self.newest_ms = end, first, newest
        self._indexed = self.index.positions[-1] if entries else 0
        return True
