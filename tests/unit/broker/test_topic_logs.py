"""Topic logs: who keeps what, answers after it is safe, repeats, restarts, limits, retention."""

from array import array

import msgspec
import pytest

from robustmq import metrics
from robustmq._kernel.batch import BatchBuilder, records
from robustmq._kernel.crc import crc32c
from robustmq._kernel.turn import Turn
from robustmq.broker import frames
from robustmq.broker.api import Broker, LogBounds, StoredBatch
from robustmq.broker.frames import Kind
from robustmq.broker.log_parts import LogParts
from robustmq.broker.topic_logs import NoStore, TopicLogs
from robustmq.config import Storage, TopicRule
from robustmq.errors import Refusal, Refused
from robustmq.message.record import NO_HEADERS
from robustmq.message.topic import stable_hash
from robustmq.meta import records as meta
from robustmq.policy.topic_rules import TopicRules
from robustmq.storage.log import Unwritable
from tests.durable import DurableClient
from tests.fabric import Client, Fabric, Limits, Node
from tests.unit.broker.links import kinds

FULL = Refused(Refusal.QUOTA_EXCEEDED, "the disk is full")
OWN = TopicRule(filter="own/#", own_shard=True)
SHARED = TopicRule(filter="shared/#", retention_records=1_000)
FILES = TopicRule(filter="files/#", engine="segment", own_shard=True, flush="always")
MEMORY = TopicRule(filter="memory/#", engine="memory", retention_records=3)
MADE = msgspec.to_builtins(meta.Topic(partition=1, id=bytes(16)), builtin_types=(bytes,))
RULES = (OWN, SHARED, FILES, MEMORY, TopicRule(filter="small/#", max_message_bytes=4))


def fabric_of(cores: int, storage: Storage = Storage()) -> Fabric:  # noqa: B008
    return Fabric(cores, Limits(topic_rules=RULES, storage=storage))


def topic_at(core: int, cores: int, pattern: str = "own/{}") -> str:
    """A topic whose own log is on a core."""
    names = (pattern.format(number) for number in range(1_000))
    return next(name for name in names if stable_hash(name.encode()) % cores == core)


def values(batches: list[StoredBatch]) -> list[bytes | None]:
    return [value for batch in batches for *_, value, _ in records(batch.data)]


def kept(node: Node, topic: str) -> list[bytes | None]:
    """What the log of a topic has, page by page."""
    found: list[bytes | None] = []
    at = 0
    while batches := node.core.logs.read(topic.encode(), at, 1):
        found += values(batches)
        at = batches[-1].next_offset
    return found


def test_a_log_of_its_own_is_on_the_core_of_its_hash() -> None:
    fabric = fabric_of(3)
    topic = topic_at(2, 3)
    answers = [fabric.nodes[core].publish(topic, f"{core}", 1) for core in (0, 1, 2)]
    fabric.nodes[0].publish(topic, "at most once")
    fabric.settle()
    assert [answer.got for answer in answers] == [[(0, True)]] * 3
    assert sorted(map(str, kept(fabric.nodes[2], topic))) == sorted(
        map(str, [b"0", b"1", b"2", b"at most once"])
    )
    assert [node.core.logs.bounds(topic.encode()) for node in fabric.nodes] == [
        None,
        None,
        LogBounds(0, 4, 4),
    ]


def test_a_shared_log_is_on_the_core_that_publishes() -> None:
    fabric = fabric_of(2)
    for number in range(3):
        fabric.nodes[1].publish(f"shared/{number}", f"{number}", 1)
    fabric.settle()
    assert kept(fabric.nodes[1], "shared/anything") == [b"0", b"1", b"2"]
    assert kept(fabric.nodes[0], "shared/anything") == []
    (batch,) = fabric.nodes[1].core.logs.read(b"shared/x", 0, 1 << 20)
    assert [topic for _, _, _, topic, _, _ in records(batch.data)] == [
        b"shared/0",
        b"shared/1",
        b"shared/2",
    ]


