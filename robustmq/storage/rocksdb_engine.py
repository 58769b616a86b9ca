"""The RocksDB engine: many small logs and rows in one database per core, one write a turn."""

from collections import deque
from collections.abc import Sequence
from typing import Final

from robustmq.storage.engine import (
    PROGRESS_SECONDS,
    EngineSettings,
    Progress,
    Quarantined,
    Recovery,
    Tally,
)
from robustmq.storage.files import SystemFiles
from robustmq.storage.format import ROCKSDB, ROCKSDB_FORMAT, claim
from robustmq.storage.gate import Gate
from robustmq.storage.log import Log
from robustmq.storage.log_settings import LogSettings
from robustmq.storage.rocksdb_log import RocksdbLog
from robustmq.storage.rocksdb_rows import SHARD
from robustmq.storage.rocksdb_store import META, Erase, Operation, RocksdbStore, Row, Stalled
from robustmq.storage.rocksdb_table import RocksdbTable
from robustmq.storage.wal_check import QUARANTINE, check, quarantine
from robustmq.storage.writer import Writer, WriterThread

STALL_SECONDS: Final = 0.005
"""How long a write waits after the database has asked for a pause."""
BACKOFF_MAX: Final = 64
"""Times `retry_ms` that attempts to open the database again are apart at most."""
_CLEAN: Final = b"clean"


class Mark:
    """How far a log is with a write that waits for its sync."""

    def __init__(self, log: RocksdbLog) -> None:
        self.log = log
        self._generation = log.generation
        self._end = log.end_offset

    def finish(self) -> RocksdbLog | None:
        """Tell the log; returns it when its durable offset moved."""
        return self.log if self.log.reached(self._generation, self._end) else None


