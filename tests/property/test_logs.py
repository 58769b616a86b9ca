"""Each engine's log equals a list, whatever is done to it, killed, cut off from power or damaged.

A killed engine keeps what was written; one without power what was synced, and of the rest any
part. Afterwards all that was durable is there, in order, and nothing that was never appended.
"""

import contextlib
import errno
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq.errors import Corrupt
from robustmq.storage.engine import Engine, EngineSettings
from robustmq.storage.log import Log, StoredBatch, Unwritable
from robustmq.storage.log_settings import Flush, LogSettings
from robustmq.storage.memory_log import MemoryLog
from robustmq.storage.rocksdb_engine import RocksdbEngine
from robustmq.storage.segment_engine import SegmentEngine
from tests.unit.storage.batches import batch
from tests.unit.storage.disk import Disk, HandWriter

PLACED = 16
"""Bytes at the start of a batch that say where it lies; an engine may patch them."""
SMALL = EngineSettings(memory_bytes=8 << 20, wal_bytes=1 << 20)

appends = st.tuples(st.just("append"), st.integers(1, 4), st.integers(0, 300), st.integers(-50, 90))
offsets = st.integers(0, 60)
plain_steps = st.one_of(
    appends,
    appends,
    appends,
    st.tuples(st.sampled_from(["commit", "run", "run", "write", "late", "sync"])),
    st.tuples(st.sampled_from(["trim", "truncate"]), offsets),
)
steps = st.lists(
    st.one_of(plain_steps, plain_steps, plain_steps, st.tuples(st.just("reopen"))),
    min_size=20,
    max_size=60,
)
FAULTS = (
    "pwritev", "fdatasync", "allocate", "ftruncate", "sync_directory", "rename", "unlink", "mkdir",
)  # fmt: skip
"""What the writer does to files and may fail."""
faults = st.tuples(st.sampled_from(["fault", "heal", "heal"]), st.integers(0, 20))
crashes = st.tuples(st.sampled_from(["kill", "power", "flip"]), st.integers(0, 1 << 20))
hard_steps = st.lists(
    st.one_of(plain_steps, plain_steps, plain_steps, crashes, faults), min_size=20, max_size=60
)
flushes = st.sampled_from(["always", "interval", "os"])


class Subject(Protocol):
    """An engine with one log that can be opened again."""

    log: Log

    def commit(self) -> None: ...
    def run(self) -> None:
        """Let all be done that can be."""

    def part(self, name: str) -> None:
        """Let the writer or the syncer alone do something."""

    def reopen(self) -> None: ...
    def is_failing(self) -> bool: ...


class Memory:
    """The memory log: durable at once, and never opened again."""

    def __init__(self) -> None:
        self.log: Log = MemoryLog()

    def commit(self) -> None:
        """Nothing to do."""

    def run(self) -> None:
        """Nothing to do."""

    def part(self, name: str) -> None:
        """Nothing to do."""

    def reopen(self) -> None:
        """Nothing to do."""

    def is_failing(self) -> bool:
        return False


class Segments:
    """The segment engine on a disk in memory, with or without a syncer beside its writer."""

    def __init__(self, flush: Flush, reserve: int, is_beside: bool) -> None:
        self.is_beside = is_beside
        self.settings = LogSettings(
            flush=flush,
            segment_bytes=1_024,
            preallocate_bytes=reserve,
            index_interval_bytes=200,
        )
        self.disk = Disk()
        self.disk.forgets = True
        self.open()

    def open(self) -> None:
        self.writer = HandWriter()
        self.syncer = HandWriter() if self.is_beside else None
        self.engine: Engine = SegmentEngine(
            "/d", files=self.disk, writer=self.writer, syncer=self.syncer
        )
        self.log = self.engine.open(3, self.settings)

    def commit(self) -> None:
        self.engine.commit()

    def run(self) -> None:
        self.engine.commit()
        # One for what is under way, one for what has come meanwhile.
        for _ in range(2):
            self.part("late")
            self.part("sync")
        self.part("write")

    def part(self, name: str) -> None:
        if name == "sync":
            if self.syncer is not None and self.syncer.work is not None:
                self.syncer.run()
            return
        if name == "late":
            self.writer.time += self.settings.interval_ms / 1_000
        self.writer.run()
        self.engine.completed()

    def is_failing(self) -> bool:
        assert self.engine.failure is None or self.disk.faults or self.disk.was_faulty
        return self.engine.failure is not None

    def fault(self, number: int) -> None:
        self.disk.was_faulty = True
        self.disk.faults = {FAULTS[number % len(FAULTS)]: errno.ENOSPC if number % 3 else errno.EIO}

    def heal(self) -> None:
        self.disk.faults.clear()
        self.run()
        assert self.engine.failure is None
        self.disk.was_faulty = False

    def reopen(self) -> None:
        self.engine.close()
        self.open()

    def crash(self, kind: str, seed: int) -> None:
        self.disk.faults.clear()
        self.disk.was_faulty = False
        rng = random.Random(seed)
        if kind == "power":
            self.disk.lose_power(rng)
        else:
            self.disk.kill()
        if kind == "flip":
            names = [name for name in self.disk.names if name.endswith((".log", ".index"))]
            if names:
                name = rng.choice(sorted(names))
                size = len(self.disk.names[name].data)
                self.disk.flip(name, rng.randrange(max(size * 8, 1)))
        self.open()


