"""The memory engine: a log that is gone after a restart."""

from bisect import bisect_right
from collections import deque

from robustmq.storage.header import header_at
from robustmq.storage.log import Stable, StoredBatch
from robustmq.storage.log_settings import LogSettings


class MemoryLog:
    """A `Log` in memory, bounded by records, bytes and age; 0 means no bound.

    Beyond a bound the oldest batches go. `max_age_ms` is applied as batches are appended.
    """

    def __init__(self, max_records: int = 0, max_bytes: int = 0, max_age_ms: int = 0) -> None:
        self.leader_epoch = 0
        self._batches: deque[StoredBatch] = deque()
        self._times: deque[int] = deque()
        self._bytes = 0
        self._end = 0
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._max_age_ms = max_age_ms
        self._bounded = bool(max_records or max_bytes or max_age_ms)

    @property
    def start_offset(self) -> int:
        """The offset of the oldest record that is kept."""
        return self._batches[0].base_offset if self._batches else self._end

    @property
    def end_offset(self) -> int:
        """The offset that the next record will get."""
        return self._end

    @property
    def durable_offset(self) -> int:
        """Memory promises nothing beyond itself: all that is appended is as safe as it gets."""
        return self._end

    @property
    def size_bytes(self) -> int:
        """Bytes of the batches that are kept."""
        return self._bytes

    @property
    def newest_ms(self) -> int:
        """The latest time of the records that are kept; -1: there are none."""
        return max((header_at(batch.data, 0).newest_ms for batch in self._batches), default=-1)

    @property
    def is_fetching(self) -> bool:
        """Never: everything is in memory."""
        return False

    def configure(self, settings: LogSettings) -> None:
        """Keep the bounds of `settings` from the next append on."""
        self._max_records = settings.retention_records
        self._max_bytes = settings.retention_bytes
        self._max_age_ms = settings.retention_ms
        self._bounded = bool(self._max_records or self._max_bytes or self._max_age_ms)

    def append(self, data: bytes | memoryview, count: int, timestamp_ms: int) -> int:
        """Append a batch of `count` records; returns the offset of its first record."""
        base = self._end
        self._batches.append(StoredBatch(base, count, bytes(data)))
        self._times.append(timestamp_ms)
        self._bytes += len(data)
        self._end = base + count
        if self._bounded:
            self._keep_bounds(timestamp_ms)
        return base

    def read(self, offset: int, max_bytes: int) -> list[StoredBatch]:
        """Batches from the one that holds `offset` on, at least one while there is one."""
        if offset >= self._end:
            return []
        first = bisect_right(self._batches, offset, key=lambda batch: batch.base_offset) - 1
        out: list[StoredBatch] = []
        size = 0
        for position in range(max(first, 0), len(self._batches)):
            batch = self._batches[position]
            if out and size + len(batch.data) > max_bytes:
                break
            out.append(batch)
            size += len(batch.data)
        return out

    def trim(self, offset: int) -> None:
        """Forget whole batches below `offset`."""
        if offset >= self._end:
            self._batches.clear()
            self._times.clear()
            self._bytes = 0
            return
        while self._batches and self._batches[0].next_offset <= offset:
            self._drop_oldest()

    def truncate(self, offset: int) -> None:
        """Forget whole batches from `offset` on."""
        while self._batches and self._batches[-1].base_offset >= offset:
            batch = self._batches.pop()
            self._times.pop()
            self._bytes -= len(batch.data)
            self._end = batch.base_offset

    def warm(self, offset: int, max_bytes: int) -> bool:  # noqa: ARG002
        """Everything is in memory."""
        return True

    def reset(self, offset: int) -> None:
        """Forget everything; the next record gets `offset`."""
        self.trim(self._end)
        self._end = offset

    def offset_at(self, timestamp_ms: int, since: int = 0) -> int:
        """The start of the first batch with a record of that time or later; else the end."""
        for batch in self._batches:
            if batch.next_offset > since and header_at(batch.data, 0).newest_ms >= timestamp_ms:
                return batch.base_offset
        return self._end

    def retain(self, now_ms: int, budget: int, stable: Stable | None = None) -> bool:  # noqa: ARG002
        """Apply the bounds as of now; says whether there is more."""
        while self._batches and self._is_over(now_ms):
            if budget <= 0:
                return True
            budget -= max(len(self._batches[0].data), 1)
            self._drop_oldest()
        return False

    def _is_over(self, now_ms: int) -> bool:
        return bool(
            (self._max_records and self._end - self.start_offset > self._max_records)
            or (self._max_bytes and self._bytes > self._max_bytes)
            or (self._max_age_ms and now_ms - self._times[0] > self._max_age_ms)
        )

    def _keep_bounds(self, now_ms: int) -> None:
        while len(self._batches) > 1 and self._is_over(now_ms):
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._bytes -= len(self._batches.popleft().data)
        self._times.popleft()
