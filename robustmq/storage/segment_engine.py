"""The file segment engine: logs in segment files, one writer, group commit."""

import errno
from collections import deque
from typing import Final

from robustmq.errors import Refused
from robustmq.storage.engine import (
    PROGRESS_SECONDS,
    EngineSettings,
    Progress,
    Quarantined,
    Recovery,
)
from robustmq.storage.files import Files, SystemFiles
from robustmq.storage.format import claim
from robustmq.storage.gate import Gate
from robustmq.storage.log import Log
from robustmq.storage.log_settings import LogSettings
from robustmq.storage.segment import Segment
from robustmq.storage.segment_draft import Written
from robustmq.storage.segment_fetch import ColdPlace, SegmentFetches
from robustmq.storage.segment_jobs import SPARSE_FILE, Forget, Job, Unlink, Write, sync
from robustmq.storage.segment_log import SegmentLog
from robustmq.storage.segment_reader import SegmentReader
from robustmq.storage.segment_recovery import SegmentRecovery, load, number_in
from robustmq.storage.segment_sync import SegmentSyncs
from robustmq.storage.writer import Writer, WriterThread

FORMAT: Final = 1
"""The format of the directory that this release writes, and the newest that it reads."""
_SYNC_BYTES: Final = 1 << 24
"""So much of a segment is not left to wait for its interval: the disk is kept busy evenly."""


def _may_join(job: Job) -> bool:
    """Say whether a job may be done to a file that is being synced.

    What must be on the disk at once waits: of two syncs only one would hear of a failure.
    """
    return isinstance(job, Write) and job.sync_within != 0


class Mark:
    """In the writer's queue behind a log's jobs: how far the log is when it comes here."""

    outlives = True

    def __init__(self, log: SegmentLog, size: int) -> None:
        self.log = log
        self.size = size
        self._generation = log.generation
        self._end = log.end_offset

    def finish(self) -> bool:
        """Tell the log; says whether its durable offset moved."""
        return self.log.reached(self._generation, self._end)


