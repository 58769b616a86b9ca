"""Any interleaving of calls, links and lost cores: every call is answered once, and truly."""

from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq.broker.partition_api import (
    Appended,
    Fault,
    Marker,
    Partition,
    Read,
    Reading,
    Wanted,
)
from robustmq.broker.partition_reads import next_offset
from tests.partition_world import TOPIC, Core, World, batch_of, payload_of

CORES = 3
PARTITIONS = 5

cores = st.integers(0, CORES - 1)
numbers = st.integers(0, PARTITIONS)
operations = st.one_of(
    st.tuples(st.just("turn"), cores, st.sampled_from([1, 2, 100])),
    st.tuples(st.just("turn"), cores, st.sampled_from([1, 2, 100])),
    st.tuples(st.just("append"), cores, numbers, st.integers(0, 300)),
    st.tuples(st.just("append"), cores, numbers, st.integers(0, 300)),
    st.tuples(
        st.just("read"),
        cores,
        st.lists(numbers, min_size=1, max_size=4, unique=True),
        st.sampled_from([0, 1, 500]),
        st.sampled_from([1, 400, 5_000]),
        st.sampled_from([0, 100, 1_000]),
    ),
    st.tuples(st.just("want"), cores, numbers, st.sampled_from([0, 1, 2, -1])),
    st.tuples(st.just("want"), cores, numbers, st.sampled_from([0, 1, 2, -1])),
    st.tuples(
        st.just("follow"),
        cores,
        st.sampled_from([0, 1, 500]),
        st.sampled_from([1, 400, 5_000]),
        st.sampled_from([0, 100, 1_000]),
    ),
    st.tuples(st.just("follow"), cores, st.just(1), st.just(5_000), st.sampled_from([0, 100])),
    st.tuples(st.just("end"), cores, st.lists(numbers, max_size=4)),
    st.tuples(st.just("cancel"), st.integers(0, 50)),
    st.tuples(st.just("advance"), st.sampled_from([50, 400])),
    st.tuples(st.just("stall"), cores, cores),
    st.tuples(st.just("replace"), cores, st.integers(0, 3)),
    st.tuples(st.just("settle")),
)


class _Call:
    """A call of one life of a core, and what it was answered."""

    def __init__(self, core: int, life: int) -> None:
        self.core = core
        self.life = life
        self.answers: list[object] = []
        self.reading: Reading | None = None
        self.is_cancelled = False


class _Follower:
    """Somebody who reads again and again on one core, and moves on behind what it has read."""

    def __init__(self, core: Core) -> None:
        self.life = core.life
        self.following = core.router.follow()
        self.offsets: dict[int, int] = {}
        self.moved: set[int] = set()
        self.call: _Call | None = None

    def move(self, number: int, offset: int) -> None:
        """Want something else of a partition, with the next read."""
        self.offsets[number] = offset
        self.moved.add(number)

    def say(self) -> None:
        """Say what is wanted otherwise."""
        for number in self.moved:
            offset = self.offsets[number]
            wanted = Wanted(Partition(TOPIC, number), offset, 600) if offset >= 0 else None
            self.following.want(number, wanted)
        self.moved.clear()


