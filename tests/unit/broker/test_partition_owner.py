"""The owner of partitions: what it takes, when it answers, who is woken, and what goes away."""

import pytest

from robustmq.broker.partition_api import (
    EARLIEST,
    LATEST,
    NEWEST,
    Aborted,
    Appended,
    Fault,
    Marker,
    Opening,
    Partition,
    Sought,
    Wanted,
)
from robustmq.broker.partition_owner import PartitionOwner
from robustmq.config import TopicRule
from robustmq.errors import Refusal, Refused
from robustmq.settings.kafka import KafkaRuntime
from tests.fabric import START_MS
from tests.partition_core import ONE, TOPIC, World
from tests.produced import TRANSACTIONAL, produced

PRODUCER = 4711


@pytest.fixture
def world() -> World:
    world = World()
    world.make()
    return world


def test_a_batch_is_answered_when_it_is_safe_and_read_with_its_place(world: World) -> None:
    held = world.node.held
    held.hold = True
    batch = produced(b"a", b"b")
    answers = world.append(batch)
    world.settle()
    assert answers == []
    assert world.owner.read(Wanted(ONE, 0, 1 << 20))[:5] == (0, 0, 0, 0, [])
    held.hold = False
    world.settle()
    assert answers == [Appended(0, 0, -1, 0)]
    assert world.put(produced(b"c")) == [Appended(0, 2, -1, 0)]
    read = world.owner.read(Wanted(ONE, 1, 1 << 20))
    assert [each[:8] for each in read.batches] == [bytes(8), (2).to_bytes(8, "big")]
    assert read.batches[0][12:16] == bytes(4), "the leader's epoch"
    assert read.batches[0][16:] == batch[16:], "nothing else is touched"
    assert (read.high_watermark, read.stable_offset, read.leader_epoch) == (3, 3, 0)


def test_what_is_not_there_or_led_elsewhere_is_said(world: World) -> None:
    for partition in (Partition(b"nothing"), Partition(TOPIC, 2)):
        assert world.append(produced(b"a"), partition) == [Appended(Fault.UNKNOWN)]
        assert world.owner.read(Wanted(partition, 0, 1)).fault == Fault.UNKNOWN
        assert world.owner.find(Sought(partition, LATEST)).fault == Fault.UNKNOWN
    assert world.owner.read(Wanted(ONE, 1, 100)).fault == Fault.OUT_OF_RANGE
    assert world.owner.read(Wanted(ONE, 0, 1, leader_epoch=1)).fault == Fault.UNKNOWN_LEADER_EPOCH
    elsewhere = PartitionOwner(
        world.node.turn,
        logs=world.node.parts.logs,
        catalog=world.catalog,
        settings=KafkaRuntime(),
        core=7,
    )
    assert elsewhere.read(Wanted(ONE, 0, 1)).fault == Fault.NOT_LEADER


def test_a_full_disk_is_said_and_a_repeat_is_taken_afterwards(world: World) -> None:
    batches = [
        produced(b"a", producer=PRODUCER, epoch=0, first=0),
        produced(b"b", producer=PRODUCER, epoch=0, first=1),
    ]
    world.put(produced(b"first"))
    world.node.held.refused = Refused(Refusal.QUOTA_EXCEEDED, "the disk is full")
    assert world.append(batches[0]) == [Appended(Fault.FULL, detail="the disk is full")]
    world.node.held.refused = None
    assert world.append(batches[1])[0].fault == Fault.OUT_OF_SEQUENCE, "not before the refused one"
    assert [each.base_offset for each in world.put(*batches)] == [1, 2]


def test_repeats_get_the_first_answer_also_after_a_crash(world: World) -> None:
    batches = [
        produced(b"%d" % number, producer=PRODUCER, epoch=3, first=number) for number in range(8)
    ]
    assert [each.base_offset for each in world.put(*batches)] == list(range(8))
    world.restart()
    assert world.put(batches[4]) == [Appended(0, 4, -1, 0)]
    assert world.put(batches[1])[0].fault == Fault.DUPLICATE_SEQUENCE
    gap = produced(b"x", producer=PRODUCER, epoch=3, first=9)
    assert world.put(gap)[0].fault == Fault.OUT_OF_SEQUENCE
    late = produced(b"x", producer=PRODUCER, epoch=2, first=8)
    assert world.put(late)[0].fault == Fault.FENCED_PRODUCER
    assert world.put(produced(b"x", producer=PRODUCER, epoch=3, first=8))[0].base_offset == 8
    assert len(world.values()) == 9


def test_a_repeat_waits_for_what_it_repeats(world: World) -> None:
    batch = produced(b"a", producer=PRODUCER, epoch=0, first=0)
    world.put(produced(b"x"))
    world.node.held.hold = True
    answers = world.append(batch) + world.append(batch)
    world.settle()
    assert answers == []
    again = world.append(batch)
    world.node.held.hold = False
    world.settle()
    assert [each.base_offset for each in again] == [1]