def test_a_turn_is_sorted_into_whole_batches() -> None:
    fabric = fabric_of(2)
    node = fabric.nodes[0]
    here, there = topic_at(0, 2), topic_at(1, 2)
    client = node.client()
    client.subscribe("#")
    fabric.settle()
    for number in range(12):
        topic = (here, there, "shared/1", "nobody/keeps")[number % 4]
        node.publish(topic, f"{number}", 1, retain=number == 0)
    fabric.settle()
    assert client.payloads == [f"{number}" for number in range(12)]
    assert kept(fabric.nodes[0], here) == [b"0", b"4", b"8"]
    assert kept(fabric.nodes[1], there) == [b"1", b"5", b"9"]
    assert kept(fabric.nodes[0], "shared/1") == [b"2", b"6", b"10"]
    (batch,) = fabric.nodes[1].core.logs.read(there.encode(), 0, 1 << 20)
    assert [offset for _, _, offset, *_ in records(batch.data)] == [0, 1, 2]
    assert int.from_bytes(batch.data[17:21], "big") == crc32c(batch.data[21:])
    assert int.from_bytes(batch.data[23:27], "big") == 2, "last offset delta"
    assert [attributes & 3 for attributes, *_ in records(batch.data)] == [1, 1, 1]


def test_without_a_rule_nothing_is_kept() -> None:
    fabric = Fabric(2)
    fabric.nodes[0].publish("own/1", "x", 1)
    fabric.settle()
    assert [node.held.logs for node in fabric.nodes] == [{}, {}]
    assert fabric.nodes[0].core.logs.bounds(b"own/1") is None


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("core", [0, 1])
def test_the_publisher_hears_when_the_log_is_safe(core: int, qos: int) -> None:
    fabric = fabric_of(2)
    topic = topic_at(core, 2, "files/{}")
    owner = fabric.nodes[core]
    owner.held.hold = True
    answer = fabric.nodes[0].publish(topic, "x", qos)
    fabric.settle()
    assert answer.got == []
    assert owner.core.logs.bounds(topic.encode()) == LogBounds(0, 1, 0)
    assert kept(owner, topic) == [], "what is not safe is not read"
    owner.held.hold = False
    fabric.settle()
    assert answer.got == [(0, True)]
    assert kept(owner, topic) == [b"x"]


def test_the_row_of_a_new_log_is_safe_before_its_first_message_is_confirmed() -> None:
    fabric = fabric_of(1)
    node = fabric.nodes[0]
    node.table.hold = True
    answer = node.publish("files/1", "x", 1)
    fabric.settle()
    assert answer.got == []
    node.table.hold = False
    node.table.settle()
    node.table.completed()
    fabric.settle()
    assert answer.got == [(0, True)]


def test_a_log_in_memory_answers_at_once_and_is_bounded() -> None:
    fabric = fabric_of(1)
    node = fabric.nodes[0]
    node.held.hold = True
    answers = []
    for number in range(6):
        answers.append(node.publish("memory/1", f"{number}", 1))
        fabric.settle()
    assert all(answer.got == [(0, True)] for answer in answers)
    assert kept(node, "memory/1") == [b"3", b"4", b"5"]
    assert node.held.logs == {}
    fabric.replace(0)
    assert fabric.nodes[0].core.logs.bounds(b"memory/1") is None


def test_without_engines_it_is_refused() -> None:
    store = NoStore()
    assert store.refusal("rocksdb") is None
    with pytest.raises(Unwritable, match="own/#"):
        store.open(1, "rocksdb", OWN)


# -------------------------------------------------------------------- replacement


@pytest.mark.parametrize("pattern", ["own/{}", "files/{}"])
def test_an_owner_that_dies_is_asked_again_and_keeps_everything_once(pattern: str) -> None:
    fabric = fabric_of(2)
    topic = topic_at(1, 2, pattern)
    publisher = fabric.nodes[0]
    answers = []
    for number in range(9):
        answers.append(publisher.publish(topic, f"{number}", 1))
        if number == 3:
            # What follows is taken and lost again.
            fabric.nodes[1].held.hold = True
        if number == 6:
            fabric.stalled = {(1, 0)}
            fabric.nodes[1].held.hold = False
        fabric.turn(0)
        fabric.turn(1)
        fabric.turn(1)
    # What the last frames confirmed does not arrive: it is asked again, and was kept.
    fabric.replace(1, lost=100)
    fabric.stalled = set()
    fabric.settle()
    assert [answer.got for answer in answers] == [[(0, True)]] * 9
    assert kept(fabric.nodes[1], topic) == [b"%d" % number for number in range(9)]


