"""Topic logs on their way to another number of cores: what comes late, what is a repeat, gaps."""

from collections.abc import Sequence

import pytest

from robustmq._kernel.batch import records
from robustmq.broker import log_rows
from robustmq.broker.catalog_api import Topic
from robustmq.broker.departure import Target
from robustmq.broker.log_parts import Leaders, LogParts
from robustmq.broker.log_relocation import Depots
from robustmq.broker.partition_api import Partition
from robustmq.broker.placement import Placement
from robustmq.broker.relocation import Relocation
from robustmq.config import Engine, TopicRule
from robustmq.errors import Corrupt, Refusal, Refused
from robustmq.policy.topic_rules import TopicRules, log_name
from robustmq.shard.marker import Mark
from robustmq.shard.produced import Terms, checked
from robustmq.shard.shard import Shard
from robustmq.storage.log import StoredBatch, Unwritable
from robustmq.storage.memory_table import MemoryTable
from tests.held_logs import HeldLog, HeldLogs
from tests.produced import START_MS, TRANSACTIONAL, produced
from tests.unit.broker.test_relocation import PlainSessions, batch, once

OWN = TopicRule(filter="own/#", own_shard=True)
RULES = TopicRules(
    (
        OWN,
        TopicRule(filter="files/#", own_shard=True, engine="segment"),
        TopicRule(filter="shared/#", retention_records=1_000),
        TopicRule(filter="memory/#", engine="memory", own_shard=True),
    )
)


class Core:
    """A core's rows and logs."""

    def __init__(self) -> None:
        self.table = MemoryTable()
        self.held = HeldLogs()

    def make(self, name: bytes, number: int, engine: Engine = "rocksdb") -> Shard:
        """A log that is listed, empty."""
        self.table.put(log_rows.listed_key(name), log_rows.encode_listed(number, engine))
        return Shard(number, self.held.open(number, engine, RULES.of_log(name)))

    def shard(self, name: bytes) -> Shard:
        """A log of this core as its next life finds it."""
        value = self.table.get(log_rows.listed_key(name))
        assert value is not None
        number, engine, *_ = log_rows.decode_listed(value)
        shard = Shard(number, self.held.open(number, engine, RULES.of_log(name)))
        shard.recover(self.table.get(log_rows.note_key(number)), 1_000)
        return shard

    def names(self) -> list[bytes]:
        """The names of the logs."""
        return [key[1:] for key, _ in self.table.walk(b"Q", b"R")]

    def payloads(self, name: bytes) -> list[str]:
        """What a log has."""
        log = self.shard(name).log
        found = log.read(log.start_offset, 1 << 30)
        return [(value or b"").decode() for each in found for *_, value, _ in records(each.data)]


def moved(
    old: Sequence[Core], cores: int, catalog: Leaders | None = None, node: int = 1
) -> list[Core]:
    """The new cores."""
    for core in old:
        core.table.commit()
    new = [Core() for _ in range(cores)]
    Relocation(
        [core.table for core in old],
        [Target(core.table, core.table.commit) for core in new],
        sessions=PlainSessions(),
        depots=Depots([core.held for core in old], [core.held for core in new]),
        rules=RULES,
        progress=lambda *_: None,
        catalog=catalog,
        node=node,
    ).run()
    return new


def numbered(
    core: int, stream: int, call: int, topic: str, payload: str, *, ms: int = 1_000
) -> bytes:
    """A batch of one record as a core sends it to a log."""
    parts = LogParts(RULES, Placement(1), core)
    (found,) = parts.parts(batch((topic, payload, 2), timestamp=ms), stream, call)
    return found.batch


