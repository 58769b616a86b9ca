"""Compaction keeps the latest record of every key, whatever happens while it runs."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq._kernel.batch import records
from robustmq.storage.compaction import Compaction
from robustmq.storage.header import rebuilt
from robustmq.storage.log import Log, StoredBatch
from robustmq.storage.log_settings import LogSettings
from robustmq.storage.segment_engine import SegmentEngine
from robustmq.storage.segment_log import SegmentLog
from tests.unit.storage.batches import keyed
from tests.unit.storage.disk import Disk, HandWriter

SETTINGS = LogSettings(
    flush="always",
    segment_bytes=1_024,
    preallocate_bytes=0,
    index_interval_bytes=64,
    compact=True,
    compact_records=1,
    compact_keys=5,
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.integers(0, 8), min_size=1, max_size=4)),
        st.tuples(st.just("append"), st.lists(st.integers(0, 8), min_size=1, max_size=4)),
        st.tuples(st.sampled_from(["retain", "retain", "run"]), st.just([])),
        st.tuples(st.sampled_from(["kill", "power", "trim", "truncate"]), st.lists(
            st.integers(0, 150), min_size=1, max_size=1
        )),
    ),
    max_size=80,
)  # fmt: skip


def contents(log: Log) -> list[tuple[int, bytes, bytes]]:
    """Offset, key and value of every record."""
    found = []
    offset = log.start_offset
    while more := log.read(offset, 500):
        for each in more:
            shift = each.base_offset - int.from_bytes(each.data[:8], "big")
            for _, _, at, key, value, _ in records(each.data):
                assert key is not None
                assert value is not None
                found.append((at + shift, key, value))
        offset = more[-1].next_offset
    return [each for each in found if each[0] >= log.start_offset]


@settings(max_examples=200)
@given(steps)
def test_the_latest_record_of_each_key_is_kept(doings: list[tuple[str, list[int]]]) -> None:
    disk, writer = Disk(), HandWriter()
    engine = SegmentEngine("/d", files=disk, writer=writer)
    log = engine.open(1, SETTINGS)
    assert isinstance(log, SegmentLog)
    written: dict[int, tuple[bytes, bytes]] = {}
    trimmed = 0
    for number, (name, arguments) in enumerate(doings):
        if name == "append":
            pairs = [(b"k%d" % key, b"%d." % number + bytes(40)) for key in arguments]
            base = log.append(keyed(pairs), len(pairs), 1_000)
            written |= {base + at: pair for at, pair in enumerate(pairs)}
        elif name == "retain":
            log.retain(2_000, 400)
        elif name == "trim":
            log.trim(arguments[0])
        elif name == "truncate":
            # Only what compaction does not touch yet may be taken back.
            log.truncate(max(arguments[0], log.settled()[1]))
        elif name in {"kill", "power"}:
            if name == "kill":
                disk.kill()
            else:
                disk.lose_power(random.Random(arguments[0]))
            writer = HandWriter()
            engine = SegmentEngine("/d", files=disk, writer=writer)
            log = engine.open(1, SETTINGS)
            assert isinstance(log, SegmentLog)
            assert engine.recovery.quarantined == []
        engine.commit()
        if name != "append":
            writer.run()
            engine.completed()
        found = contents(log)
        end, start = log.end_offset, log.start_offset
        # A crash may bring back a part of what was trimmed.
        trimmed = min(max(trimmed, start), end)
        kept = {at: pair for at, pair in written.items() if trimmed <= at < end}
        assert [at for at, _, _ in found] == sorted({at for at, _, _ in found})
        assert all(written[at] == (key, value) for at, key, value in found)
        latest = {key: at for at, (key, _) in sorted(kept.items())}
        assert set(latest.values()) <= {at for at, _, _ in found}
        written = {at: pair for at, pair in written.items() if at < end}


class Pages:
    """A log of two records that remembers what compaction has kept of it."""

    def __init__(self, batches: list[bytes]) -> None:
        self.batches = [StoredBatch(at, 1, each) for at, each in enumerate(batches)]
        self.kept: list[bytes | None] = []

    def settled(self) -> tuple[int, int]:
        return 0, len(self.batches)

    def read(self, offset: int, max_bytes: int) -> list[StoredBatch]:
        return self.batches[offset:][:1]

    def sweep(self, batch: StoredBatch, kept: bytes | None) -> None:
        self.kept.append(kept)

    def swept(self, target: int) -> None:
        assert target == len(self.batches)

    def unswept(self) -> None:
        raise AssertionError


def without_value(key: bytes, time_ms: int) -> bytes:
    """A batch of one record that deletes a key."""
    body = b"\0\0\0" + bytes((2 * len(key),)) + key + b"\x01" + b"\0"
    return rebuilt(keyed([(key, b"")], time_ms), [bytes((2 * len(body),)) + body])


def test_a_deletion_is_kept_until_every_reader_had_time_to_see_it() -> None:
    batches = [keyed([(b"a", b"1")]), without_value(b"a", 1_000), keyed([(b"b", b"2")])]
    assert records(batches[1])[0][3:5] == (b"a", None)
    limits = LogSettings(compact=True, compact_records=1, tombstone_ms=500)
    for now_ms, kept in ((1_500, [None, *batches[1:]]), (1_501, [None, None, batches[2]])):
        pages = Pages(batches)
        compaction = Compaction(pages, limits)
        while compaction.step(now_ms, 100):
            pass
        assert pages.kept == kept


def test_records_without_a_key_and_batches_not_seen_into_stay() -> None:
    plain = keyed([(b"a", b"1"), (b"a", b"2")])
    body = b"\0\0\0\x01" + b"\x02x" + b"\0"
    keyless = rebuilt(keyed([(b"", b"x")]), [bytes((2 * len(body),)) + body])
    assert records(keyless)[0][3:5] == (None, b"x")
    compressed = plain[:22] + b"\x02" + plain[23:]
    pages = Pages([keyless, keyless, compressed, compressed])
    compaction = Compaction(pages, LogSettings(compact=True, compact_records=1))
    while compaction.step(1 << 40, 100):
        pass
    assert pages.kept == [keyless, keyless, compressed, compressed]
