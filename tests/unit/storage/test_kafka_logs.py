"""What logs do for readers by offset: compaction of any batch, cold reads, trims and settings."""

import pytest

from robustmq._kernel.batch import records
from robustmq.message.compression import Codec, codec_of, compressed, decompressed
from robustmq.storage.compaction import Compaction
from robustmq.storage.log import Log, StoredBatch, located, since
from robustmq.storage.log_settings import LogSettings
from robustmq.storage.memory_log import MemoryLog
from robustmq.storage.segment_engine import SegmentEngine
from robustmq.storage.segment_log import SegmentLog
from tests.produced import TRANSACTIONAL, produced, restated
from tests.unit.storage.batches import batch, keyed
from tests.unit.storage.bench import SIZE, Bench, offsets, read_all
from tests.unit.storage.disk import HandWriter

SETTINGS = LogSettings(compact=True, compact_records=1, tombstone_ms=1_000)
CONTROL = 0b110000


class Kept:
    """A `Compactable` in a list."""

    def __init__(self, *batches: bytes) -> None:
        self.batches: list[StoredBatch] = []
        for data in batches:
            base = self.batches[-1].next_offset if self.batches else 0
            self.batches.append(StoredBatch(base, int.from_bytes(data[57:61], "big"), data))
        self.kept: dict[int, bytes | None] = {}

    def settled(self) -> tuple[int, int]:
        return 0, self.batches[-1].next_offset

    def read(self, offset: int, max_bytes: int) -> list[StoredBatch]:
        del max_bytes
        return [each for each in self.batches if each.next_offset > offset]

    def sweep(self, batch: StoredBatch, kept: bytes | None) -> None:
        self.kept[batch.base_offset] = kept

    def swept(self, target: int) -> None:
        assert target <= self.settled()[1]

    def unswept(self) -> None:
        self.kept.clear()

    def values(self) -> list[list[bytes | None]]:
        """The values of each batch that is kept."""
        return [
            [value for *_, value, _ in records(decompressed(kept, 1 << 20))]
            for kept in self.kept.values()
            if kept is not None
        ]


class Stability:
    """What of a log is stable, and of whom something is void."""

    def __init__(self, stable_offset: int, void: int = 0) -> None:
        self._stable_offset = stable_offset
        self._void = void

    @property
    def stable_offset(self) -> int:
        return self._stable_offset

    def is_void(self, producer_id: int, offset: int) -> bool:
        del offset
        return producer_id == self._void


@pytest.mark.parametrize("codec", list(Codec))
def test_compressed_batches_are_compacted_and_stay_compressed(codec: Codec) -> None:
    first = compressed(keyed([(b"a", b"1" * 500), (b"b", b"2" * 500)]), codec)
    log = Kept(first, compressed(keyed([(b"a", b"3")]), codec))
    assert not Compaction(log, SETTINGS).step(1_000, 1 << 20)
    assert log.values() == [[b"2" * 500], [b"3"]]
    kept = log.kept[0]
    assert kept is not None
    assert codec_of(kept) is codec
    assert [offset for _, _, offset, *_ in records(decompressed(kept, 1 << 20))] == [1]


def test_what_cannot_be_decompressed_and_markers_stay() -> None:
    broken = produced(b"x", attributes=Codec.ZSTD)
    marker = produced(b"m", attributes=CONTROL, producer=9, epoch=0)
    log = Kept(broken, marker, keyed([(b"k", b"1")]), keyed([(b"k", b"2")]))
    assert not Compaction(log, SETTINGS).step(1_000, 1 << 20)
    assert [log.kept[offset] for offset in (0, 1)] == [broken, marker]
    assert log.kept[2] is None


def test_what_was_aborted_goes_and_replaces_nothing() -> None:
    aborted = produced(b"void", producer=7, epoch=0, first=0, attributes=TRANSACTIONAL)
    other = produced(b"2", producer=8, epoch=0, first=0, attributes=TRANSACTIONAL)
    log = Kept(produced(b"1"), other, aborted, produced(b"open", key=b"z"))
    assert not Compaction(log, SETTINGS).step(1_000, 1 << 20, Stability(3, void=7))
    assert log.kept == {0: None, 1: other, 2: None}, "and nothing from the first open one on"


def test_what_is_young_is_left_alone() -> None:
    log = Kept(*(keyed([(b"k", b"%d" % number)], 1_000 * number) for number in range(5)))
    settings = LogSettings(compact=True, compact_records=1, compact_lag_ms=1_500)
    compaction = Compaction(log, settings)
    assert not compaction.step(4_000, 1 << 20)
    assert [kept is None for kept in log.kept.values()] == [True, True, False]
    log.kept.clear()
    assert not compaction.step(4_100, 1 << 20)
    assert log.kept == {}, "nothing is new"