def test_what_must_come_once_is_asked_again_by_the_publishers_next_life() -> None:
    fabric = fabric_of(2)
    topic = topic_at(1, 2)
    fabric.nodes[0].publish(topic, "before", 1)
    fabric.settle()
    fabric.nodes[0].publish(topic, "taken", 2)
    fabric.turn(0)
    fabric.turn(1)
    fabric.nodes[0].publish(topic, "on its way", 2)
    fabric.turn(0)
    fabric.replace(0, lost=100)
    fabric.settle()
    fabric.nodes[0].publish(topic, "after", 2)
    fabric.settle()
    assert kept(fabric.nodes[1], topic) == [b"before", b"taken", b"on its way", b"after"]
    assert not list(fabric.nodes[0].core.state.walk(b"O", b"P"))


def test_a_restart_of_all_finds_every_log() -> None:
    fabric = fabric_of(2)
    topics = [*(f"own/{n}" for n in range(4)), *(f"files/{n}" for n in range(4)), "shared/1"]
    for life in range(3):
        for core in (0, 1):
            for topic in topics:
                fabric.nodes[core].publish(topic, f"{life}{core}", 1)
        fabric.settle()
        for core in (0, 1):
            fabric.replace(core)
        fabric.settle()
    for topic in topics[:-1]:
        owner = fabric.nodes[stable_hash(topic.encode()) % 2]
        got = kept(owner, topic)
        assert sorted(map(str, got)) == sorted(
            str(b"%d%d" % (a, b)) for a in range(3) for b in (0, 1)
        )
    for core in (0, 1):
        assert kept(fabric.nodes[core], "shared/1") == [b"%d%d" % (life, core) for life in range(3)]
    media = [medium for node in fabric.nodes for medium in node.held.media.values()]
    assert sorted(media) == ["rocksdb"] * 6 + ["segment"] * 4
    numbers = [list(node.held.media) for node in fabric.nodes]
    assert all(len(set(each)) == len(each) for each in numbers)


def test_a_number_that_was_given_before_a_crash_begins_empty() -> None:
    fabric = fabric_of(1)
    node = fabric.nodes[0]
    # The log's file was written, its row was not.
    node.held.open(1, "segment", FILES).append(b"lost", 3, 0)
    answer = node.publish("files/b", "kept", 1)
    fabric.settle()
    assert list(node.held.logs) == [1]
    assert answer.got == [(0, True)]
    assert kept(node, "files/b") == [b"kept"]


def test_a_log_whose_rule_is_gone_or_another_stays_as_it_is() -> None:
    fabric = fabric_of(1)
    for topic in ("own/1", "files/1", "shared/1"):
        fabric.nodes[0].publish(topic, "x", 1)
    fabric.settle()
    other = TopicRule(filter="own/#", own_shard=True, engine="segment")
    fabric.limits = Limits(topic_rules=(other, TopicRule(filter="other/#", own_shard=True)))
    node = fabric.replace(0)
    node.publish("own/1", "y", 1)
    node.publish("other/1", "z", 1)
    node.publish("shared/1", "not kept", 1)
    fabric.settle()
    assert kept(node, "own/1") == [b"x", b"y"]
    assert kept(node, "other/1") == [b"z"]
    assert sorted(node.held.media.values()) == ["rocksdb", "rocksdb", "rocksdb", "segment"]
    fabric.limits = Limits(topic_rules=RULES)
    node = fabric.replace(0)
    assert kept(node, "shared/1") == [b"x"]
    assert kept(node, "files/1") == [b"x"]


# -------------------------------------------------------------------- refusals


