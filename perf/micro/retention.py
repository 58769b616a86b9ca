"""Whether a million records that are to go ever stall a worker: turns while a log is emptied.

A log is filled with `--records` records in batches of 1 and of 100, then emptied as a core does it:
each turn gives retention its budget (`[storage] retain_budget_bytes`) and commits. By `age` all of
them have expired; by `records` all but one are too many; with `compact` all but the last of each of
1,000 keys are superseded. A turn that has nothing to drop is the first line.
Run as `python -m perf.micro.retention [--records 1000000] [--directory DIR]`.
"""

import argparse
import select
import shutil
import tempfile
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from robustmq import metrics
from robustmq._kernel.batch import BatchBuilder
from robustmq._kernel.choice import KERNEL
from robustmq._kernel.turn import Turn
from robustmq.config import Storage
from robustmq.storage.engine import EngineSettings
from robustmq.storage.log import Log
from robustmq.storage.log_settings import LogSettings
from robustmq.storage.rocksdb_engine import RocksdbEngine
from robustmq.storage.segment_engine import SegmentEngine

BUDGET: Final = Storage().retain_budget_bytes
OLD_MS: Final = 1_000
NOW_MS: Final = 1_700_000_000_000
KEYS: Final = 1_000
SIZE: Final = 64
FILL_BYTES: Final = 1 << 20
SEGMENT: Final = 16 << 20
SETTINGS: Final = {
    "age": LogSettings(segment_bytes=SEGMENT, retention_ms=60_000),
    "records": LogSettings(segment_bytes=SEGMENT, retention_records=1),
    "compact": LogSettings(segment_bytes=SEGMENT, compact=True, compact_records=1),
}


class Turns(NamedTuple):
    """How long the turns took, in seconds, ascending, and the bytes before and after.

    `cpu_seconds` is the worst by the processor time of this thread: a busy machine adds to the
    others.
    """

    seconds: list[float]
    cpu_seconds: float
    before: int
    left: int

    def __str__(self) -> str:
        """A line of the table, times in ms."""
        worst = self.seconds[-1] * 1e3
        cpu = self.cpu_seconds * 1e3
        late = self.seconds[int(len(self.seconds) * 0.999)] * 1e3
        middle = self.seconds[len(self.seconds) // 2] * 1e3
        total = sum(self.seconds)
        return (
            f"{len(self.seconds):6} turns, worst {worst:6.2f} ms (cpu {cpu:5.2f}), "
            f"p99.9 {late:6.2f} ms, median {middle:6.3f} ms, {total:5.2f} s in all, "
            f"{self.before / 1e6:5.1f} -> {self.left / 1e6:5.1f} MB"
        )


def batches(records: int, of: int) -> Iterator[bytes]:
    """Yield batches of `of` old records that go round the keys."""
    builder = BatchBuilder(Turn(array("Q", bytes(8 * metrics.CELLS))), 0, 1 << 30, None)
    rounds: list[bytes] = []
    for number in range(records // of):
        if len(rounds) < KEYS:
            for each in range(of):
                key = b"key/%d" % ((number * of + each) % KEYS)
                builder.append(key, b"x" * SIZE, b"\0", 1, OLD_MS)
            rounds.append(bytes(builder.take()[0]))
        yield rounds[number % KEYS]


def settle(engine: RocksdbEngine | SegmentEngine, log: Log) -> None:
    """Wait until everything is durable."""
    while log.durable_offset < log.end_offset:
        if engine.commit():
            engine.completed()
        if log.durable_offset < log.end_offset:
            select.select([engine.fileno()], [], [], 1.0)
            engine.completed()


def fill(engine: RocksdbEngine | SegmentEngine, log: Log, records: int, of: int) -> None:
    """Append so many old records."""
    size = 0
    for batch in batches(records, of):
        log.append(batch, of, OLD_MS)
        size += len(batch)
        if size >= FILL_BYTES:
            size = 0
            settle(engine, log)
    settle(engine, log)


def empty(engine: RocksdbEngine | SegmentEngine, log: Log) -> Turns:
    """Take turns until retention has nothing left to do, and a few more."""
    seconds = []
    before = log.size_bytes
    cpu_seconds = 0.0
    quiet = 0
    while quiet < 3:
        began, cpu = time.perf_counter(), time.thread_time()
        more = log.retain(NOW_MS, BUDGET)
        if engine.commit():
            engine.completed()
        seconds.append(time.perf_counter() - began)
        cpu_seconds = max(cpu_seconds, time.thread_time() - cpu)
        quiet = 0 if more else quiet + 1
    # A draft takes the place of its segment when it is written.
    select.select([engine.fileno()], [], [], 1.0)
    engine.completed()
    return Turns(sorted(seconds), cpu_seconds, before, log.size_bytes)


def measure(kind: str, bound: str, records: int, of: int, directory: Path) -> Turns:
    """Fill a log and empty it."""
    path = directory / kind
    settings = EngineSettings()
    engine: RocksdbEngine | SegmentEngine
    engine = (
        RocksdbEngine(str(path), settings)
        if kind == "rocksdb"
        else SegmentEngine(str(path), settings)
    )
    try:
        log = engine.open(1, SETTINGS[bound])
        fill(engine, log, records, of)
        return empty(engine, log)
    finally:
        engine.close()
        shutil.rmtree(path)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(dir=options.directory))
    print(f"kernel: {KERNEL}; {options.records:,} records, a budget of {BUDGET:,} bytes a turn")
    try:
        for kind in ("rocksdb", "segment"):
            print(f"{kind:7} nothing  : {measure(kind, 'age', 0, 1, directory)}")
            for bound in SETTINGS:
                for of in (1, 100):
                    turns = measure(kind, bound, options.records, of, directory)
                    print(f"{kind:7} {bound:7} {of:3}: {turns}", flush=True)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
