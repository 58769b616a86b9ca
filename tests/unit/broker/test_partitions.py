"""The way to partitions on this core and others: every call is answered, once, by who leads."""

from collections.abc import Callable, Mapping, Sequence

import pytest

from robustmq.broker.partition_api import (
    Appended,
    EpochEnd,
    Fault,
    Found,
    Marker,
    Opening,
    Partition,
    Producing,
    Read,
    Reading,
    Size,
    Sought,
    Wanted,
)
from robustmq.broker.partition_frames import Kind
from robustmq.message.core_number import global_core
from tests.partition_world import TOPIC, World, batch_of, payload_of

FIRST = Partition(TOPIC, 0)
SECOND = Partition(TOPIC, 1)
MANY = 1 << 20


class Reader:
    """Reads of one core, and what they were answered."""

    def __init__(self, world: World, core: int = 0) -> None:
        self.world = world
        self.core = core
        self.answers: list[Sequence[Read]] = []

    def read(
        self, *wanted: Wanted, least: int = 1, most: int = MANY, wait_ms: int = 500
    ) -> Reading:
        """Begin a read."""
        router = self.world.cores[self.core].router
        until_ms = self.world.now_ms + wait_ms
        return router.read(wanted, least, most, until_ms, self.answers.append)

    def payloads(self) -> list[list[bytes]]:
        """What the last answer has for each that was wanted."""
        return [[payload_of(batch) for batch in read.batches] for read in self.answers[-1]]


def wanted(partition: Partition, offset: int = 0, most: int = MANY) -> Wanted:
    return Wanted(partition, offset, most)


def appended(world: World, partition: Partition, *payloads: bytes, core: int = 0) -> list[Appended]:
    """Append, and let the world settle."""
    answers: list[Appended] = []
    for payload in payloads:
        world.cores[core].router.append(partition, batch_of(payload), answers.append)
    world.settle()
    return answers


def frames(world: World, source: int, target: int) -> list[int]:
    return [frame[0] for *_, frame in world.rings[source, target]]


@pytest.mark.parametrize("partition", [FIRST, SECOND])
def test_a_batch_is_answered_by_the_core_that_leads(partition: Partition) -> None:
    world = World(2)
    assert appended(world, partition, b"a", b"b") == [Appended(0, 0), Appended(0, 1)]
    owner = world.cores[partition.number].owner
    assert [payload_of(batch) for batch in owner.logs[partition]] == [b"a", b"b"]


def test_a_fault_comes_back_from_another_core_with_its_sentence() -> None:
    world = World(2)
    world.cores[1].owner.faults[SECOND] = Fault.TOO_LARGE
    assert appended(world, SECOND, b"a") == [Appended(Fault.TOO_LARGE)]


def test_a_partition_that_there_is_not_is_unknown_and_one_led_elsewhere_is_not_led() -> None:
    world = World(1)
    world.topics.elsewhere = {SECOND: global_core(3, 0), Partition(TOPIC, 2): None}
    faults = [
        appended(world, partition, b"x")[0].fault
        for partition in (Partition(b"u"), Partition(TOPIC, 8), SECOND, Partition(TOPIC, 2))
    ]
    assert faults == [Fault.UNKNOWN, Fault.UNKNOWN, Fault.NOT_LEADER, Fault.NOT_LEADER]
    reader = Reader(world)
    reader.read(wanted(FIRST), wanted(SECOND), wanted(Partition(b"u")))
    assert [read.fault for read in reader.answers[0]] == [0, Fault.NOT_LEADER, Fault.UNKNOWN]


def test_whoever_appends_much_too_much_is_refused_until_it_is_answered() -> None:
    world = World(2, pressure_bytes=1_000)
    router = world.cores[0].router
    answers: list[Appended] = []
    for partition in (FIRST, SECOND) * 6:
        router.append(partition, batch_of(bytes(400)), answers.append)
    assert [answer.fault for answer in answers] == [Fault.BUSY] * 3
    world.settle()
    assert appended(world, SECOND, b"again")[0].fault == 0