def test_a_log_takes_what_comes_late_once() -> None:
    old = [Core(), Core()]
    (keeps,) = {Placement(2).log_core(b"own/1")}
    log = old[keeps].make(b"town/1", 7)
    log.append(numbered(0, 2, 3, "own/1", "taken"), 0)
    log.append(numbered(1, 9, 9, "own/1", "of the other"), 0)
    old[keeps].table.put(log_rows.note_key(7), log.note())
    log.append(numbered(0, 2, 4, "own/1", "taken since the note"), 0)
    for call in range(3, 8):
        told = batch(("own/1", f"{call}", 2), ("shared/1", f"{call}", 2), ("none", "x", 2))
        old[0].table.put(*next(iter(once(2, call, told).items())))
    told = batch(("own/1", "1", 2), ("shared/2", "1", 2), ("files/1", "f", 2), ("memory/1", "m", 2))
    old[1].table.put(*next(iter(once(9, 10, told).items())))
    new = moved(old, 3)
    expected = ["taken", "of the other", "taken since the note", "5", "6", "7", "1"]
    assert new[Placement(3).log_core(b"own/1")].payloads(b"town/1") == expected
    assert new[Placement(3).log_core(b"files/1")].payloads(b"tfiles/1") == ["f"]
    assert [core.payloads(b"rshared/#") for core in new[:2]] == [["3", "4", "5", "6", "7"], ["1"]]
    assert sorted(name for core in new for name in core.names()) == [
        b"rshared/#", b"rshared/#", b"tfiles/1", b"town/1",
    ]  # fmt: skip
    again = moved(new, 2)[keeps].shard(b"town/1")
    assert again.append(numbered(0, 2, 7, "own/1", "a repeat"), 0) == 0
    assert again.append(numbered(1, 9, 10, "own/1", "a repeat"), 0) == 0
    assert again.append(numbered(0, 10, 1, "own/1", "of the next life"), 0) == 1


def test_logs_that_meet_are_sorted_by_time_and_know_what_they_have() -> None:
    old = [Core(), Core(), Core()]
    for core, times in enumerate(((10, 40, 30), (20, 50), (15, 60))):
        log = old[core].make(b"rshared/#", 3 + core)
        for call, ms in enumerate(times):
            log.append(numbered(core, 5, call, "shared/1", f"{core} {ms}", ms=ms), 0)
    told = batch(("shared/1", "late", 2))
    old[2].table.put(*next(iter(once(5, 1, told).items())))
    old[2].table.put(*next(iter(once(5, 2, told).items())))
    first, second = moved(old, 2)
    assert first.payloads(b"rshared/#") == ["0 10", "2 15", "0 40", "0 30", "2 60", "late"]
    assert second.payloads(b"rshared/#") == ["1 20", "1 50"]
    (only,) = moved([first, second], 1)
    shard = only.shard(b"rshared/#")
    for core, calls in enumerate((3, 2, 3)):
        for call in range(calls):
            assert shard.append(numbered(core, 5, call, "shared/1", "a repeat"), 0) == 0
        assert shard.append(numbered(core, 5, calls, "shared/1", "new"), 0) == 1


@pytest.mark.parametrize("start", [0, 2, 3, 4])
def test_offsets_stay_where_a_log_lacks_some(start: int) -> None:
    class Holed(HeldLog):
        """A log of ten batches of which some are missing, one damaged."""

        is_damaged = True

        @property
        def start_offset(self) -> int:
            return start

        def read(self, offset: int, max_bytes: int) -> list[StoredBatch]:
            found = super().read(offset, max_bytes)
            kept = [each for each in found if each.base_offset in {3, 4, 7}]
            if self.is_damaged and offset >= 5:
                self.is_damaged = False
                raise Corrupt("offset 5")
            return [each for each in kept if each.next_offset > offset][:2]

    old = Core()
    old.make(b"town/1", 1)
    log = old.held.logs[1] = Holed(old.held, TopicRule(filter="#"))
    for call in range(10):
        log.append(numbered(0, 1, call, "own/1", str(call)), 1, 0)
    (new,) = moved([old], 1)
    shard = new.shard(b"town/1")
    found = shard.read(0, 1 << 30)
    kept = [(each.base_offset, records(each.data)[0][4]) for each in found if records(each.data)]
    assert kept == [(each, b"%d" % each) for each in (3, 4, 7) if each >= start]
    assert (shard.start_offset, shard.end_offset) == (start, 10)


def test_a_log_without_records_keeps_its_end() -> None:
    old = Core()
    old.make(b"town/1", 1).log.reset(5)
    old.make(b"town/new", 2)
    (new,) = moved([old], 1)
    shards = [new.shard(name) for name in (b"town/1", b"town/new")]
    assert [(each.start_offset, each.end_offset) for each in shards] == [(5, 5), (0, 0)]
    assert [each.number for each in shards] == [1, 2]


