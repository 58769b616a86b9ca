"""The storage engines of one core: its database, and files when some topic asks for them."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from robustmq.config import Config, Engine, Storage, TopicRule
from robustmq.errors import ConfigError, Refusal, Refused
from robustmq.storage.engine import EngineSettings, Progress, Recovery
from robustmq.storage.gate import FULL
from robustmq.storage.layout import open_layout
from robustmq.storage.log import Log, Unwritable
from robustmq.storage.log_settings import LogSettings
from robustmq.storage.memory_log import MemoryLog
from robustmq.storage.rocksdb_engine import RocksdbEngine
from robustmq.storage.segment_engine import SegmentEngine
from robustmq.workers import log

_log = log.EventLog("worker")

_STATUS_FAILED: Final = 1

SEGMENTS: Final = "segments"
"""The directory of the segment engine within that of a core."""


def log_settings(rule: TopicRule, storage: Storage) -> LogSettings:
    """How a log of a rule's topics is kept."""
    return LogSettings(
        flush=rule.flush,
        interval_ms=rule.interval_ms,
        segment_bytes=rule.segment_bytes,
        segment_ms=rule.segment_ms,
        preallocate_bytes=storage.preallocate_bytes,
        index_interval_bytes=storage.index_interval_bytes,
        retention_ms=rule.retention_ms,
        retention_bytes=rule.retention_bytes,
        retention_records=rule.retention_records,
        compact=rule.compact,
        compact_records=storage.compact_records,
        compact_keys=storage.compact_keys,
        compact_lag_ms=rule.compact_lag_ms,
        tombstone_ms=rule.tombstone_ms,
        empty_deletes=True,
    )


class Stores:
    """A `broker.topic_logs.LogStore`, and the `Committer` of everything in it.

    `watch` is told the eventfd of an engine that is opened later, when the first log needs it.
    """

    def __init__(
        self,
        rocksdb: RocksdbEngine,
        path: str,
        settings: EngineSettings,
        storage: Storage,
        *,
        watch: Callable[[int], None],
        progress: Progress | None = None,
    ) -> None:
        self.rocksdb = rocksdb
        self.segments: SegmentEngine | None = None
        self._path = path
        self._settings = settings
        self._storage = storage
        self._watch = watch
        self._progress = progress

    def open(self, number: int, engine: Engine, rule: TopicRule) -> Log:
        """Open the log of a number in an engine, or make it. Raises Unwritable."""
        if engine == "memory":
            most_bytes = rule.retention_bytes or self._storage.memory_log_bytes
            return MemoryLog(rule.retention_records, most_bytes, rule.retention_ms)
        settings = log_settings(rule, self._storage)
        try:
            if engine == "rocksdb":
                return self.rocksdb.open(number, settings)
            return self._files().open(number, settings)
        except OSError as error:
            code = Refusal.QUOTA_EXCEEDED if error.errno in FULL else Refusal.UNAVAILABLE
            detail = f"log {number} cannot be opened: {error.strerror}"
            raise Unwritable(Refused(code, detail)) from error

    def configure(self, log: Log, rule: TopicRule) -> None:
        """Keep an open log as a rule says from now on."""
        settings = log_settings(rule, self._storage)
        if isinstance(log, MemoryLog):
            most_bytes = rule.retention_bytes or self._storage.memory_log_bytes
            settings = replace(settings, retention_bytes=most_bytes)
        log.configure(settings)

    def remove(self, number: int, engine: Engine) -> None:
        """Forget a log and everything in it, with the next commit."""
        if engine == "rocksdb":
            self.rocksdb.remove(number)
        else:
            self._files().remove(number)

    def prune(self, listed: Collection[tuple[int, Engine]]) -> None:
        """Forget all logs but these: a crash has kept others from being removed."""
        for number in self.rocksdb.shards():
            if (number, "rocksdb") not in listed:
                self.rocksdb.discard(number)
        if self.segments is not None or Path(f"{self._path}/{SEGMENTS}").exists():
            for number in self._files().shards():
                if (number, "segment") not in listed:
                    self._files().discard(number)

    def release(self, number: int, engine: Engine, *, was_changed: bool) -> None:
        """Let go of a log in an engine that survives a restart; it is not used any more."""
        if engine == "rocksdb":
            self.rocksdb.release(number)
        else:
            self._files().release(number, was_changed)

    def refusal(self, engine: Engine) -> Refused | None:
        """Why an engine takes nothing now; None while it does."""
        if engine == "rocksdb":
            return self.rocksdb.table().refusal
        return None if self.segments is None else self.segments.refusal

    def refused(self) -> Refused | None:
        """Why some engine takes nothing now; None while all do."""
        refused = self.rocksdb.table().refusal
        if refused is None and self.segments is not None:
            refused = self.segments.refusal
        return refused

    @property
    def failure(self) -> str | None:
        """Why some engine cannot write, as a sentence; None while all do."""
        found = self.rocksdb.failure
        return found if found or self.segments is None else self.segments.failure

    @property
    def pending(self) -> int:
        """Bytes that were appended to logs and are not written."""
        pending = self.rocksdb.gate.pending
        return pending if self.segments is None else pending + self.segments.pending

    def filenos(self) -> list[int]:
        """The eventfds of the engines: one is readable when `completed` has something."""
        engines = (self.rocksdb, self.segments)
        return [engine.fileno() for engine in engines if engine is not None]

    def recoveries(self) -> list[Recovery]:
        """What opening the engines has found."""
        engines = (self.rocksdb, self.segments)
        return [engine.recovery for engine in engines if engine is not None]

    def commit(self) -> bool:
        """Begin to make durable what the turn has gathered; True: call `completed` now."""
        more = self.rocksdb.commit()
        return more if self.segments is None else self.segments.commit() or more

    def completed(self) -> None:
        """Take notice of what has become durable."""
        self.rocksdb.completed()
        if self.segments is not None:
            self.segments.completed()

    def close(self) -> None:
        """Write and sync everything, and let go."""
        if self.segments is not None:
            self.segments.close()
        self.rocksdb.close()

    def _files(self) -> SegmentEngine:
        if self.segments is None:
            directory = f"{self._path}/{SEGMENTS}"
            self.segments = SegmentEngine(directory, self._settings, progress=self._progress)
            self._watch(self.segments.fileno())
        return self.segments


def open_stores(
    config: Config, core: int, progress: Progress, watch: Callable[[int], None]
) -> Stores:
    """Open a core's database, which may take a while after a crash; SystemExit when it cannot be.

    `progress` hears how far it is, `watch` of descriptors that say when something was completed.
    """
    storage = config.storage
    layout = open_layout(config.data_path)
    settings = EngineSettings(
        pending_bytes=storage.pending_bytes,
        retry_ms=storage.retry_ms,
        open_files=storage.open_files,
        memory_bytes=storage.memory_bytes,
        wal_bytes=storage.wal_bytes,
        flush=storage.flush,
        interval_ms=storage.interval_ms,
    )
    path = layout.core_path(core)
    try:
        rocksdb = RocksdbEngine(path, settings, progress=progress)
    except (OSError, ConfigError) as error:
        reason = str(error)
    else:
        return Stores(rocksdb, path, settings, storage, watch=watch, progress=progress)
    # Said here: within the except clause a traceback would go with it.
    _log.error("the database cannot be opened", path=path, reason=reason)
    raise SystemExit(_STATUS_FAILED)