def test_what_is_there_is_read_at_once_from_several_cores_in_the_order_that_was_wanted() -> None:
    world = World(2)
    appended(world, FIRST, b"a", b"b")
    appended(world, SECOND, b"c")
    reader = Reader(world)
    reader.read(wanted(SECOND), wanted(FIRST, 1), wanted(Partition(TOPIC, 2)))
    world.settle()
    assert reader.payloads() == [[b"c"], [b"b"], []]
    assert [read.high_watermark for read in reader.answers[0]] == [1, 2, 0]
    # Who had enough was asked, and did not wait.
    assert not world.cores[0].owner.parked
    assert not world.cores[1].owner.parked


@pytest.mark.parametrize("partition", [FIRST, SECOND])
def test_a_reader_waits_for_what_comes_and_everybody_else_is_told_to_forget_it(
    partition: Partition,
) -> None:
    world = World(2)
    reader = Reader(world)
    reader.read(wanted(FIRST), wanted(SECOND))
    world.settle()
    assert not reader.answers
    assert world.cores[0].owner.parked == world.cores[1].owner.parked == 1
    appended(world, partition, b"x", core=1)
    assert reader.payloads() == [[b"x"] * (partition == FIRST), [b"x"] * (partition == SECOND)]
    assert world.cores[0].owner.parked == world.cores[1].owner.parked == 0
    world.advance(1_000)
    assert len(reader.answers) == 1


def test_a_reader_is_answered_when_its_time_is_over() -> None:
    world = World(2)
    reader = Reader(world)
    reader.read(wanted(FIRST), wanted(SECOND), wait_ms=200)
    world.settle()
    world.advance(100)
    assert not reader.answers
    world.advance(200)
    world.settle()
    assert reader.payloads() == [[], []]
    assert world.cores[0].owner.parked == world.cores[1].owner.parked == 0


def test_what_comes_meanwhile_is_put_together_until_it_is_enough() -> None:
    world = World(2)
    reader = Reader(world)
    size = len(batch_of(b"x"))
    reader.read(wanted(FIRST), wanted(SECOND), least=5 * size)
    appended(world, FIRST, b"a")
    appended(world, SECOND, b"b", b"c")
    appended(world, FIRST, b"d")
    assert not reader.answers
    appended(world, SECOND, b"e")
    assert reader.payloads() == [[b"a", b"d"], [b"b", b"c", b"e"]]


def test_nothing_is_waited_for_without_time_or_with_a_fault() -> None:
    world = World(2)
    reader = Reader(world)
    reader.read(wanted(FIRST), wanted(SECOND), wait_ms=0)
    world.settle()
    assert reader.payloads() == [[], []]
    reader.read(wanted(FIRST), wanted(SECOND, 5))
    world.settle()
    assert [read.fault for read in reader.answers[1]] == [0, Fault.OUT_OF_RANGE]
    reader.read(wanted(FIRST), wanted(SECOND))
    world.settle()
    world.cores[1].owner.faults[SECOND] = Fault.NOT_LEADER
    world.cores[1].router.moved()
    world.settle()
    assert [read.fault for read in reader.answers[2]] == [0, Fault.NOT_LEADER]


def test_a_read_takes_no_more_than_it_wanted_and_still_says_how_far_each_reaches() -> None:
    world = World(1)
    for partition in (FIRST, SECOND):
        appended(world, partition, *[bytes(1_000)] * 5)
    reader = Reader(world)
    reader.read(wanted(FIRST), wanted(SECOND), most=2_500)
    assert [len(read.batches) for read in reader.answers[0]] == [2, 1]
    reader.read(wanted(FIRST, most=1), wanted(SECOND, most=1))
    assert [len(read.batches) for read in reader.answers[1]] == [1, 1]
    reader.read(wanted(FIRST), wanted(SECOND), most=900)
    assert [len(read.batches) for read in reader.answers[2]] == [1, 0]
    assert reader.answers[2][1].high_watermark == 5


def test_what_another_core_cannot_take_is_not_read_for_it_yet() -> None:
    world = World(2, pressure_bytes=2_000)
    appended(world, SECOND, *[bytes(1_000)] * 3, core=1)
    world.stalled.add((1, 0))
    readers = [Reader(world) for _ in range(4)]
    for reader in readers:
        reader.read(wanted(SECOND))
    world.turn(1)
    assert frames(world, 1, 0) == [Kind.READING]
    world.stalled.clear()
    world.settle()
    assert [len(reader.answers) for reader in readers] == [1] * 4


