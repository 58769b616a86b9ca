"""What the segment engine finds when it is opened again, after power cuts and damage."""

import errno
import random

import pytest

from robustmq._kernel.batch import records
from robustmq.errors import ConfigError, Corrupt
from robustmq.storage.log_settings import LogSettings
from robustmq.storage.segment_engine import SegmentEngine
from tests.unit.storage.batches import batch
from tests.unit.storage.bench import SIZE, Bench, offsets, read_all
from tests.unit.storage.disk import Disk, HandWriter


def test_a_clean_close_leaves_nothing_to_scan() -> None:
    bench = Bench()
    bench.append(*[100] * 20)
    bench.log.trim(3)
    bench.reopen()
    assert bench.engine.recovery.batches == 0
    assert bench.engine.recovery.bytes == 20 * SIZE
    assert (bench.log.start_offset, bench.log.end_offset, bench.log.durable_offset) == (3, 20, 20)
    assert offsets(bench.log) == list(range(3, 20))


def test_a_missing_or_torn_index_is_rebuilt() -> None:
    bench = Bench(LogSettings(flush="always", segment_bytes=1 << 20, index_interval_bytes=64))
    for number in range(20):
        bench.append(100, time_ms=1_000 + number)
    bench.reopen()
    expected = [bench.log.offset_at(1_000 + number) for number in range(21)]
    assert expected == list(range(21))
    bench.engine.close()
    index = "/d/7/00000000000000000000.index"
    bench.disk.flip(index, 8 * 50)
    bench.open()
    assert bench.engine.recovery.batches == 20
    assert [bench.log.offset_at(1_000 + number) for number in range(21)] == expected
    bench.engine.close()
    bench.disk.unlink(index)
    bench.open()
    assert bench.engine.recovery.batches == 20
    assert offsets(bench.log) == list(range(20))


def test_a_torn_tail_is_cut_and_reported() -> None:
    bench = Bench(LogSettings(flush="always"))
    bench.append(100, 100)
    bench.settle()
    name = "/d/7/" + bench.files()[0]
    bench.disk.names[name].write(2 * SIZE, batch(1, b"x" * 100)[:90])
    bench.disk.kill()
    bench.open()
    assert bench.engine.recovery.cut_bytes == 90
    assert bench.engine.recovery.quarantined == []
    assert (bench.log.end_offset, offsets(bench.log)) == (2, [0, 1])
    bench.append(100)
    bench.settle()
    bench.power_cut()
    assert offsets(bench.log) == [0, 1, 2]


@pytest.mark.parametrize("byte", [0, 7, 9, 16, 18, 24, 60, 100])
def test_a_damaged_middle_is_quarantined_at_start(byte: int) -> None:
    bench = Bench(LogSettings(flush="always"))
    bench.append(*[100] * 5)
    bench.settle()
    name = "/d/7/" + bench.files()[0]
    bench.disk.flip(name, 8 * (2 * SIZE + byte) + 1)
    damaged = bytes(bench.disk.names[name].data[2 * SIZE : 3 * SIZE])
    bench.power_cut()
    (found,) = bench.engine.recovery.quarantined
    assert (found.shard, found.start, found.end) == (7, 2, 3)
    assert offsets(bench.log) == [0, 1, 3, 4]
    aside = f"/d/7/quarantine/{0:020d}-{2 * SIZE}"
    assert bytes(bench.disk.names[aside + ".bytes"].data) == damaged
    assert bytes(bench.disk.names[aside + ".reason"].data).decode() == found.reason
    bench.append(100)
    bench.settle()
    bench.power_cut()
    assert bench.engine.recovery.quarantined == []
    assert offsets(bench.log) == [0, 1, 3, 4, 5]


def test_damage_that_reading_finds_is_said_once_and_skipped() -> None:
    bench = Bench(LogSettings(flush="always"))
    bench.append(*[100] * 5)
    bench.reopen()
    bench.disk.flip("/d/7/" + bench.files()[0], 8 * (2 * SIZE + 100))
    bench.power_cut()
    assert bench.engine.recovery.batches == 0
    assert [each.base_offset for each in bench.log.read(0, 1 << 20)] == [0, 1]
    with pytest.raises(Corrupt, match="checksum"):
        bench.log.read(2, 1 << 20)
    assert [each.base_offset for each in bench.log.read(2, 1 << 20)] == [3, 4]
    assert [each.start for each in bench.engine.recovery.quarantined] == [2]
    bench.settle()
    bench.power_cut()
    assert offsets(bench.log) == [0, 1, 3, 4]
    assert bench.engine.recovery.quarantined == []


def test_a_batch_inside_of_a_damaged_message_is_not_taken_for_ours() -> None:
    bench = Bench(LogSettings(flush="always"))
    for value in (b"a", batch(1, b"inner"), b"c"):
        bench.log.append(batch(1, value), 1, 1_000)
    bench.settle()
    name = "/d/7/" + bench.files()[0]
    bench.disk.flip(name, 8 * (len(batch(1, b"a")) + 30))
    bench.power_cut()
    assert [records(each.data)[0][4] for each in read_all(bench.log)] == [b"a", b"c"]


