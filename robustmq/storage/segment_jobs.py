"""What the writer does to segment files, in order: each job may be run again after an OSError.

Jobs are made by the loop and run by the writer, which alone opens files for writing.
"""

import errno
from typing import Final, Protocol

from robustmq.storage.files import Files, write_small
from robustmq.storage.segment import Segment

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_LEAST_RESERVE: Final = 65_536
"""Bytes that a file takes in advance when there is little in it."""
START_FILE: Final = "start"
"""Where a closed log keeps its start offset, which may lie inside of a segment."""
RESET_FILE: Final = "reset"
"""The offset that a log is being reset to: what it held is gone, even after a crash."""

SPARSE_FILE: Final = "sparse"
"""Says that compaction has taken records of the log: offsets are missing without damage."""


class Job(Protocol):
    """One step for the writer."""

    segment: Segment
    outlives: bool
    """Whether it is to be run although the segment has been dropped."""

    def run(self, files: Files) -> None:
        """Do it, from the beginning if it has failed before. May raise OSError."""


def open_for_writing(files: Files, segment: Segment) -> int:
    """Return the segment's descriptor; the file and its name are on the disk afterwards."""
    if segment.fd is None:
        if not segment.listed:
            files.mkdir(segment.directory)
        segment.fd = files.open(segment.path, write=True, create=True)
    if not segment.listed:
        files.sync_directory(segment.directory)
        files.sync_directory(segment.directory.rpartition("/")[0])
        segment.listed = True
    return segment.fd


def sync(files: Files, segment: Segment) -> None:
    """Put on the disk what was written.

    After an error the kernel takes the pages for clean although they may never have been stored:
    the next attempt writes them anew.
    """
    if segment.dropped or segment.fd is None or segment.synced == segment.written:
        return
    _sync_written(files, segment, segment.fd)


def _sync_written(files: Files, segment: Segment, fd: int) -> None:
    if segment.suspect:
        data = files.pread(fd, segment.written - segment.synced, segment.synced)
        files.pwritev(fd, [data], segment.synced)
    segment.suspect = True
    files.fdatasync(fd)
    segment.suspect = False
    segment.synced = segment.written


def close(files: Files, segment: Segment) -> None:
    """Let go of the descriptor."""
    if segment.fd is not None:
        fd, segment.fd = segment.fd, None
        files.close(fd)


def move_aside(files: Files, segment: Segment, position: int, data: bytes, reason: str) -> None:
    """Copy damaged bytes into the quarantine directory of the log, with the reason beside them."""
    place = f"{segment.directory}/quarantine"
    files.mkdir(place)
    name = f"{place}/{segment.base:020d}-{position}"
    write_small(files, name + ".bytes", data)
    write_small(files, name + ".reason", reason.encode())
    files.sync_directory(place)


class Write:
    """Append batches at a position; without any, only make the file.

    `sync_within` is how many seconds later it must be on the disk, 0: before it counts as
    durable, None: never by us.
    """

    outlives = False

    def __init__(
        self,
        segment: Segment,
        position: int,
        sync_within: float | None,
        preallocate: int = 0,
        limit: int = 0,
    ) -> None:
        self.segment = segment
        self.position = position
        self.sync_within = sync_within
        self.buffers: list[bytes | memoryview] = []
        self.size = 0
        self._preallocate = preallocate
        self._limit = limit

    def add(self, size: int, *pieces: bytes | memoryview) -> None:
        """Take one more batch of `size` bytes, in pieces."""
        self.buffers += pieces
        self.size += size

    def run(self, files: Files) -> None:
        """Write all of it."""
        segment = self.segment
        fd = open_for_writing(files, segment)
        end = self.position + self.size
        if end > segment.allocated and self._preallocate:
            self._allocate(files, fd, end)
        files.pwritev(fd, self.buffers, self.position)
        segment.written = end

    def _allocate(self, files: Files, fd: int, end: int) -> None:
        segment = self.segment
        # As much again as there is: a log with little in it takes little.
        reserve = min(self._preallocate, max(end, _LEAST_RESERVE))
        wanted = max(end, min(segment.allocated + reserve, self._limit))
        try:
            files.allocate(fd, segment.allocated, wanted - segment.allocated)
        except OSError as error:
            # Without room for the reserve there may still be room for the batch itself.
            if error.errno not in _FULL:
                raise
            return
        segment.allocated = wanted


class Seal:
    """Finish a segment: no reserve, synced, with its index file."""

    outlives = False

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._size = segment.size
        self._index = segment.dump_index()

    def run(self, files: Files) -> None:
        """Cut the reserve off, sync, write the index."""
        segment = self.segment
        fd = open_for_writing(files, segment)
        sync(files, segment)
        files.ftruncate(fd, self._size)
        files.fdatasync(fd)
        segment.allocated = self._size
        write_small(files, segment.index_path, self._index)
        close(files, segment)


