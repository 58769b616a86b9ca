"""What one call of retention costs: a bound on the work, whatever there is to drop."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from robustmq._kernel.batch import records
from robustmq.message.batch import OWN_PRODUCERS
from robustmq.storage.compaction import BATCH_COST, Compaction
from robustmq.storage.log import StoredBatch
from robustmq.storage.log_settings import LogSettings
from robustmq.storage.rocksdb_engine import RocksdbEngine
from robustmq.storage.rocksdb_log import ENTRY_COST
from robustmq.storage.rocksdb_rows import ShardRows
from tests.unit.storage.batches import batch, keyed

BATCHES = 400


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RocksdbEngine]:
    engine = RocksdbEngine(str(tmp_path / "rocks"))
    yield engine
    engine.close()


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the entries of the index that are looked at: the last item, to be reset."""
    count = [0]
    entries = ShardRows.entries

    def counted(rows: ShardRows) -> Iterator[tuple[int, int, int]]:
        for entry in entries(rows):
            count[-1] += 1
            yield entry

    monkeypatch.setattr(ShardRows, "entries", counted)
    return count


@pytest.mark.parametrize(
    "bound", [{"retention_ms": 1_000}, {"retention_bytes": 1}, {"retention_records": 1}]
)
def test_a_call_looks_at_so_many_entries_of_the_index(
    engine: RocksdbEngine, walked: list[int], bound: dict[str, int]
) -> None:
    log = engine.open(1, LogSettings(index_interval_bytes=64, **bound))  # type: ignore[arg-type]
    for _ in range(BATCHES):
        log.append(batch(1, b"x" * 100), 1, 1_000)
    engine.commit()
    most = 8
    calls = 0
    while True:
        walked[-1] = 0
        more = log.retain(1_000_000, most * ENTRY_COST)
        # Both passes, over the start's own entry and the one that ends them.
        assert walked[-1] <= 2 * (most + 2)
        engine.commit()
        calls += 1
        if not more:
            break
    assert calls >= BATCHES // most
    assert log.end_offset - log.start_offset <= 2
    assert log.size_bytes <= 2 * len(batch(1, b"x" * 100))


def test_half_the_time_it_drops_nothing_it_should_keep(engine: RocksdbEngine) -> None:
    log = engine.open(1, LogSettings(index_interval_bytes=64, retention_records=150))
    for _ in range(BATCHES):
        log.append(batch(1, b"x" * 100), 1, 1_000)
    engine.commit()
    while log.retain(1_000_000, 3 * ENTRY_COST):
        engine.commit()
        assert log.start_offset <= BATCHES - 150
    assert log.start_offset == BATCHES - 150


class Kept:
    """A log of which compaction removes."""

    def __init__(self, batches: list[StoredBatch]) -> None:
        self.batches = batches
        self.read_batches = 0
        self.swept_to = 0
        self.kept: list[bytes | None] = []

    def settled(self) -> tuple[int, int]:
        return 0, self.batches[-1].next_offset

    def read(self, offset: int, max_bytes: int) -> list[StoredBatch]:
        found: list[StoredBatch] = []
        for each in self.batches:
            if each.next_offset > offset:
                if found and max_bytes < len(each.data):
                    break
                found.append(each)
                max_bytes -= len(each.data)
        self.read_batches += len(found)
        return found

    def sweep(self, batch: StoredBatch, kept: bytes | None) -> None:
        self.kept.append(kept)

    def swept(self, target: int) -> None:
        self.swept_to = target

    def unswept(self) -> None:
        raise AssertionError("nothing was cut")


@pytest.mark.parametrize("most", [1, 10, 1_000])
def test_a_step_of_compaction_looks_at_so_many_batches(most: int) -> None:
    small = [keyed([(b"k%d" % (number % 7), b"v")]) for number in range(2_000)]
    log = Kept([StoredBatch(number, 1, data) for number, data in enumerate(small)])
    compaction = Compaction(log, LogSettings(compact=True, compact_records=1))
    page = 16_384 // len(small[0]) + 1
    more = True
    while more:
        log.read_batches = 0
        more = compaction.step(2_000, most * BATCH_COST)
        assert log.read_batches <= most + page
    assert log.swept_to == 2_000
    assert sum(kept is not None for kept in log.kept) == 7


@pytest.mark.parametrize(
    ("empty_deletes", "producer", "left"),
    [
        (True, OWN_PRODUCERS, [b"b"]),
        (False, OWN_PRODUCERS, [b"a", b"b"]),
        (True, 7, [b"a", b"b"]),
    ],
)
def test_an_empty_value_deletes_where_there_is_no_other_way(
    empty_deletes: bool, producer: int, left: list[bytes]
) -> None:
    data = [keyed([pair], producer=producer) for pair in ((b"a", b"1"), (b"b", b"2"), (b"a", b""))]
    log = Kept([StoredBatch(number, 1, each) for number, each in enumerate(data)])
    settings = LogSettings(
        compact=True, compact_records=1, tombstone_ms=10_000, empty_deletes=empty_deletes
    )
    assert not Compaction(log, settings).step(5_000, 1 << 20)
    assert [kept is None for kept in log.kept] == [True, False, False], "it is seen for a while"
    log.kept.clear()
    assert not Compaction(log, settings).step(1_000_000, 1 << 20)
    found = [records(kept)[0][3] for kept in log.kept if kept is not None]
    assert sorted(map(bytes, filter(None, found))) == left
