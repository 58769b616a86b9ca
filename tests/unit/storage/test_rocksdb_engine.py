"""The RocksDB engine by example; `tests/property/test_logs.py` has its laws."""

import errno
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustmq._kernel.batch import records
from robustmq.errors import ConfigError, Corrupt, Refusal
from robustmq.storage.engine import EngineSettings
from robustmq.storage.log import Log, Unwritable
from robustmq.storage.log_settings import LogSettings
from robustmq.storage.rocksdb_engine import STALL_SECONDS, RocksdbEngine
from robustmq.storage.rocksdb_rows import KEY
from robustmq.storage.rocksdb_store import DATA, INDEX, RocksdbStore, Stalled
from tests.unit.storage.batches import batch, keyed
from tests.unit.storage.bench import offsets, read_all
from tests.unit.storage.disk import HandWriter

SMALL = EngineSettings(memory_bytes=1 << 20, wal_bytes=1 << 20)


class Rock:
    """An engine in a directory, opened again and again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.open()

    def open(self) -> None:
        self.writer = HandWriter()
        self.engine = RocksdbEngine(str(self.directory), SMALL, writer=self.writer)

    def log(self, shard: int = 7, **settings: object) -> Log:
        return self.engine.open(shard, LogSettings(**settings))  # type: ignore[arg-type]

    def settle(self) -> list[Log]:
        """One turn; after a stall of the database, another."""
        self.engine.commit()
        pauses = 0
        while self.writer.run() == STALL_SECONDS and pauses < 2_000:
            time.sleep(STALL_SECONDS)
            pauses += 1
            self.writer.run()
            moved = self.engine.completed()
            if moved:
                return moved
        return self.engine.completed()

    def reopen(self) -> None:
        self.engine.close()
        self.open()

    def crash(self) -> None:
        """As after a kill: nothing says that it was closed."""
        self.engine.store.close()
        self.open()

    def rung(self) -> bool:
        return self.writer.rings > 0

    def failure(self) -> str | None:
        return self.engine.failure

    def count(self, family: str) -> int:
        walk = self.engine.store.walk(family)
        walk.seek_to_first()
        found = 0
        while walk.valid():
            found += 1
            walk.next()
        return found


@pytest.fixture
def rock(tmp_path: Path) -> Iterator[Rock]:
    rock = Rock(tmp_path / "rocks")
    yield rock
    rock.engine.close()


def fill(log: Log, count: int, size: int = 100) -> None:
    for number in range(count):
        log.append(batch(1, b"x" * size, 1_000 + number), 1, 1_000 + number)


def test_flush_decides_what_durable_means(rock: Rock) -> None:
    lazy, strict = rock.log(1, flush="interval"), rock.log(2, flush="always")
    fill(lazy, 2)
    fill(strict, 2)
    assert (lazy.durable_offset, strict.durable_offset) == (0, 0)
    assert rock.engine.commit()
    assert rock.engine.completed() == [lazy]
    assert (lazy.durable_offset, strict.durable_offset) == (2, 0)
    assert rock.writer.run() is None
    assert rock.writer.rings
    assert rock.engine.completed() == [strict]
    assert strict.durable_offset == 2


def test_interval_syncs_once_per_interval(rock: Rock, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[float] = []
    monkeypatch.setattr(rock.engine.store, "sync", lambda: syncs.append(rock.writer.time))
    log = rock.log(flush="interval", interval_ms=200)
    for _ in range(6):
        fill(log, 1)
        rock.settle()
        rock.writer.time += 0.1
    assert len(syncs) == 2
    lazy = rock.log(8, flush="os")
    rock.writer.time += 1
    rock.writer.run()
    done = len(syncs)
    fill(lazy, 1)
    rock.settle()
    rock.writer.time += 1
    rock.writer.run()
    assert len(syncs) == done


def test_shards_do_not_see_each_other(rock: Rock) -> None:
    logs = [rock.log(shard) for shard in (0, 1, 256, (1 << 32) - 2)]
    for number, log in enumerate(logs):
        fill(log, number + 1)
    rock.settle()
    assert [offsets(log) for log in logs] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    logs[1].truncate(0)
    logs[2].trim(3)
    logs[2].retain(0, 1 << 20)
    rock.engine.remove(0)
    rock.settle()
    assert rock.engine.shards() == [1, 256, (1 << 32) - 2]
    rock.reopen()
    again = [rock.log(shard) for shard in (0, 1, 256, (1 << 32) - 2)]
    assert [offsets(log) for log in again] == [[], [], [], [0, 1, 2, 3]]
    assert [log.end_offset for log in again] == [0, 0, 3, 4]


def test_what_is_trimmed_is_erased_in_wide_strokes(rock: Rock) -> None:
    log = rock.log(index_interval_bytes=1_024)
    for number in range(600):
        fill(log, 1, 20_000)
        log.trim(number)
        rock.settle()
    assert rock.count(DATA) < 300
    assert log.size_bytes < 6_000_000
    assert offsets(log) == [599]
    log.trim(600)
    assert not log.retain(0, 1 << 20)
    rock.settle()
    assert (rock.count(DATA), log.size_bytes) == (0, 0)
    assert rock.count(INDEX) <= 2
    fill(log, 1)
    rock.settle()
    rock.reopen()
    assert offsets(rock.log()) == [600]


def test_retention_by_time_bytes_and_records(rock: Rock) -> None:
    size = len(batch(1, b"x" * 100))
    for shard, (settings, start) in enumerate(
        (
            ({"retention_records": 30}, 70),
            ({"retention_bytes": 30 * size}, 70),
            ({"retention_ms": 30}, 70),
        )
    ):
        log = rock.log(shard, index_interval_bytes=64, **settings)
        fill(log, 100)
        rock.settle()
        calls = 0
        while log.retain(1_099, 640):
            calls += 1
            rock.settle()
        assert abs(log.start_offset - start) <= 1
        assert log.end_offset == 100
        assert calls
    idle = rock.log(9, retention_ms=30)
    fill(idle, 10)
    rock.settle()
    assert not idle.retain(1_100, 1 << 20)
    assert idle.start_offset == 10


def test_offsets_are_found_by_time_although_clocks_run_back(rock: Rock) -> None:
    log = rock.log(index_interval_bytes=64)
    times = [1_000, 1_010, 1_005, 1_020, 1_001, 1_030]
    for time_ms in times:
        log.append(batch(2, time_ms=time_ms), 2, time_ms)
        rock.settle()
    found = {time_ms: log.offset_at(time_ms) for time_ms in (0, 1_000, 1_006, 1_011, 1_025, 1_031)}
    assert found == {0: 0, 1_000: 0, 1_006: 2, 1_011: 6, 1_025: 10, 1_031: 12}


def test_a_damaged_batch_is_said_once_moved_aside_and_skipped(rock: Rock) -> None:
    log = rock.log()
    fill(log, 5)
    rock.settle()
    key = KEY.pack(7, 2)
    data = rock.engine.store.get(DATA, key)
    assert data is not None
    rock.engine.store.write([(DATA, key, data[:-1] + b"?")])
    assert [each.base_offset for each in log.read(0, 1 << 20)] == [0, 1]
    with pytest.raises(Corrupt, match="offset 2"):
        log.read(2, 1 << 20)
    assert [each.base_offset for each in log.read(2, 1 << 20)] == [3, 4]
    assert [(each.start, each.end) for each in rock.engine.recovery.quarantined] == [(2, 3)]
    rock.crash()
    assert offsets(rock.log()) == [0, 1, 3, 4]
    assert rock.engine.recovery.quarantined == []


def test_damage_and_holes_are_found_after_a_crash_and_said_once(rock: Rock) -> None:
    log = rock.log(index_interval_bytes=64)
    fill(log, 9)
    rock.settle()
    store = rock.engine.store
    damaged = store.get(DATA, KEY.pack(7, 3))
    assert damaged is not None
    store.write([(DATA, KEY.pack(7, 3), damaged[:-1]), (DATA, KEY.pack(7, 5), None)])
    rock.crash()
    log = rock.log()
    found = [(each.start, each.end) for each in rock.engine.recovery.quarantined]
    assert found == [(3, 4), (5, 6)]
    assert rock.engine.recovery.batches == 7
    assert offsets(log) == [0, 1, 2, 4, 6, 7, 8]
    rock.settle()
    rock.crash()
    rock.log()
    assert rock.engine.recovery.quarantined == []
    rock.reopen()
    rock.log()
    assert rock.engine.recovery.batches == 0


def test_a_damaged_table_costs_a_part_and_is_said(tmp_path: Path) -> None:
    rock = Rock(tmp_path / "rocks")
    log = rock.log(index_interval_bytes=1_024)
    rng = random.Random(1)
    for _ in range(200):
        log.append(batch(1, rng.randbytes(2_000)), 1, 1_000)
    rock.settle()
    rock.engine.close()
    table = max((tmp_path / "rocks" / "db").glob("*.sst"), key=lambda each: each.stat().st_size)
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(data)
    rock.open()
    log = rock.log(index_interval_bytes=1_024)
    found: list[int] = []
    offset = errors = 0
    while offset < 200 and errors < 5:
        try:
            more = log.read(offset, 1 << 20)
        except Corrupt:
            errors += 1
            continue
        found += [each.base_offset for each in more]
        offset = more[-1].next_offset
    assert errors == 1
    assert 150 < len(found) < 200
    assert found == sorted(found)
    assert len(rock.engine.recovery.quarantined) == 1
    rock.engine.close()


def test_a_stall_makes_the_write_wait_not_the_loop(
    rock: Rock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = rock.log()
    fill(log, 1)

    def stall(*_: object) -> None:
        raise Stalled

    with monkeypatch.context() as patch:
        patch.setattr(rock.engine.store, "write", stall)
        assert not rock.engine.commit()
        assert log.durable_offset == 0
        assert offsets(log) == [0]
    assert rock.writer.asked
    assert rock.writer.run() == 0.005
    assert not rock.rung()
    rock.writer.run()
    assert rock.rung()
    assert rock.engine.completed() == [log]
    assert log.durable_offset == 1


def test_after_a_failed_write_the_database_is_opened_again(
    rock: Rock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = rock.log(flush="always")
    fill(log, 2)
    rock.settle()
    fill(log, 1)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(rock.engine.store, "write", fail)
        rock.engine.commit()
    assert rock.failure() is not None
    with pytest.raises(Unwritable) as refusal:
        fill(log, 1)
    assert refusal.value.refused.code is Refusal.QUOTA_EXCEEDED
    assert offsets(log) == [0, 1, 2]
    assert log.durable_offset == 2
    monkeypatch.setattr(rock.engine.store, "has_room", lambda _: False)
    assert rock.writer.run() == 0.5
    assert not rock.rung()
    monkeypatch.undo()
    rock.writer.run()
    assert rock.rung()
    rock.engine.completed()
    assert rock.failure() is None
    rock.writer.run()
    assert rock.engine.completed() == [log]
    assert log.durable_offset == 3
    assert offsets(log) == [0, 1, 2]


def test_a_database_that_is_open_again_is_not_opened_once_more(
    rock: Rock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, reopen, opened = rock.engine.store, rock.engine.store.reopen, []

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def slowly() -> None:
        # Its time to look again comes while the database is being opened.
        rock.writer.run()
        reopen()
        opened.append(rock.writer.run())

    fill(rock.log(), 1)
    with monkeypatch.context() as patch:
        patch.setattr(store, "write", fail)
        rock.engine.commit()
    monkeypatch.setattr(store, "reopen", slowly)
    rock.writer.run()
    for _ in range(3):
        rock.engine.completed()
        rock.writer.run()
    assert rock.failure() is None
    assert len(opened) == 1


def test_a_disk_that_takes_no_name_has_no_room(tmp_path: Path) -> None:
    store = RocksdbStore(str(tmp_path / "db"), 1 << 20, 1 << 20)
    assert store.has_room(1)
    (tmp_path / "db" / "probe").mkdir()
    assert not store.has_room(1)
    (tmp_path / "db" / "probe").rmdir()
    # A log that was removed since the directory was read.
    (tmp_path / "db" / "gone.log").symlink_to("nothing")
    assert not store.has_room(1)
    store.close()


def test_a_look_for_room_may_leave_its_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "the directory cannot be written")

    store = RocksdbStore(str(tmp_path / "db"), 1 << 20, 1 << 20)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        assert store.has_room(1)
    assert store.has_room(1)
    store.close()


def test_compaction_keeps_the_latest_of_each_key(rock: Rock) -> None:
    log = rock.log(compact=True, compact_records=1)
    rng = random.Random(3)
    expected: dict[bytes, bytes] = {}
    for number in range(60):
        pairs = [(b"k%d" % rng.randrange(6), b"v%d.%d" % (number, each)) for each in range(3)]
        expected.update(pairs)
        log.append(keyed(pairs), 3, 1_000)
    rock.settle()
    before = log.size_bytes
    while log.retain(2_000, 500):
        rock.settle()
        fill_with = [(b"k0", b"new")]
        if rng.random() < 0.02:
            log.append(keyed(fill_with), 1, 1_000)
            expected.update(fill_with)
    rock.settle()
    rock.crash()
    log = rock.log(compact=True)
    found = [
        (key, value) for each in read_all(log) for _, _, _, key, value, _ in records(each.data)
    ]
    assert dict(found) == expected
    assert len(found) <= len(expected) + 5
    assert log.size_bytes < before / 3
    assert rock.engine.recovery.quarantined == []


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "format").write_text("rocksdb 2\n")
    with pytest.raises(ConfigError, match="newer robustmq"):
        RocksdbEngine(str(tmp_path), SMALL, writer=HandWriter())
