"""The storage engines of one core: its database, and files when some topic asks for them."""

from collections.abc import Callable
from typing import Final

from robustmq.broker.topic_logs import Medium
from robustmq.errors import Refusal, Refused
from robustmq.storage.engine import EngineSettings, LogSettings, Recovery
from robustmq.storage.gate import FULL
from robustmq.storage.log import Log, Unwritable
from robustmq.storage.rocksdb_engine import RocksdbEngine
from robustmq.storage.segment_engine import SegmentEngine

SEGMENTS: Final = "segments"
"""The directory of the segment engine within that of a core."""


class Stores:
    """A `broker.topic_logs.LogStore`, and the `Committer` of everything in it.

    `watch` is told the eventfd of an engine that is opened later, when the first log needs it.
    """

    def __init__(
        self,
        rocksdb: RocksdbEngine,
        path: str,
        settings: EngineSettings,
        watch: Callable[[int], None],
    ) -> None:
        self.rocksdb = rocksdb
        self.segments: SegmentEngine | None = None
        self._path = path
        self._settings = settings
        self._watch = watch

    def open(self, number: int, medium: Medium, settings: LogSettings) -> Log:
        """Open the log of a number in an engine, or make it. Raises Unwritable."""
        try:
            if medium == "rocksdb":
                return self.rocksdb.open(number, settings)
            return self._files().open(number, settings)
        except OSError as error:
            code = Refusal.QUOTA_EXCEEDED if error.errno in FULL else Refusal.UNAVAILABLE
            detail = f"log {number} cannot be opened: {error.strerror}"
            raise Unwritable(Refused(code, detail)) from error

    def refusal(self, medium: Medium) -> Refused | None:
        """Why an engine takes nothing now; None while it does."""
        if medium == "rocksdb":
            return self.rocksdb.table().refusal
        return None if self.segments is None else self.segments.refusal

    def refused(self) -> Refused | None:
        """Why some engine takes nothing now; None while all do."""
        refused = self.rocksdb.table().refusal
        if refused is None and self.segments is not None:
            refused = self.segments.refusal
        return refused

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
            self.segments = SegmentEngine(f"{self._path}/{SEGMENTS}", self._settings)
            self._watch(self.segments.fileno())
        return self.segments
