"""The memory engine by example; `tests/property/test_memory_log.py` has its laws."""

from robustmq.storage.log import StoredBatch
from robustmq.storage.memory_log import MemoryLog


def filled(*counts: int, log: MemoryLog | None = None) -> MemoryLog:
    """A log of batches with so many records, ten bytes each."""
    log = MemoryLog() if log is None else log
    for number, count in enumerate(counts):
        log.append(bytes(10), count, 1_000 + number)
    return log


def offsets(log: MemoryLog, offset: int = 0, max_bytes: int = 1_000) -> list[int]:
    return [batch.base_offset for batch in log.read(offset, max_bytes)]


def test_offsets_count_records() -> None:
    log = MemoryLog()
    assert (log.start_offset, log.end_offset, log.durable_offset) == (0, 0, 0)
    assert [log.append(b"x" * 10, count, 0) for count in (3, 1, 2)] == [0, 3, 4]
    assert (log.start_offset, log.end_offset, log.durable_offset) == (0, 6, 6)
    assert log.size_bytes == 30
    assert StoredBatch(3, 1, b"").next_offset == 4


def test_reading_begins_with_the_batch_that_holds_the_offset() -> None:
    log = filled(3, 1, 2)
    assert [offsets(log, offset) for offset in range(7)] == [
        [0, 3, 4],
        [0, 3, 4],
        [0, 3, 4],
        [3, 4],
        [4],
        [4],
        [],
    ]


def test_reading_gives_one_batch_however_large() -> None:
    log = filled(3, 1, 2)
    assert offsets(log, 0, 1) == [0]
    assert offsets(log, 0, 29) == [0, 3]
    assert offsets(log, 0, 30) == [0, 3, 4]


def test_trimming_takes_whole_batches() -> None:
    log = filled(3, 1, 2)
    log.trim(2)
    assert log.start_offset == 0
    log.trim(4)
    assert (log.start_offset, log.size_bytes) == (4, 10)
    assert offsets(log, 0) == [4]
    log.trim(99)
    assert (log.start_offset, log.end_offset, log.size_bytes) == (6, 6, 0)
    assert log.append(b"", 1, 0) == 6


def test_truncating_takes_whole_batches() -> None:
    log = filled(3, 1, 2)
    log.truncate(5)
    assert log.end_offset == 6
    log.truncate(3)
    assert (log.end_offset, log.size_bytes) == (3, 10)
    assert log.append(b"", 2, 0) == 3
    log.truncate(0)
    assert (log.start_offset, log.end_offset, log.size_bytes) == (0, 0, 0)


def test_bounds_let_the_oldest_go_but_never_the_newest() -> None:
    assert filled(3, 3, 3, log=MemoryLog(max_records=6)).start_offset == 3
    assert filled(3, 3, 3, log=MemoryLog(max_bytes=25)).start_offset == 3
    assert filled(3, 3, 3, log=MemoryLog(max_bytes=1)).start_offset == 6
    aged = MemoryLog(max_age_ms=100)
    for now_ms in (1_000, 1_050, 1_101, 1_150):
        aged.append(b"x", 1, now_ms)
    assert aged.start_offset == 1
