"""Each table equals a dict, whatever is put in it, refused, killed or cut off from power.

The model is a dict per commit. A table that is found after a crash equals one of them: each commit
is there as a whole or not at all, and none that was durable is missing.
"""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq.errors import Refusal, Refused
from robustmq.storage.engine import EngineSettings
from robustmq.storage.log import Log
from robustmq.storage.log_settings import Flush, LogSettings
from robustmq.storage.memory_table import MemoryTable
from robustmq.storage.rocksdb_engine import RocksdbEngine
from robustmq.storage.rocksdb_store import Stalled
from robustmq.storage.table import Table
from tests.property.test_logs import SMALL, copied, files_in
from tests.unit.storage.batches import batch
from tests.unit.storage.disk import HandWriter

LAST = b"\xff"
KEYS = [bytes(each) for size in range(3) for each in itertools.product(b"ab", repeat=size)]
Rows = dict[bytes, bytes]

keys = st.sampled_from(KEYS)
changes = st.one_of(
    st.tuples(st.just("put"), keys, st.binary(max_size=3)),
    st.tuples(st.just("put"), keys, st.binary(max_size=3)),
    st.tuples(st.just("delete"), keys),
    st.tuples(st.just("erase"), keys, keys),
    st.tuples(st.just("demand")),
)
turns = st.sampled_from(["commit", "commit", "sync", "complete"]).map(lambda name: (name,))
troubles = st.sampled_from(["refuse", "heal", "heal", "kill", "power", "close"]).map(
    lambda name: (name,)
)
steps = st.lists(st.one_of(changes, changes, turns, turns, troubles), min_size=20, max_size=80)
flushes = st.sampled_from(["always", "interval", "os"])


class Subject(Protocol):
    """A table on a disk that can be in trouble."""

    table: Table

    def commit(self) -> None: ...
    def sync(self) -> None: ...
    def complete(self) -> None: ...
    def refuse(self) -> None: ...
    def heal(self) -> None: ...
    def kill(self) -> None: ...
    def power(self) -> bool: ...
    def close(self) -> None: ...


class Memory:
    """The table in memory, on a disk that is slow or is not."""

    def __init__(self, flush: Flush, hold: bool) -> None:
        self.hold = hold
        self.use(MemoryTable(flush=flush))

    def use(self, memory: MemoryTable) -> None:
        self.memory = memory
        self.table: Table = memory
        memory.hold = self.hold

    def commit(self) -> None:
        self.memory.commit()

    def sync(self) -> None:
        self.memory.settle()
        self.memory.completed()

    def complete(self) -> None:
        self.memory.completed()

    def refuse(self) -> None:
        self.memory.refuse(Refused(Refusal.BUSY, ""))

    def heal(self) -> None:
        self.memory.refuse(None)

    def kill(self) -> None:
        self.use(self.memory.crash())

    def power(self) -> bool:
        self.use(self.memory.crash(power=True))
        return True

    def close(self) -> None:
        self.heal()
        self.memory.commit()
        self.kill()


class Rocks:
    """The table in a database, beside a log; a kill is a copy of its files at that moment."""

    def __init__(self, flush: Flush, directory: str) -> None:
        self.flush: Flush = flush
        self.directory = Path(directory)
        self.life = 0
        self.open()

    def open(self) -> None:
        self.writer = HandWriter()
        settings = EngineSettings(
            memory_bytes=SMALL.memory_bytes, wal_bytes=SMALL.wal_bytes, flush=self.flush
        )
        place = str(self.directory / str(self.life))
        self.engine = RocksdbEngine(place, settings, writer=self.writer)
        self.log: Log = self.engine.open(3, LogSettings(flush="os"))
        self.table: Table = self.engine.table()
        self.write = self.engine.store.write
        self.synced = 0
        sync = self.engine.store.sync

        def counted() -> None:
            self.synced = self.table.written
            sync()

        self.engine.store.sync = counted  # type: ignore[method-assign]

    def commit(self) -> None:
        # So the log tells which commit was the last: they are written together.
        if getattr(self.table, "is_midway", False):
            self.log.append(batch(1), 1, 1_000)
        self.engine.commit()

    def sync(self) -> None:
        self.writer.run()
        self.engine.completed()

    def complete(self) -> None:
        self.engine.completed()

    def refuse(self) -> None:
        def stall(*_: object) -> None:
            raise Stalled

        self.engine.store.write = stall  # type: ignore[assignment, method-assign]

    def heal(self) -> None:
        self.engine.store.write = self.write  # type: ignore[method-assign]

    def kill(self) -> None:
        dead = self.directory / str(self.life)
        self.life += 1
        # The database's own threads are at work; a kill would have stopped them.
        while (before := files_in(dead)) and not (
            copied(dead, self.directory / str(self.life)) and files_in(dead) == before
        ):
            pass
        self.heal()
        self.engine.close()
        shutil.rmtree(dead)
        self.open()

    def power(self) -> bool:
        self.kill()
        return False

    def close(self) -> None:
        self.heal()
        self.commit()
        self.engine.close()
        self.open()


