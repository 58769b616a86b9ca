"""Durable sessions while cores die and clients come and go: nothing acknowledged is lost.

Operations are drawn at random; a core that dies finds what it had written. In the end all
clients are there, everything comes to rest, and each must have what it was owed.
"""

from collections import Counter
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq._kernel.batch import records
from robustmq.broker.api import Options
from robustmq.message.topic import matches
from robustmq.storage.memory_table import MemoryTable
from tests.durable import DurableClient
from tests.fabric import Answer, Fabric, Limits

TOPICS = ["a", "a/b", "b/c"]
FILTERS = ["a", "a/b", "a/#", "+/c", "#"]
CLIENTS = 5

cores = st.integers(0, 3)
clients = st.integers(0, CLIENTS - 1)
operations = st.one_of(
    st.tuples(st.just("turn"), cores, st.integers(1, 3)),
    st.tuples(st.just("turn"), cores, st.just(100)),
    st.tuples(st.just("settle")),
    st.tuples(st.just("publish"), cores, st.sampled_from(TOPICS), st.integers(1, 2)),
    st.tuples(st.just("publish"), cores, st.sampled_from(TOPICS), st.integers(1, 2)),
    st.tuples(st.just("subscribe"), clients, st.sampled_from(FILTERS), st.integers(1, 2)),
    st.tuples(st.just("ask"), clients, st.sampled_from(FILTERS), st.integers(1, 2)),
    st.tuples(st.just("come"), clients),
    st.tuples(st.just("go"), clients),
    st.tuples(st.just("read"), clients, st.sampled_from([1, 2, 100])),
    st.tuples(st.just("replace"), cores, st.integers(0, 2)),
    st.tuples(st.just("tick")),
)


class Published(NamedTuple):
    """A publish of the model, and who was subscribed by then.

    Messages of one lane that come with the same QoS arrive in their order (MQTT5 4.6).
    """

    topic: str
    qos: int
    lane: tuple[int, int]
    owed: set[int]
    answer: Answer


class World:
    """The fabric, its clients, and what they are owed."""

    def __init__(self, count: int, limit: int) -> None:
        self.fabric = Fabric(count, Limits(max_batch_bytes=200))
        self.clients = [DurableClient(self.fabric, i % count, limit) for i in range(CLIENTS)]
        for client in self.clients:
            client.reads_on = False
        self.filters: list[dict[str, int]] = [{} for _ in self.clients]
        self.published: list[Published] = []
        self.taken: set[int] = set()
        self.lives = [0] * count

    def core(self, core: int) -> int:
        return core % len(self.fabric.nodes)

    def turn(self, core: int, frames: int) -> None:
        self.fabric.turn(self.core(core), frames)

    def settle(self) -> None:
        self.fabric.settle()

    def publish(self, core: int, topic: str, qos: int) -> None:
        core = self.core(core)
        owed = {
            who
            for who, filters in enumerate(self.filters)
            if any(matches(name.encode(), topic.encode()) for name in filters)
        }
        answer = self.fabric.nodes[core].publish(topic, str(len(self.published)), qos)
        lane = core, self.lives[core]
        self.published.append(Published(topic, qos, lane, owed, answer))

    def subscribe(self, who: int, topic_filter: str, qos: int) -> None:
        answers = self.ask(who, topic_filter, qos)
        self.fabric.settle()
        assert answers == [qos]

    def ask(self, who: int, topic_filter: str, qos: int) -> list[int]:
        """Subscribe, and go on before the answer is there; it comes into what is returned."""
        answers: list[int] = []

        def granted() -> None:
            answers.append(qos)
            self.filters[who][topic_filter] = qos

        self.clients[who].subscribe(topic_filter, Options(qos), granted)
        return answers

    def come(self, who: int) -> None:
        if self.clients[who].outbox is None:
            self.clients[who].connect()

    def go(self, who: int) -> None:
        if self.clients[who].outbox is not None:
            self.clients[who].disconnect()

    def read(self, who: int, most: int) -> None:
        self.clients[who].read(most)
        if most < 100:
            # What was not read is gone with the connection.
            self.go(who)
        # What an acknowledgement has let go leaves with the commit that notes it.
        self.fabric.turn(self.clients[who].home)

    def replace(self, core: int, lost: int) -> None:
        core = self.core(core)
        self.lives[core] += 1
        self.note_taken(self.fabric.nodes[core].table.crash())
        self.fabric.crash(core, lost, [c.restore for c in self.clients if c.home == core])

    def note_taken(self, table: MemoryTable) -> None:
        """What a dead core had written is acknowledged when its publisher sends it again."""
        for _, batch in table.walk(b"O", b"P"):
            self.taken.update(int(fields[4] or b"") for fields in records(batch))

    def tick(self) -> None:
        for node in self.fabric.nodes:
            node.turn.now_ms += 1_000
            node.core.timers.run(node.turn.now_ms)
        self.fabric.settle()

    def finish(self) -> None:
        self.fabric.settle()
        for who in range(CLIENTS):
            self.come(who)
        for _ in range(1_000):
            self.fabric.settle()
            if not any(client.outbox is not None and client.outbox.size for client in self.clients):
                return
            for client in self.clients:
                client.read()
        raise AssertionError("the clients never have everything")


def judge(world: World) -> None:
    """What was acknowledged arrived, at QoS 2 once, in the order of each publisher."""
    for who, client in enumerate(world.clients):
        heard = [int(message.payload) for message in client.messages]
        counts = Counter(heard)
        last: dict[object, int] = {}
        seen: set[int] = set()
        for number, message in zip(heard, client.messages, strict=True):
            published = world.published[number]
            # A subscription may have got another QoS since the publish: what counts is how it came.
            lane = published.lane, published.topic, message.qos
            if number not in seen:
                assert last.get(lane, -1) < number
                last[lane] = number
            seen.add(number)
        for number, published in enumerate(world.published):
            if who in published.owed and (published.answer.got or number in world.taken):
                assert counts[number], f"message {number} is lost for client {who}"
            if counts[number] > 1:
                # At QoS 1 it may have come before, by a subscription of lower QoS.
                qos = [each.qos for each in client.messages if int(each.payload) == number]
                assert qos.count(2) <= 1
                assert qos.count(1) >= counts[number] - 1
    for published in world.published:
        assert all(code == 0 for code, _ in published.answer.got)
        assert len(published.answer.got) <= 1


@settings(max_examples=200)
@given(
    st.integers(1, 3),
    st.sampled_from([1, 2, 60_000]),
    st.lists(operations, min_size=20, max_size=80),
)
def test_nothing_acknowledged_is_lost(
    count: int, limit: int, steps: list[tuple[object, ...]]
) -> None:
    world = World(count, limit)
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
    world.finish()
    judge(world)


@settings(max_examples=60)
@given(st.integers(1, 3), st.lists(operations, min_size=20, max_size=60))
def test_what_everybody_has_leaves_no_row(count: int, steps: list[tuple[object, ...]]) -> None:
    world = World(count, 60_000)
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
    world.finish()
    world.tick()
    world.tick()
    for node in world.fabric.nodes:
        left = [
            key
            for first in b"LBXOK"
            for key, _ in node.table.walk(bytes((first,)), bytes((first + 1,)))
        ]
        assert not left