class Rocks:
    """The RocksDB engine; a kill is a copy of its files at that moment."""

    def __init__(self, flush: Flush, directory: str) -> None:
        self.settings = LogSettings(flush=flush, index_interval_bytes=200)
        self.directory = Path(directory)
        self.life = 0
        self.open()

    def open(self) -> None:
        self.writer = HandWriter()
        place = self.directory / str(self.life)
        self.engine = RocksdbEngine(str(place), SMALL, writer=self.writer)
        self.log = self.engine.open(3, self.settings)

    def commit(self) -> None:
        self.engine.commit()

    def run(self) -> None:
        self.engine.commit()
        self.part("write")
        assert self.engine.failure is None

    def part(self, name: str) -> None:
        if name != "sync":
            self.writer.run()
            self.engine.completed()

    def is_failing(self) -> bool:
        return False

    def reopen(self) -> None:
        self.engine.close()
        self.open()

    def crash(self, kind: str, seed: int) -> None:
        dead = self.directory / str(self.life)
        self.life += 1
        # The database's own threads are at work; a kill would have stopped them.
        while (before := files_in(dead)) and not (
            copied(dead, self.directory / str(self.life)) and files_in(dead) == before
        ):
            pass
        self.engine.close()
        shutil.rmtree(dead)
        self.open()


def files_in(place: Path) -> list[tuple[str, int]]:
    with contextlib.suppress(FileNotFoundError):
        return sorted((each.name, each.stat().st_size) for each in (place / "db").iterdir())
    return [("changing", 0)]


def copied(source: Path, target: Path) -> bool:
    """Copy a directory; False when files vanished meanwhile."""
    shutil.rmtree(target, ignore_errors=True)
    try:
        shutil.copytree(source, target)
    except shutil.Error:
        return False
    return True


class Entry(NamedTuple):
    """A batch in the model."""

    base: int
    records: int
    body: bytes
    time_ms: int

    @property
    def next(self) -> int:
        return self.base + self.records


