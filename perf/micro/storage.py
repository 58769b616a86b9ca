"""Appends and reads of each engine beside raw writes of the same bytes.

A turn appends `--batches` batches of `--records` records of `--size` bytes to one log and commits;
up to `--depth` turns may wait for their commit, as the turns of a busy worker do. `raw file` writes
the same turns with pwritev and syncs once for all that wait; `raw rocksdb` puts the same values
in one write batch per turn. The ratio is to the raw one of the same kind and flush.
Run as `python -m perf.micro.storage [--seconds 1] [--directory DIR]`; DIR decides which disk.
"""

import argparse
import os
import select
import shutil
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rocksdict import Options, Rdict, WriteBatch, WriteOptions

from robustmq import metrics
from robustmq._kernel.batch import BatchBuilder
from robustmq._kernel.turn import Turn
from robustmq.storage.engine import Engine
from robustmq.storage.log import Log, Unwritable
from robustmq.storage.log_settings import Flush, LogSettings
from robustmq.storage.memory_log import MemoryLog
from robustmq.storage.rocksdb_engine import RocksdbEngine
from robustmq.storage.segment_engine import SegmentEngine

RESERVE = 16 << 20
READ_BYTES = 1 << 20


class Load(NamedTuple):
    """What is appended: turns of `batches` equal batches with `records` each."""

    batch: bytes
    records: int
    batches: int
    depth: int
    seconds: float

    @property
    def turn(self) -> list[bytes]:
        """The batches of one turn."""
        return [self.batch] * self.batches


class Rate(NamedTuple):
    """Turns in seconds of the clock and of this process's processors."""

    turns: int
    seconds: float
    cpu_seconds: float


def made(size: int, records: int) -> bytes:
    """Return a batch of `records` records of `size` random bytes."""
    builder = BatchBuilder(Turn(array("Q", bytes(8 * metrics.CELLS))), 0, 1 << 30, None)
    for _ in range(records):
        builder.append(b"sensors/1", os.urandom(size), b"\0", 1, 1_000)
    return bytes(builder.take()[0])


def timed(load: Load, turn: Callable[[], None], end: Callable[[], None]) -> Rate:
    """Take turns for the time given, then wait for all of them."""
    turns = 0
    began, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < load.seconds:
        turn()
        turns += 1
    end()
    return Rate(turns, time.perf_counter() - began, time.process_time() - cpu)


def raw_file(load: Load, flush: Flush, directory: Path) -> Rate:
    """Write turns into a file whose room was taken in advance."""
    fd = os.open(directory / "raw", os.O_RDWR | os.O_CREAT)
    at = reserved = waiting = 0
    data = load.turn

    def turn() -> None:
        nonlocal at, reserved, waiting
        if at + len(load.batch) * load.batches > reserved:
            os.posix_fallocate(fd, reserved, RESERVE)
            reserved += RESERVE
        at += os.pwritev(fd, data, at)
        waiting += 1
        if flush == "always" and waiting >= load.depth:
            os.fdatasync(fd)
            waiting = 0

    rate = timed(load, turn, lambda: os.fdatasync(fd) if flush == "always" else None)
    os.close(fd)
    return rate


def raw_rocksdb(load: Load, flush: Flush, directory: Path) -> Rate:
    """Put turns into a database, one write batch each."""
    database = Rdict(str(directory / "raw"), Options(raw_mode=True))
    options = WriteOptions()
    options.no_slowdown = True
    number = waiting = 0

    def turn() -> None:
        nonlocal number, waiting
        batch = WriteBatch(raw_mode=True)
        for data in load.turn:
            batch.put(number.to_bytes(12, "big"), data)
            number += 1
        try:
            database.write(batch, options)
        except Exception as error:
            if "stall" not in str(error).lower():
                raise
            time.sleep(0.005)
        waiting += 1
        if flush == "always" and waiting >= load.depth:
            database.flush_wal(True)
            waiting = 0

    rate = timed(load, turn, database.flush_wal if flush == "always" else lambda: None)
    database.close()
    return rate


