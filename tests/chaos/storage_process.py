"""A process that appends to an engine until it is killed, checks what is there, or fills a disk.

`python -m tests.chaos.storage_process MODE ENGINE FLUSH DIRECTORY`. Every record's value is its
offset and filler that follows from it, so that what is read tells whether it is right.
The engine `rows` is RocksDB whose table is written too: see `Ledger`.
"""

import os
import random
import select
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from robustmq._kernel.batch import records
from robustmq.errors import Refusal, Refused
from robustmq.storage.engine import Engine, EngineSettings
from robustmq.storage.log import Log, Unwritable
from robustmq.storage.log_settings import Flush, LogSettings
from robustmq.storage.rocksdb_engine import RocksdbEngine
from robustmq.storage.segment_engine import SegmentEngine
from robustmq.storage.table import Table
from tests.unit.storage.batches import keyed

SHARDS = (0, 1, 5)
ROWS = 9
"""What the turns of rows are told as, beside the shards."""
TURN_KEY = struct.Struct(">BIH")
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


class Ledger:
    """Turns of rows: each appends a record to shard 0, and each leaves its own rows only.

    Turn n puts a number of rows that follows from n, removes those of the turn before, and says in
    one more row that it was the last. So the rows are those of one whole turn, or it was torn.
    """

    def __init__(self, table: Table, flush: str, log: Log) -> None:
        self.table = table
        self.log = log
        self.always = flush == "always"
        self.turn = self.begun = int(table.get(b"last") or b"0")

    @property
    def durable(self) -> int:
        """The last turn that is durable."""
        return self.begun + self.table.durable

    def put(self) -> None:
        """Have the next turn in the next commit. Raises Unwritable."""
        append_one(0, self.log, 1)
        table, turn = self.table, self.turn + 1
        for key, value in self.rows_of(turn):
            table.put(key, value)
        if turn % 3:
            for key, _ in self.rows_of(turn - 1):
                table.delete(key)
        else:
            table.erase(TURN_KEY.pack(1, turn - 1, 0), TURN_KEY.pack(1, turn, 0))
        table.put(b"last", b"%d" % turn)
        if self.always:
            table.demand_sync()
        self.turn = turn

    def rows_of(self, turn: int) -> list[tuple[bytes, bytes]]:
        count = random.Random(turn).choice((1, 2, 20)) if turn else 0
        return [(TURN_KEY.pack(1, turn, each), value_at(turn, each)) for each in range(count)]

    def check(self) -> None:
        assert list(self.table.walk(b"\1", b"\2")) == self.rows_of(self.turn)
        assert self.log.end_offset == self.turn


def append_rows(engine: Engine, ledger: Ledger) -> None:
    """Put turns for ever, and say which are durable as soon as they are."""
    told = ledger.durable
    while True:
        ledger.put()
        if engine.commit():
            engine.completed()
        else:
            wait(engine, 0.001)
        if ledger.durable > told:
            told = ledger.durable
            os.write(1, b"%d %d\n" % (ROWS, told))


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


def turn_refused(logs: dict[int, Log], ledger: Ledger | None, count: int) -> Refused | None:
    """Append so many records to each log, or a turn of rows; returns why that is not possible."""
    try:
        for shard in SHARDS:
            if ledger is None or shard:
                append_one(shard, logs[shard], count)
            else:
                ledger.put()
    except Unwritable as error:
        return error.refused
    return None


def fill(engine: Engine, logs: dict[int, Log], ledger: Ledger | None, directory: str) -> None:
    """Fill the disk, see the refusal, make room, see writing resume."""
    ballast = Path(directory) / "ballast"
    ballast.write_bytes(bytes(6 << 20))
    refused = None
    while refused is None:
        refused = turn_refused(logs, ledger, 300)
        if refused is not None and ledger is not None:
            seen = ledger.table.refusal
            assert seen is not None
            assert seen.code is Refusal.QUOTA_EXCEEDED
        wait(engine, 0 if engine.commit() else 0.02)
    # What the refusal says, not what the engine says by now: some room may have been found.
    assert refused.code is Refusal.QUOTA_EXCEEDED
    assert "No space left" in refused.detail
    for shard, log in logs.items():
        (first, *_) = log.read(0, 1)
        assert records(first.data)[0][4] == value_at(shard, 0)
    ballast.unlink()
    until(lambda: engine.failure is None and not turn_refused(logs, ledger, 1), engine)
    engine.commit()
    if ledger is not None:
        until(lambda: ledger.durable == ledger.turn, engine)
    until(lambda: all(log.durable_offset == log.end_offset for log in logs.values()), engine)
    engine.close()


def main() -> None:
    mode, kind, flush, directory = sys.argv[1:]
    engine, logs = opened(kind, flush, directory)
    ledger = None
    if kind == "rows":
        assert isinstance(engine, RocksdbEngine)
        ledger = Ledger(engine.table(), flush, logs[0])
    if mode == "fill":
        fill(engine, logs, ledger, directory)
    elif mode == "check":
        check(engine, logs)
        if ledger is not None:
            ledger.check()
            print(ROWS, ledger.turn)
        engine.close()
    elif ledger is not None:
        append_rows(engine, ledger)
    else:
        append(engine, logs)


if __name__ == "__main__":
    main()