class Model:
    """The log as a list; `past` has what a truncation took that a crash may bring back.

    What lies below `safe` is on the disk, although it need not be to be durable.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.past: list[Entry] = []
        self.trimmed: list[Entry] = []
        self.start = self.end = self.durable = self.safe = self.past_start = 0
        self.now_ms = 10_000

    @property
    def kept(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.next > self.start]

    def settle(self) -> None:
        self.past.clear()
        self.past_start = self.start

    def truncate(self, offset: int) -> None:
        cut = [entry for entry in self.kept if entry.base >= offset]
        if cut:
            self.cut_at(cut[0].base)

    def cut_at(self, end: int) -> None:
        self.past += self.entries
        self.past_start = max(self.past_start, self.start)
        self.end = end
        self.entries = [entry for entry in self.entries if entry.base < end]
        self.start = min(self.start, end)
        self.durable = min(self.durable, end)
        self.safe = min(self.safe, end)


def step(subject: Subject, model: Model, name: str, arguments: list[int], number: int) -> None:
    """Do one thing to both."""
    log = subject.log
    if name == "append":
        count, size, later_ms = arguments
        model.now_ms += later_ms
        data = batch(count, bytes((number % 256,)) * size, model.now_ms)
        try:
            assert log.append(data, count, model.now_ms) == model.end
        except Unwritable:
            assert subject.is_failing()
            return
        model.entries.append(Entry(model.end, count, data[PLACED:], model.now_ms))
        model.end += count
    elif name == "trim":
        log.trim(*arguments)
        model.start = max(model.start, min(arguments[0], model.end))
    elif name == "truncate":
        log.truncate(*arguments)
        model.truncate(*arguments)
        if arguments[0] <= log.end_offset < model.end:
            # A hole that damage has left was cut too.
            assert not model.kept or model.kept[-1].next <= log.end_offset
            model.cut_at(log.end_offset)
    elif name == "commit":
        subject.commit()
    elif name == "run":
        subject.run()
        if not subject.is_failing():
            assert log.durable_offset == log.end_offset
            model.safe = model.end
            model.settle()
    elif name in {"write", "late", "sync"}:
        subject.part(name)
    else:
        subject.reopen()
        model.settle()


def read_all(log: Log, max_bytes: int) -> Iterator[StoredBatch]:
    offset = log.start_offset
    while True:
        try:
            more = log.read(offset, max_bytes)
        except Corrupt:
            continue
        if not more:
            return
        yield from more
        offset = more[-1].next_offset


def check(log: Log, model: Model) -> None:
    """Compare all that can be seen."""
    kept = model.kept
    assert model.durable <= log.durable_offset <= log.end_offset == model.end
    model.durable = log.durable_offset
    assert log.start_offset <= model.start
    assert log.start_offset == model.start or log.start_offset == (kept[0].base if kept else None)
    expected = [(entry.base, entry.records, entry.body) for entry in kept]
    for max_bytes in (1, 400, 1 << 20):
        found = [
            (each.base_offset, each.records, each.data[PLACED:])
            for each in read_all(log, max_bytes)
        ]
        assert found == expected
    for offset in range(model.start, model.end + 2):
        some = log.read(offset, 400)
        behind = [entry.base for entry in kept if entry.next > offset]
        assert [each.base_offset for each in some] == behind[: len(some)]
        assert len(some) == min(1, len(behind)) or sum(len(each.data) for each in some) <= 400
    for time_ms in (0, model.now_ms - 100, model.now_ms, model.now_ms + 1, 1 << 40):
        late = [max(entry.base, log.start_offset) for entry in kept if entry.time_ms >= time_ms]
        assert log.offset_at(time_ms) == (late[0] if late else model.end)


def run(subject: Subject, doings: list[tuple[object, ...]]) -> None:
    model = Model()
    for number, (name, *arguments) in enumerate(doings):
        step(subject, model, str(name), [int(str(each)) for each in arguments], number)
        check(subject.log, model)


def survive(subject: Segments | Rocks, model: Model, kind: str, seed: int) -> None:
    """Crash, then see that what is found is right, and go on from there."""
    subject.crash(kind, seed)
    log = subject.log
    known = {
        (entry.base, entry.body): entry for entry in (*model.trimmed, *model.past, *model.entries)
    }
    found: list[Entry] = []
    for each in read_all(log, 400):
        entry = known[each.base_offset, each.data[PLACED:]]
        assert not found or entry.base >= found[-1].next
        found.append(entry)
    assert log.start_offset <= max(model.start, model.past_start)
    if kind != "power" or subject.settings.flush != "os":
        is_known = kind != "power" or subject.settings.flush == "always"
        below = model.durable if is_known else model.safe
        owed = [entry for entry in model.kept if entry.next <= below]
        lost = [entry for entry in owed if entry not in found]
        assert len(lost) <= (kind == "flip")
        assert log.end_offset >= below or kind == "flip"
    assert log.end_offset == log.durable_offset
    assert log.end_offset >= (found[-1].next if found else 0)
    # What damage took comes back when the same bit is flipped again before it was moved aside.
    model.past += model.entries
    # Files that were removed may come back without power, as often as their directory was not
    # synced; the records in them were trimmed, not wrong.
    model.trimmed += [entry for entry in model.entries if entry.next <= model.start]
    model.entries = found
    model.start, model.end = log.start_offset, log.end_offset
    model.durable = model.safe = log.durable_offset


def run_hard(subject: Segments | Rocks, doings: list[tuple[object, ...]]) -> None:
    model = Model()
    for number, (name, *arguments) in enumerate(doings):
        if name in {"kill", "power", "flip"}:
            survive(subject, model, str(name), int(str(arguments[0])))
        elif name in {"fault", "heal"}:
            assert isinstance(subject, Segments)
            if name == "fault":
                subject.fault(int(str(arguments[0])))
            else:
                subject.heal()
        else:
            step(subject, model, str(name), [int(str(each)) for each in arguments], number)
        check(subject.log, model)


@given(steps)
def test_the_memory_log_equals_a_list(doings: list[tuple[object, ...]]) -> None:
    run(Memory(), doings)


subjects = st.builds(Segments, flushes, st.sampled_from([0, 700, 5_000]), st.booleans())


@given(subjects, steps)
def test_segments_equal_a_list(subject: Segments, doings: list[tuple[object, ...]]) -> None:
    run(subject, doings)


@settings(max_examples=300)
@given(subjects, hard_steps)
def test_segments_survive(subject: Segments, doings: list[tuple[object, ...]]) -> None:
    run_hard(subject, doings)


@pytest.fixture(scope="module")
def fast_directory() -> Iterator[str]:
    """A directory in memory where there is one: RocksDB syncs a lot when it is opened."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield directory


@settings(max_examples=25)
@given(flushes, steps)
def test_rocksdb_equals_a_list(
    fast_directory: str, flush: Flush, doings: list[tuple[object, ...]]
) -> None:
    with tempfile.TemporaryDirectory(dir=fast_directory) as directory:
        subject = Rocks(flush, directory)
        run(subject, doings)
        subject.engine.close()


@settings(max_examples=25)
@given(flushes, hard_steps)
def test_rocksdb_survives(
    fast_directory: str, flush: Flush, doings: list[tuple[object, ...]]
) -> None:
    crashes = {"power": "kill", "flip": "kill", "fault": "run", "heal": "run"}
    killed = [(crashes.get(str(name), name), *rest) for name, *rest in doings]
    with tempfile.TemporaryDirectory(dir=fast_directory) as directory:
        subject = Rocks(flush, directory)
        run_hard(subject, list(killed))
        subject.engine.close()
