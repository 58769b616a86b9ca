import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from robustmq.errors import Corrupt
from robustmq.meta.database import Databases, RocksdbDatabases
from robustmq.meta.store import APPLIED, GroupStore, Position
from robustmq.raft.message import Membership, Snapshot
from robustmq.storage.files import Files, SystemFiles
from tests.simulation.host_disk import Fuse, FusedDisk, MemoryDatabases

SNAPSHOT = Snapshot(40, 3, Membership((1, 2)))


class Bench:
    """A store that is opened again and again."""

    def __init__(self, files: Files, databases: Databases, folder: str) -> None:
        self.files = files
        self.databases = databases
        self.folder = folder
        self.store = GroupStore(files, databases, folder)

    def reopen(self) -> None:
        self.store.close()
        self.store = GroupStore(self.files, self.databases, self.folder)

    def write(self, index: int, **rows: str) -> None:
        for key, value in rows.items():
            self.store.put(key.encode(), value.encode())
        self.store.accept()
        self.store.write(Position(index, index))

    def rows(self, prefix: bytes = b"") -> dict[bytes, bytes]:
        return {k: v for k, v in self.store.walk(prefix) if k != APPLIED}


@pytest.fixture(params=["memory", "rocksdb"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "memory":
        fuse = Fuse()
        made = Bench(FusedDisk(fuse), MemoryDatabases(fuse), "/d/meta/state/metadata")
    else:
        made = Bench(
            SystemFiles(), RocksdbDatabases(1 << 20, 1 << 20), str(tmp_path / "m/s/metadata")
        )
    yield made
    made.store.close()


def test_rows_are_seen_at_once_and_kept_when_written(bench: Bench) -> None:
    store = bench.store
    store.put(b"a", b"1")
    assert store.get(b"a") == b"1"
    store.accept()
    store.delete(b"a")
    assert store.get(b"a") is None
    store.drop()
    assert store.get(b"a") == b"1"
    store.write(Position(7, 3))
    bench.reopen()
    assert bench.store.get(b"a") == b"1"
    assert bench.store.position == Position(7, 3)


def test_what_was_not_written_is_not_there_and_not_counted(bench: Bench) -> None:
    bench.write(1, a="1")
    bench.store.put(b"b", b"2")
    bench.store.accept()
    bench.reopen()
    assert bench.rows() == {b"a": b"1"}
    assert bench.store.position == Position(1, 1)


def test_a_walk_is_that_of_a_dict_whatever_is_written_or_not(bench: Bench) -> None:
    rng = random.Random(3)
    expected: dict[bytes, bytes] = {}
    for step in range(400):
        key = bytes(rng.choices(b"ab\xff", k=rng.randint(1, 4)))
        if rng.random() < 0.3:
            bench.store.delete(key)
            expected.pop(key, None)
        else:
            value = str(step).encode()
            bench.store.put(key, value)
            expected[key] = value
        if rng.random() < 0.5:
            bench.store.accept()
        if rng.random() < 0.1:
            bench.store.accept()
            bench.store.write(Position(step, step))
        prefix = bytes(rng.choices(b"ab\xff", k=rng.randint(0, 2)))
        start = bytes(rng.choices(b"ab\xff", k=rng.randint(0, 3)))
        found = [row for row in bench.store.walk(prefix, start) if row[0] != APPLIED]
        assert found == sorted(
            (k, v) for k, v in expected.items() if k.startswith(prefix) and k >= start
        )
        assert all(bench.store.get(each) == expected.get(each) for each in (key, prefix))


def test_a_view_does_not_change(bench: Bench) -> None:
    bench.write(1, a="1", b="2")
    view = bench.store.view()
    bench.write(2, a="9", c="3")
    assert dict(view.items(b"a", 10)) == {b"a": b"1", b"b": b"2"}
    assert view.items(b"b", 10) == [(b"b", b"2")]
    assert view.items(b"a", 1) == [(b"a", b"1")]
    for number in range(3, 60):
        bench.write(number, **{f"a{number}-{each}": "x" * 2_000 for each in range(50)})
    assert len(view.items(b"", 10)) == 3
    view.close()


def stage(bench: Bench) -> None:
    staged = bench.store.stage(SNAPSHOT)
    other = GroupStore(FusedDisk(Fuse()), MemoryDatabases(Fuse()), "/x/y/z")
    other.put(b"new", b"1")
    other.accept()
    other.write(Position(40, 9))
    view = other.view()
    staged.database.write(view.items(b"", 10))
    view.close()
    assert bench.store.is_whole(staged)


def test_a_generation_counts_from_the_moment_that_it_is_named(bench: Bench) -> None:
    bench.write(1, a="1")
    stage(bench)
    bench.reopen()
    assert bench.rows() == {b"a": b"1"}
    stage(bench)
    staged = bench.store.staged
    assert staged is not None
    bench.store.make_current(staged)
    assert bench.rows() == {b"a": b"1"}
    bench.store.switch(staged)
    assert bench.rows() == {b"new": b"1"}
    assert bench.store.position == Position(40, 9)
    bench.reopen()
    assert bench.rows() == {b"new": b"1"}
    assert bench.store.installed == SNAPSHOT


def test_an_end_behind_the_name_serves_the_new_generation(bench: Bench) -> None:
    bench.write(1, a="1")
    stage(bench)
    staged = bench.store.staged
    assert staged is not None
    bench.store.make_current(staged)
    bench.reopen()
    assert bench.rows() == {b"new": b"1"}
    assert len([n for n in bench.files.listdir(bench.folder) if n.isdecimal()]) <= 1


def test_a_generation_that_is_something_else_is_noticed(bench: Bench) -> None:
    staged = bench.store.stage(SNAPSHOT)
    assert not bench.store.is_whole(staged)
    staged.database.write([(b"a", b"1")])
    assert not bench.store.is_whole(staged)


def test_defect_h_a_damaged_name_is_refused_and_nothing_is_served_instead() -> None:
    fuse = Fuse()
    disk = FusedDisk(fuse)
    bench = Bench(disk, MemoryDatabases(fuse), "/d/meta/state/metadata")
    stage(bench)
    staged = bench.store.staged
    assert staged is not None
    bench.store.make_current(staged)
    bench.store.switch(staged)
    disk.flip(bench.folder + "/CURRENT", 70)
    with pytest.raises(Corrupt, match="replace the node"):
        bench.reopen()


def test_defect_h_a_damaged_table_is_an_error_and_not_an_empty_store(tmp_path: Path) -> None:
    databases = RocksdbDatabases(1 << 20, 1 << 20)
    bench = Bench(SystemFiles(), databases, str(tmp_path / "m/s/metadata"))
    rng = random.Random(1)
    for index in range(40):
        bench.write(index, **{f"k{index}-{each}": rng.randbytes(500).hex() for each in range(50)})
    bench.store.close()
    tables = [*tmp_path.rglob("*.sst")]  # some may be what a compaction left
    assert tables
    for path in tables:
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 0xFF
        path.write_bytes(data)

    def read() -> None:
        bench.store = GroupStore(bench.files, databases, bench.folder)
        list(bench.store.walk(b"k"))

    refused(read)


def refused(read: Callable[[], None]) -> None:
    with pytest.raises((Corrupt, OSError)):
        read()
