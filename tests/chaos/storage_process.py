"""A process that appends to an engine until it is killed, checks what is there, or fills a disk.

`python -m tests.chaos.storage_process MODE ENGINE FLUSH DIRECTORY`. Every record's value is its
offset and filler that follows from it, so that what is read tells whether it is right.
"""

import os
import random
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

from robustmq._kernel.batch import records
from robustmq.storage.engine import Engine, EngineSettings, Flush, LogSettings
from robustmq.storage.log import Log, Unwritable
from robustmq.storage.rocksdb_engine import RocksdbEngine
from robustmq.storage.segment_engine import SegmentEngine
from tests.unit.storage.batches import keyed

SHARDS = (0, 1, 5)
DEADLINE_SECONDS = 60


def value_at(shard: int, offset: int) -> bytes:
    rng = random.Random(shard * 1_000_003 + offset)
    return b"%d." % offset + rng.randbytes(rng.choice((0, 10, 300)))


def opened(kind: str, flush: str, directory: str) -> tuple[Engine, dict[int, Log]]:
    settings = EngineSettings(memory_bytes=4 << 20, wal_bytes=2 << 20, retry_ms=20)
    engine: Engine
    if kind == "segment":
        engine = SegmentEngine(directory, settings)
    else:
        engine = RocksdbEngine(directory, settings)
    flushing: Flush = "always" if flush == "always" else "interval"
    kept = LogSettings(
        flush=flushing, interval_ms=20, segment_bytes=100_000, preallocate_bytes=30_000
    )
    return engine, {shard: engine.open(shard, kept) for shard in SHARDS}


def append_one(shard: int, log: Log, count: int) -> None:
    base = log.end_offset
    values = [(b"k", value_at(shard, base + each)) for each in range(count)]
    now_ms = int(time.time() * 1_000)
    log.append(keyed(values, now_ms), count, now_ms)


def wait(engine: Engine, seconds: float) -> list[Log]:
    """What becomes durable within the time, as a worker's loop would see it."""
    select.select([engine.fileno()], [], [], seconds)
    return engine.completed()


def append(engine: Engine, logs: dict[int, Log]) -> None:
    """Append for ever, and say what is durable as soon as it is."""
    rng = random.Random(os.getpid())
    names = {log: shard for shard, log in logs.items()}
    while True:
        for shard in rng.choices(SHARDS, k=rng.randint(1, 5)):
            append_one(shard, logs[shard], rng.randint(1, 5))
        moved = engine.completed() if engine.commit() else wait(engine, 0.001)
        for log in moved:
            os.write(1, b"%d %d\n" % (names[log], log.durable_offset))


def check(engine: Engine, logs: dict[int, Log]) -> None:
    """Read everything, and say how far each log goes."""
    for shard, log in logs.items():
        offset = log.start_offset
        assert offset == 0
        while found := log.read(offset, 50_000):
            for each in found:
                assert each.base_offset == offset
                for number, (_, _, _, _, value, _) in enumerate(records(each.data)):
                    assert value == value_at(shard, offset + number)
                offset = each.next_offset
        assert offset == log.end_offset == log.durable_offset
        print(shard, offset)
    assert engine.recovery.quarantined == []


def until(what: Callable[[], bool], engine: Engine) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while not what():
        assert time.monotonic() < end, "it does not come"
        wait(engine, 0.05)
        engine.commit()


def fill(engine: Engine, logs: dict[int, Log], directory: str) -> None:
    """Fill the disk, see the refusal, make room, see writing resume."""
    ballast = Path(directory) / "ballast"
    ballast.write_bytes(bytes(6 << 20))
    refusals = 0
    while not refusals:
        try:
            for shard in SHARDS:
                append_one(shard, logs[shard], 300)
        except Unwritable:
            refusals += 1
        wait(engine, 0 if engine.commit() else 0.02)
    assert engine.failure is not None
    assert "No space left" in engine.failure
    for shard, log in logs.items():
        (first, *_) = log.read(0, 1)
        assert records(first.data)[0][4] == value_at(shard, 0)
    ballast.unlink()
    until(lambda: engine.failure is None, engine)
    for shard in SHARDS:
        append_one(shard, logs[shard], 1)
    engine.commit()
    until(lambda: all(log.durable_offset == log.end_offset for log in logs.values()), engine)
    engine.close()


def main() -> None:
    mode, kind, flush, directory = sys.argv[1:]
    engine, logs = opened(kind, flush, directory)
    if mode == "append":
        append(engine, logs)
    elif mode == "check":
        check(engine, logs)
        engine.close()
    else:
        fill(engine, logs, directory)


if __name__ == "__main__":
    main()