def test_a_deletion_that_was_stamped_is_as_old_as_its_append() -> None:
    stamped = restated(
        produced(None, times=(1,), attributes=0b1000), 35, (5_000).to_bytes(8, "big")
    )
    for now_ms, stays in ((6_000, True), (6_001, False)):
        log = Kept(produced(b"1"), stamped)
        assert not Compaction(log, SETTINGS).step(now_ms, 1 << 20)
        assert [kept is not None for kept in log.kept.values()] == [False, stays]


def test_a_reader_hears_when_what_is_cold_is_in_memory() -> None:
    bench = Bench()
    fetcher = HandWriter()
    bench.engine = SegmentEngine("/d", files=bench.disk, writer=bench.writer, fetcher=fetcher)
    bench.log = bench.engine.open(7, bench.settings)
    bench.append(*[100] * 10)
    bench.settle()
    bench.disk.is_cold = True
    assert [bench.log.warm(0, 500) for _ in range(2)] == [False, False]
    states = [bench.log.is_fetching]
    rings = bench.writer.rings
    fetcher.run()
    assert bench.writer.rings == rings + 1, "the engine's bell"
    states.append(bench.log.is_fetching)
    bench.engine.completed()
    assert [*states, bench.log.is_fetching] == [True, True, False]
    assert bench.log.warm(0, 500), "it is read, wherever it is by now"
    assert not bench.log.warm(0, 500)
    bench.log.trim(10)
    bench.settle()
    fetcher.run()
    bench.engine.completed()
    states.append(bench.log.is_fetching)
    assert states[2:] == [False], "the file is gone"
    bench.engine.close()


def test_a_trim_within_a_file_survives_a_kill() -> None:
    bench = Bench()
    bench.append(*[100] * 5)
    bench.settle()
    bench.log.trim(3)
    bench.settle()
    bench.disk.kill()
    bench.open()
    assert (bench.log.start_offset, offsets(bench.log)) == (3, [3, 4])
    bench.log.reset(0)
    bench.append(100)
    bench.settle()
    bench.disk.kill()
    bench.open()
    assert (bench.log.start_offset, offsets(bench.log)) == (0, [0])


def test_a_log_that_was_compacted_once_has_gaps_that_are_no_damage() -> None:
    settings = LogSettings(flush="always", segment_bytes=1_024, preallocate_bytes=0)
    bench = Bench(settings)
    bench.append(*[100] * 2 * (1_024 // SIZE))
    bench.settle()
    assert isinstance(bench.log, SegmentLog)
    compacts = LogSettings(
        flush="always", segment_bytes=1_024, preallocate_bytes=0, compact=True, compact_records=1
    )
    bench.log.configure(compacts)
    for _ in range(9):
        bench.log.retain(1_000, 1 << 20)
        bench.settle()
    left = offsets(bench.log)
    assert 0 < len(left) < 2 * (1_024 // SIZE)
    bench.log.configure(settings)
    assert offsets(bench.log) == left
    for reopen in (bench.reopen, bench.power_cut):
        reopen()
        assert bench.engine.recovery.quarantined == []
        assert offsets(bench.log) == left


def test_retention_takes_nothing_that_is_not_durable() -> None:
    bench = Bench(LogSettings(flush="always", segment_bytes=1_024, retention_records=1))
    bench.append(*[100] * 40)
    assert not bench.log.retain(1 << 40, 1 << 20)
    assert bench.log.start_offset == 0
    bench.settle()
    bench.log.retain(1 << 40, 1 << 20)
    assert bench.log.start_offset > 0


def test_a_log_that_was_not_opened_is_discarded_with_its_files() -> None:
    bench = Bench()
    bench.append(*[100] * 5)
    bench.settle()
    bench.engine.close()
    bench.writer = HandWriter()
    engine = SegmentEngine("/d", files=bench.disk, writer=bench.writer)
    assert engine.shards() == [7]
    engine.discard(7)
    engine.commit()
    bench.writer.run()
    assert engine.shards() == []
    engine.close()


def test_a_log_in_memory_is_searched_by_the_times_of_its_records() -> None:
    log: Log = MemoryLog()
    assert log.newest_ms == -1
    for time_ms in (5_000, 3_000, 7_000):
        log.append(batch(2, time_ms=time_ms), 2, 1)
    assert [log.offset_at(each) for each in (1, 5_001, 7_001)] == [0, 4, 6]
    assert [log.offset_at(3_000, start) for start in (1, 2, 4)] == [0, 2, 4]
    assert log.newest_ms == 7_000
    log.configure(LogSettings(retention_records=2))
    log.retain(1, 1 << 20)
    assert (log.start_offset, log.is_fetching) == (4, False)


def test_a_batch_is_located_once() -> None:
    stored = StoredBatch(7, 1, produced(b"a"))
    there = located(stored, 3)
    assert (there[:8], there[12:16], there[16:]) == (
        (7).to_bytes(8, "big"),
        (3).to_bytes(4, "big"),
        stored.data[16:],
    )
    again = stored._replace(data=there)
    assert located(again, 3) is there
    assert since(StoredBatch(0, 2, compressed(batch(2), Codec.LZ4)), 1).records == 2
    assert len(read_all(MemoryLog())) == 0