def test_damage_at_the_end_of_a_sealed_segment_takes_nothing_else() -> None:
    bench = Bench()
    bench.append(*[100] * 12)
    bench.settle()
    held = 1_024 // SIZE
    name = "/d/7/" + bench.files()[0]
    bench.disk.flip(name, 8 * (held * SIZE - 1))
    bench.disk.unlink(name[:-4] + ".index")
    bench.disk.sync_directory("/d/7")
    bench.power_cut()
    assert offsets(bench.log) == [each for each in range(12) if each != held - 1]
    (found,) = bench.engine.recovery.quarantined
    assert (found.start, found.end) == (held - 1, held)


def test_truncated_records_never_come_back() -> None:
    bench = Bench()
    bench.append(*[100] * 13)
    bench.settle()
    bench.log.truncate(3)
    assert (bench.log.end_offset, bench.log.durable_offset) == (3, 3)
    bench.append(50)
    assert bench.log.durable_offset == 3
    bench.settle()
    bench.power_cut()
    assert offsets(bench.log) == [0, 1, 2, 3]
    assert len(bench.log.read(3, 1)[0].data) == len(batch(1, b"x" * 50))


def test_a_reset_log_begins_where_it_is_told_even_after_a_crash() -> None:
    for seed in range(20):
        bench = Bench()
        bench.append(*[100] * 13)
        bench.settle()
        bench.log.reset(500)
        assert (bench.log.start_offset, bench.log.end_offset) == (500, 500)
        bench.settle()
        bench.power_cut(seed)
        assert (bench.log.start_offset, bench.log.end_offset) == (500, 500)
        bench.append(1)
        bench.settle()
        assert offsets(bench.log) == [500]


def test_a_reset_that_the_power_interrupts_is_done_or_not_begun() -> None:
    seen = set()
    for seed in range(60):
        rng = random.Random(seed)
        bench = Bench()
        bench.append(*[100] * 13)
        bench.settle()
        bench.log.reset(500)
        bench.engine.commit()
        bench.disk.faults["unlink" if seed % 2 else "sync_directory"] = errno.EIO
        for _ in range(rng.randrange(3)):
            bench.writer.run()
        bench.disk.faults.clear()
        bench.power_cut(seed)
        seen.add((bench.log.start_offset, bench.log.end_offset))
    assert seen == {(0, 13), (500, 500)}


def test_a_newer_format_and_another_engine_are_refused() -> None:
    for text, sentence in ((b"segment 2\n", "newer robustmq"), (b"other 1\n", "not the files")):
        disk = Disk()
        disk.open("/d/format", write=True, create=True)
        disk.names["/d/format"].write(0, text)
        with pytest.raises(ConfigError, match=sentence):
            SegmentEngine("/d", files=disk, writer=HandWriter())


def test_recovery_says_how_far_it_has_come() -> None:
    bench = Bench(LogSettings(flush="always"))
    bench.append(*[100_000] * 50)
    bench.settle()
    told: list[int] = []
    writer = HandWriter()

    def now() -> float:
        writer.time += 0.3
        return writer.time

    writer.now = now  # type: ignore[method-assign]
    engine = SegmentEngine(
        "/d", files=bench.disk, writer=writer, progress=lambda report: told.append(report.batches)
    )
    engine.open(7, bench.settings)
    assert told == sorted(set(told))
    assert told
    assert engine.recovery.seconds > 1
    assert engine.recovery.batches == 50


def test_no_place_of_the_index_lies_inside_of_what_was_moved_aside() -> None:
    bench = Bench(
        LogSettings(
            flush="always", segment_bytes=1_024, preallocate_bytes=0, index_interval_bytes=64
        )
    )
    bench.append(*[100] * 8)
    bench.reopen()
    name = "/d/7/" + bench.files()[0]
    for inode in (bench.disk.names[name].data, bench.disk.names[name].durable):
        inode[SIZE : 3 * SIZE] = bytes(2 * SIZE)
    with pytest.raises(Corrupt):
        bench.log.read(1, 1 << 20)
    bench.settle()
    bench.power_cut()
    assert bench.engine.recovery.quarantined == []
    for offset in (1, 2, 3):
        assert bench.log.read(offset, 1)[0].base_offset == 3


def test_a_truncated_segment_is_cut_although_it_is_dropped_at_once() -> None:
    for seed in range(20):
        bench = Bench()
        bench.append(*[200] * 3)
        bench.settle()
        bench.log.truncate(0)
        bench.append(*[100] * 7)
        bench.log.trim(7)
        bench.settle()
        bench.power_cut(seed)
        assert {len(each.data) for each in read_all(bench.log)} <= {SIZE}
        assert bench.log.end_offset == 7


def test_what_a_killed_process_has_not_synced_is_synced_before_it_counts_as_durable() -> None:
    bench = Bench()
    bench.append(*[100] * 7)
    bench.engine.commit()
    bench.disk.faults["fdatasync"] = 5
    bench.writer.run()
    bench.disk.faults.clear()
    bench.disk.kill()
    bench.open()
    kept = bench.log.durable_offset
    assert kept >= 5
    for seed in range(10):
        bench.power_cut(seed)
        assert bench.log.end_offset == kept