def engine_appends(load: Load, engine: Engine, log: Log) -> Rate:
    """Append turns, with up to `depth` of them waiting."""
    most = load.depth * load.batches * load.records

    def wait(behind: int) -> None:
        while log.end_offset - log.durable_offset > behind:
            select.select([engine.fileno()], [], [], 1)
            engine.completed()

    def turn() -> None:
        try:
            for data in load.turn:
                log.append(data, load.records, 1_000)
        except Unwritable:
            wait(0)
        if engine.commit():
            engine.completed()
        wait(most)

    return timed(load, turn, lambda: wait(0))


def memory_appends(load: Load) -> tuple[Rate, Log]:
    """Append to the memory log, which keeps a bounded part."""
    log = MemoryLog(max_bytes=64 << 20)

    def turn() -> None:
        for data in load.turn:
            log.append(data, load.records, 1_000)

    return timed(load, turn, lambda: None), log


def reads(log: Log) -> tuple[float, float]:
    """Return megabytes and records per second of one pass over the log."""
    size = count = 0
    offset = log.start_offset
    began = time.perf_counter()
    while found := log.read(offset, READ_BYTES):
        size += sum(len(each.data) for each in found)
        count += found[-1].next_offset - found[0].base_offset
        offset = found[-1].next_offset
    spent = time.perf_counter() - began
    return size / spent / 1e6, count / spent


def line(
    name: tuple[str, str],
    load: Load,
    rate: Rate,
    raw: Rate | None,
    read: tuple[float, float] | None,
) -> None:
    """Print what was measured."""
    size = len(load.batch) * load.batches * rate.turns
    count = load.records * load.batches * rate.turns
    ratio = ""
    if raw is not None:
        ratio = f"{rate.turns / rate.seconds / (raw.turns / raw.seconds):8.2f}"
    shown = f"{read[0]:10,.0f}{read[1]:14,.0f}" if read else ""
    print(
        f"{name[0]:12}{name[1]:10}{size / rate.seconds / 1e6:10,.0f}{count / rate.seconds:14,.0f}"
        f"{rate.cpu_seconds / count * 1e9:9,.0f}{ratio:>8}{shown}",
        flush=True,
    )


def measure(load: Load, directory: Path) -> None:
    """Measure every engine and flush, and print a line for each."""
    head = ("append MB/s", "records/s", "ns/rec", "ratio", "read MB/s", "records/s")
    print(f"{'engine':12}{'flush':8}{head[0]:>12}{head[1]:>14}{head[2]:>9}{head[3]:>8}", end="")
    print(f"{head[4]:>10}{head[5]:>14}")
    rate, kept = memory_appends(load)
    line(("memory", "-"), load, rate, None, reads(kept))
    flushes: tuple[Flush, ...] = ("os", "interval", "always")
    for flush in flushes:
        for name, baseline in (("segment", raw_file), ("rocksdb", raw_rocksdb)):
            place = Path(tempfile.mkdtemp(dir=directory))
            try:
                raw = baseline(load, flush, place)
                line((f"raw {name}", flush), load, raw, None, None)
                engine: Engine
                if name == "segment":
                    engine = SegmentEngine(str(place / name))
                else:
                    engine = RocksdbEngine(str(place / name))
                log = engine.open(0, LogSettings(flush=flush))
                rate = engine_appends(load, engine, log)
                line((name, flush), load, rate, raw, reads(log))
                engine.close()
            finally:
                shutil.rmtree(place)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each line")
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="on which disk")
    parser.add_argument("--size", type=int, default=100, help="bytes of a record")
    parser.add_argument("--records", type=int, default=50, help="records of a batch")
    parser.add_argument("--batches", type=int, default=1, help="batches of a turn")
    parser.add_argument("--depth", type=int, default=4, help="turns that may wait for a sync")
    given = parser.parse_args()
    batch = made(given.size, given.records)
    measure(Load(batch, given.records, given.batches, given.depth, given.seconds), given.directory)


if __name__ == "__main__":
    main()