class RocksdbEngine:
    """An `Engine` of one database. Open it after the fork.

    `commit` writes everything that the turn has gathered as one write batch, into the operating
    system's memory; the writer's thread syncs. Writing costs the loop microseconds; a database that
    is behind with its tables refuses instead of waiting, and the write is tried again.
    """

    def __init__(
        self,
        directory: str,
        settings: EngineSettings | None = None,
        *,
        writer: Writer | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.recovery = Recovery()
        self.tally = Tally()
        self._settings = settings or EngineSettings()
        self._progress = progress
        claim(SystemFiles(), directory, ROCKSDB, ROCKSDB_FORMAT)
        self._gate = Gate(directory, self._settings.pending_bytes)
        self._logs: dict[int, RocksdbLog] = {}
        self._touched: dict[RocksdbLog, int] = {}
        self._moved: dict[RocksdbLog, None] = {}
        self._inbox: deque[Mark | RocksdbTable] = deque()
        self._done: deque[Mark | RocksdbTable] = deque()
        self._marks: list[Mark | RocksdbTable] = []
        self._is_midway = False
        self._sync_by: float | None = None
        self._stalled = self._pausing = self._may_reopen = False
        self._failures = 0
        self._writer = writer or WriterThread("storage")
        began = self._writer.now()
        self._check_wal(directory)
        self.store = RocksdbStore(
            f"{directory}/db", self._settings.memory_bytes, self._settings.wal_bytes
        )
        self._was_closed = self.store.get(META, _CLEAN) is not None
        self.store.write([(META, _CLEAN, None)])
        self._table = RocksdbTable(self.store, self._gate, self._settings.flush)
        self.recovery.seconds += self._writer.now() - began
        self._writer.start(self._work)

    def _check_wal(self, directory: str) -> None:
        """See what the database will read, and leave out without a word where it is damaged."""
        last = self._writer.now()

        def progress(size: int) -> None:
            nonlocal last
            self.recovery.wal_bytes = size
            now = self._writer.now()
            if self._progress is not None and now - last >= PROGRESS_SECONDS:
                last = now
                self._progress(self.recovery)

        database = f"{directory}/db"
        for damage in check(database, progress).damage:
            if damage.is_torn:
                self.recovery.cut_bytes += damage.stop - damage.start
                continue
            try:
                kept = quarantine(database, damage, f"{directory}/{QUARANTINE}")
            except OSError as error:
                kept = f"{damage.file}, which could not be kept ({error.strerror})"
            place = f"bytes {damage.start} to {damage.stop} of {kept}"
            self.recovery.damaged.append(f"{place}: a record {damage.reason}")

    @property
    def gate(self) -> Gate:
        """Whether appends are taken, and what waits for the disk."""
        return self._gate

    @property
    def failure(self) -> str | None:
        """Why appends are refused, as a sentence; None while they are taken."""
        return self._gate.failure

    def shards(self) -> list[int]:
        """The shards that have a log here, ascending."""
        found = []
        walk = self.store.walk(META)
        walk.seek_to_first()
        while walk.valid():
            if len(walk.key()) == SHARD.size:
                found.append(SHARD.unpack(walk.key())[0])
            walk.next()
        return found

    def open(self, shard: int, settings: LogSettings) -> Log:
        """Open the log of a shard, or make one. After a crash its end is verified."""
        began = last = self._writer.now()
        log = RocksdbLog(self, shard, settings)
        self._logs[shard] = log
        self.recovery.logs += 1
        if self._was_closed:
            self.recovery.bytes += log.size_bytes
        else:
            for size in log.verify(self._settings.wal_bytes):
                self.recovery.batches += 1
                self.recovery.bytes += size
                now = self._writer.now()
                if self._progress is not None and now - last >= PROGRESS_SECONDS:
                    last = now
                    self._progress(self.recovery)
        self.recovery.seconds += self._writer.now() - began
        return log

    def table(self) -> RocksdbTable:
        """The rows of this core; there is one table."""
        return self._table

    def remove(self, shard: int) -> None:
        """Forget a log and everything in it."""
        log = self._logs.pop(shard)
        log.drop()
        if self.write_early(log.take_operations()):
            log.written()
            self._gate.pending -= self._touched.pop(log)

    def discard(self, shard: int) -> None:
        """Forget a log that was not opened, and everything in it."""
        self._logs[shard] = RocksdbLog(self, shard, LogSettings())
        self.remove(shard)

    def release(self, shard: int) -> None:
        """Let go of a log, which is not to be used any more; what it has is written as ever."""
        del self._logs[shard]

    def write_early(self, operations: list[Operation | Erase]) -> bool:
        """Write what has nothing to do with the turn; says whether that was possible now."""
        return self._gate.error is None and self._store_all(operations)

    def admit(self, size: int) -> None:
        """Raise Unwritable when `size` bytes cannot be appended now."""
        self._gate.admit(size)

    def touch(self, log: RocksdbLog, size: int) -> None:
        """The log has something for the next commit."""
        self._touched[log] = self._touched.get(log, 0) + size
        self._gate.pending += size
        self._is_midway = True

    def damaged(self, what: Quarantined) -> None:
        """Reading has found damage."""
        self.recovery.quarantined.append(what)

    def commit(self) -> bool:
        """Write what the turn has gathered, have it synced where asked; True: call `completed`."""
        self._is_midway = False
        self._table.seal()
        self._write()
        return bool(self._moved or self._done or self._table.commits.moved)

    def write(self) -> None:
        """Write what is gathered, if that is possible now: an early part of the turn's commit."""
        self._is_midway = False
        self._table.seal(ends_turn=False)
        self._write()

    def _write(self, wait: bool = False) -> None:
        """Write all that is gathered, if that is possible now; with `wait` slow is too."""
        rows = self._table.rows
        if not rows and not self._touched:
            return
        pausing = self._stalled or self._pausing
        if self._gate.error is not None or (pausing and not wait):
            # While much waits a batch costs too much to be made in every turn for nothing.
            self._table.held_up()
            return
        operations: list[Operation | Erase] = []
        for log in self._touched:
            operations += log.take_operations()
        if self._store_all(operations, rows, wait):
            self._failures = 0
            self._follow_up()
        else:
            self._table.held_up()

    def _store_all(
        self,
        operations: list[Operation | Erase],
        rows: Sequence[Row | Erase] = (),
        wait: bool = False,
    ) -> bool:
        """Write now or see that it is tried again; says which."""
        try:
            self.store.write(operations, wait, rows)
        except Stalled:
            self._stalled = True
        except OSError as error:
            self._fail(error)
        else:
            self.tally.commits += 1
            self.tally.rows += len(rows)
            return True
        self._writer.wake()
        return False

    def _fail(self, error: OSError) -> None:
        self._gate.error = error
        self.tally.failures += 1

    def _follow_up(self) -> None:
        """After a write: what needs no sync is durable, the rest waits for the writer."""
        wake = False
        for log, size in self._touched.items():
            self._gate.pending -= size
            log.written()
            if log.dropped:
                continue
            if log.settings.flush == "always":
                self._inbox.append(Mark(log))
                wake = True
                continue
            if log.reached(log.generation, log.end_offset):
                self._moved[log] = None
            if log.settings.flush == "interval" and size:
                wake |= self._sync_within(log.settings.interval_ms)
        if self._touched:
            self._touched = {}
        if self._table.rows:
            if self._table.wrote():
                self._inbox.append(self._table)
                wake = True
            elif self._settings.flush == "interval":
                wake |= self._sync_within(self._settings.interval_ms)
        if wake:
            self._writer.wake()

    def _sync_within(self, milliseconds: int) -> bool:
        """Have everything synced within that time; says whether the writer does not know yet."""
        at = self._writer.now() + milliseconds / 1_000
        known = self._sync_by
        if known is not None and known <= at:
            return False
        self._sync_by = at
        return True

    def fileno(self) -> int:
        """An eventfd that is readable when `completed` has something."""
        return self._writer.fileno()

    def completed(self) -> list[Log]:
        """Take what was synced: the logs whose `durable_offset` has moved.

        The table's numbers have moved too, if they had to.
        """
        self._writer.hush()
        if self._may_reopen:
            self._reopen()
            # Taken back behind it: what the writer saw meanwhile must not close what is open now.
            self._may_reopen = False
        # A turn that has begun is written by its commit: as a whole.
        if not self._is_midway and not self._table.is_midway:
            self._write()
        while self._done:
            moved_log = self._done.popleft().finish()
            if moved_log is not None:
                self._moved[moved_log] = None
        self._table.commits.moved = False
        moved, self._moved = self._moved, {}
        return list(moved)

    def close(self) -> None:
        """Write and sync everything, and let go. What cannot be written is lost."""
        self._table.seal()
        self._write(wait=True)
        self._writer.stop()
        if self._gate.error is None and not self._touched and not self._table.rows:
            self.store.write([(META, _CLEAN, b"")])
            self.store.sync()
        self._logs.clear()
        self.store.close()

    def _reopen(self) -> None:
        """Get over a failed write: a database that has had one refuses all others."""
        self._failures += 1
        try:
            self.store.reopen()
        except OSError as error:
            self._gate.error = error
        else:
            self._gate.error = None
        self._writer.wake()

    def _work(self) -> float | None:
        """Sync what waits for it. Called by the writer only; after an error, look for room.

        While there is an error the database is the loop's alone.
        """
        if self._gate.error is not None:
            # While it is opened again the room that a look takes could be missing.
            if not self._may_reopen and self.store.has_room(self._gate.pending):
                self._may_reopen = True
                self._writer.ring()
            return self._settings.retry_ms / 1_000 * min(1 << self._failures, BACKOFF_MAX)
        if self._pausing:
            self._pausing = False
            self._writer.ring()
        if self._stalled:
            self._stalled = False
            self._pausing = True
            return STALL_SECONDS
        while self._inbox:
            self._marks.append(self._inbox.popleft())
        now = self._writer.now()
        due = self._sync_by is not None and self._sync_by <= now
        if self._marks or due:
            # Cleared before the sync: what is written meanwhile asks for one of its own.
            self._sync_by = None
            try:
                self.store.sync()
            except OSError as error:
                self._fail(error)
                self._writer.ring()
                return self._settings.retry_ms / 1_000
            self.tally.syncs += 1
            self._done += self._marks
            self._marks = []
            self._writer.ring()
        return None if self._sync_by is None else max(self._sync_by - now, 0.0)
