"""A log in segment files: what the loop knows and decides; the writer does it."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

from robustmq.errors import Corrupt
from robustmq.storage.compaction import Compaction
from robustmq.storage.engine import Quarantined
from robustmq.storage.header import HEADER, check, filler, header_at, is_whole, placed
from robustmq.storage.log import Stable, StoredBatch
from robustmq.storage.log_settings import LogSettings
from robustmq.storage.segment import Place, Segment
from robustmq.storage.segment_draft import SegmentDraft, discarded
from robustmq.storage.segment_fetch import ColdPlace
from robustmq.storage.segment_jobs import (
    RESET_FILE,
    SPARSE_FILE,
    START_FILE,
    Cut,
    Job,
    Note,
    Patch,
    Seal,
    Swap,
    Unlink,
    Write,
)
from robustmq.storage.segment_reader import HEADERS_WINDOW, Damage, SegmentReader
from robustmq.storage.segment_recovery import damaged_until
from robustmq.storage.unwritten import Unwritten

READ_WINDOW: Final = 1 << 20
"""Bytes that one system call reads at most, larger batches apart."""
DROP_COST: Final = 4_096
"""Bytes of a budget that dropping one segment counts as."""


class Owner(Protocol):
    """What the log needs of its engine."""

    reader: SegmentReader

    def admit(self, size: int) -> None:
        """Raise Unwritable when `size` bytes cannot be appended now."""

    def touch(self, log: "SegmentLog", size: int) -> None:
        """The log has something for the next commit."""

    def fetch(self, cold: ColdPlace, segment: Segment, size: int, position: int) -> None:
        """Have bytes of a segment in memory."""

    def damaged(self, what: Quarantined) -> None:
        """Reading has found damage."""


class SegmentLog:
    """A `Log` in segment files of one directory. The last segment takes the appends.

    `leader_epoch` is patched into what is appended.
    """

    def __init__(
        self,
        owner: Owner,
        shard: int,
        settings: LogSettings,
        segments: list[Segment],
        start: int,
        *,
        is_sparse: bool = False,
    ) -> None:
        self.shard = shard
        self.settings = settings
        self.leader_epoch = 0
        self._owner = owner
        self._segments = segments
        self._start = start
        self._end = self._durable = segments[-1].end
        self._unwritten: deque[Unwritten] = deque()
        self._jobs: list[Job] = []
        self._generation = 0
        self._sync_within = settings.sync_within
        self._dense = not (settings.compact or is_sparse)
        self._is_marked = is_sparse
        self._cold = ColdPlace()
        self._draft = SegmentDraft()
        self._compaction = Compaction(self, settings) if settings.compact else None

    @property
    def start_offset(self) -> int:
        """The offset from which on everything is kept; it may lie inside of a batch."""
        return self._start

    @property
    def end_offset(self) -> int:
        """The offset that the next record will get."""
        return self._end

    @property
    def durable_offset(self) -> int:
        """The offset below which everything survives what `flush` promises to survive."""
        return self._durable

    @property
    def size_bytes(self) -> int:
        """Bytes of the segment files."""
        return sum(segment.size for segment in self._segments)

    @property
    def newest_ms(self) -> int:
        """The latest time of the records in its files; it may be that of one below the start."""
        return max(segment.newest_ms for segment in self._segments)

    @property
    def is_fetching(self) -> bool:
        """Whether what `warm` has begun to fetch is not in memory yet."""
        return self._cold.is_fetching

    def configure(self, settings: LogSettings) -> None:
        """Keep it by other settings from now on."""
        self.settings = settings
        self._sync_within = settings.sync_within
        if settings.compact:
            self._dense = False
            if self._compaction is None:
                self._compaction = Compaction(self, settings)
            self._compaction.configure(settings)
        elif self._compaction is not None:
            self.unswept()
            self._compaction = None

    def append(self, data: bytes | memoryview, count: int, timestamp_ms: int) -> int:
        """Append a batch of `count` records; returns the offset of its first record.

        `timestamp_ms` is for the age of segments; retention goes by the times of the records.
        """
        newest_ms = check(data, count)
        self._owner.admit(len(data))
        settings = self.settings
        active = self._segments[-1]
        if active.size and (
            active.size + len(data) > settings.segment_bytes
            or (settings.segment_ms and timestamp_ms - active.first_ms >= settings.segment_ms)
        ):
            active = self._roll()
        base = self._end
        self._end = base + count
        at = active.add(self._end, len(data), newest_ms, settings.index_interval_bytes)
        if at == 0:
            active.first_ms = timestamp_ms
        write = self._jobs[-1] if self._jobs else None
        if not isinstance(write, Write) or write.segment is not active:
            write = self._write(active, at)
            self._jobs.append(write)
        write.add(len(data), *placed(data, base, self.leader_epoch))
        self._unwritten.append(Unwritten(base, count, data, active, active.size))
        self._owner.touch(self, len(data))
        return base

    def read(self, offset: int, max_bytes: int) -> list[StoredBatch]:
        """Batches from the one that holds `offset` on, at least one while there is one."""
        offset = max(offset, self._start)
        out: list[StoredBatch] = []
        room = max_bytes
        written = self._unwritten[0].base_offset if self._unwritten else self._end
        number = self._number_of(offset)
        while offset < written and number < len(self._segments) and (room > 0 or not out):
            segment = self._segments[number]
            try:
                room, full = self._read_segment(segment, offset, room, out)
            except Damage as damage:
                if out:
                    return out
                raise self._quarantine(segment, damage) from damage
            if full:
                return out
            number += 1
        for each in self._unwritten:
            if each.next_offset <= offset:
                continue
            if out and len(each.data) > room:
                break
            out.append(each.batch)
            room -= len(each.data)
        return out

    def _read_segment(
        self, segment: Segment, offset: int, room: int, out: list[StoredBatch]
    ) -> tuple[int, bool]:
        """Collect from one file; returns the bytes that may still come, and whether to stop."""
        place = segment.place_of(offset)
        window = min(max(room, 0) + self.settings.index_interval_bytes, READ_WINDOW)
        for found in self._owner.reader.walk(segment, place, window, True, self._dense):
            header, at = found.header, found.at
            if header.next_offset <= offset or header.records == 0:
                continue
            if out and header.size > room:
                return room, True
            if not is_whole(found.buffer, at, header):
                raise Damage(Place(found.position, header.base_offset), "checksum")
            data = found.buffer[at : at + header.size]
            span = header.next_offset - header.base_offset
            out.append(StoredBatch(header.base_offset, span, data))
            room -= header.size
        return room, False

    def warm(self, offset: int, max_bytes: int) -> bool:
        """Say whether `read` would find its bytes in memory; if not, begin to fetch them."""
        offset = max(offset, self._start)
        if offset >= (self._unwritten[0].base_offset if self._unwritten else self._end):
            return True
        segment = self._segments[self._number_of(offset)]
        position = segment.place_of(offset).position
        size = min(max_bytes, READ_WINDOW, segment.readable - position)
        if size <= 0:
            return True
        if self._cold.has_come(segment, position):
            return True
        if self._owner.reader.in_memory(segment, size, position):
            return True
        if self._cold.begin(segment, position):
            self._owner.fetch(self._cold, segment, size, position)
        return False

    def trim(self, offset: int) -> None:
        """Forget what lies below `offset`; files go when nothing in them is kept."""
        before = self._start
        self._start = max(self._start, min(offset, self._end))
        while len(self._segments) > 1 and self._segments[1].base <= self._start:
            self._drop(self._segments.pop(0), heir=self._segments[0])
        if before < self._start and self._start > self._segments[0].base:
            self._submit([Note(self._segments[0], START_FILE, self._start, is_hint=True)])

    def truncate(self, offset: int) -> None:
        """Forget whole batches from `offset` on."""
        found = None if offset >= self._end else self._first_from(offset)
        if found is None:
            return
        number, place = found
        while len(self._segments) > number + 1:
            self._drop(self._segments.pop(), ordered=True)
        segment = self._segments[-1]
        segment.cut(place)
        self._jobs.append(Cut(segment, place.position))
        self._end = place.offset
        if self._end < self._start:
            self._start = self._end
            self._jobs.append(Note(segment, START_FILE, self._start))
        self._durable = min(self._durable, self._end)
        while self._unwritten and self._unwritten[-1].base_offset >= self._end:
            self._unwritten.pop()
        self._generation += 1
        if self._compaction is not None:
            self._compaction.restart(self._end)
        self._owner.touch(self, 0)

    def reset(self, offset: int) -> None:
        """Forget everything; the next record gets `offset`."""
        if self._compaction is not None:
            self._compaction.restart(0)
        directory = self._segments[0].directory
        fresh = Segment(directory, offset)
        self._jobs.append(Note(fresh, RESET_FILE, offset))
        for segment in reversed(self._segments):
            self._drop(segment, ordered=True)
        self._jobs += (
            self._write(fresh, 0),
            Note(fresh, START_FILE, None),
            Note(fresh, RESET_FILE, None),
        )
        self._segments = [fresh]
        self._start = self._end = self._durable = offset
        self._unwritten.clear()
        self._generation += 1

    def offset_at(self, timestamp_ms: int, since: int = 0) -> int:
        """The start of the first batch with a record of that time or later; else the end."""
        start = max(self._start, since)
        for number in range(self._number_of(start), len(self._segments)):
            segment = self._segments[number]
            if segment.newest_ms < timestamp_ms:
                continue
            for place, following, newest_ms, count in self._walk(
                number, segment.place_at(timestamp_ms), one=True
            ):
                if newest_ms >= timestamp_ms and following > start and count:
                    return max(place.offset, self._start)
        return self._end

    def retain(self, now_ms: int, budget: int, stable: Stable | None = None) -> bool:
        """Drop segments that no bound of retention keeps, then compact."""
        oldest_ms = now_ms - self.settings.retention_ms
        active = self._segments[-1]
        if (
            self.settings.retention_ms
            and active.size
            and active.newest_ms < oldest_ms
            and not self._unwritten
        ):
            self._roll()
        size = self.size_bytes
        while len(self._segments) > 1 and self._is_over(size, oldest_ms):
            if budget <= 0:
                return True
            budget -= DROP_COST
            size -= self._segments[0].size
            self.trim(self._segments[1].base)
        return self._compaction is not None and self._compaction.step(now_ms, budget, stable)

    def settled(self) -> tuple[int, int]:
        """The offsets of what compaction may touch: whole files that are surely written."""
        stop = self._segments[-1].base
        for segment in self._segments:
            if segment.readable < segment.size:
                stop = min(stop, segment.base)
                break
        return self._start, max(stop, self._start)

    def sweep(self, batch: StoredBatch, kept: bytes | None) -> None:
        """Keep `kept` of a batch in the draft of its segment."""
        segment = self._segments[self._number_of(batch.base_offset)]
        if self._draft.source is not segment:
            self._submit(self._draft.finish(self._adopt))
            self._submit(self._draft.begin(segment))
        self._submit(self._draft.add(batch, kept, self.settings.index_interval_bytes))

    def swept(self, target: int) -> None:
        """Finish the draft if its segment was swept to its end."""
        source = self._draft.source
        whole = source is not None and source.end <= target
        self._submit(self._draft.finish(self._adopt) if whole else self._draft.abandon())

    def unswept(self) -> None:
        """Forget the draft."""
        self._submit(self._draft.abandon())

    def take_jobs(self) -> list[Job]:
        """What the writer must do to make durable all that was appended."""
        jobs, self._jobs = self._jobs, []
        return jobs

    @property
    def generation(self) -> int:
        """Changes when what the writer has been told is no longer how far the log is."""
        return self._generation

    def reached(self, generation: int, end: int) -> bool:
        """The writer has done all jobs up to `end`; says whether the durable offset moved."""
        if generation != self._generation:
            return False
        while self._unwritten and self._unwritten[0].next_offset <= end:
            written = self._unwritten.popleft()
            written.segment.readable = max(written.segment.readable, written.stop)
        moved = end > self._durable
        self._durable = max(self._durable, end)
        return moved

    def drop_all(self) -> Segment:
        """Forget every file, for good; returns the last one."""
        self._submit(self._draft.abandon())
        for segment in self._segments:
            self._drop(segment)
        return self._segments[-1]

    def finish(self) -> None:
        """Leave the files so that the next start need not read them."""
        active = self._segments[-1]
        self._submit(self._draft.abandon())
        self._submit([Seal(active), Note(active, START_FILE, self._start)])

    def _adopt(self, source: Segment, size: int, draft: Segment) -> None:
        """The draft is written: read it from now on, unless its source has changed since."""
        if source.dropped or not source.sealed or source.size != size:
            self._submit(discarded(draft))
            return
        draft.sealed = True
        draft.readable = draft.size
        self._segments[self._segments.index(source)] = draft
        source.heir = draft
        source.dropped = True
        self._owner.reader.forget(source)
        if not self._is_marked:
            self._is_marked = True
            self._submit([Note(draft, SPARSE_FILE, 1)])
        self._submit([Swap(draft)])

    def _submit(self, jobs: list[Job]) -> None:
        if jobs:
            self._jobs += jobs
            self._owner.touch(self, 0)

    def _write(self, segment: Segment, position: int) -> Write:
        settings = self.settings
        return Write(
            segment,
            position,
            self._sync_within,
            settings.preallocate_bytes,
            settings.segment_bytes,
        )

    def _roll(self) -> Segment:
        active = self._segments[-1]
        active.sealed = True
        self._jobs.append(Seal(active))
        fresh = Segment(active.directory, self._end)
        self._segments.append(fresh)
        # The name of the new file is what keeps the end offset when the old one goes.
        self._jobs.append(self._write(fresh, 0))
        self._owner.touch(self, 0)
        return fresh

    def _drop(self, segment: Segment, ordered: bool = False, heir: Segment | None = None) -> None:
        segment.heir = heir
        segment.dropped = True
        self._owner.reader.forget(segment)
        self._submit([Unlink(segment, ordered or segment.was_cut)])

    def _number_of(self, offset: int) -> int:
        """The number of the last segment that begins at or before `offset`."""
        return max(bisect_right(self._segments, offset, key=lambda each: each.base) - 1, 0)

    def _is_over(self, size: int, oldest_ms: int) -> bool:
        """Whether the first of several segments is kept by no bound of retention."""
        first, second = self._segments[:2]
        settings = self.settings
        return first.end <= self._durable and bool(
            (settings.retention_ms and first.newest_ms < oldest_ms)
            or (settings.retention_bytes and size - first.size >= settings.retention_bytes)
            or (
                settings.retention_records and self._end - second.base >= settings.retention_records
            )
        )

    def _walk(
        self, number: int, place: Place, one: bool = False
    ) -> Iterator[tuple[Place, int, int, int]]:
        """Yield (place, next offset, newest time, records) from `place` in a segment on.

        What is not yet in a file is yielded with its segment's part. Damage is moved aside.
        """
        for segment in self._segments[number : number + 1 if one else None]:
            while True:
                try:
                    for found in self._owner.reader.walk(
                        segment, place, HEADERS_WINDOW, False, self._dense
                    ):
                        header = found.header
                        here = Place(found.position, header.base_offset)
                        yield here, header.next_offset, header.newest_ms, header.records
                        place = Place(found.position + header.size, header.next_offset)
                    break
                except Damage as damage:
                    self._quarantine(segment, damage)
            for each in self._unwritten:
                if each.segment is segment and each.stop > segment.readable:
                    header = header_at(each.data, 0)
                    here = Place(each.stop - header.size, each.base_offset)
                    yield here, each.next_offset, header.newest_ms, header.records

    def _first_from(self, offset: int) -> tuple[int, Place] | None:
        """Where the first kept batch begins that lies from `offset` on, and in which segment."""
        for number in range(self._number_of(max(offset, self._start)), len(self._segments)):
            place = self._segments[number].place_of(max(offset, self._start))
            for here, following, _, _ in self._walk(number, place, one=True):
                if here.offset >= offset and following > self._start:
                    return number, here
        return None

    def _quarantine(self, segment: Segment, damage: Damage) -> Corrupt:
        """Have damage moved aside, so that reading goes on behind it."""
        position, start = damage.place
        rest = self._owner.reader.pread(segment, segment.readable - position, position)
        length = damaged_until(rest, start, segment.end, self._dense)
        if length < 0:
            length = segment.readable - position
            after = segment.end
            for each in self._unwritten:
                if each.segment is segment:
                    after = each.base_offset
                    break
        else:
            after = header_at(rest, length).base_offset
        where = f"{segment.path} at {position}: {damage.reason}"
        segment.add_gap(position, Place(position + length, after))
        if length >= HEADER and after > start:
            empty = filler(length, start, after, max(segment.newest_ms, 0))
            self._submit([Patch(segment, position, rest[:length], empty, where)])
        self._owner.damaged(Quarantined(self.shard, start, after, where))
        return Corrupt(where)