class Cut:
    """Forget the end of a segment, so that no crash brings it back.

    Even a segment that has been dropped is cut: until its name is surely gone from the disk, a
    crash may show it beside those that took its offsets.
    """

    outlives = True

    def __init__(self, segment: Segment, position: int) -> None:
        self.segment = segment
        self._position = position

    def run(self, files: Files) -> None:
        """Truncate the file."""
        segment = self.segment
        fd = open_for_writing(files, segment)
        files.unlink(segment.index_path)
        files.sync_directory(segment.directory)
        files.ftruncate(fd, self._position)
        segment.allocated = segment.written = self._position
        segment.synced = min(segment.synced, self._position)
        # What lies before it may be what a failed sync has lost.
        _sync_written(files, segment, fd)


class Unlink:
    """Remove a segment that the loop has dropped.

    `ordered`: what comes later in the queue must not reach the disk before this. Otherwise it may
    be done at once to make room. A segment with an heir goes only when that is on the disk: the
    last name in the directory is what keeps the end offset.
    """

    outlives = True

    def __init__(self, segment: Segment, ordered: bool = False) -> None:
        self.segment = segment
        self.ordered = ordered

    @property
    def may_hurry(self) -> bool:
        """Whether it may overtake what is queued before it."""
        heir = self.segment.last_heir
        return not self.ordered and heir is not None and heir.listed

    def run(self, files: Files) -> None:
        """Remove the index, then the file."""
        segment = self.segment
        heir = segment.last_heir
        if heir is not None and not heir.listed:
            open_for_writing(files, heir)
        close(files, segment)
        files.unlink(segment.index_path)
        files.unlink(segment.path)
        if self.ordered:
            files.sync_directory(segment.directory)


class Note:
    """Keep a number in a small file of the log's directory, or remove the file.

    `is_hint`: where there is no room for it the log does without.
    """

    outlives = True

    def __init__(
        self, segment: Segment, name: str, number: int | None, *, is_hint: bool = False
    ) -> None:
        self.segment = segment
        self._name = name
        self._number = number
        self._is_hint = is_hint

    def run(self, files: Files) -> None:
        """Replace or remove the file."""
        directory = self.segment.directory
        path = f"{directory}/{self._name}"
        files.mkdir(directory)
        if self._number is None:
            files.unlink(path)
        else:
            try:
                write_small(files, path, b"%d\n" % self._number)
            except OSError as error:
                if not self._is_hint or error.errno not in _FULL:
                    raise
                return
        files.sync_directory(directory)


class Forget:
    """Remove what is left of a log's directory after its segments."""

    outlives = True

    def __init__(self, segment: Segment) -> None:
        self.segment = segment

    def run(self, files: Files) -> None:
        """Remove every file in it, then the directory."""
        for directory in (f"{self.segment.directory}/quarantine", self.segment.directory):
            for name in files.listdir(directory):
                if name != "quarantine":
                    files.unlink(f"{directory}/{name}")
            files.rmdir(directory)


class Patch:
    """Move damaged bytes aside and put a batch without records in their place."""

    outlives = False

    def __init__(
        self, segment: Segment, position: int, damaged: bytes, empty: bytes, reason: str
    ) -> None:
        self.segment = segment
        self._position = position
        self._damaged = damaged
        self._empty = empty
        self._reason = reason
        self._index = segment.dump_index() if segment.sealed else None

    def run(self, files: Files) -> None:
        """Copy, then overwrite; the old index may have places inside of what is overwritten."""
        segment = self.segment
        move_aside(files, segment, self._position, self._damaged, self._reason)
        files.unlink(segment.index_path)
        files.sync_directory(segment.directory)
        fd = files.open(segment.path, write=True)
        try:
            files.pwritev(fd, [self._empty], self._position)
            files.fdatasync(fd)
        finally:
            files.close(fd)
        if self._index is not None:
            write_small(files, segment.index_path, self._index)


class Swap:
    """Put a compacted draft in the place of the segment that it was made from."""

    outlives = False

    def __init__(self, draft: Segment) -> None:
        self.segment = draft
        self._index = draft.dump_index()

    def run(self, files: Files) -> None:
        """Sync the draft, rename it, write its index."""
        draft = self.segment
        if draft.draft:
            sync(files, draft)
            # An index of the old file must not meet the new one, however alike they are.
            files.unlink(draft.index_path)
            files.sync_directory(draft.directory)
            source = draft.path
            draft.draft = False
            try:
                files.rename(source, draft.path)
            except OSError:
                draft.draft = True
                raise
        files.sync_directory(draft.directory)
        write_small(files, draft.index_path, self._index)
        close(files, draft)
