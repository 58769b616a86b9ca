"""The journals of a process: what its replicas must not forget, in segments, synced together.

The loop gathers what a turn must keep and hands it to the writer as one batch, when the one before
is durable: each file that it touches is synced once. A failed write or sync is final: what the
kernel has of those pages afterwards nobody knows, so the process must end. But for a full disk,
which says so before anything is synced: then the same is written again until there is room.
"""

import errno
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from msgspec import Struct

from robustmq.errors import Corrupt
from robustmq.raft.journal_record import (
    ENTRY,
    HARD,
    HEADER,
    OPENING,
    START,
    Header,
    Opening,
    entry_of,
    entry_payload,
    hard_payload,
    opening_payload,
    record,
    start_payload,
    whole_at,
)
from robustmq.raft.journal_recovery import Recovered, Segment, recover, segment_path
from robustmq.raft.message import Entry, HardState, Snapshot
from robustmq.storage.files import Files
from robustmq.storage.writer import Writer

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_RETRY_SECONDS: Final = 0.5
WINDOW: Final = 256 << 10
"""Bytes that are read at once."""


class Fatal(Exception):
    """The disk has failed: nothing is known of what was to be kept, so the process must end."""


class _File:
    """A segment as the writer sees it: where it lies, and its descriptor once it is open."""

    __slots__ = ("fd", "is_new", "path")

    def __init__(self, path: str, is_new: bool) -> None:
        self.path = path
        self.is_new = is_new
        self.fd = -1


class _Write(Struct):
    """What a batch appends to a segment."""

    file: _File
    at: int
    buffers: list[bytes]


class Chore(Protocol):
    """Something else that waits for the disk, done by the writer before it writes the batch."""

    def __call__(self) -> None:
        """Do it. May raise OSError."""