def test_who_waits_no_more_hears_nothing() -> None:
    world = World(2)
    reader = Reader(world)
    reading = reader.read(wanted(FIRST), wanted(SECOND))
    world.settle()
    reading.cancel()
    world.settle()
    assert world.cores[0].owner.parked == world.cores[1].owner.parked == 0
    appended(world, SECOND, b"x")
    world.advance(1_000)
    assert not reader.answers


def test_a_core_that_is_replaced_has_answered_that_it_is_not_known() -> None:
    world = World(2)
    world.stalled.add((0, 1))
    router = world.cores[0].router
    outcomes: list[Appended] = []
    ends: list[Sequence[int]] = []
    found: list[Sequence[Found]] = []
    router.append(SECOND, batch_of(b"x"), outcomes.append)
    router.end([Marker(FIRST, 1, 2, True), Marker(SECOND, 1, 2, True)], ends.append)
    router.find([Sought(SECOND, -1)], found.append)
    reader = Reader(world)
    reader.read(wanted(FIRST), wanted(SECOND))
    world.replace(1)
    world.settle()
    assert outcomes == [Appended(Fault.UNAVAILABLE)]
    assert ends == [[0, Fault.UNAVAILABLE]]
    assert found == [[Found(Fault.UNAVAILABLE)]]
    assert [read.fault for read in reader.answers[0]] == [0, Fault.UNAVAILABLE]
    world.stalled.clear()
    world.settle()
    assert SECOND not in world.cores[1].owner.logs
    assert len(reader.answers) == len(outcomes) == 1


def test_a_core_that_says_nothing_holds_up_nobody_who_has_something() -> None:
    world = World(2)
    appended(world, FIRST, b"a")
    world.stalled.add((0, 1))
    reader = Reader(world)
    reader.read(wanted(FIRST), wanted(SECOND), wait_ms=100)
    world.settle()
    assert not reader.answers
    world.advance(200)
    assert reader.payloads() == [[b"a"], []]
    assert [read.fault for read in reader.answers[0]] == [0, Fault.UNAVAILABLE]


def test_what_a_core_waited_for_is_forgotten_with_it() -> None:
    world = World(2)
    Reader(world, 1).read(wanted(FIRST))
    world.settle()
    assert world.cores[0].owner.parked == 1
    world.replace(1)
    world.settle()
    assert world.cores[0].owner.parked == 0


def test_every_question_is_put_to_those_who_lead_and_answered_in_order() -> None:
    world = World(2)
    appended(world, SECOND, b"x", b"y")
    router = world.cores[0].router
    answers: list[object] = []
    unknown = Partition(b"u", 3)
    router.find([Sought(SECOND, -1), Sought(unknown, -1), Sought(FIRST, -2)], answers.append)
    router.epoch_ends([(SECOND, 0, 4), (FIRST, 1, 4)], answers.append)
    router.trim([(FIRST, -1), (SECOND, 1)], answers.append)
    router.begin([Opening(SECOND, 1, 2), Opening(unknown, 1, 2)], answers.append)
    router.end([Marker(FIRST, 1, 2, True), Marker(SECOND, 1, 2, False)], answers.append)
    router.producers(SECOND, lambda fault, known: answers.append((fault, known)))
    router.producers(unknown, lambda fault, known: answers.append((fault, list(known))))
    router.sizes(answers.append)
    router.find([], answers.append)
    world.settle()
    size = 2 * len(batch_of(b"x"))
    expected = [
        [Found(0, 2, -1), Found(Fault.UNKNOWN), Found(0, 0, -2)],
        [EpochEnd(0, 4, 2), EpochEnd(0, 5, 0)],
        [Found(0, -1), Found(0, 1)],
        [0, Fault.UNKNOWN],
        [0, 0],
        (0, [Producing(1, 1, 2, 3)]),
        (Fault.UNKNOWN, []),
        [Size(SECOND, size)],
        [],
    ]
    assert len(answers) == len(expected)
    assert all(each in answers for each in expected)


def test_transactions_end_on_other_nodes_too_unless_these_are_gone() -> None:
    world = World(1)
    world.topics.elsewhere = {FIRST: global_core(3, 0)}
    answers: list[Sequence[int]] = []
    world.cores[0].router.end([Marker(FIRST, 1, 2, True)], answers.append)
    assert answers == [[Fault.UNAVAILABLE]]