def test_readers_are_woken_once_when_there_is_more(world: World) -> None:
    woken: list[str] = []
    world.put(produced(b"x"))
    world.owner.park(ONE, False, lambda: woken.append("any"))
    world.owner.park(ONE, True, lambda: woken.append("committed"))
    cancelled = world.owner.park(ONE, False, lambda: woken.append("cancelled"))
    cancelled.cancel()
    other = world.owner.park(Partition(TOPIC, 1), False, lambda: woken.append("other"))
    world.owner.begin(Opening(ONE, PRODUCER, 0, 1))
    world.put(produced(b"t", producer=PRODUCER, epoch=0, first=0, attributes=TRANSACTIONAL))
    assert woken == ["any"], "the stable offset stays before an open transaction"
    world.put(produced(b"x"))
    assert woken == ["any"]
    world.owner.end(Marker(ONE, PRODUCER, 0, True, 1), lambda _: None)
    world.settle()
    assert woken == ["any", "committed"]
    other.cancel()


def test_a_reader_of_what_is_cold_is_woken_when_it_is_in_memory(world: World) -> None:
    world.put(produced(b"a"))
    held = world.node.held
    held.cold = True
    assert world.values() == []
    woken: list[int] = []
    world.owner.park(ONE, False, lambda: woken.append(1))
    world.owner.park(ONE, True, lambda: woken.append(2))
    world.settle()
    assert (woken, world.node.parts.logs.is_active) == ([], True)
    held.cold = False
    world.settle()
    assert (woken, world.node.parts.logs.is_active) == ([1, 2], False)
    assert world.values() == [b"a"]


def test_a_transaction_is_read_when_it_is_committed_and_told_when_it_is_aborted(
    world: World,
) -> None:
    def write(value: bytes, first: int) -> Appended:
        (answer,) = world.put(
            produced(value, producer=PRODUCER, epoch=0, first=first, attributes=TRANSACTIONAL)
        )
        return answer

    def end(is_committed: bool, coordinator_epoch: int) -> int:
        faults: list[int] = []
        marker = Marker(ONE, PRODUCER, 0, is_committed, coordinator_epoch)
        world.owner.end(marker, faults.append)
        world.settle()
        return faults[0]

    assert write(b"a", 0).fault == Fault.INVALID_TRANSACTION, "nobody has begun it"
    assert world.owner.begin(Opening(ONE, PRODUCER, 0, 1)) == 0
    assert write(b"b", 1).fault == Fault.OUT_OF_SEQUENCE, "what was refused comes first"
    assert [write(b"a", 0).base_offset, write(b"b", 1).base_offset] == [0, 1]
    plain = produced(b"p", producer=PRODUCER, epoch=0, first=2)
    assert world.put(plain)[0].fault == Fault.INVALID_TRANSACTION
    assert world.values(is_committed=True) == []
    assert world.values() == [b"a", b"b"]
    assert end(False, 1) == 0
    assert end(False, 1) == 0, "a repeat is no second marker"
    assert world.owner.begin(Opening(ONE, PRODUCER, 0, 1)) == Fault.FENCED_PRODUCER
    assert world.owner.begin(Opening(ONE, PRODUCER, 0, 2)) == 0
    assert write(b"c", 2).base_offset == 3
    read = world.owner.read(Wanted(ONE, 0, 1 << 20, is_committed=True))
    assert (read.high_watermark, read.stable_offset) == (4, 3)
    assert read.aborted == [Aborted(PRODUCER, 0)]
    for _ in range(2):
        producers = world.owner.producers(ONE)[1]
        assert [(each.last_sequence, each.open_offset) for each in producers] == [(2, 3)]
        world.restart()
    assert end(True, 2) == 0
    assert end(True, 1) == Fault.FENCED_PRODUCER, "a coordinator of before"
    read = world.owner.read(Wanted(ONE, 2, 1 << 20, is_committed=True))
    assert read.stable_offset == 5
    assert read.aborted == [Aborted(PRODUCER, 0)], "its marker lies at 2"
    assert world.owner.read(Wanted(ONE, 3, 1 << 20, is_committed=True)).aborted == []


def test_a_marker_of_a_newer_epoch_fences_who_is_late(world: World) -> None:
    faults: list[int] = []
    world.owner.end(Marker(ONE, PRODUCER, 5, False, 1), faults.append)
    world.settle()
    world.restart()
    late = produced(b"a", producer=PRODUCER, epoch=4, first=0, attributes=TRANSACTIONAL)
    assert (faults, world.put(late)[0].fault) == ([0], Fault.FENCED_PRODUCER)
    assert world.owner.begin(Opening(ONE, PRODUCER, 4, 2)) == Fault.FENCED_PRODUCER


