"""Partitions while their core dies and disks refuse: what is acknowledged is there once, whole."""

import struct
from collections.abc import Callable
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq._kernel.batch import records
from robustmq.broker.partition_api import Appended, Fault, Marker, Opening, Wanted
from robustmq.errors import Refusal, Refused
from robustmq.shard.marker import read_mark
from tests.partition_core import ONE, World
from tests.produced import TRANSACTIONAL, produced

FULL = Refused(Refusal.QUOTA_EXCEEDED, "full")
_ATTRIBUTES = struct.Struct(">h")
_CONTROL = 0b100000
_IN_FLIGHT = 5

numbers = st.integers(0, 3)
operations = st.one_of(
    st.tuples(st.just("send"), numbers),
    st.tuples(st.just("send"), numbers),
    st.tuples(st.just("retry"), numbers),
    st.tuples(st.just("repeat"), numbers, st.integers(0, 9)),
    st.tuples(st.just("end"), numbers, st.booleans()),
    st.tuples(st.just("turn")),
    st.tuples(st.just("hold")),
    st.tuples(st.just("release")),
    st.tuples(st.just("refuse")),
    st.tuples(st.just("crash"), st.integers(0, 3)),
    st.tuples(st.just("tick")),
)


class Client:
    """A producer that keeps what is not acknowledged and sends it again, in order.

    Odd ones write in transactions. `said` has all values, with what became of their transaction.
    """

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self.producer = 1_000 + number
        self.is_transactional = number % 2 == 1
        self.sent: list[bytes] = []
        self.unacknowledged: list[bytes] = []
        self.values: list[bytes] = []
        self.said: list[tuple[bytes, bool]] = []
        self._transaction = 1
        self._marker: Marker | None = None

    def send(self) -> None:
        """Something new, unless too much is on its way."""
        if self._marker is not None or len(self.unacknowledged) >= _IN_FLIGHT:
            return
        self._begin()
        value = b"%d/%d" % (self.producer, len(self.sent))
        attributes = TRANSACTIONAL if self.is_transactional else 0
        batch = produced(
            value, producer=self.producer, epoch=0, first=len(self.sent), attributes=attributes
        )
        self.sent.append(batch)
        self.unacknowledged.append(batch)
        self.values.append(value)
        self._write(batch)

    def retry(self) -> None:
        """All that is not acknowledged, and the marker."""
        self._begin()
        for batch in list(self.unacknowledged):
            self._write(batch)
        self._mark()

    def repeat(self, back: int) -> None:
        """Something old, as a network does that is slow."""
        if back < len(self.sent):
            self._world.append(self.sent[-1 - back])

    def end(self, is_committed: bool) -> None:
        """End the transaction when all of it is acknowledged."""
        if self.is_transactional and not self.unacknowledged and self._marker is None:
            self._marker = Marker(ONE, self.producer, 0, is_committed, self._transaction)
            self._mark()

    def _begin(self) -> None:
        if self.is_transactional and self._marker is None:
            self._world.owner.begin(Opening(ONE, self.producer, 0, self._transaction))

    def _write(self, batch: bytes) -> None:
        self._world.owner.append(ONE, batch, partial(self._written, batch))

    def _written(self, batch: bytes, answer: Appended) -> None:
        assert answer.fault in {0, Fault.DUPLICATE_SEQUENCE, Fault.OUT_OF_SEQUENCE, Fault.FULL}
        if answer.fault in {0, Fault.DUPLICATE_SEQUENCE} and batch in self.unacknowledged:
            self.unacknowledged.remove(batch)

    def _mark(self) -> None:
        if self._marker is not None:
            self._world.owner.end(self._marker, partial(self._marked, self._marker))

    def _marked(self, marker: Marker, fault: int) -> None:
        assert fault in {0, Fault.FULL}
        if fault == 0 and marker is self._marker:
            self.said += [(value, marker.is_committed) for value in self.values]
            self.values.clear()
            self._marker = None
            self._transaction += 1


class Story:
    """A core and its clients."""

    def __init__(self) -> None:
        self.world = World()
        self.world.make(partitions=1)
        self.world.settle()
        self.clients = [Client(self.world, number) for number in range(4)]

    def send(self, number: int) -> None:
        self.clients[number].send()

    def retry(self, number: int) -> None:
        self.clients[number].retry()

    def repeat(self, number: int, back: int) -> None:
        self.clients[number].repeat(back)

    def end(self, number: int, is_committed: bool) -> None:
        self.clients[number].end(is_committed)

    def turn(self) -> None:
        self.world.fabric.turn(0)

    def hold(self) -> None:
        for log in self.world.node.held.logs.values():
            assert log.durable_offset <= log.end_offset
        self.world.node.held.hold = True

    def release(self) -> None:
        held = self.world.node.held
        held.hold, held.refused = False, None

    def refuse(self) -> None:
        self.world.node.held.refused = FULL

    def crash(self, lost: int) -> None:
        self.world.restart(lost)

    def tick(self) -> None:
        """A second passes: notes are written."""
        node = self.world.node
        node.turn.now_ms += 1_000
        node.core.timers.run(node.turn.now_ms)

    def finish(self) -> None:
        self.release()
        for _ in range(4):
            for client in self.clients:
                client.retry()
                self.world.settle()
                client.end(True)
                self.world.settle()
            self.tick()

    def committed(self, max_bytes: int) -> list[bytes]:
        """What a client reads that wants what is committed, page by page."""
        found: list[bytes] = []
        at = 0
        while True:
            read = self.world.owner.read(Wanted(ONE, at, max_bytes, is_committed=True))
            assert read.fault == 0
            if not read.batches:
                assert at == read.stable_offset == read.high_watermark
                return found
            waiting = sorted(read.aborted, key=lambda aborted: -aborted.first_offset)
            void: set[int] = set()
            for batch in read.batches:
                base = int.from_bytes(batch[:8], "big")
                producer = int.from_bytes(batch[43:51], "big")
                (attributes,) = _ATTRIBUTES.unpack_from(batch, 21)
                while waiting and waiting[-1].first_offset <= base:
                    void.add(waiting.pop().producer_id)
                if attributes & _CONTROL:
                    mark = read_mark(batch)
                    if mark is not None and not mark.is_committed:
                        void.discard(producer)
                elif not (attributes & TRANSACTIONAL and producer in void):
                    found += [value or b"" for *_, value, _ in records(batch)]
                at = base + int.from_bytes(batch[57:61], "big")


@settings(max_examples=60)
@given(st.lists(operations, min_size=20, max_size=80), st.sampled_from([1, 300, 1 << 20]))
def test_what_is_acknowledged_is_there_once_and_transactions_are_whole(
    steps: list[tuple[object, ...]], max_bytes: int
) -> None:
    story = Story()
    for name, *arguments in steps:
        step: Callable[..., None] = getattr(story, str(name))
        step(*arguments)
    story.finish()
    everything = story.world.values()
    read = story.committed(max_bytes)
    for client in story.clients:
        assert client.unacknowledged == []
        prefix = b"%d/" % client.producer
        there = [value for value in everything if value and value.startswith(prefix)]
        assert there == [b"%d/%d" % (client.producer, each) for each in range(len(client.sent))]
        said = client.said if client.is_transactional else [(each, True) for each in client.values]
        committed = [value for value, is_committed in said if is_committed]
        assert [value for value in read if value.startswith(prefix)] == committed
