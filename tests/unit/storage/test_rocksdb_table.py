"""Rows beside logs in one database; `tests/property/test_tables.py` has their laws."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustmq.errors import Corrupt, Refusal
from robustmq.storage.engine import EngineSettings
from robustmq.storage.log import Log, Unwritable
from robustmq.storage.log_settings import Flush, LogSettings
from robustmq.storage.rocksdb_engine import STALL_SECONDS, RocksdbEngine
from robustmq.storage.rocksdb_rows import KEY
from robustmq.storage.rocksdb_store import DATA, Erase, Operation, Row, Stalled
from robustmq.storage.rocksdb_table import RocksdbTable
from tests.unit.storage.batches import batch
from tests.unit.storage.bench import offsets
from tests.unit.storage.disk import HandWriter

LAST = b"\xff"


class Rock:
    """An engine with a log and a table, opened again and again."""

    def __init__(self, directory: Path, flush: Flush = "interval") -> None:
        self.directory = directory
        self.flush: Flush = flush
        self.open()

    def open(self) -> None:
        self.writer = HandWriter()
        settings = EngineSettings(
            memory_bytes=1 << 20,
            wal_bytes=1 << 20,
            pending_bytes=5_000,
            flush=self.flush,
            interval_ms=200,
        )
        self.engine = RocksdbEngine(str(self.directory), settings, writer=self.writer)
        self.log: Log = self.engine.open(7, LogSettings(flush="os"))
        self.table: RocksdbTable = self.engine.table()

    def crash(self) -> None:
        """As after a kill: nothing says that it was closed."""
        self.engine.store.close()
        self.open()

    def append(self) -> None:
        self.log.append(batch(1), 1, 1_000)

    def pause(self) -> None:
        """The pause that a stall has asked for."""
        assert self.writer.run() == STALL_SECONDS
        self.writer.run()

    def rows(self) -> list[bytes]:
        return [key for key, _ in self.table.walk(b"", LAST)]

    def numbers(self) -> tuple[int, int, int]:
        return self.table.next_commit, self.table.written, self.table.durable

    def refused(self) -> Refusal | None:
        refusal = self.table.refusal
        return None if refusal is None else refusal.code


@pytest.fixture
def rock(tmp_path: Path) -> Iterator[Rock]:
    rock = Rock(tmp_path / "rocks")
    yield rock
    rock.engine.close()


def fail(number: int) -> object:
    def write(*_: object) -> None:
        raise OSError(number, "it fails")

    return write


def stall(*_: object) -> None:
    raise Stalled


def test_rows_survive_with_the_appends_of_their_turn(
    rock: Rock, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    write = rock.engine.store.write

    def counted(operations: list[Operation | Erase], wait: bool, rows: list[Row | Erase]) -> None:
        writes.append(len(rows))
        write(operations, wait, rows)

    rock.table.put(b"a", b"1")
    rock.append()
    with monkeypatch.context() as patch:
        patch.setattr(rock.engine.store, "write", counted)
        assert rock.engine.commit()
    assert writes == [1]
    assert rock.engine.completed() == [rock.log]
    assert rock.numbers() == (2, 1, 1)
    rock.table.put(b"b", b"2")
    rock.append()
    rock.crash()
    assert (rock.rows(), rock.log.end_offset) == ([b"a"], 1)
    assert rock.numbers() == (1, 0, 0)
    rock.table.put(b"b", b"2")
    rock.engine.close()
    rock.open()
    assert rock.rows() == [b"a", b"b"]


def test_a_demanded_sync_is_waited_for_by_what_follows(rock: Rock) -> None:
    rock.table.put(b"a", b"1")
    rock.table.demand_sync()
    assert rock.engine.commit()
    rock.engine.completed()
    assert rock.numbers() == (2, 1, 0)
    assert not rock.engine.commit()
    rock.table.put(b"b", b"1")
    assert rock.engine.commit()
    rock.engine.completed()
    assert rock.numbers() == (3, 2, 0)
    rock.writer.run()
    assert rock.writer.rings
    assert rock.engine.commit()
    rock.engine.completed()
    assert rock.numbers() == (3, 2, 2)


@pytest.mark.parametrize(("flush", "syncs"), [("always", 6), ("interval", 2), ("os", 0)])
def test_flush_says_when_rows_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush: Flush, syncs: int
) -> None:
    rock = Rock(tmp_path / "rocks", flush)
    done: list[float] = []
    monkeypatch.setattr(rock.engine.store, "sync", lambda: done.append(rock.writer.time))
    for number in range(6):
        rock.table.put(b"%d" % number, b"")
        rock.engine.commit()
        assert rock.table.durable == (number if flush == "always" else number + 1)
        rock.writer.run()
        rock.engine.completed()
        assert rock.table.durable == number + 1
        rock.writer.time += 0.1
    assert len(done) == syncs
    monkeypatch.undo()
    rock.engine.close()


def test_an_earlier_sync_is_not_put_off_by_a_later_one(
    rock: Rock, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[float] = []
    monkeypatch.setattr(rock.engine.store, "sync", lambda: done.append(rock.writer.time))
    late = rock.engine.open(8, LogSettings(flush="interval", interval_ms=1_000))
    late.append(batch(1), 1, 1_000)
    rock.engine.commit()
    assert rock.writer.run() == 1.0
    rock.table.put(b"a", b"")
    rock.engine.commit()
    assert rock.writer.asked
    assert rock.writer.run() == 0.2
    rock.writer.time = 0.2
    rock.writer.run()
    assert done == [0.2]


def test_rows_wait_for_a_stall_and_are_refused_when_too_much_waits(
    rock: Rock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(rock.engine.store, "write", stall)
        for number in range(3):
            rock.table.put(b"%d" % number, b"x" * 1_000)
            assert not rock.engine.commit()
            assert rock.refused() is None
        rock.table.put(b"3", b"x" * 3_000)
        assert not rock.engine.commit()
        assert rock.refused() is Refusal.BUSY
        with pytest.raises(Unwritable, match="too much"):
            rock.append()
        assert rock.numbers() == (5, 0, 0)
        assert rock.rows() == []
    assert not rock.engine.commit()
    rock.pause()
    assert rock.writer.rings
    rock.engine.completed()
    assert rock.numbers() == (5, 4, 4)
    assert rock.refused() is None
    assert rock.rows() == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize(("number", "code"), [(28, "QUOTA_EXCEEDED"), (5, "UNAVAILABLE")])
def test_what_was_put_before_the_disk_failed_is_written_when_it_heals(
    rock: Rock, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    rock.table.put(b"a", b"1")
    rock.engine.commit()
    with monkeypatch.context() as patch:
        patch.setattr(rock.engine.store, "write", fail(number))
        rock.table.put(b"b", b"1")
        rock.table.demand_sync()
        rock.engine.commit()
        assert rock.refused() is Refusal[code]
        rock.table.delete(b"a")
        rock.engine.commit()
    assert rock.rows() == [b"a"]
    assert rock.numbers() == (4, 1, 1)
    rock.writer.run()
    assert rock.writer.rings
    rock.engine.completed()
    assert rock.refused() is None
    assert rock.rows() == [b"b"]
    assert rock.numbers() == (4, 3, 1)
    rock.writer.run()
    rock.engine.completed()
    assert rock.table.durable == 3


def test_a_turn_that_has_begun_is_written_as_a_whole(
    rock: Rock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(rock.engine.store, "write", stall)
        rock.table.put(b"a", b"1")
        rock.engine.commit()
    rock.append()
    rock.pause()
    rock.engine.completed()
    assert rock.numbers() == (2, 0, 0)
    rock.table.put(b"b", b"1")
    rock.engine.commit()
    assert rock.numbers() == (3, 2, 2)
    assert rock.log.durable_offset == 1
    with monkeypatch.context() as patch:
        patch.setattr(rock.engine.store, "write", stall)
        rock.table.put(b"c", b"1")
        rock.engine.commit()
    rock.engine.commit()
    rock.table.put(b"d", b"1")
    rock.pause()
    rock.engine.completed()
    assert rock.rows() == [b"a", b"b"]
    rock.engine.commit()
    assert rock.rows() == [b"a", b"b", b"c", b"d"]


def test_damage_and_removal_do_not_split_a_turn(rock: Rock) -> None:
    rock.append()
    rock.engine.open(9, LogSettings()).append(batch(1), 1, 1_000)
    rock.engine.commit()
    rock.engine.completed()
    rock.engine.store.write([(DATA, KEY.pack(7, 0), b"damaged")])
    rock.append()
    rock.table.put(b"a", b"1")
    with pytest.raises(Corrupt):
        rock.log.read(0, 1_000)
    rock.engine.remove(9)
    assert rock.engine.shards() == [7]
    assert (rock.rows(), rock.numbers()) == ([], (1, 0, 0))
    assert offsets(rock.log) == [1]
    rock.crash()
    assert (rock.rows(), rock.log.end_offset) == ([], 1)


def test_a_truncation_writes_what_the_turn_has_so_far(rock: Rock) -> None:
    rock.append()
    rock.table.put(b"a", b"1")
    rock.table.demand_sync()
    rock.log.truncate(0)
    assert rock.numbers() == (2, 1, 0)
    rock.table.put(b"b", b"1")
    rock.engine.commit()
    assert rock.numbers() == (3, 2, 0)
    rock.writer.run()
    rock.engine.completed()
    assert rock.numbers() == (3, 2, 2)


def test_damaged_rows_are_said_not_left_out(tmp_path: Path) -> None:
    rock = Rock(tmp_path / "rocks")
    rng = random.Random(1)
    for number in range(400):
        rock.table.put(b"%05d" % number, rng.randbytes(500))
    rock.engine.commit()
    rock.engine.close()
    table = max((tmp_path / "rocks" / "db").glob("*.sst"), key=lambda each: each.stat().st_size)
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(data)
    rock.open()
    walk = rock.table.walk(b"", LAST)
    found: list[bytes] = []
    with pytest.raises(Corrupt, match="cannot be read"):
        found.extend(key for key, _ in walk)
    del walk
    assert 0 < len(found) < 400
    with pytest.raises(Corrupt, match="cannot be read"):
        rock.table.get(b"%05d" % len(found))
    with pytest.raises(Corrupt, match="cannot be read"):
        next(rock.table.walk(b"%05d" % len(found), LAST))
    behind = list(rock.table.walk(b"%05d" % (len(found) + 20), LAST))
    assert behind[-1][0] == b"00399"
    rock.engine.close()
