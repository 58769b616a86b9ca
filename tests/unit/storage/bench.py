"""An engine of segments on a disk in memory, opened again and again."""

import random

from robustmq.storage.engine import EngineSettings
from robustmq.storage.log import Log, StoredBatch
from robustmq.storage.log_settings import LogSettings
from robustmq.storage.segment_engine import SegmentEngine
from tests.unit.storage.batches import batch
from tests.unit.storage.disk import Disk, HandWriter

SIZE = len(batch(1, b"x" * 100))
SMALL = LogSettings(flush="always", segment_bytes=1_024, preallocate_bytes=0)


class Bench:
    """An engine on a disk of its own, opened again and again."""

    def __init__(self, settings: LogSettings = SMALL, engine: EngineSettings | None = None) -> None:
        self.disk = Disk()
        self.settings = settings
        self.engine_settings = engine
        self.open()

    def open(self) -> None:
        self.writer = HandWriter()
        self.engine = SegmentEngine("/d", self.engine_settings, files=self.disk, writer=self.writer)
        self.log: Log = self.engine.open(7, self.settings)

    def append(self, *sizes: int, time_ms: int = 1_000) -> None:
        for size in sizes:
            self.log.append(batch(1, b"x" * size, time_ms), 1, time_ms)

    def settle(self) -> list[Log]:
        """One turn, until the writer has nothing left."""
        self.engine.commit()
        self.writer.run()
        return self.engine.completed()

    def reopen(self) -> None:
        self.engine.close()
        self.open()

    def power_cut(self, seed: int = 1) -> None:
        self.disk.lose_power(random.Random(seed))
        self.open()

    def failure(self) -> str | None:
        return self.engine.failure

    def files(self) -> list[str]:
        return [name for name in self.disk.listdir("/d/7") if name.endswith(".log")]


def read_all(log: Log, max_bytes: int = 1 << 20) -> list[StoredBatch]:
    found: list[StoredBatch] = []
    offset = log.start_offset
    while more := log.read(offset, max_bytes):
        found += more
        offset = more[-1].next_offset
    return found


def offsets(log: Log) -> list[int]:
    return [each.base_offset for each in read_all(log)]