class SegmentEngine:
    """An `Engine` of segment files below one directory, a directory for each shard.

    Every change of a file is a job for the writer, in order; reading is done by the loop. When a
    job fails it is tried again every `retry_ms`, and until then appends are refused.
    """

    def __init__(
        self,
        directory: str,
        settings: EngineSettings | None = None,
        *,
        files: Files | None = None,
        writer: Writer | None = None,
        fetcher: Writer | None = None,
        syncer: Writer | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.recovery = Recovery()
        self._settings = settings or EngineSettings()
        self._files = files or SystemFiles()
        self._directory = directory
        self._progress = progress
        claim(self._files, directory, "segment", FORMAT)
        self.reader = SegmentReader(self._files, self._settings.open_files)
        self._logs: dict[int, SegmentLog] = {}
        self._touched: dict[SegmentLog, int] = {}
        self._orphans: list[Job] = []
        self._gate = Gate(directory, self._settings.pending_bytes)
        self._inbox: deque[list[Job | Mark]] = deque()
        self._done: deque[Mark | Written] = deque()
        self._queue: deque[Job | Mark] = deque()
        self._marks: list[Mark | Written] = []
        self._unsynced: dict[Segment, float] = {}
        self._strict: dict[Segment, None] = {}
        # A writer that is handed in syncs by itself, unless it is given company.
        syncer = syncer or (WriterThread("sync") if writer is None else None)
        self._writer = writer or WriterThread("storage")
        self._syncs = SegmentSyncs(self._files, self._writer.wake, syncer)
        self._fetches = SegmentFetches(self._files, self._writer.ring, fetcher)
        self._now = self._writer.now
        self._writer.start(self._work)

    @property
    def failure(self) -> str | None:
        """Why appends are refused, as a sentence; None while they are taken."""
        return self._gate.failure

    @property
    def refusal(self) -> Refused | None:
        """Why appends are refused, as a value; None while they are taken."""
        return self._gate.refusal(0)

    def shards(self) -> list[int]:
        """The shards that have a directory here, ascending."""
        names = self._files.listdir(self._directory)
        return sorted(int(name) for name in names if name.isdecimal())

    def open(self, shard: int, settings: LogSettings) -> Log:
        """Recover the log of a shard, or make one. Raises OSError and ConfigError."""
        began = last = self._now()

        def tick() -> None:
            nonlocal last
            now = self._now()
            if self._progress is not None and now - last >= PROGRESS_SECONDS:
                last = now
                self._progress(self.recovery)

        directory = f"{self._directory}/{shard}"
        is_sparse = number_in(self._files, f"{directory}/{SPARSE_FILE}") is not None
        recovery = SegmentRecovery(
            self._files,
            shard,
            self.recovery,
            tick,
            interval=settings.index_interval_bytes,
            dense=not (settings.compact or is_sparse),
        )
        segments, start = load(self._files, directory, recovery)
        log = SegmentLog(self, shard, settings, segments, start, is_sparse=is_sparse)
        self._logs[shard] = log
        self.recovery.logs += 1
        self.recovery.seconds += self._now() - began
        return log

    def remove(self, shard: int) -> None:
        """Forget a log and everything in it; the files go with the next commit."""
        log = self._logs.pop(shard)
        last = log.drop_all()
        self._orphans += [*log.take_jobs(), Forget(last)]
        self._gate.pending -= self._touched.pop(log, 0)

    def discard(self, shard: int) -> None:
        """Forget a log that was not opened, with its files, with the next commit."""
        self._orphans.append(Forget(Segment(f"{self._directory}/{shard}", 0)))

    @property
    def pending(self) -> int:
        """Bytes that were appended and are not written."""
        return self._gate.pending

    def release(self, shard: int, was_changed: bool) -> None:
        """Let go of a log, which is not used any more; one that was changed is finished."""
        log = self._logs.pop(shard)
        if was_changed:
            log.finish()

    def admit(self, size: int) -> None:
        """Raise Unwritable when `size` bytes cannot be appended now."""
        self._gate.admit(size)

    def touch(self, log: SegmentLog, size: int) -> None:
        """The log has something for the next commit."""
        self._touched[log] = self._touched.get(log, 0) + size
        self._gate.pending += size

    def fetch(self, cold: ColdPlace, segment: Segment, size: int, position: int) -> None:
        """Have bytes of a segment in memory; it is known after `completed`."""
        self._fetches.ask(cold, segment.path, size, position)

    def damaged(self, what: Quarantined) -> None:
        """Reading has found damage."""
        self.recovery.quarantined.append(what)

    def commit(self) -> bool:
        """Hand what the logs have gathered to the writer; True: call `completed` now."""
        if self._touched or self._orphans:
            jobs: list[Job | Mark] = [*self._orphans]
            self._orphans = []
            for log, size in self._touched.items():
                jobs += log.take_jobs()
                jobs.append(Mark(log, size))
            self._touched = {}
            self._inbox.append(jobs)
            self._writer.wake()
        return bool(self._done)

    def fileno(self) -> int:
        """An eventfd that is readable when `completed` has something."""
        return self._writer.fileno()

    def completed(self) -> list[Log]:
        """Take what the writer has done: the logs whose `durable_offset` has moved."""
        self._writer.hush()
        self._fetches.completed()
        moved: dict[SegmentLog, None] = {}
        while self._done:
            done = self._done.popleft()
            if isinstance(done, Mark):
                self._gate.pending -= done.size
                if done.finish():
                    moved[done.log] = None
            else:
                done.finish()
        return list(moved)

    def close(self) -> None:
        """Write and sync everything, note what the next start would have to read, and let go.

        What cannot be written is lost; it was never reported durable.
        """
        for log in self._logs.values():
            log.finish()
        self.commit()
        self._fetches.close()
        self._syncs.close()
        self._writer.stop()
        self.reader.close()
        self._logs.clear()

    def _work(self) -> float | None:
        """Run what is queued. Called by the writer only, as is all below."""
        while self._inbox:
            self._queue += self._inbox.popleft()
        try:
            self._finish_syncs()
            self._run_queue()
            wait = self._sync_due()
        except Exception as error:
            # Whatever it is, it must be seen and must not end the writer.
            if not isinstance(error, OSError):
                error = OSError(errno.EIO, repr(error))
            self._gate.error = error
            self._make_room()
            self._writer.ring()
            return self._settings.retry_ms / 1_000
        recovered, self._gate.error = self._gate.error is not None, None
        if self._marks or recovered:
            self._done += self._marks
            self._marks = []
            self._writer.ring()
        return wait

    def _run_queue(self) -> None:
        while self._queue:
            job = self._queue[0]
            if isinstance(job, Mark):
                self._marks.append(job)
            elif self._syncs.is_under_way(job.segment) and not _may_join(job):
                # The writer is woken when its sync is done.
                break
            elif job.outlives or not job.segment.dropped:
                job.run(self._files)
                if isinstance(job, Written):
                    self._marks.append(job)
                elif isinstance(job, Write) and job.size and job.sync_within is not None:
                    if job.sync_within:
                        is_much = job.segment.written - job.segment.synced >= _SYNC_BYTES
                        due = self._now() + (0.0 if is_much else job.sync_within)
                        self._unsynced[job.segment] = min(self._unsynced.get(job.segment, due), due)
                    else:
                        self._strict[job.segment] = None
            self._queue.popleft()

    def _finish_syncs(self) -> None:
        for segment in self._syncs.finish():
            # What was written since is not on the disk either.
            self._strict[segment] = None

    def _sync_due(self) -> float | None:
        """Sync what must not wait any longer; returns the seconds until the next has to be."""
        while self._strict:
            segment = next(iter(self._strict))
            sync(self._files, segment)
            del self._strict[segment]
            self._unsynced.pop(segment, None)
        now = self._now()
        due = [
            segment
            for segment, due in self._unsynced.items()
            if due <= now and not self._syncs.is_under_way(segment)
        ]
        for segment in due:
            self._syncs.begin((segment,))
            del self._unsynced[segment]
        waits = [
            due for segment, due in self._unsynced.items() if not self._syncs.is_under_way(segment)
        ]
        return max(min(waits) - now, 0.0) if waits else None

    def _make_room(self) -> None:
        """Do at once what gives disk back: it may be what the failed job needs."""
        hurried: list[Job | Mark] = []
        for job in self._queue:
            is_free = not isinstance(job, Mark) and not self._syncs.is_under_way(job.segment)
            if isinstance(job, Unlink) and job.may_hurry and is_free:
                hurried.append(job)
        for job in hurried:
            assert isinstance(job, Unlink)
            try:
                job.run(self._files)
            except OSError:
                # It stays in the queue, and its turn comes.
                continue
            self._queue.remove(job)