class Trial:
    """The world, all calls, and what readers were told of each partition."""

    def __init__(self) -> None:
        self.world = World(CORES, PARTITIONS, pressure_bytes=1_000)
        self.calls: list[_Call] = []
        self.reads: list[_Call] = []
        self.followers = [_Follower(core) for core in self.world.cores]
        self.appends: list[tuple[_Call, Partition, bytes]] = []

    def _call(self, core: int) -> _Call:
        call = _Call(core, self.world.lives[core])
        self.calls.append(call)
        return call

    def turn(self, core: int, frames: int) -> None:
        self.world.turn(core, frames)

    def append(self, core: int, number: int, size: int) -> None:
        call = self._call(core)
        payload = b"%d:" % len(self.appends) + bytes(size)
        partition = Partition(TOPIC, number)
        self.appends.append((call, partition, payload))
        router = self.world.cores[core].router
        router.append(partition, batch_of(payload), call.answers.append)

    def read(self, core: int, numbers: Sequence[int], least: int, most: int, wait_ms: int) -> None:
        call = self._call(core)
        self.reads.append(call)
        owners = self.world.cores
        wanted = [
            Wanted(partition, owners[number % CORES].owner.ends.get(partition, 0) // 2, 600)
            for number in numbers
            for partition in [Partition(TOPIC, number)]
        ]

        def reply(reads: Sequence[Read]) -> None:
            call.answers.append(reads)
            assert len(reads) == len(wanted)
            for want, read in zip(wanted, reads, strict=True):
                self._check(want, read)

        until_ms = self.world.now_ms + wait_ms
        router = self.world.cores[core].router
        call.reading = router.read(wanted, least, most, until_ms, reply)

    def _check(self, wanted: Wanted, read: Read) -> None:
        """What was read lies in the log as it was read, from the wanted offset on."""
        assert read.fault in {0, Fault.UNKNOWN, Fault.UNAVAILABLE, Fault.OUT_OF_RANGE}
        assert (read.fault == Fault.UNKNOWN) == (wanted.partition.number == PARTITIONS)
        core = wanted.partition.number % CORES
        log = self.world.cores[core].owner.logs.get(wanted.partition, [])
        first = wanted.offset
        assert list(read.batches) == log[first : first + len(read.batches)]

    def want(self, core: int, number: int, offset: int) -> None:
        self.followers[core].move(number, offset)

    def follow(self, core: int, least: int, most: int, wait_ms: int) -> None:
        follower = self.followers[core]
        if follower.call is not None and not (follower.call.answers or follower.call.is_cancelled):
            return
        follower.say()
        call = follower.call = self._call(core)
        self.reads.append(call)

        def reply(reads: Mapping[int, Read]) -> None:
            call.answers.append(reads)
            for number, read in reads.items():
                offset = follower.offsets[number]
                self._check(Wanted(Partition(TOPIC, number), offset, 600), read)
                if read.batches:
                    follower.move(number, next_offset(read.batches[-1]))

        if any(offset >= 0 for offset in follower.offsets.values()):
            until_ms = self.world.now_ms + wait_ms
            call.reading = follower.following.read(least, most, until_ms, reply)
        else:
            call.answers.append(None)

    def end(self, core: int, numbers: Sequence[int]) -> None:
        call = self._call(core)
        markers = [Marker(Partition(TOPIC, number), 1, 1, True) for number in numbers]
        self.world.cores[core].router.end(markers, call.answers.append)

    def cancel(self, which: int) -> None:
        if self.reads:
            call = self.reads[which % len(self.reads)]
            if call.reading is not None and call.life == self.world.lives[call.core]:
                call.is_cancelled = not call.answers
                call.reading.cancel()

    def advance(self, ms: int) -> None:
        self.world.advance(ms)

    def stall(self, source: int, target: int) -> None:
        self.world.stalled.add((source, target))

    def replace(self, core: int, lost: int) -> None:
        self.world.replace(core, lost)
        self.followers[core] = _Follower(self.world.cores[core])

    def settle(self) -> None:
        self.world.stalled.clear()
        self.world.settle()

    def finish(self) -> None:
        """Let everything come to rest, and look whether each was answered as often as it must."""
        self.settle()
        self.world.advance(5_000)
        self.settle()
        for number in range(PARTITIONS):
            self.append(0, number, 1)
        self.settle()
        self._follow_up()
        for call in self.calls:
            if call.is_cancelled:
                assert not call.answers
            elif call.life == self.world.lives[call.core]:
                assert len(call.answers) == 1
            else:
                assert len(call.answers) <= 1
        for call, partition, payload in self.appends:
            for outcome in call.answers:
                assert isinstance(outcome, Appended)
                if not outcome.fault:
                    log = self.world.cores[partition.number % CORES].owner.logs[partition]
                    assert payload_of(log[outcome.base_offset]) == payload
        for follower in self.followers:
            follower.following.close()
        self.settle()
        for core in self.world.cores:
            assert not core.owner.parked
            assert not core.router.busy

    def _follow_up(self) -> None:
        """Who follows comes to the end of everything, although told only what is new."""
        for core in range(CORES):
            for _ in range(40):
                self.follow(core, 0, 5_000, 0)
                self.settle()
            follower = self.followers[core]
            for number, offset in follower.offsets.items():
                if offset >= 0 and number < PARTITIONS:
                    end = self.world.cores[number % CORES].owner.ends
                    assert offset >= end.get(Partition(TOPIC, number), 0)


@settings(max_examples=150)
@given(st.lists(operations, max_size=60))
def test_every_call_is_answered_once(steps: list[tuple[str, ...]]) -> None:
    trial = Trial()
    for name, *arguments in steps:
        getattr(trial, name)(*arguments)
    trial.finish()
