"""Recovery of a segment file: what is whole is taken, a torn tail cut, a damaged middle moved."""

from collections.abc import Callable
from typing import Final

from robustmq.storage.engine import Quarantined, Recovery
from robustmq.storage.files import Files, read_small, write_small
from robustmq.storage.header import HEADER, fault_of, filler, header_at, is_whole, next_whole
from robustmq.storage.segment import DRAFT, Place, Segment
from robustmq.storage.segment_jobs import RESET_FILE, START_FILE, move_aside

WINDOW: Final = 1 << 20
"""Bytes that are read at once."""
_BLANK: Final = bytes(WINDOW)


def damaged_until(rest: bytes, expected: int, below: int, dense: bool) -> int:
    """Return where behind the damage at the start of `rest` a good batch begins, or -1.

    The damaged batch's own length is believed first: its bytes may hold somebody's batches.
    """
    if len(rest) >= HEADER:
        at = header_at(rest, 0).size
        if HEADER <= at <= len(rest) - HEADER:
            header = header_at(rest, at)
            if (
                fault_of(header, expected + 1, False) is None
                and header.base_offset < below
                and at + header.size <= len(rest)
                and is_whole(rest, at, header)
            ):
                return at
    return next_whole(rest, 0, expected + 1, below, dense)


class SegmentRecovery:
    """Reads the segments of one shard in order and repairs them."""

    def __init__(
        self,
        files: Files,
        shard: int,
        report: Recovery,
        tick: Callable[[], object],
        *,
        interval: int,
        dense: bool,
    ) -> None:
        self._files = files
        self._shard = shard
        self._report = report
        self._tick = tick
        self._interval = interval
        self._dense = dense

    def recover(self, segment: Segment, next_base: int | None) -> None:
        """Fill in the segment from its file; `next_base` names the following one, if any."""
        fd = self._files.open(segment.path, write=True)
        try:
            size = self._files.size(fd)
            if not segment.load_index(read_small(self._files, segment.index_path), size):
                self._files.unlink(segment.index_path)
                self._scan(segment, fd, size, next_base)
                # Who wrote it may have been killed before it was synced; it counts as durable now.
                self._files.fdatasync(fd)
            else:
                self._report.bytes += size
        finally:
            self._files.close(fd)
        segment.readable = segment.written = segment.synced = segment.size
        segment.allocated = segment.size
        segment.listed = True

    def _scan(self, segment: Segment, fd: int, size: int, next_base: int | None) -> None:
        buffer, origin = b"", 0
        while (at := segment.size) < size:
            offset = at - origin
            if offset + HEADER > len(buffer):
                buffer, origin, offset = self._files.pread(fd, WINDOW, at), at, 0
                self._tick()
            reason = "cut short"
            if offset + HEADER <= len(buffer):
                header = header_at(buffer, offset)
                reason = fault_of(header, segment.end, self._dense) or ""
                if not reason and at + header.size > size:
                    reason = f"a batch of {header.size} bytes in the last {size - at}"
                if not reason:
                    if offset + header.size > len(buffer):
                        buffer = self._files.pread(fd, max(WINDOW, header.size), at)
                        origin, offset = at, 0
                        self._tick()
                    if is_whole(buffer, offset, header):
                        segment.add(
                            header.next_offset, header.size, header.newest_ms, self._interval
                        )
                        self._report.batches += 1
                        self._report.bytes += header.size
                        continue
                    reason = "checksum"
            if not self._repair(segment, fd, size, next_base, reason):
                return
            buffer, origin = b"", 0

    def _repair(
        self, segment: Segment, fd: int, size: int, next_base: int | None, reason: str
    ) -> bool:
        """Deal with damage at the end of what is known; False when the file ends there now."""
        at, start = segment.size, segment.end
        if self._is_blank(fd, at, size):
            self._cut(fd, at)
            return False
        rest = self._files.pread(fd, size - at, at)
        below = 1 << 62 if next_base is None else next_base
        length = damaged_until(rest, start, below, self._dense)
        if length < 0:
            torn = rest.rstrip(b"\0")
            if torn and next_base is None:
                self._report.cut_bytes += len(torn)
            elif torn:
                self._quarantine(segment, rest, Place(at, next_base or start), reason)
            self._cut(fd, at)
            return False
        following = header_at(rest, length)
        self._quarantine(segment, rest[:length], Place(at, following.base_offset), reason)
        empty = filler(length, start, following.base_offset, max(segment.newest_ms, 0))
        self._files.pwritev(fd, [empty], at)
        self._files.fdatasync(fd)
        segment.add(following.base_offset, length, segment.newest_ms, self._interval)
        return True

    def _is_blank(self, fd: int, at: int, size: int) -> bool:
        """Say whether a file was only prepared to be written from `at` on: megabytes, as a rule."""
        while at < size:
            window = self._files.pread(fd, min(WINDOW, size - at), at)
            if not window or window != _BLANK[: len(window)]:
                return False
            at += len(window)
        return True

    def _cut(self, fd: int, at: int) -> None:
        self._files.ftruncate(fd, at)
        self._files.fdatasync(fd)

    def _quarantine(self, segment: Segment, data: bytes, place: Place, reason: str) -> None:
        where = f"{segment.path} at {place.position}: {reason}"
        move_aside(self._files, segment, place.position, data, where)
        self._report.quarantined.append(Quarantined(self._shard, segment.end, place.offset, where))


def number_in(files: Files, path: str) -> int | None:
    """Return the number that a small file holds; None when there is none."""
    text = (read_small(files, path) or b"").strip()
    return int(text) if text.isdigit() else None


def load(files: Files, directory: str, recovery: SegmentRecovery) -> tuple[list[Segment], int]:
    """Recover the log of a directory: its segments, at least one, and its start offset."""
    names = files.listdir(directory)
    for name in names:
        if name.endswith((DRAFT, ".new")):
            files.unlink(f"{directory}/{name}")
    bases = sorted(int(name[:-4]) for name in names if name.endswith(".log"))
    reset = number_in(files, f"{directory}/{RESET_FILE}")
    if reset is not None:
        bases = _finish_reset(files, directory, bases, reset)
    segments = [Segment(directory, base) for base in bases]
    for number, segment in enumerate(segments):
        following = bases[number + 1] if number + 1 < len(bases) else None
        recovery.recover(segment, following)
        segment.sealed = following is not None
    if segments:
        files.sync_directory(directory)
        files.sync_directory(directory.rpartition("/")[0])
    else:
        segments = [Segment(directory, 0)]
    noted = number_in(files, f"{directory}/{START_FILE}") or 0
    start = min(max(noted, segments[0].base), segments[-1].end)
    if noted > start:
        # What was trimmed is gone with the end of the log: what takes its offsets is not.
        write_small(files, f"{directory}/{START_FILE}", b"%d\n" % start)
        files.sync_directory(directory)
    return segments, start


def _finish_reset(files: Files, directory: str, bases: list[int], offset: int) -> list[int]:
    """Do what a reset that was interrupted had begun; the new segment is kept if it is there."""
    for base in bases:
        segment = Segment(directory, base)
        files.unlink(segment.index_path)
        files.unlink(segment.path)
    files.close(files.open(Segment(directory, offset).path, write=True, create=True))
    files.unlink(f"{directory}/{START_FILE}")
    files.sync_directory(directory)
    files.unlink(f"{directory}/{RESET_FILE}")
    files.sync_directory(directory)
    return [offset]
