"""What an administrator is told of a core's storage: its recovery, its alarm, its counters."""

import time
from collections.abc import Callable
from typing import Final

from robustmq import metrics
from robustmq.errors import Refused
from robustmq.shm.region import State
from robustmq.storage.engine import PROGRESS_SECONDS, Recovery
from robustmq.storage.gate import Gate
from robustmq.workers import log
from robustmq.workers.stores import Stores

SAY_SECONDS: Final = 1.0
"""Seconds between two lines about the alarm: a disk that fails now and then fills no log."""
_MS_PER_SECOND: Final = 1_000
_log = log.EventLog("storage")


class StorageWatch:
    """Watches one core's engines; `now` gives seconds.

    Nothing here is done for each message: `look` is called once a turn, `count` at each heartbeat.
    """

    def __init__(
        self, state: State, cells: memoryview, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._state = state
        self._cells = cells
        self._now = now
        self._began = self._said = now()
        self._stores: Stores | None = None
        self._gate: Gate | None = None
        self._damaged = 0
        self._shown = self._told = False
        self._told_at: float | None = None
        self._counted = [0, 0, 0, 0]

    # ------------------------------------------------------------------ recovery

    def progress(self, recovery: Recovery) -> None:
        """An engine has come so far with reading what it has found."""
        size = recovery.bytes + recovery.wal_bytes
        self._say("storage is being recovered", logs=recovery.logs, bytes=size)

    def restoring(self, sessions: int) -> None:
        """So many sessions are there again."""
        self._say("sessions are being restored", sessions=sessions)

    def _say(self, event: str, **fields: object) -> None:
        """Tell how far a start is, about once a second, and show that it goes on."""
        self._state.heartbeat_ns = time.monotonic_ns()
        now = self._now()
        if now - self._said >= PROGRESS_SECONDS:
            self._said = now
            _log.info(event, **fields, seconds=round(now - self._began, 1))

    def recovered(self, stores: Stores) -> None:
        """Everything is read: say what was found, if there was anything."""
        self._stores = stores
        self._gate = stores.rocksdb.gate
        seconds = self._now() - self._began
        cells = self._cells
        cells[metrics.STORAGE_RECOVERY_MS] = int(seconds * _MS_PER_SECOND)
        for recovery in stores.recoveries():
            found = recovery.bytes + recovery.wal_bytes
            if found or recovery.cut_bytes:
                _log.info(
                    "storage recovered",
                    logs=recovery.logs,
                    bytes=found,
                    cut_bytes=recovery.cut_bytes,
                    seconds=round(seconds, 3),
                )
            cells[metrics.STORAGE_CUT_BYTES] += recovery.cut_bytes
            for place in recovery.damaged:
                cells[metrics.STORAGE_DAMAGED] += 1
                _log.error("stored data is damaged, what was there is lost", place=place)
        self.count()

    # ------------------------------------------------------------------ alarm

    def look(self) -> None:
        """After a turn: show whether storing is refused, and say so when that changes."""
        stores = self._stores
        gate = self._gate
        if stores is None or gate is None:
            return
        is_calm = gate.error is None and not gate.pending and stores.segments is None
        if is_calm and not self._shown and not self._told:
            return
        refused = stores.refused()
        is_refused = refused is not None
        if is_refused is not self._shown:
            self._shown = is_refused
            self._cells[metrics.STORAGE_REFUSING] = is_refused
        if is_refused is not self._told:
            self._tell(refused)

    def _tell(self, refused: Refused | None) -> None:
        now = self._now()
        if self._told_at is not None and now - self._told_at < SAY_SECONDS:
            return
        if refused is not None:
            _log.error(
                "storing is refused: durable messages and sessions are not taken",
                reason=refused.detail,
                code=refused.code.name.lower(),
            )
        else:
            _log.info("storing goes on", seconds=round(now - (self._told_at or now), 1))
        self._told, self._told_at = refused is not None, now

    # ------------------------------------------------------------------ counters

    def count(self) -> None:
        """Copy what the engines have counted; damage that reading has found is told."""
        stores = self._stores
        if stores is None:
            return
        tally = stores.rocksdb.tally
        counts = [tally.commits, tally.rows, tally.syncs, tally.failures]
        cells = self._cells
        for place, count in enumerate(counts):
            cells[metrics.STORAGE_COMMITS + place] += count - self._counted[place]
        self._counted = counts
        self.look()
        cells[metrics.STORAGE_PENDING_BYTES] = stores.rocksdb.gate.pending
        found = [each for recovery in stores.recoveries() for each in recovery.quarantined]
        for each in found[self._damaged :]:
            cells[metrics.STORAGE_DAMAGED] += 1
            _log.error(
                "stored data is damaged and was moved aside",
                log=each.shard,
                start=each.start,
                end=each.end,
                reason=each.reason,
            )
        self._damaged = len(found)