class Model:
    """The rows after each commit of this opening, and what is gathered since."""

    def __init__(self, flush: Flush) -> None:
        self.always = flush == "always"
        self.begin({})

    def begin(self, rows: Rows) -> None:
        self.history: list[Rows] = [rows]
        self.rows = dict(rows)
        self.gathered = self.demanded = False
        self.synced_for = 0
        """The last commit that demanded a sync and was durable."""
        self.demands: list[int] = []
        self.written = self.durable = 0

    def change(self, name: str, arguments: list[bytes]) -> None:
        self.gathered |= name != "demand" and not (name == "erase" and arguments[0] >= arguments[1])
        if name == "put":
            self.rows[arguments[0]] = arguments[1]
        elif name == "delete":
            self.rows.pop(arguments[0], None)
        elif name == "erase":
            for key in [each for each in self.rows if arguments[0] <= each < arguments[1]]:
                del self.rows[key]
        else:
            self.demanded = True

    def commit(self) -> None:
        if self.gathered:
            self.history.append(dict(self.rows))
            if self.demanded or self.always:
                self.demands.append(len(self.history) - 1)
        self.gathered = self.demanded = False


def apply(table: Table, name: str, arguments: list[bytes]) -> None:
    if name == "put":
        table.put(*arguments)
    elif name == "delete":
        table.delete(*arguments)
    elif name == "erase":
        table.erase(*arguments)
    else:
        table.demand_sync()


def check(subject: Subject, model: Model) -> None:
    """Compare all that can be seen; the numbers only grow."""
    table = subject.table
    assert table.next_commit == len(model.history)
    assert model.durable <= table.durable <= table.written < table.next_commit
    assert model.written <= table.written
    model.written, model.durable = table.written, table.durable
    if isinstance(subject, Rocks):
        assert all(each <= subject.synced for each in model.demands if each <= table.durable)
    model.synced_for = max((each for each in model.demands if each <= model.durable), default=0)
    rows = model.history[model.written]
    assert list(table.walk(b"", LAST)) == sorted(rows.items())
    for key in (b"", b"a", b"ba"):
        assert table.get(key) == rows.get(key)
    for first, stop in (b"a", b"b"), (b"ab", b"ba"), (b"b", b"a"), (b"bb", LAST):
        expected = sorted(each for each in rows.items() if first <= each[0] < stop)
        assert list(table.walk(first, stop)) == expected
        assert next(table.walk(first, stop), None) == (expected[0] if expected else None)


def survive(subject: Subject, model: Model, name: str) -> None:
    """Crash or close, and find the rows of a commit that may be the last."""
    owed = model.durable
    if name == "close":
        subject.close()
        model.commit()
        owed = len(model.history) - 1
    elif name == "kill":
        subject.kill()
        owed = model.written
    elif subject.power():
        owed = model.synced_for
    found = dict(subject.table.walk(b"", LAST))
    assert found in model.history[owed:]
    if isinstance(subject, Rocks):
        assert subject.log.end_offset >= owed
        assert found == model.history[subject.log.end_offset]
        subject.log.reset(0)
        subject.engine.commit()
    model.begin(found)


def run(subject: Subject, model: Model, doings: list[tuple[object, ...]]) -> None:
    for name, *arguments in doings:
        if name in {"put", "delete", "erase", "demand"}:
            words = [each for each in arguments if isinstance(each, bytes)]
            apply(subject.table, str(name), words)
            model.change(str(name), words)
        elif name in {"kill", "power", "close"}:
            survive(subject, model, str(name))
        else:
            getattr(subject, str(name))()
            if name == "commit":
                model.commit()
        check(subject, model)
    subject.heal()
    subject.commit()
    model.commit()
    # After a stall: it pauses, the pause ends, what waited is synced.
    for _ in range(3):
        subject.sync()
    check(subject, model)
    assert subject.table.durable == len(model.history) - 1
    assert subject.table.refusal is None


@settings(max_examples=400)
@given(flushes, st.booleans(), steps)
def test_the_memory_table_equals_a_dict(
    flush: Flush, hold: bool, doings: list[tuple[object, ...]]
) -> None:
    run(Memory(flush, hold), Model(flush), doings)


@pytest.fixture(scope="module")
def fast_directory() -> Iterator[str]:
    """A directory in memory where there is one: RocksDB syncs a lot when it is opened."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield directory


@settings(max_examples=40)
@given(flushes, steps)
def test_the_rocksdb_table_equals_a_dict(
    fast_directory: str, flush: Flush, doings: list[tuple[object, ...]]
) -> None:
    with tempfile.TemporaryDirectory(dir=fast_directory) as directory:
        subject = Rocks(flush, directory)
        run(subject, Model(flush), doings)
        subject.engine.close()
