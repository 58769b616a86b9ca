"""The segment engine by example, on a disk in memory; `tests/property` has its laws."""

import random

import pytest

from robustmq._kernel.batch import records
from robustmq.errors import Corrupt
from robustmq.storage.log import Log
from robustmq.storage.log_settings import LogSettings
from tests.unit.storage.batches import batch, keyed
from tests.unit.storage.bench import SIZE, SMALL, Bench, offsets, read_all


def test_an_append_is_durable_when_the_writer_has_synced_it() -> None:
    bench = Bench()
    bench.append(100, 100)
    assert (bench.log.end_offset, bench.log.durable_offset) == (2, 0)
    assert offsets(bench.log) == [0, 1]
    assert not bench.engine.commit()
    assert bench.log.durable_offset == 0
    bench.writer.run()
    assert bench.writer.rings
    assert bench.log.durable_offset == 0
    assert bench.engine.completed() == [bench.log]
    assert not bench.writer.rings
    assert bench.log.durable_offset == 2
    bench.power_cut()
    assert offsets(bench.log) == [0, 1]


def test_all_turns_that_wait_share_one_sync() -> None:
    bench = Bench(LogSettings(flush="always"))
    bench.append(100)
    bench.settle()
    bench.disk.calls.clear()
    for _ in range(5):
        bench.append(100, 100)
        bench.engine.commit()
    bench.writer.run()
    assert bench.engine.completed() == [bench.log]
    assert bench.disk.calls.count("fdatasync") == 1
    assert bench.log.durable_offset == 11


def test_interval_syncs_within_the_interval_and_os_never() -> None:
    for flush, syncs in (("interval", 1), ("os", 0)):
        bench = Bench(LogSettings(flush=flush, interval_ms=200))  # type: ignore[arg-type]
        bench.append(100)
        bench.engine.commit()
        bench.disk.calls.clear()
        wait = bench.writer.run()
        assert bench.engine.completed() == [bench.log]
        assert bench.log.durable_offset == 1
        assert "fdatasync" not in bench.disk.calls
        assert wait == (0.2 if syncs else None)
        bench.writer.time += 0.1
        bench.append(100)
        bench.settle()
        assert "fdatasync" not in bench.disk.calls
        bench.writer.time += 0.1
        assert bench.writer.run() is None
        assert bench.disk.calls.count("fdatasync") == syncs


def test_what_is_stored_has_its_place_patched_in_and_a_right_checksum() -> None:
    bench = Bench()
    bench.append(1)
    bench.log.append(batch(3), 3, 1_000)
    bench.settle()
    assert [found[2] for found in records(bench.log.read(2, 1)[0].data)] == [1, 2, 3]


def test_segments_roll_by_size_and_by_age() -> None:
    bench = Bench()
    bench.append(*[100] * 13)
    bench.settle()
    held = 1_024 // SIZE
    assert bench.files() == [f"{base:020d}.log" for base in range(0, 13, held)]
    assert offsets(bench.log) == list(range(13))
    aged = Bench(LogSettings(segment_ms=1_000))
    for now_ms in (5_000, 5_999, 6_000, 6_100):
        aged.append(1, time_ms=now_ms)
    aged.settle()
    assert aged.files() == [f"{base:020d}.log" for base in (0, 2)]


def test_old_records_do_not_make_a_segment_old() -> None:
    bench = Bench(LogSettings(segment_ms=1_000))
    for now_ms in (900_000, 900_001, 900_002):
        bench.log.append(batch(1, time_ms=5), 1, now_ms)
    bench.settle()
    assert len(bench.files()) == 1


def test_the_reserve_is_taken_in_advance_and_given_back() -> None:
    bench = Bench(LogSettings(flush="always", segment_bytes=2_048, preallocate_bytes=1_500))
    bench.append(100)
    bench.settle()
    name = "/d/7/" + bench.files()[0]
    assert len(bench.disk.names[name].data) == 1_500
    bench.append(*[100] * 9)
    bench.settle()
    assert len(bench.disk.names[name].data) == 2_048
    bench.power_cut()
    assert len(bench.disk.names[name].data) == 10 * SIZE
    assert bench.engine.recovery.cut_bytes == 0
    bench.append(100)
    bench.reopen()
    assert len(bench.disk.names[name].data) == 11 * SIZE