def test_offsets_are_found_to_the_record(world: World) -> None:
    at = START_MS
    world.put(
        produced(b"a", b"b", b"c", times=(at + 5, at + 30, at + 20)),
        produced(b"d", times=(at + 25,)),
        produced(b"e", b"f", times=(at + 40, at + 30)),
    )
    places = [(0, 0), (6, 1), (30, 1), (31, 4), (40, 4), (41, -1)]
    for delta, offset in places:
        assert world.owner.find(Sought(ONE, at + delta)).offset == offset
    assert world.owner.find(Sought(ONE, NEWEST))[1:3] == (4, at + 40)
    assert world.owner.find(Sought(ONE, LATEST))[1:3] == (6, -1)
    assert world.owner.find(Sought(ONE, EARLIEST))[1:3] == (0, -1)
    assert world.owner.trim(ONE, 2).offset == 0, "what lies in one batch stays together here"
    assert world.owner.trim(ONE, 3).offset == 3
    assert world.owner.find(Sought(ONE, at))[1:3] == (3, at + 25)
    assert world.owner.trim(ONE, -1).offset == 6
    assert world.owner.trim(ONE, 7).fault == Fault.OUT_OF_RANGE
    assert world.owner.find(Sought(ONE, EARLIEST)).offset == 6


def test_a_topic_that_is_removed_takes_its_logs_with_it(world: World) -> None:
    other = Partition(TOPIC, 1)
    world.put(produced(b"a"))
    world.append(produced(b"b"), other)
    world.settle()
    assert [each.partition for each in world.owner.sizes()] == [ONE, other]
    woken: list[int] = []
    world.owner.park(ONE, False, lambda: woken.append(1))
    world.node.held.hold = True
    answers = world.append(produced(b"c"))
    world.remove()
    assert ([each.fault for each in answers], woken) == ([Fault.UNKNOWN], [1])
    assert world.owner.sizes() == []
    assert world.node.held.logs == {}
    world.node.held.hold = False
    world.make(number=2)
    assert world.put(produced(b"new")) == [Appended(0, 0, -1, 0)]
    world.restart()
    assert world.values() == [b"new"]


def test_a_topic_of_the_same_name_begins_empty(world: World) -> None:
    world.put(produced(b"a"))
    world.make(number=2)
    assert world.values() == []


def test_settings_are_those_of_the_moment(world: World) -> None:
    stamped = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "1000"}
    world.put(produced(b"a"))
    world.make(config=stamped)
    (answer,) = world.put(produced(b"b", times=(1,)))
    assert (answer.base_offset, answer.timestamp_ms) == (1, world.node.turn.now_ms)
    assert world.owner.find(Sought(ONE, world.node.turn.now_ms)).offset == 0
    (answer,) = world.put(produced(bytes(2_000)))
    assert answer.fault == Fault.TOO_LARGE
    world.make()
    assert world.put(produced(bytes(2_000)))[0].fault == 0


def test_what_mqtt_clients_publish_is_read_too(world: World) -> None:
    answer = world.node.publish("events", "from MQTT", 1)
    world.settle()
    assert answer.got == [(0, True)]
    world.put(produced(b"from Kafka"))
    assert world.values() == [b"from MQTT", b"from Kafka"]


def test_shared_logs_of_a_rule_are_read_and_not_produced_to() -> None:
    rule = TopicRule(filter="plant/#", retention_records=100, kafka_topic="events")
    world = World((rule,))
    world.node.publish("plant/1", "x", 1)
    world.settle()
    assert world.values() == [b"x"]
    (answer,) = world.append(produced(b"y"))
    assert (answer.fault, "MQTT" in answer.detail) == (Fault.INVALID_RECORD, True)


def test_an_appender_does_what_append_does_and_is_none_of_what_is_not_led_here(
    world: World,
) -> None:
    append = world.owner.appender(ONE)
    assert append is not None
    answers: list[Appended] = []
    for batch in (produced(b"a", b"b"), b"garbage", produced(b"c")):
        append(memoryview(b"frame" + batch)[5:], answers.append)
        world.settle()
        answers += world.put(batch)
    faults = [each.fault for each in answers]
    assert faults == [0, 0, Fault.CORRUPT, Fault.CORRUPT, 0, 0]
    assert [each.base_offset for each in answers if not each.fault] == [0, 2, 4, 5]
    assert world.values() == [b"a", b"b", b"a", b"b", b"c", b"c"]
    assert world.owner.appender(Partition(TOPIC, 9)) is None
    world.remove()
    assert world.owner.appender(ONE) is None
    world.make(number=2)
    append = world.owner.appender(ONE)
    assert append is not None
    append(produced(b"anew"), answers.append)
    world.settle()
    assert answers[-1] == Appended(0, 0, -1, 0)
    assert world.values() == [b"anew"]