def test_a_full_disk_refuses_and_what_comes_afterwards_is_kept() -> None:
    fabric = fabric_of(2)
    topic = topic_at(1, 2, "files/{}")
    publisher, owner = fabric.nodes
    first = publisher.publish(topic, "0", 1)
    fabric.settle()
    owner.held.refused = FULL
    refused = publisher.publish(topic, "1", 1)
    fabric.settle()
    owner.held.refused = None
    last = publisher.publish(topic, "2", 1)
    fabric.settle()
    assert (first.got, last.got) == ([(0, True)], [(0, True)])
    assert refused.got == [(Refusal.QUOTA_EXCEEDED, True)]
    assert owner.turn.row[metrics.MESSAGES_DROPPED_REFUSED] == 1
    assert kept(owner, topic) == [b"0", b"2"]


def test_what_waits_when_writing_fails_is_refused_unless_it_must_come_once() -> None:
    fabric = fabric_of(2)
    owner = fabric.nodes[0]
    here = topic_at(0, 2, "files/{}")
    owner.held.hold = True
    once = fabric.nodes[1].publish(here, "once", 2)
    again = owner.publish(here, "again", 1)
    fabric.settle()
    owner.held.refused = FULL
    fabric.settle()
    assert again.got == [(Refusal.QUOTA_EXCEEDED, True)]
    assert once.got == []
    owner.held.refused = None
    owner.held.hold = False
    fabric.settle()
    assert once.got == [(0, True)]


def test_a_core_keeps_so_many_logs() -> None:
    fabric = fabric_of(1, Storage(max_topic_logs=2))
    node = fabric.nodes[0]
    codes = []
    for number in (0, 1, 2, 0):
        answer = node.publish(f"own/{number}", "x", 1)
        fabric.settle()
        codes.append(answer.got[0][0])
    assert codes == [0, 0, Refusal.QUOTA_EXCEEDED, 0]
    assert kept(node, "own/0") == [b"x", b"x"]


def test_a_message_that_is_too_large_for_its_topic_is_refused() -> None:
    fabric = fabric_of(1)
    node = fabric.nodes[0]
    client = Client(node)
    client.subscribe("#")
    fabric.settle()
    assert node.publish("small/1", "four", 1).refused is None
    refused = node.publish("small/1", "fifth", 1).refused
    assert refused is not None
    assert refused.code is Refusal.TOO_LARGE
    assert "max_message_bytes" in refused.detail
    assert node.publish("$delayed/0/small/1", "fifth").refused == refused
    assert node.publish("large", "fifth" * 100).refused is None
    fabric.settle()
    assert client.payloads == ["four", "fifth" * 100]
    assert node.turn.row[metrics.MESSAGES_DROPPED_REFUSED] == 2


# -------------------------------------------------------------------- retention


def pass_time(fabric: Fabric, milliseconds: int) -> None:
    for node in fabric.nodes:
        node.turn.now_ms += milliseconds
        node.core.timers.run(node.turn.now_ms)
    fabric.settle()


def test_retention_looks_at_every_log_again_and_again() -> None:
    fabric = Fabric(
        1, Limits(topic_rules=(TopicRule(filter="#", own_shard=True, retention_records=5),))
    )
    node = fabric.nodes[0]
    assert node.core.timers.next_ms is None, "a core without logs is left alone"
    for number in range(30):
        node.publish(f"{number % 3}", f"{number}", 1)
        fabric.settle()
    pass_time(fabric, 1_000)
    assert kept(node, "0") == [b"15", b"18", b"21", b"24", b"27"]
    assert node.core.logs.bounds(b"0") == LogBounds(5, 10, 10)
    node.publish("0", "30", 1)
    fabric.settle()
    pass_time(fabric, 1_000)
    assert node.core.logs.bounds(b"0") == LogBounds(6, 11, 11)


def test_a_turn_looks_at_so_many_logs_and_the_next_at_others() -> None:
    fabric = Fabric(1, Limits(topic_rules=(TopicRule(filter="#", own_shard=True),)))
    node = fabric.nodes[0]
    for number in range(200):
        node.publish(f"{number}", "x", 1)
    fabric.settle()
    node.held.retained.clear()
    node.turn.now_ms += 1_000
    node.core.timers.run(node.turn.now_ms)
    turns = []
    while node.core.busy:
        before = len(node.held.retained)
        fabric.turn(0)
        turns.append(len(node.held.retained) - before)
    assert turns == [64, 64, 64, 8]


