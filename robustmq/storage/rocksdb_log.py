"""A log in RocksDB: batches by shard and offset, a sparse index by time, and one line of state."""

from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

from robustmq.errors import Corrupt, Refusal, Refused
from robustmq.storage.compaction import Compaction
from robustmq.storage.engine import Quarantined
from robustmq.storage.header import HEADER, Header, check, header_at, is_whole
from robustmq.storage.log import Stable, StoredBatch, Unwritable
from robustmq.storage.log_settings import LogSettings
from robustmq.storage.rocksdb_rows import (
    INDEX_KEY,
    INDEX_VALUE,
    KEY,
    SHARD,
    STATE,
    ShardRows,
    Unreadable,
    span_of,
)
from robustmq.storage.rocksdb_store import (
    DATA,
    INDEX,
    META,
    QUARANTINE,
    Erase,
    Operation,
    RocksdbStore,
)

GIVE_BACK_BYTES: Final = 4 << 20
"""Bytes appended between two erasures of what has been trimmed: few wide ones are cheap."""
ENTRY_COST: Final = 4_096
"""Bytes of a budget that one entry of the index counts as: by the time that it takes."""
_LAST: Final = (1 << 64) - 1


class Owner(Protocol):
    """What the log needs of its engine."""

    store: RocksdbStore

    def admit(self, size: int) -> None:
        """Raise Unwritable when `size` bytes cannot be appended now."""

    def touch(self, log: "RocksdbLog", size: int) -> None:
        """The log has something for the next commit."""

    def write(self) -> None:
        """Write what is gathered, if that is possible now: an early part of the turn's commit."""

    def write_early(self, operations: list[Operation | Erase]) -> bool:
        """Write what has nothing to do with the turn; says whether that was possible now."""

    def damaged(self, what: Quarantined) -> None:
        """Reading has found damage."""