class Journal:
    """The journal of one replica. `bytes` is how much its segments have in all.

    Read back is what was appended, whether it is durable or not.
    """

    def __init__(
        self, owner: "Journals", files: Files, folder: str, found: Recovered, most_bytes: int
    ) -> None:
        self.recovered = found
        self._owner = owner
        self._files = files
        self._folder = folder
        self._most_bytes = most_bytes
        self._index = found.index
        self._segments = found.segments
        self._batch = found.batch
        self._size = found.size
        self._file: _File | None = None
        self._old: list[_File] = []
        self._write: _Write | None = None
        self._fresh: dict[int, Entry] = {}
        """Entries that are gathered, by index."""
        self._flying: dict[int, Entry] = {}
        """Entries that are being written."""
        self._readers: dict[int, int] = {}
        if self._segments:
            path = segment_path(folder, self._segments[-1].sequence)
            self._file = _File(path, is_new=False)

    @property
    def start(self) -> Snapshot:
        """The snapshot that stands for everything before the first entry."""
        return self._index.start

    @property
    def hard_state(self) -> HardState:
        """The last hard state."""
        return self._index.hard_state

    @property
    def last_index(self) -> int:
        """The index of the last entry; the start's when there is none."""
        return self._index.last

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever kept here."""
        return not self._segments

    @property
    def segments(self) -> int:
        """How many segments there are."""
        return len(self._segments)

    def term(self, index: int) -> int | None:
        """Return the term of an entry or of the start; None when neither is here."""
        return self._index.term(index)

    def append(self, entries: Sequence[Entry], hard_state: HardState | None) -> bool:
        """Keep entries and a hard state with the batch of this turn.

        An entry that is not behind the last one replaces what has its index, and all behind. What
        is committed alone is worth no write: it goes with the next one. Returns whether there is
        anything to be written.
        """
        index = self._index
        if entries:
            self._begin()
        for entry in entries:
            before = index.term(entry.index - 1)
            assert before is not None
            sequence, at = self._segments[-1].sequence, self._size
            self._put(ENTRY, entry_payload(entry, before))
            index.add(entry.index, entry.term, before, sequence, at)
            self._fresh[entry.index] = entry
        if hard_state is None:
            return bool(entries)
        known = index.hard_state
        counts = bool(entries) or (hard_state.term, hard_state.vote) != (known.term, known.vote)
        if counts:
            self._begin()
            self._put(HARD, hard_payload(hard_state))
        index.hard_state = hard_state
        return counts

    def begin(self, start: Snapshot, anew: bool) -> None:
        """The log starts at a snapshot from now on; `anew`: no entry of before counts.

        The segments that nobody needs then are deleted when this is durable.
        """
        self._begin()
        self._index.begin(start, anew)
        if anew:
            self._fresh.clear()
        self._put(START, start_payload(start, anew))
        keep = self._segments[-1].sequence if anew else self._needed(start.index)
        gone = [each for each in self._segments if each.sequence < keep]
        if gone:
            del self._segments[: len(gone)]
            self._owner.delete([segment_path(self._folder, each.sequence) for each in gone])
            for each in gone:
                if (fd := self._readers.pop(each.sequence, -1)) >= 0:
                    self._files.close(fd)

    def read(self, first: int, last: int, most_bytes: int) -> list[Entry]:
        """Return entries from `first` on, at most to `last`, about `most_bytes`; at least one.

        Raises Corrupt when one is damaged.
        """
        found: list[Entry] = []
        data, origin, opened = b"", 0, -1
        for index in range(first, last + 1):
            entry = self._fresh.get(index) or self._flying.get(index)
            if entry is None:
                sequence, at = self._index.place(index)
                header = (
                    whole_at(data, at - origin) if sequence == opened and at >= origin else None
                )
                if header is None:
                    data, origin, opened = self._read(sequence, at), at, sequence
                    header = whole_at(data, 0)
                entry = self._entry(header, data, at - origin, index)
            found.append(entry)
            most_bytes -= entry.size
            if most_bytes <= 0:
                break
        return found

    def close(self) -> None:
        """Let go of every descriptor; nothing is written any more."""
        for fd in self._readers.values():
            self._files.close(fd)
        self._readers.clear()
        for file in (*self._old, *([self._file] if self._file is not None else [])):
            if file.fd >= 0:
                self._files.close(file.fd)
                file.fd = -1

    def take(self) -> tuple[_Write | None, list[_File]]:
        """For Journals: what is gathered, and the files to be closed after it."""
        write, self._write = self._write, None
        old, self._old = self._old, []
        self._flying, self._fresh = self._fresh, {}
        return write, old

    def wrote(self) -> None:
        """For Journals: what was taken is in its file."""
        self._flying = {}

    def _begin(self) -> None:
        """Have a batch to add to, in a new segment when the last one is full."""
        if self._write is not None:
            return
        self._owner.touch(self)
        self._batch += 1
        is_full = self._size >= self._most_bytes
        if self._file is None or is_full:
            self._roll()
        else:
            self._write = _Write(self._file, self._size, [])

    def _roll(self) -> None:
        sequence = self._segments[-1].sequence + 1 if self._segments else 1
        if self._file is not None:
            self._old.append(self._file)
        self._file = _File(segment_path(self._folder, sequence), is_new=True)
        self._size = 0
        self._write = _Write(self._file, 0, [])
        index = self._index
        self._segments.append(Segment(sequence, index.last))
        opening = Opening(sequence, index.last, index.last_term, index.hard_state, index.start)
        self._put(OPENING, opening_payload(opening))

    def _put(self, kind: int, payload: bytes) -> None:
        write = self._write
        assert write is not None
        data = record(kind, self._batch, write.at, payload)
        write.buffers.append(data)
        self._size += len(data)

    def _needed(self, index: int) -> int:
        """Return the first segment that may hold an entry behind an index."""
        needed = self._segments[0].sequence
        for each in self._segments[1:]:
            # Entries of the earlier ones end at `before`, but for those that were replaced.
            if each.before > index:
                break
            needed = each.sequence
        return needed

    def _read(self, sequence: int, at: int) -> bytes:
        """Return bytes from a record on, at least the whole record."""
        fd = self._readers.get(sequence)
        if fd is None:
            fd = self._files.open(segment_path(self._folder, sequence), write=False)
            self._readers[sequence] = fd
        data = self._files.pread(fd, WINDOW, at)
        if len(data) >= HEADER.size:
            size = HEADER.size + HEADER.unpack_from(data)[1]
            if size > len(data):
                data = self._files.pread(fd, size, at)
        return data

    def _entry(self, header: Header | None, data: bytes, at: int, index: int) -> Entry:
        if header is None or header.kind != ENTRY:
            raise Corrupt(f"entry {index} in {self._folder} is damaged: replace the node")
        entry, _ = entry_of(data[at + HEADER.size : at + header.size])
        if entry.index != index:
            raise Corrupt(f"entry {index} in {self._folder} says that it is {entry.index}")
        return entry


class _Batch(Struct):
    """What the writer does at once; `number` is durable when it is done."""

    number: int
    writes: list[_Write]
    closing: list[_File]
    chores: list[Chore]
    deletions: list[str]
    journals: list[Journal]


class Journals:
    """All journals below one folder, and the batches that they share.

    `durable` is the number of the last batch that is on the disk; what is gathered now will be in
    batch `next`.
    """

    def __init__(self, files: Files, writer: Writer, folder: str, segment_bytes: int) -> None:
        self.durable = 0
        self.next = 1
        self.syncs = 0
        """Files that were synced."""
        self.is_full = False
        """Whether a batch waits because the disk is full."""
        self._files = files
        self._writer = writer
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._journals: list[Journal] = []
        self._touched: dict[Journal, None] = {}
        self._chores: list[Chore] = []
        self._deletions: list[str] = []
        self._batch: _Batch | None = None
        """The batch that is being written; the loop and the writer hand it to each other."""
        self._is_done = False
        self._failure: Exception | None = None
        files.mkdir(folder)
        files.sync_directory(folder.rpartition("/")[0])
        writer.start(self._work)

    def open(self, name: str, tick: Callable[[], object] = lambda: None) -> Journal:
        """Open the journal of a name, made when missing. Raises Corrupt, OSError."""
        folder = f"{self._folder}/{name}"
        self._files.mkdir(folder)
        self._files.sync_directory(self._folder)
        found = recover(self._files, folder, tick)
        journal = Journal(self, self._files, folder, found, self._segment_bytes)
        self._journals.append(journal)
        return journal

    @property
    def is_busy(self) -> bool:
        """Whether a batch is being written."""
        return self._batch is not None

    def chore(self, chore: Chore) -> int:
        """Have something else done by the writer; returns the number of its batch."""
        self._chores.append(chore)
        return self.next

    def commit(self) -> None:
        """Hand over what is gathered, unless a batch is being written: then it comes next."""
        if self._gathered():
            self._writer.wake()

    def collect(self) -> None:
        """After the writer's bell: see what is durable, and hand over what has come since.

        Raises Fatal when the disk has failed.
        """
        self._writer.hush()
        self._settle()
        self.commit()

    def close(self) -> None:
        """Write what is gathered, and end the writer. Raises Fatal."""
        self._writer.stop()
        self._settle()
        while self._gathered():
            self._perform()
            self._settle()
        for journal in self._journals:
            journal.close()

    def _gathered(self) -> bool:
        """Make a batch of what is gathered; no: there is nothing, or one is being written."""
        if self._batch is not None or not (self._touched or self._chores or self._deletions):
            return False
        batch = _Batch(self.next, [], [], self._chores, self._deletions, [*self._touched])
        self.next += 1
        self._chores, self._deletions = [], []
        for journal in self._touched:
            write, closing = journal.take()
            batch.closing += closing
            if write is not None:
                batch.writes.append(write)
        self._touched.clear()
        self._is_done = False
        self._batch = batch
        return True

    def _settle(self) -> None:
        if self._failure is not None:
            raise Fatal(
                f"{self._folder} could not be written: {self._failure}; what was to be kept may be "
                f"lost, so this process ends and reads again what the disk has"
            ) from self._failure
        batch = self._batch
        if batch is None or not self._is_done:
            return
        self._batch = None
        self.durable = batch.number
        for journal in batch.journals:
            journal.wrote()

    def touch(self, journal: Journal) -> None:
        """For Journal: it has something for the batch."""
        self._touched[journal] = None

    def delete(self, paths: list[str]) -> None:
        """For Journal: these are to be deleted after the batch that is gathered now."""
        self._deletions += paths

    def _work(self) -> float | None:
        if self._batch is None or self._is_done or self._failure is not None:
            return None
        self._perform()
        self._writer.ring()
        return _RETRY_SECONDS if self.is_full else None

    def _perform(self) -> None:
        """By the writer: everything of a batch, in an order that a crash may cut anywhere."""
        assert self._batch is not None
        try:
            self.is_full = not self._write(self._batch)
            if self.is_full:
                return
            self._finish(self._batch)
        except Exception as error:
            self._failure = error
        else:
            self._is_done = True

    def _write(self, batch: _Batch) -> bool:
        """Do a batch's chores and write all of it; no: there is no room, it is to be repeated."""
        files = self._files
        # Once each, and first: what is written may be on the disk before it is synced.
        while batch.chores:
            batch.chores.pop(0)()
        try:
            for write in batch.writes:
                file = write.file
                if file.fd < 0:
                    file.fd = files.open(file.path, write=True, create=True)
                files.pwritev(file.fd, write.buffers, write.at)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            return False
        return True

    def _finish(self, batch: _Batch) -> None:
        """Sync what is written, and do what may be done only then."""
        files = self._files
        for write in batch.writes:
            files.fdatasync(write.file.fd)
            self.syncs += 1
            if write.file.is_new:
                files.sync_directory(write.file.path.rpartition("/")[0])
                write.file.is_new = False
        for file in batch.closing:
            if file.fd >= 0:
                files.close(file.fd)
                file.fd = -1
        for path in batch.deletions:
            # One by one, the oldest first: no crash leaves a gap.
            files.unlink(path)
            files.sync_directory(path.rpartition("/")[0])