def test_a_note_spares_a_restart_to_read_the_log() -> None:
    fabric = fabric_of(1)
    node = fabric.nodes[0]
    node.publish("own/1", "x", 1)
    fabric.settle()
    assert not list(node.core.state.walk(b"P", b"Q"))
    pass_time(fabric, 1_000)
    ((key, note),) = node.core.state.walk(b"P", b"Q")
    assert int.from_bytes(note[:8], "big") == 1
    for _ in range(30):
        node.publish("own/1", "x" * 160_000, 1)
        fabric.settle()
    ((again, later),) = node.core.state.walk(b"P", b"Q")
    assert again == key
    assert 20 < int.from_bytes(later[:8], "big") <= 31
    node.core.close()
    ((_, last),) = node.core.state.walk(b"P", b"Q")
    assert int.from_bytes(last[:8], "big") == 31


def test_the_port_offers_the_logs() -> None:
    node = fabric_of(1).nodes[0]
    port: Broker = node.core
    assert isinstance(port.logs, TopicLogs)


def test_frames_go_to_the_owner_alone() -> None:
    fabric = fabric_of(3)
    fabric.nodes[0].publish(topic_at(1, 3), "x", 1)
    fabric.turn(0)
    assert kinds(fabric, 0, 1) == [Kind.KEEP]
    assert kinds(fabric, 0, 2) == []


def test_what_a_log_has_is_not_confirmed_to_the_next_life_of_who_asked() -> None:
    fabric = fabric_of(2)
    client = DurableClient(fabric, 1)
    client.subscribe("t/#")
    fabric.settle()
    keeper = fabric.nodes[1]
    keeper.held.hold = True
    fabric.nodes[0].publish(topic_at(1, 2), "x", 1)
    fabric.settle()
    fabric.replace(0)
    fabric.settle()
    keeper.table.hold = True
    answers = []
    for number in range(5):
        answers.append(fabric.nodes[0].publish("t/0", str(number), 1))
        fabric.settle()
    keeper.held.hold = False
    fabric.settle()
    assert [answer.got for answer in answers] == [[]] * 5
    keeper.table.hold = False
    keeper.table.settle()
    fabric.settle()
    assert [answer.got for answer in answers] == [[(0, True)]] * 5
    assert kept(keeper, topic_at(1, 2)) == [b"x"]


def test_what_comes_to_a_topic_that_is_gone_makes_no_log() -> None:
    fabric = fabric_of(2)
    node = fabric.nodes[0]
    for each in fabric.nodes:
        each.parts.catalog.apply("default/made", dict(MADE), 1)
    home = fabric.placement.log_core(b"made")
    answer = fabric.nodes[1 - home].publish("made", "x", 1)
    fabric.turn(1 - home)
    for each in fabric.nodes:
        each.parts.catalog.apply("default/made", None)
    fabric.settle()
    assert answer.got == [(0, True)]
    assert list(fabric.nodes[home].core.logs.walk()) == []
    assert node.core.logs.bounds(b"made") is None


def test_another_node_with_the_number_of_one_that_is_gone_begins_anew() -> None:
    fabric = fabric_of(1)
    keeper = fabric.nodes[0]
    parts = LogParts(TopicRules([OWN]), fabric.placement, 0, node=7)
    keep = frames.keep(1, b"town/1", one_of(parts, 9, "first"))
    keeper.core.receive(0, keep)
    keeper.core.receive(0, keep)
    fabric.settle()
    assert kept(keeper, "own/1") == [b"first"]
    keeper.core.forget(7)
    fabric.settle()
    fabric.replace(0)
    fabric.settle()
    fabric.nodes[0].core.receive(0, frames.keep(1, b"town/1", one_of(parts, 1, "of another")))
    fabric.settle()
    assert kept(fabric.nodes[0], "own/1") == [b"first", b"of another"]


def one_of(parts: LogParts, stream: int, payload: str) -> bytes:
    """A batch of one record as a core's life sends it to a log."""
    builder = BatchBuilder(Turn(array("Q", bytes(8 * metrics.CELLS))), 0, 1 << 20, None)
    builder.append(b"own/1", payload.encode(), NO_HEADERS, 1, 1_000)
    (part,) = parts.parts(builder.take()[0], stream, 1)
    return part.batch