class RocksdbLog:
    """A `Log` in a database that its engine's other logs share.

    What a turn changes is gathered as operations and written with everybody's at the commit; the
    state (start, end, bytes) is written with it, so that it is never wrong. Trimming moves the
    start; the space is given back later.
    """

    def __init__(self, owner: Owner, shard: int, settings: LogSettings) -> None:
        self.shard = shard
        self.settings = settings
        self.leader_epoch = 0
        self.dropped = False
        self._owner = owner
        self._rows = ShardRows(owner.store, shard)
        state = owner.store.get(META, SHARD.pack(shard))
        fields: tuple[int, ...] = STATE.unpack(state) if state else (0, 0, 0, 0, 0, 0)
        self._start, self._end, self._taken, self._given, self._holes, self._newest_ms = fields
        self._durable = self._end
        self._operations: list[Operation | Erase] = []
        self._unwritten: deque[StoredBatch] = deque()
        self._generation = 0
        self._indexed = self._taken
        self._erased_at = self._taken
        self._gaps: dict[int, int] = {}
        self._erased = next((base for base, _ in self._rows.batches(0)), self._start)
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
        """Bytes of the batches that have not been given back."""
        return self._taken - self._given - self._holes

    @property
    def newest_ms(self) -> int:
        """The latest time of all records that there ever were; -1: none."""
        return self._newest_ms if self._end else -1

    @property
    def is_fetching(self) -> bool:
        """Never: see `warm`."""
        return False

    def configure(self, settings: LogSettings) -> None:
        """Keep it by other settings from now on."""
        self.settings = settings
        if self._compaction is not None and settings.compact:
            self._compaction.configure(settings)
        else:
            self._compaction = Compaction(self, settings) if settings.compact else None

    @property
    def generation(self) -> int:
        """Changes when what waits for a sync is no longer how far the log is."""
        return self._generation

    def append(self, data: bytes | memoryview, count: int, timestamp_ms: int) -> int:  # noqa: ARG002
        """Append a batch; retention and look-up go by the times of its records."""
        newest_ms = check(data := bytes(data), count)
        self._owner.admit(len(data))
        base = self._end
        newest_ms = max(self._newest_ms, newest_ms)
        if self._taken - self._indexed >= self.settings.index_interval_bytes:
            key = INDEX_KEY.pack(self.shard, self._newest_ms, base)
            self._operations.append((INDEX, key, INDEX_VALUE.pack(self._taken)))
            self._indexed = self._taken
        self._operations.append((DATA, KEY.pack(self.shard, base), data))
        self._unwritten.append(StoredBatch(base, count, data))
        self._newest_ms = newest_ms
        self._taken += len(data)
        self._end = base + count
        if self._erased < self._start and self._taken - self._erased_at >= GIVE_BACK_BYTES:
            self._give_back(GIVE_BACK_BYTES)
        self._owner.touch(self, len(data))
        return base

    def read(self, offset: int, max_bytes: int) -> list[StoredBatch]:
        """Batches from the one that holds `offset` on, at least one while there is one."""
        offset = max(offset, self._start)
        offset = self._gaps.get(offset, offset)
        out: list[StoredBatch] = []
        room = max_bytes
        if offset < self._written:
            try:
                room = self._read_written(offset, room, out)
            except Unreadable as damage:
                if not out:
                    raise self._skip(offset, damage) from damage
                room = 0
            if room <= 0:
                return out
        for batch in self._unwritten:
            if batch.next_offset <= offset:
                continue
            if out and len(batch.data) > room:
                break
            out.append(batch)
            room -= len(batch.data)
        return out

    def _read_written(self, offset: int, room: int, out: list[StoredBatch]) -> int:
        """Collect from the database; returns the bytes that may still come, 0: stop."""
        for base, data in self._rows.batches(offset):
            header = self._header(base, data)
            if header is None or not is_whole(data, 0, header):
                if out:
                    return 0
                raise self._quarantine(base, data)
            span = span_of(data)
            if base + span <= offset:
                continue
            if out and len(data) > room:
                return 0
            out.append(StoredBatch(base, span, data))
            room -= len(data)
            if room <= 0:
                return 0
        return room

    def warm(self, offset: int, max_bytes: int) -> bool:  # noqa: ARG002
        """True: the database does not tell what is in memory, nor fetch it in advance."""
        return True

    def trim(self, offset: int) -> None:
        """Forget what lies below `offset`; the room is given back as more is appended."""
        start = max(self._start, min(offset, self._end))
        if start > self._start:
            self._start = start
            self._owner.touch(self, 0)

    def truncate(self, offset: int) -> None:
        """Forget whole batches from `offset` on. Raises Unwritable while writing fails."""
        if offset >= self._end:
            return
        self._owner.write()
        if self._unwritten:
            raise Unwritable(Refused(Refusal.UNAVAILABLE, "what is to be cut is not written yet"))
        for base, data in self._rows.batches(max(offset, self._start)):
            span = span_of(data)
            if base >= offset and base + span > self._start:
                break
        else:
            return
        self._rows.entries_from = (0, 0)
        self._taken = self._bytes_before(base)
        self._indexed = min(self._indexed, self._taken)
        stop = KEY.pack(self.shard + 1, 0)
        self._operations.append(Erase(DATA, KEY.pack(self.shard, base), stop))
        self._end = base
        self._start = min(self._start, base)
        self._erased = min(self._erased, base)
        self._durable = min(self._durable, base)
        self._generation += 1
        if self._compaction is not None:
            self._compaction.restart(base)
        self._owner.touch(self, 0)
        self._owner.write()

    def reset(self, offset: int) -> None:
        """Forget everything; the next record gets `offset`."""
        if self._compaction is not None:
            self._compaction.restart(0)
        self._erase_all()
        self._start = self._end = self._durable = self._erased = offset
        self._rows.entries_from = (0, 0)
        self._taken = self._given = self._holes = self._indexed = self._erased_at = 0
        self._newest_ms = 0
        self._unwritten.clear()
        self._generation += 1
        self._owner.touch(self, 0)

    def drop(self) -> None:
        """Forget everything, for good."""
        self.dropped = True
        self._erase_all()
        self._operations.append((META, SHARD.pack(self.shard), None))
        self._unwritten.clear()
        self._owner.touch(self, 0)

    def offset_at(self, timestamp_ms: int, since: int = 0) -> int:
        """The start of the first batch with a record of that time or later; else the end."""
        start = max(self._start, since)
        if timestamp_ms > self._newest_ms:
            return self._end
        walk = self._owner.store.walk(INDEX)
        walk.seek_for_prev(INDEX_KEY.pack(self.shard, max(timestamp_ms, 0), 0))
        begin = start
        if walk.valid() and walk.key()[:4] == SHARD.pack(self.shard):
            begin = max(begin, INDEX_KEY.unpack(walk.key())[2])
        for base, data in self._rows.batches(begin):
            header = self._header(base, data)
            if header is None or header.newest_ms < timestamp_ms:
                continue
            if base + span_of(data) > start:
                return max(base, self._start)
        for batch in self._unwritten:
            newest_ms = header_at(batch.data, 0).newest_ms
            if newest_ms >= timestamp_ms and batch.next_offset > start:
                return max(batch.base_offset, self._start)
        return self._end

    def retain(self, now_ms: int, budget: int, stable: Stable | None = None) -> bool:
        """Move the start behind what no bound of retention keeps, erase, then compact."""
        settings = self.settings
        oldest_ms = now_ms - settings.retention_ms
        if self._erased < self._start and self._give_back(budget):
            return True
        target, more = self._start, False
        if settings.retention_records:
            target = max(target, self._end - settings.retention_records)
        if settings.retention_ms and self._newest_ms < oldest_ms:
            target = self._end
        if (settings.retention_ms or settings.retention_bytes) and target < self._end:
            for newest_ms, offset, taken in self._rows.entries():
                expired = settings.retention_ms and newest_ms < oldest_ms
                rest = self._taken - taken
                too_much = settings.retention_bytes and rest >= settings.retention_bytes
                if not expired and not too_much:
                    break
                if offset <= self._start:
                    # It stays, and is no progress.
                    continue
                target = max(target, offset)
                budget -= ENTRY_COST
                if budget <= 0:
                    more = True
                    break
        target = min(target, self._durable)
        if target > self._start:
            self.trim(target)
            more |= self._give_back(budget)
        if self._compaction is not None and budget > 0:
            more |= self._compaction.step(now_ms, budget, stable)
        return more

    def settled(self) -> tuple[int, int]:
        """The offsets of what compaction may touch: what is in the database."""
        return self._start, self._written

    def sweep(self, batch: StoredBatch, kept: bytes | None) -> None:
        """Keep `kept` of a batch."""
        if kept is batch.data:
            return
        self._operations.append((DATA, KEY.pack(self.shard, batch.base_offset), kept))
        self._holes += len(batch.data) - len(kept or b"")
        self._owner.touch(self, 0)

    def swept(self, target: int) -> None:
        """Nothing is left to do: every batch was replaced by itself."""

    def unswept(self) -> None:
        """Nothing is left to do: what was swept is right."""

    def take_operations(self) -> list[Operation | Erase]:
        """What the next write has to apply; it is taken again unless `written` is called."""
        if self.dropped:
            return self._operations
        state = STATE.pack(
            self._start, self._end, self._taken, self._given, self._holes, self._newest_ms
        )
        return [*self._operations, (META, SHARD.pack(self.shard), state)]

    def written(self) -> None:
        """The operations have been applied."""
        self._operations = []
        self._unwritten.clear()

    def reached(self, generation: int, end: int) -> bool:
        """Everything below `end` is as safe as `flush` asks; says whether that is news."""
        if generation != self._generation or end <= self._durable:
            return False
        self._durable = end
        return True

    def verify(self, window: int) -> Iterator[int]:
        """Check what the write-ahead log may have lost or damaged; yields the bytes of a batch.

        That is at most the last `window` bytes; what is missing or wrong is reported as damage.
        """
        begin = self._start
        for _, offset, taken in self._rows.entries():
            if taken > self._taken - window:
                break
            begin = max(begin, offset)
        expected = begin
        for base, data in self._rows.batches(begin):
            header = self._header(base, data)
            if base > expected >= 0 and not self._is_sparse:
                self._report_missing(expected, base)
            if header is None or not is_whole(data, 0, header):
                self._quarantine(base, data)
                expected = -1
                continue
            expected = base + header.next_offset - header.base_offset
            yield len(data)
        if 0 <= expected < self._end and not self._is_sparse:
            self._report_missing(expected, self._end)

    @property
    def _is_sparse(self) -> bool:
        """Whether offsets may be missing: compaction takes records, or did so once."""
        return self.settings.compact or self._holes > 0

    @property
    def _written(self) -> int:
        """The offset below which everything is in the database."""
        return self._unwritten[0].base_offset if self._unwritten else self._end

    def _skip(self, offset: int, damage: Corrupt) -> Corrupt:
        """Find where the database can be read again behind a damaged table block, and say so."""
        end = self._written
        for _, behind, _ in self._rows.entries():
            if behind <= offset:
                continue
            try:
                end = next((base for base, _ in self._rows.batches(behind) if base > offset), end)
            except Unreadable:
                continue
            break
        self._gaps[offset] = end
        where = f"shard {self.shard}: offsets {offset} to {end}: {damage.where}"
        self._owner.damaged(Quarantined(self.shard, offset, end, where))
        return Corrupt(where)

    def _report_missing(self, start: int, end: int) -> None:
        key = KEY.pack(self.shard, start)
        if self._owner.store.get(QUARANTINE, key) is None:
            reason = f"shard {self.shard}: offsets {start} to {end} are not in the database"
            self._operations.append((QUARANTINE, key, reason.encode()))
            self._owner.damaged(Quarantined(self.shard, start, end, reason))
            self._owner.touch(self, 0)

    def _bytes_before(self, base: int) -> int:
        """The bytes ever appended before a batch; the index from there on is forgotten."""
        walk = self._owner.store.walk(INDEX)
        walk.seek_for_prev(INDEX_KEY.pack(self.shard, _LAST, _LAST))
        prefix = SHARD.pack(self.shard)
        offset, taken = self._erased, self._given + self._holes
        while walk.valid() and (key := walk.key())[:4] == prefix:
            if INDEX_KEY.unpack(key)[2] <= base:
                offset = max(offset, INDEX_KEY.unpack(key)[2])
                taken = INDEX_VALUE.unpack(walk.value())[0]
                break
            self._operations.append((INDEX, key, None))
            walk.prev()
        for each, data in self._rows.batches(offset):
            if each >= base:
                break
            if each >= offset:
                taken += len(data)
        return taken

    def _give_back(self, budget: int) -> bool:
        """Erase what lies below the start, as far as the budget goes; says whether there is more.

        The last entry of the index at or below the start stays: it tells what was given back.
        """
        last: bytes | None = None
        stop = min(self._start, self._written)
        given, erased, more = self._given, stop, False
        for newest_ms, offset, taken in self._rows.entries():
            if offset > stop:
                break
            progress = last is not None
            last = INDEX_KEY.pack(self.shard, newest_ms, offset)
            self._rows.entries_from = (newest_ms, offset)
            given = taken
            budget -= ENTRY_COST
            if budget <= 0 and progress:
                erased, more = offset, True
                break
        if stop == self._end:
            given = self._taken
        first = self._first_kept(erased)
        if last is not None:
            self._operations.append(Erase(INDEX, INDEX_KEY.pack(self.shard, 0, 0), last))
        if first > self._erased:
            low, high = KEY.pack(self.shard, self._erased), KEY.pack(self.shard, first)
            self._operations.append(Erase(DATA, low, high))
        self._given = max(self._given, given - self._holes)
        self._erased = max(self._erased, first)
        self._erased_at = self._taken
        self._owner.touch(self, 0)
        return more

    def _first_kept(self, offset: int) -> int:
        """The base of the batch that holds `offset`, so that it is not erased."""
        for base, data in self._rows.batches(offset):
            if base + span_of(data) > offset:
                return min(base, offset)
        return offset

    def _erase_all(self) -> None:
        stop = self.shard + 1
        self._operations = [
            Erase(DATA, KEY.pack(self.shard, 0), KEY.pack(stop, 0)),
            Erase(INDEX, INDEX_KEY.pack(self.shard, 0, 0), INDEX_KEY.pack(stop, 0, 0)),
        ]

    def _header(self, base: int, data: bytes) -> Header | None:
        """The header of what is stored at `base`; None when it cannot be a batch."""
        if len(data) < HEADER:
            return None
        header = header_at(data, 0)
        fits = header.size == len(data) and 1 <= span_of(data) <= self._end - base
        return header if fits else None

    def _quarantine(self, base: int, data: bytes) -> Corrupt:
        """Move a damaged batch aside, so that reading goes on behind it."""
        end = self._end
        for following, _ in self._rows.batches(base + 1):
            if following > base:
                end = following
                break
        where = f"shard {self.shard}: the batch at offset {base} is damaged"
        key = KEY.pack(self.shard, base)
        aside: list[Operation | Erase] = [
            (QUARANTINE, key, where.encode() + b"\0" + data),
            (DATA, key, None),
        ]
        self._owner.damaged(Quarantined(self.shard, base, end, where))
        if not self._owner.write_early(aside):
            self._operations += aside
            self._owner.touch(self, 0)
        return Corrupt(where)