def test_a_log_stays_in_its_engine_and_keeps_its_number_to_itself() -> None:
    old = [Core(), Core()]
    old[0].make(b"rshared/#", 8, "segment").append(numbered(0, 1, 1, "shared/1", "0"), 0)
    old[1].make(b"rshared/#", 8).append(numbered(1, 1, 1, "shared/1", "1"), 0)
    old[1].make(b"rgone/#", 9, "segment").append(numbered(1, 1, 1, "shared/1", "1"), 0)
    for core in old:
        core.table.put(b"Nshard", (16).to_bytes(8, "big"))
    (new,) = moved(old, 1)
    assert new.payloads(b"rshared/#") == ["0", "1"]
    assert new.payloads(b"rgone/#") == ["1"]
    assert new.held.media == {16: "segment", 17: "segment"}
    assert new.table.get(b"Nshard") == (18).to_bytes(8, "big")


def test_a_disk_that_takes_no_more_ends_the_move() -> None:
    old = Core()
    log = old.make(b"town/1", 1)
    log.append(numbered(0, 1, 1, "own/1", "x"), 0)
    new = Core()
    new.held.refused = Refused(Refusal.QUOTA_EXCEEDED, "full")
    old.table.commit()
    with pytest.raises(Unwritable, match="full"):
        Relocation(
            [old.table],
            [Target(new.table, new.table.commit)],
            sessions=PlainSessions(),
            depots=Depots([old.held], [new.held]),
            rules=RULES,
            progress=lambda *_: None,
        ).run()


def test_partitions_go_their_ways_with_all_that_is_known_of_them() -> None:
    old = [Core(), Core()]
    terms = Terms()
    for number in range(4):
        core = old[Placement(2).log_core(b"own/1", number)]
        name = log_name(OWN, b"own/1", number)
        shard = core.make(name, 10 + number)
        shard.begin_epoch(4)
        for producer in (1, 2):
            shard.begin(producer, 0, 1)
            for first in range(2):
                data = produced(
                    b"%d/%d" % (producer, first),
                    producer=producer,
                    epoch=0,
                    first=first,
                    attributes=TRANSACTIONAL,
                )
                shard.produce(checked(data, terms, START_MS), START_MS)
        shard.end(1, 0, Mark(False, 1), START_MS)
        row = log_rows.encode_listed(10 + number, "rocksdb", shard.epochs.encode())
        core.table.put(log_rows.listed_key(name), row)
        if number % 2:
            core.table.put(log_rows.note_key(10 + number), shard.note())
    new = moved(old, 3)
    assert [len(core.names()) for core in new] == [
        sum(Placement(3).log_core(b"own/1", number) == core for number in range(4))
        for core in range(3)
    ]
    for number in range(4):
        core = new[Placement(3).log_core(b"own/1", number)]
        name = log_name(OWN, b"own/1", number)
        shard = core.shard(name)
        value = core.table.get(log_rows.listed_key(name))
        assert value is not None
        shard.epochs.decode(log_rows.decode_listed(value).epochs)
        assert shard.epochs.current == 4
        assert (shard.end_offset, shard.stable_offset) == (5, 2)
        assert [each.first for each in shard.transactions.aborted(0, 5)] == [0]
        repeat = produced(b"2/1", producer=2, epoch=0, first=1, attributes=TRANSACTIONAL)
        assert shard.produce(checked(repeat, terms, START_MS), START_MS).base_offset == 3
        assert {each.last_ms for each in shard.producers.standings()} <= {START_MS, 1_000}


def test_what_comes_late_to_a_partition_is_known_there() -> None:
    """A message that was to be delivered once is in its partition already, or comes there."""

    class Topics:
        def of(self, topic: bytes) -> Topic | None:
            return Topic(name=topic, id=bytes(16), partitions=3, rule=OWN)

        def core_of(self, partition: Partition) -> int | None:
            return partition.number

    old = [Core(), Core()]
    for stream in (1, 2):
        told = batch(("own/1", str(stream), 2))
        old[1].table.put(*next(iter(once(stream, 7, told).items())))
    parts = LogParts(RULES, Placement(2), 1, Topics(), 5)
    (known,) = parts.parts(batch(("own/1", "1", 2)), 1, 7)
    assert known.name == b"town/1\0001"
    old[0].make(known.name, 1).append(known.batch, 0)
    new = moved(old, 3, catalog=Topics(), node=5)
    home = Placement(3).log_core(b"own/1", 1)
    assert new[home].payloads(known.name) == ["1", "2"]