def test_trimming_gives_whole_files_back() -> None:
    bench = Bench()
    bench.append(*[100] * 13)
    bench.settle()
    held = 1_024 // SIZE
    bench.log.trim(held + 1)
    bench.settle()
    assert bench.log.start_offset == held + 1
    assert bench.files()[0] == f"{held:020d}.log"
    bench.log.trim(100)
    bench.settle()
    assert (bench.log.start_offset, bench.log.end_offset) == (13, 13)
    assert len(bench.files()) == 1
    bench.power_cut()
    assert bench.log.end_offset == 13
    bench.append(1)
    assert bench.log.end_offset == 14


def test_what_was_written_before_a_truncation_says_nothing_about_what_came_after() -> None:
    bench = Bench()
    bench.append(100, 100, 100)
    bench.engine.commit()
    bench.log.truncate(1)
    bench.append(50, 50)
    bench.writer.run()
    assert bench.engine.completed() == []
    assert bench.log.durable_offset == 0
    assert offsets(bench.log) == [0, 1, 2]
    bench.settle()
    assert bench.log.durable_offset == 3


def test_a_removed_log_leaves_nothing_behind() -> None:
    bench = Bench()
    bench.append(*[100] * 13)
    bench.settle()
    bench.append(100)
    bench.engine.remove(7)
    assert bench.engine.shards() == [7]
    bench.settle()
    assert bench.engine.shards() == []
    assert bench.engine.open(7, SMALL).end_offset == 0


def test_retention_drops_segments_that_no_bound_keeps() -> None:
    held = 1_024 // SIZE
    for bounds, kept in (
        ({"retention_bytes": 4 * SIZE}, 12 - held),
        ({"retention_records": 4}, 12 - held),
        ({"retention_ms": 500}, 0),
    ):
        bench = Bench(LogSettings(flush="always", segment_bytes=1_024, **bounds))  # type: ignore[arg-type]
        bench.append(*[100] * 12)
        bench.settle()
        assert not bench.log.retain(2_000, 1 << 20)
        assert bench.log.end_offset - bench.log.start_offset in {kept, 12 % held}
        bench.settle()
        assert len(bench.files()) <= 2
        bench.power_cut()
        assert bench.log.end_offset == 12


def test_retention_does_a_little_at_a_time() -> None:
    bench = Bench(LogSettings(segment_bytes=1_024, retention_records=1))
    bench.append(*[100] * 40)
    bench.settle()
    calls = 1
    while bench.log.retain(2_000, 4_096):
        calls += 1
    assert calls > 5
    assert bench.log.start_offset > 30


def test_what_is_no_batch_is_not_taken() -> None:
    bench = Bench()
    good = batch(2)
    for data, count in ((b"x", 1), (good, 3), (good[:-1], 2), (good + b"x", 2), (bytes(80), 0)):
        with pytest.raises(Corrupt):
            bench.log.append(data, count, 0)
    assert bench.log.end_offset == 0


def latest(log: Log) -> dict[bytes, bytes]:
    out: dict[bytes, bytes] = {}
    for each in read_all(log):
        for _, _, _, key, value, _ in records(each.data):
            assert key is not None
            assert value is not None
            out[key] = value
    return out


def test_compaction_keeps_the_latest_of_each_key() -> None:
    bench = Bench(LogSettings(flush="always", segment_bytes=1_024, compact=True, compact_records=1))
    rng = random.Random(3)
    expected: dict[bytes, bytes] = {}
    for number in range(60):
        pairs = [(b"k%d" % rng.randrange(6), b"v%d.%d" % (number, each)) for each in range(3)]
        expected.update(pairs)
        bench.log.append(keyed(pairs), 3, 1_000)
    bench.settle()
    before = bench.log.size_bytes
    for _ in range(200):
        more = bench.log.retain(2_000, 300)
        bench.settle()
        assert latest(bench.log) == expected
        if not more:
            break
    bench.settle()
    bench.settle()
    assert bench.log.size_bytes < before / 3
    assert bench.log.end_offset == 180
    assert [name for name in bench.disk.listdir("/d/7") if name.endswith(".draft")] == []
    bench.power_cut()
    assert latest(bench.log) == expected
    assert (bench.log.end_offset, bench.engine.recovery.quarantined) == (180, [])
