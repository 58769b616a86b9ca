"""The engines of a core: which one keeps a log, by whose settings, and what opening may refuse."""

import select
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from robustmq.config import Storage, TopicRule
from robustmq.errors import Refusal
from robustmq.storage.engine import EngineSettings
from robustmq.storage.log import Unwritable
from robustmq.storage.log_settings import LogSettings
from robustmq.storage.memory_log import MemoryLog
from robustmq.storage.rocksdb_engine import RocksdbEngine
from robustmq.storage.rocksdb_log import RocksdbLog
from robustmq.storage.segment_log import SegmentLog
from robustmq.workers.stores import Stores, log_settings
from tests.unit.storage.batches import batch

OS = TopicRule(filter="#", flush="os")
FILES = TopicRule(filter="#", engine="segment", flush="os")


@pytest.fixture
def watched() -> list[int]:
    return []


@pytest.fixture
def stores(tmp_path: Path, watched: list[int]) -> Iterator[Stores]:
    path = str(tmp_path)
    storage = Storage(memory_log_bytes=2_000, preallocate_bytes=0)
    stores = Stores(RocksdbEngine(path), path, EngineSettings(), storage, watch=watched.append)
    yield stores
    stores.close()


def test_files_are_opened_when_a_rule_asks_for_them(
    stores: Stores, watched: list[int], tmp_path: Path
) -> None:
    assert isinstance(stores.open(1, "rocksdb", OS), RocksdbLog)
    assert not (tmp_path / "segments").exists()
    assert isinstance(stores.open(2, "segment", FILES), SegmentLog)
    assert isinstance(stores.open(3, "segment", FILES), SegmentLog)
    assert stores.segments is not None
    assert watched == [stores.segments.fileno()]
    assert [stores.refusal("rocksdb"), stores.refusal("segment"), stores.refused()] == [None] * 3
    assert len(stores.recoveries()) == 2


def test_one_commit_makes_all_durable(stores: Stores, watched: list[int]) -> None:
    logs = [stores.open(1, "rocksdb", OS), stores.open(2, "segment", FILES)]
    for log in logs:
        log.append(batch(2), 2, 1_000)
    if stores.commit():
        stores.completed()
    while logs[1].durable_offset < 2:
        ready, _, _ = select.select(watched, [], [], 10.0)
        assert ready, "the writer says when it is done"
        stores.completed()
    assert [log.durable_offset for log in logs] == [2, 2]


def test_a_log_in_memory_is_bounded_by_its_rule_or_the_configuration(stores: Stores) -> None:
    size = len(batch(1, b"x" * 500))
    rules = {
        2_000 // size: TopicRule(filter="#", engine="memory"),
        1: TopicRule(filter="#", engine="memory", retention_bytes=size),
        2: TopicRule(filter="#", engine="memory", retention_records=2),
    }
    for most, rule in rules.items():
        log = stores.open(0, "memory", rule)
        assert isinstance(log, MemoryLog)
        for _ in range(10):
            log.append(batch(1, b"x" * 500), 1, 1_000)
        assert log.end_offset - log.start_offset == most


def test_what_cannot_be_opened_is_refused(stores: Stores, tmp_path: Path) -> None:
    (tmp_path / "segments").write_text("in the way")
    with pytest.raises(Unwritable) as caught:
        stores.open(4, "segment", FILES)
    assert caught.value.refused.code is Refusal.UNAVAILABLE
    assert "log 4" in caught.value.refused.detail


def test_every_key_of_a_log_is_that_of_its_rule_or_of_storage() -> None:
    rule = TopicRule(
        filter="#",
        flush="always",
        interval_ms=7,
        retention_ms=8,
        retention_bytes=9,
        retention_records=10,
        compact=True,
        segment_bytes=2_000,
        segment_ms=1,
        tombstone_ms=5,
        compact_lag_ms=6,
    )
    storage = Storage(
        preallocate_bytes=2,
        index_interval_bytes=65,
        compact_records=3,
        compact_keys=4,
    )
    known = {**msgspec.structs.asdict(storage), **msgspec.structs.asdict(rule)}
    made = msgspec.structs.asdict(log_settings(rule, storage))
    assert made.pop("empty_deletes") is True
    assert made == {name: known[name] for name in made}
    defaults = msgspec.structs.asdict(LogSettings())
    assert all(made[name] != defaults[name] for name in made), "every key is told from a default"