def test_an_answer_may_ask_again() -> None:
    world = World(2)
    appended(world, FIRST, b"a", b"b", b"c")
    got: list[bytes] = []
    router = world.cores[0].router

    def read_on(offset: int) -> Callable[[Sequence[Read]], None]:
        def reply(reads: Sequence[Read]) -> None:
            got.extend(payload_of(batch) for batch in reads[0].batches)
            if len(got) < 5:
                until_ms = world.now_ms + 500
                router.read([wanted(FIRST, len(got), 1)], 1, MANY, until_ms, read_on(offset + 1))

        return reply

    router.read([wanted(FIRST, 0, 1)], 1, MANY, world.now_ms + 500, read_on(0))
    appended(world, FIRST, b"d", b"e", core=1)
    assert got == [b"a", b"b", b"c", b"d", b"e"]


class Follower:
    """Somebody who reads again and again on core 0, without waiting."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.following = world.cores[0].router.follow()

    def read(self) -> dict[int, list[bytes] | int]:
        """Read; returns the fault or the payloads by place."""
        answers: list[Mapping[int, Read]] = []
        self.following.read(1, MANY, 0, answers.append)
        self.world.settle()
        (reads,) = answers
        return {
            place: read.fault or [payload_of(batch) for batch in read.batches]
            for place, read in reads.items()
        }


def test_who_follows_is_told_of_a_partition_only_when_there_may_be_news() -> None:
    world = World(2)
    follower = Follower(world)
    for number in range(8):
        follower.following.want(number, wanted(Partition(TOPIC, number)))
    assert follower.read() == {number: [] for number in range(8)}
    assert follower.read() == {}
    before = sum(core.owner.reads for core in world.cores)
    appended(world, SECOND, b"a", core=1)
    assert follower.read() == {1: [b"a"]}
    # It has not moved on: it is told again.
    assert follower.read() == {1: [b"a"]}
    follower.following.want(1, wanted(SECOND, 1))
    assert follower.read() == {1: []}
    assert follower.read() == {}
    assert sum(core.owner.reads for core in world.cores) == before + 3
    follower.following.want(1, None)
    appended(world, SECOND, b"b")
    appended(world, FIRST, b"c")
    assert follower.read() == {0: [b"c"]}
    follower.following.close()
    world.settle()
    assert world.cores[0].owner.parked == world.cores[1].owner.parked == 0


def test_who_follows_says_anew_what_is_wanted_of_a_core_that_has_forgotten_it() -> None:
    world = World(2)
    appended(world, SECOND, b"a")
    follower = Follower(world)
    follower.following.want(0, wanted(FIRST))
    follower.following.want(1, wanted(SECOND, 1))
    assert follower.read() == {0: [], 1: []}
    world.replace(1)
    world.settle()
    assert follower.read() == {1: []}
    appended(world, SECOND, b"b")
    assert follower.read() == {1: [b"b"]}


def test_who_follows_goes_where_a_partition_is_led() -> None:
    world = World(2)
    follower = Follower(world)
    follower.following.want(0, wanted(FIRST))
    follower.following.want(1, wanted(Partition(b"u")))
    assert follower.read() == {0: [], 1: Fault.UNKNOWN}
    world.topics.move(FIRST, 3)
    assert follower.read() == {0: Fault.NOT_LEADER, 1: Fault.UNKNOWN}
    world.topics.elsewhere[FIRST] = 1
    world.topics.version += 1
    assert follower.read() == {0: [], 1: Fault.UNKNOWN}
    assert world.cores[0].owner.parked == 0


@pytest.mark.parametrize("partition", [FIRST, SECOND, Partition(TOPIC, 99)])
def test_an_appender_is_answered_as_append_is(partition: Partition) -> None:
    found = []
    for is_appender in (False, True):
        world = World(2, pressure_bytes=200)
        router = world.cores[0].router
        answers: list[Appended] = []
        for _ in range(2):
            # A batch of these is more than half of what may be unanswered.
            for number in range(3):
                batch = memoryview(b"frame" + batch_of(bytes(400 + number)))[5:]
                if is_appender:
                    router.appender(partition)(batch, answers.append)
                else:
                    router.append(partition, batch, answers.append)
            world.settle()
        found.append((answers, [core.owner.logs for core in world.cores]))
    assert found[0] == found[1]
    assert len(found[0][0]) == 6
    known = partition.number < 9
    assert (Fault.BUSY in {each.fault for each in found[0][0]}) == known
