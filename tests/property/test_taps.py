"""What Kafka appends on its way to subscribers while cores die: nothing acknowledged is missed.

Operations are drawn at random; a core that dies finds what it had written. In the end everything
comes to rest, and each client has what came after its subscription, first in the order of the log.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq._kernel.batch import records
from robustmq.broker.api import Options
from robustmq.broker.partition_api import Appended, Marker, Opening, Partition, Wanted
from robustmq.message.compression import Codec, compressed, decompressed
from robustmq.meta import records as meta
from tests.durable import DurableClient
from tests.fabric import Answer, Fabric, Limits
from tests.produced import TRANSACTIONAL, produced

CLIENTS = 3
PARTITIONS = 2
PRODUCER = 4711

cores = st.integers(0, 2)
clients = st.integers(0, CLIENTS - 1)
partitions = st.integers(0, PARTITIONS - 1)
operations = st.one_of(
    st.tuples(st.just("append"), cores, partitions, st.integers(1, 4), st.sampled_from(Codec)),
    st.tuples(st.just("append"), cores, partitions, st.just(1), st.just(Codec.NONE)),
    st.tuples(st.just("transaction"), partitions, st.integers(1, 3), st.booleans()),
    st.tuples(st.just("publish"), cores, st.integers(0, 2)),
    st.tuples(st.just("turn"), cores, st.sampled_from([0, 1, 100])),
    st.tuples(st.just("turn"), cores, st.just(100)),
    st.tuples(st.just("subscribe"), clients),
    st.tuples(st.just("come"), clients),
    st.tuples(st.just("go"), clients),
    st.tuples(st.just("hold"), cores),
    st.tuples(st.just("release"), cores),
    st.tuples(st.just("crash"), cores, st.integers(0, 3)),
    st.tuples(st.just("settle")),
)


class Sent(NamedTuple):
    """Values that were appended or published together, and who had subscribed by then."""

    values: list[int]
    owed: set[int]
    answers: list[Appended]
    answer: Answer | None = None


class World:
    """Cores with a topic of two partitions, and clients that come and go."""

    def __init__(self, count: int) -> None:
        self.fabric = Fabric(count, Limits(max_batch_bytes=200))
        value = meta.Topic(storage_type="segment", partition=PARTITIONS, config={}, id=bytes(16))
        for node in self.fabric.nodes:
            fields = msgspec.to_builtins(value, builtin_types=(bytes,))
            node.parts.catalog.apply("default/events", fields, 1)
        self.fabric.settle()
        self.clients = [DurableClient(self.fabric, i % count) for i in range(CLIENTS)]
        self.subscribed: set[int] = set()
        self.sent: list[Sent] = []
        self.void: set[int] = set()
        self.once: set[int] = set()
        self.last = 0
        self.sequences = [0] * PARTITIONS
        self.transactions = 0
        self.marker: Marker | None = None

    def core(self, core: int) -> int:
        return core % len(self.fabric.nodes)

    def values(self, count: int) -> list[int]:
        self.last += count
        return [*range(self.last - count, self.last)]

    def append(self, core: int, partition: int, count: int, codec: Codec) -> None:
        values = self.values(count)
        batch = compressed(produced(*[b"%d" % value for value in values]), codec)
        sent = Sent(values, {*self.subscribed}, [])
        place = Partition(b"events", partition)
        self.fabric.nodes[self.core(core)].core.partitions.append(place, batch, sent.answers.append)
        self.sent.append(sent)

    def transaction(self, partition: int, count: int, is_committed: bool) -> None:
        """One from its beginning to its end, with others between."""
        self.finish()
        node = self.fabric.nodes[0]
        place = Partition(b"events", partition)
        values = self.values(count)
        self.transactions += 1
        answers: list[int] = []
        opening = Opening(place, PRODUCER, 0, self.transactions)
        node.core.partitions.begin([opening], answers.extend)
        self.fabric.settle()
        assert answers == [0]
        batch = produced(
            *[b"%d" % value for value in values],
            producer=PRODUCER,
            epoch=0,
            first=self.sequences[partition],
            attributes=TRANSACTIONAL,
        )
        self.sequences[partition] += count
        sent = Sent(values, {*self.subscribed} if is_committed else set(), [])
        node.core.partitions.append(place, batch, sent.answers.append)
        self.append(1, partition, 1, Codec.NONE)
        self.fabric.settle()
        assert [answer.fault for answer in sent.answers] == [0]
        self.marker = Marker(place, PRODUCER, 0, is_committed, self.transactions)
        self.end()
        self.sent.append(sent)
        if not is_committed:
            self.void.update(values)

    def end(self) -> None:
        """Its coordinator says so until it is heard."""
        marker = self.marker
        if marker is None:
            return

        def answered(faults: Sequence[int]) -> None:
            if list(faults) == [0] and self.marker is marker:
                self.marker = None

        self.fabric.nodes[0].core.partitions.end([marker], answered)

    def publish(self, core: int, qos: int) -> None:
        values = self.values(1)
        answer = self.fabric.nodes[self.core(core)].publish("events", str(values[0]), qos)
        owed = {*self.subscribed} if qos else set()
        self.sent.append(Sent(values, owed, [], answer))
        if qos == 2:
            self.once.update(values)

    def turn(self, core: int, frames: int) -> None:
        self.fabric.turn(self.core(core), frames)

    def subscribe(self, who: int) -> None:
        self.finish()
        self.clients[who].subscribe("events", Options(2))
        self.fabric.settle()
        self.subscribed.add(who)

    def come(self, who: int) -> None:
        if self.clients[who].outbox is None:
            self.clients[who].connect()

    def go(self, who: int) -> None:
        if self.clients[who].outbox is not None:
            self.clients[who].disconnect()

    def hold(self, core: int) -> None:
        self.fabric.nodes[self.core(core)].held.hold = True

    def release(self, core: int) -> None:
        self.fabric.nodes[self.core(core)].held.hold = False

    def crash(self, core: int, lost: int) -> None:
        core = self.core(core)
        self.fabric.crash(core, lost, [c.restore for c in self.clients if c.home == core])

    def settle(self) -> None:
        self.fabric.settle()

    def finish(self) -> None:
        """All comes to rest."""
        for node in self.fabric.nodes:
            node.held.hold = False
        for _ in range(3):
            self.fabric.settle()
            self.end()
            for node in self.fabric.nodes:
                node.turn.now_ms += 60_000
                node.core.timers.run(node.turn.now_ms)
        self.fabric.settle()

    def log(self, partition: int) -> list[int]:
        """All values of a partition, in its order."""
        place = Partition(b"events", partition)
        for node in self.fabric.nodes:
            read = node.parts.taps.source.read(Wanted(place, 0, 1 << 30))
            if not read.fault:
                return [
                    int(value)
                    for batch in read.batches
                    for *_, value, _ in records(decompressed(batch, 1 << 20))
                    if value and value.isdigit()
                ]
        raise AssertionError("nobody leads the partition")


def judge(world: World) -> None:
    logs = [world.log(number) for number in range(PARTITIONS)]
    of_mqtt = {value for sent in world.sent if sent.answer is not None for value in sent.values}
    for who, client in enumerate(world.clients):
        heard = [int(message.payload) for message in client.messages]
        first = list(dict.fromkeys(heard))
        assert not world.void & set(heard)
        assert all(heard.count(value) <= 1 for value in world.once)
        for sent in world.sent:
            taken = [answer.fault == 0 for answer in sent.answers]
            if sent.answer is not None:
                taken = [code == 0 for code, _ in sent.answer.got]
            if who in sent.owed and any(taken):
                assert set(sent.values) <= set(heard), (who, sent)
        for log in logs:
            of_kafka = [value for value in log if value not in of_mqtt and value in first]
            assert of_kafka == [value for value in first if value in set(of_kafka)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.lists(operations, max_size=30))
def test_who_has_subscribed_hears_what_was_appended(
    count: int, run: list[tuple[object, ...]]
) -> None:
    world = World(count)
    for name, *arguments in run:
        getattr(world, str(name))(*arguments)
    world.finish()
    for who in range(CLIENTS):
        world.come(who)
    for _ in range(10):
        for client in world.clients:
            client.read()
        world.finish()
    judge(world)
