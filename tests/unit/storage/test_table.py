"""The numbers of a table's commits, and what both tables do by example."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from robustmq.errors import Refusal, Refused
from robustmq.storage.engine import EngineSettings
from robustmq.storage.memory_table import MemoryTable
from robustmq.storage.rocksdb_engine import RocksdbEngine
from robustmq.storage.table import Commits, Table
from tests.unit.storage.disk import HandWriter

BUSY = Refused(Refusal.BUSY, "later")


class Turns:
    """A table and how to end a turn."""

    def __init__(self, table: Table, commit: Callable[[], bool], work: Callable[[], None]) -> None:
        self.table = table
        self._commit = commit
        self.work = work

    def end(self) -> None:
        self._commit()
        self.work()

    def all(self) -> list[tuple[bytes, bytes]]:
        return list(self.table.walk(b"", b"\xff"))


@pytest.fixture(params=["memory", "rocksdb"])
def turns(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Turns]:
    if request.param == "memory":
        table = MemoryTable()
        yield Turns(table, table.commit, lambda: table.completed().clear())
        return
    writer = HandWriter()
    engine = RocksdbEngine(
        str(tmp_path / "rocks"),
        EngineSettings(memory_bytes=1 << 20, wal_bytes=1 << 20),
        writer=writer,
    )

    def work() -> None:
        writer.run()
        engine.completed()

    yield Turns(engine.table(), engine.commit, work)
    engine.close()


def test_rows_are_ordered_and_the_last_word_counts(turns: Turns) -> None:
    table = turns.table
    for key in (b"b", b"a", b"c", b"", b"ab"):
        table.put(key, b"1" + key)
    table.put(b"a", b"2")
    table.delete(b"c")
    table.delete(b"none")
    assert turns.all() == []
    assert table.get(b"a") is None
    turns.end()
    assert turns.all() == [(b"", b"1"), (b"a", b"2"), (b"ab", b"1ab"), (b"b", b"1b")]
    assert table.get(b"a") == b"2"
    assert table.get(b"c") is None
    assert list(table.walk(b"a", b"b")) == [(b"a", b"2"), (b"ab", b"1ab")]
    assert list(table.walk(b"b", b"a")) == []
    assert next(table.walk(b"aa", b"\xff")) == (b"ab", b"1ab")


def test_erasures_are_in_order_with_what_is_put(turns: Turns) -> None:
    table = turns.table
    for key in (b"a", b"b", b"c", b"d"):
        table.put(key, b"old")
    turns.end()
    table.put(b"bb", b"gone")
    table.erase(b"b", b"d")
    table.put(b"c", b"new")
    table.erase(b"z", b"a")
    table.erase(b"a", b"a")
    turns.end()
    assert turns.all() == [(b"a", b"old"), (b"c", b"new"), (b"d", b"old")]


def test_a_walk_has_the_rows_of_when_it_was_asked_for(turns: Turns) -> None:
    turns.table.put(b"a", b"1")
    turns.end()
    walk = turns.table.walk(b"", b"\xff")
    turns.table.put(b"b", b"2")
    assert list(walk) == [(b"a", b"1")]


def test_commits_have_numbers_and_a_turn_without_rows_has_none(turns: Turns) -> None:
    table = turns.table
    assert (table.next_commit, table.written, table.durable, table.refusal) == (1, 0, 0, None)
    turns.end()
    table.demand_sync()
    turns.end()
    assert table.next_commit == 1
    table.put(b"a", b"")
    assert table.next_commit == 1
    turns.end()
    assert (table.next_commit, table.written, table.durable) == (2, 1, 1)
    table.put(b"a", b"")
    table.demand_sync()
    turns.end()
    turns.work()
    assert (table.next_commit, table.written, table.durable) == (3, 2, 2)


def test_what_needs_no_sync_waits_behind_what_does() -> None:
    commits = Commits()

    def turn(demand: bool) -> bool:
        if demand:
            commits.demand_sync()
        commits.seal(True)
        return commits.wrote()

    assert not turn(False)
    assert commits.durable == 1
    assert turn(True)
    assert not turn(False)
    assert turn(True)
    assert (commits.written, commits.durable) == (4, 1)
    commits.moved = False
    commits.synced()
    assert (commits.durable, commits.moved) == (3, True)
    commits.synced()
    assert commits.durable == 4


def test_commits_that_waited_are_written_together() -> None:
    commits = Commits()
    commits.seal(True)
    commits.demand_sync()
    commits.seal(True)
    commits.seal(True)
    assert (commits.next, commits.written, commits.moved) == (4, 0, False)
    assert commits.wrote()
    assert (commits.written, commits.durable) == (3, 1)
    commits.synced()
    assert commits.durable == 3


def test_a_demand_lasts_for_a_turn_not_for_a_part_of_it() -> None:
    commits = Commits()
    commits.demand_sync()
    commits.seal(True, ends_turn=False)
    assert commits.wrote()
    commits.seal(True)
    assert commits.wrote()
    commits.seal(True)
    assert not commits.wrote()
    assert (commits.written, commits.durable) == (3, 0)


def test_the_memory_disk_may_be_slow() -> None:
    table = MemoryTable()
    table.hold = True
    table.put(b"a", b"1")
    assert table.commit()
    assert table.completed() == []
    assert (table.get(b"a"), table.written, table.durable) == (b"1", 1, 0)
    table.put(b"b", b"2")
    table.settle()
    assert table.durable == 1
    table.commit()
    table.completed()
    assert table.durable == 1
    table.hold = False
    table.completed()
    assert table.durable == 2


def test_the_memory_disk_may_refuse_and_keeps_what_was_put() -> None:
    table = MemoryTable()
    table.refuse(BUSY)
    assert table.refusal is BUSY
    for number in range(3):
        table.put(b"%d" % number, b"")
        assert table.next_commit == number + 1
        assert not table.commit()
    assert (table.next_commit, table.written, table.durable) == (4, 0, 0)
    assert list(table.crash().walk(b"", b"\xff")) == []
    table.refuse(None)
    table.put(b"x", b"")
    table.completed()
    # The turn has begun: it is written as a whole, by its commit.
    assert table.written == 0
    table.commit()
    table.completed()
    assert (table.written, table.durable) == (4, 4)
    assert [key for key, _ in table.walk(b"", b"\xff")] == [b"0", b"1", b"2", b"x"]


def test_the_memory_disk_loses_what_it_may() -> None:
    table = MemoryTable({b"a": b"0", b"b": b"0", b"c": b"0"})
    table.put(b"a", b"1")
    table.demand_sync()
    table.commit()
    table.put(b"a", b"2")
    table.delete(b"b")
    table.put(b"d", b"2")
    table.commit()
    table.erase(b"c", b"z")
    table.commit()
    table.put(b"e", b"never written")
    assert dict(table.crash().walk(b"", b"z")) == {b"a": b"2"}
    found = table.crash(power=True)
    assert dict(found.walk(b"", b"z")) == {b"a": b"1", b"b": b"0", b"c": b"0"}
    assert (found.next_commit, found.written, found.durable) == (1, 0, 0)
    table.settle()
    assert dict(table.crash(power=True).walk(b"", b"z")) == {b"a": b"2"}


def test_a_walk_in_memory_that_was_kept_too_long_says_so() -> None:
    table = MemoryTable({b"a": b"0", b"b": b"0"})
    walk = table.walk(b"", b"z")
    next(walk)
    table.put(b"c", b"0")
    table.commit()
    with pytest.raises(RuntimeError, match="kept"):
        next(walk)


def test_memory_with_flush_always_syncs_each_commit() -> None:
    table = MemoryTable(flush="always")
    table.put(b"a", b"1")
    table.commit()
    table.completed()
    assert table.durable == 1
    assert table.crash(power=True).get(b"a") == b"1"
