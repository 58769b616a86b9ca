"""Partitions in the real engines: what is known of them after a restart, compacted or not."""

import time
from pathlib import Path

import pytest

from robustmq._kernel.batch import records
from robustmq.config import Engine, Storage, TopicRule
from robustmq.message.compression import Codec, compressed, decompressed
from robustmq.shard.marker import Mark
from robustmq.shard.produced import Terms, checked
from robustmq.shard.search import first_since
from robustmq.shard.shard import Outcome, Shard
from robustmq.storage.engine import EngineSettings
from robustmq.storage.rocksdb_engine import RocksdbEngine
from robustmq.workers.stores import Stores
from tests.produced import START_MS, TRANSACTIONAL, produced

STORAGE = Storage(compact_records=1, preallocate_bytes=0)
RULE = TopicRule(filter="#", own_shard=True, compact=True, segment_bytes=1_024)
PRODUCER = 9
BATCHES = 30


class Home:
    """A shard in an engine, opened again and again."""

    def __init__(self, directory: Path, engine: Engine) -> None:
        self._directory = str(directory)
        self._engine = engine
        self.note: bytes | None = None
        self.open()

    def open(self) -> None:
        rocksdb = RocksdbEngine(self._directory)
        self.stores = Stores(
            rocksdb, self._directory, EngineSettings(), STORAGE, watch=lambda _: None
        )
        self.shard = Shard(1, self.stores.open(1, self._engine, RULE))
        self.shard.recover(self.note, START_MS)

    def reopen(self) -> None:
        self.stores.close()
        self.open()

    def settle(self) -> None:
        """Have everything durable that was appended."""
        until = time.monotonic() + 30
        self.stores.commit()
        self.stores.completed()
        while self.shard.high_watermark < self.shard.end_offset:
            assert time.monotonic() < until
            time.sleep(0.001)
            self.stores.completed()

    def write(self, number: int, codec: Codec) -> Outcome:
        """The batch of a number: two records of a key that comes again and again."""
        batch = produced(
            b"%d" % number,
            b"x" * 100,
            producer=PRODUCER,
            epoch=0,
            first=2 * number,
            times=(START_MS + number, START_MS + number),
            attributes=TRANSACTIONAL,
            key=b"%d" % (number % 5),
        )
        return self.shard.produce(
            checked(compressed(batch, codec), Terms(needs_keys=True), START_MS), START_MS
        )

    def values(self) -> list[bytes]:
        """The values that are there, in order, but for those of markers."""
        found = []
        at = self.shard.start_offset
        while batches := self.shard.read(at, 1 << 16):
            for each in batches:
                plain = decompressed(each.data, 1 << 20)
                found += [value or b"" for *_, value, _ in records(plain)]
            at = batches[-1].next_offset
        return [value for value in found if len(value) != 6]


@pytest.mark.parametrize("engine", ["rocksdb", "segment"])
@pytest.mark.parametrize("codec", [Codec.NONE, Codec.ZSTD])
def test_all_is_known_again_after_compaction_and_a_restart(
    tmp_path: Path, engine: Engine, codec: Codec
) -> None:
    home = Home(tmp_path, engine)
    for number in range(BATCHES):
        serial = number + 1
        assert home.shard.begin(PRODUCER, 0, serial) == 0
        assert home.write(number, codec).fault == 0
        home.shard.end(PRODUCER, 0, Mark(number % 3 > 0, serial), START_MS)
        home.settle()
    home.note = home.shard.note()
    assert first_since(home.shard, START_MS + 7, 1 << 40) == (3 * 7, START_MS + 7)
    until = time.monotonic() + 30
    assert len(home.values()) == 2 * BATCHES
    while len(home.values()) > BATCHES:
        # What was aborted goes, and what came again.
        assert time.monotonic() < until
        home.shard.retain(START_MS + 10, 1 << 30)
        home.settle()
    assert home.shard.begin(PRODUCER, 0, BATCHES + 1) == 0
    open_at = home.write(BATCHES, codec).base_offset
    home.settle()
    left = home.values()
    for _ in range(2):
        assert home.shard.stable_offset == open_at
        assert home.write(BATCHES - 3, codec).base_offset == 3 * (BATCHES - 3)
        aborted = [each.first for each in home.shard.transactions.aborted(0, 1 << 40)]
        assert aborted == [3 * number for number in range(BATCHES) if number % 3 == 0]
        assert home.values() == left
        home.reopen()
    home.stores.close()
