"""The segment engine when the disk is full, fails or is too slow."""

import errno

import pytest

from robustmq.errors import Refusal
from robustmq.storage.engine import EngineSettings
from robustmq.storage.log import Unwritable
from tests.unit.storage.bench import SIZE, Bench, offsets


def test_a_full_disk_refuses_appends_keeps_reads_and_heals() -> None:
    bench = Bench()
    bench.append(*[100] * 3)
    bench.settle()
    bench.disk.room = sum(len(each.data) for each in bench.disk.names.values()) + 50
    bench.append(100, 100)
    bench.engine.commit()
    assert bench.writer.run() == 0.5
    assert bench.writer.rings
    assert bench.engine.completed() == []
    assert bench.failure() == "cannot write to /d: No space left on device"
    with pytest.raises(Unwritable) as refusal:
        bench.append(100)
    assert refusal.value.refused.code is Refusal.QUOTA_EXCEEDED
    assert bench.log.durable_offset == 3
    assert offsets(bench.log) == [0, 1, 2, 3, 4]
    bench.disk.room = None
    bench.writer.run()
    assert bench.failure() is None
    assert bench.engine.completed() == [bench.log]
    assert bench.log.durable_offset == 5
    bench.append(100)
    bench.settle()
    bench.power_cut()
    assert offsets(bench.log) == [0, 1, 2, 3, 4, 5]


def test_a_full_disk_is_freed_by_trimming() -> None:
    bench = Bench()
    bench.append(*[100] * 13)
    bench.settle()
    bench.disk.room = sum(len(each.data) for each in bench.disk.names.values())
    bench.append(*[100] * 5)
    bench.settle()
    assert bench.failure()
    bench.log.trim(8)
    bench.settle()
    bench.writer.run()
    assert bench.failure() is None
    bench.engine.completed()
    assert bench.log.durable_offset == 18


def test_what_a_failed_sync_may_have_lost_is_written_again() -> None:
    bench = Bench()
    bench.append(100)
    bench.engine.commit()
    bench.disk.faults["fdatasync"] = errno.EIO
    bench.disk.forgets = True
    bench.writer.run()
    assert bench.failure()
    with pytest.raises(Unwritable) as refusal:
        bench.append(100)
    assert refusal.value.refused.code is Refusal.UNAVAILABLE
    bench.disk.faults.clear()
    bench.writer.run()
    assert bench.engine.completed() == [bench.log]
    bench.power_cut()
    assert offsets(bench.log) == [0]


def test_too_much_unwritten_is_refused_until_it_is_written() -> None:
    bench = Bench(engine=EngineSettings(pending_bytes=2 * SIZE))
    bench.append(100, 100)
    with pytest.raises(Unwritable) as refusal:
        bench.append(100)
    assert refusal.value.refused.code is Refusal.BUSY
    bench.settle()
    bench.append(100)


def test_the_end_offset_is_kept_although_no_segment_behind_it_could_be_made() -> None:
    bench = Bench()
    bench.append(*[100] * 4)
    bench.settle()
    bench.append(*[100] * 12)
    bench.disk.faults["mkdir"] = errno.ENOSPC
    bench.settle()
    bench.log.trim(16)
    bench.settle()
    bench.disk.faults.clear()
    bench.disk.kill()
    bench.open()
    assert bench.log.end_offset >= 4
