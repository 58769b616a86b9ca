"""A copy for each subscription (`overlap = "separate"`): which ones a durable session gets.

What matches is one copy for each subscription, with its own QoS and identifier. While the core of
the session lives, each comes, over any reconnects; those of QoS 2 come once. When it dies, only the
copy of the highest QoS is certain; the others may be missing or come again.
"""

from collections import Counter
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq.broker.api import Options
from robustmq.message.topic import matches
from tests.durable import DurableClient
from tests.fabric import Answer, Fabric, Limits

TOPICS = ["a", "a/b", "b/c"]
FILTERS = ["a", "a/b", "a/#", "+/c", "#", "+/b"]
CLIENTS = 3
IDENTIFIER = b"\x0b"

cores = st.integers(0, 2)
clients = st.integers(0, CLIENTS - 1)
granted = st.dictionaries(st.sampled_from(FILTERS), st.integers(1, 2), min_size=1)
living = [
    st.tuples(st.just("turn"), cores),
    st.tuples(st.just("settle")),
    st.tuples(st.just("publish"), cores, st.sampled_from(TOPICS), st.integers(1, 2)),
    st.tuples(st.just("publish"), cores, st.sampled_from(TOPICS), st.integers(1, 2)),
    st.tuples(st.just("come"), clients),
    st.tuples(st.just("read"), clients, st.sampled_from([1, 2, 100])),
]
leaving = st.tuples(st.just("go"), clients)
dying = st.tuples(st.just("replace"), cores, st.integers(0, 2))


class Published(NamedTuple):
    """A publish of the model."""

    topic: bytes
    qos: int
    answer: Answer


class World:
    """The fabric, and clients that have subscribed before anything is published."""

    def __init__(self, count: int, limit: int, subscribed: list[dict[str, int]]) -> None:
        self.fabric = Fabric(count, Limits(max_batch_bytes=200, overlap="separate"))
        self.clients = [DurableClient(self.fabric, i % count, limit) for i in range(CLIENTS)]
        self.options: list[dict[bytes, Options]] = []
        self.published: list[Published] = []
        self.died: set[int] = set()
        self.left: set[int] = set()
        for client, filters in zip(self.clients, subscribed, strict=True):
            client.reads_on = False
            wanted = {
                name.encode(): Options(
                    qos, identifier=IDENTIFIER + bytes((1 + FILTERS.index(name),))
                )
                for name, qos in filters.items()
            }
            for name, options in wanted.items():
                client.subscribe(name.decode(), options)
            self.options.append(wanted)
        self.fabric.settle()

    def turn(self, core: int) -> None:
        self.fabric.turn(core % len(self.fabric.nodes), 2)

    def settle(self) -> None:
        self.fabric.settle()

    def publish(self, core: int, topic: str, qos: int) -> None:
        node = self.fabric.nodes[core % len(self.fabric.nodes)]
        answer = node.publish(topic, str(len(self.published)), qos)
        self.published.append(Published(topic.encode(), qos, answer))

    def come(self, who: int) -> None:
        if self.clients[who].outbox is None:
            self.clients[who].connect()

    def go(self, who: int) -> None:
        if self.clients[who].outbox is not None:
            self.left.add(who)
            self.clients[who].disconnect()

    def read(self, who: int, most: int) -> None:
        self.clients[who].read(most)
        if most < 100:
            # What was not read is gone with the connection.
            self.go(who)
        self.fabric.turn(self.clients[who].home)

    def replace(self, core: int, lost: int) -> None:
        core %= len(self.fabric.nodes)
        homed = [who for who, client in enumerate(self.clients) if client.home == core]
        self.died.update(homed)
        self.fabric.crash(core, lost, [self.clients[who].restore for who in homed])

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

    def judge(self) -> None:
        """Compare what each client got with what each of its subscriptions matches."""
        for who, client in enumerate(self.clients):
            heard: list[Counter[tuple[bytes, int]]] = [Counter() for _ in self.published]
            for message in client.messages:
                heard[int(message.payload)][message.properties, message.qos] += 1
            for published, got in zip(self.published, heard, strict=True):
                self._judge(who, published, got)

    def _judge(self, who: int, published: Published, got: Counter[tuple[bytes, int]]) -> None:
        wanted = [
            (options.identifier, min(options.qos, published.qos))
            for name, options in self.options[who].items()
            if matches(name, published.topic)
        ]
        assert set(got) <= set(wanted)
        if not wanted:
            return
        highest = max(qos for _, qos in wanted)
        if published.answer.got:
            assert any(got[copy] for copy in wanted if copy[1] == highest)
            assert who in self.died or all(got[copy] for copy in wanted)
        for copy in wanted:
            once = copy[1] == 2 or who not in self.left
            assert who in self.died or not once or got[copy] <= 1


def play(world: World, steps: list[tuple[object, ...]]) -> None:
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
    world.finish()
    world.judge()


worlds = st.builds(
    World,
    st.integers(1, 3),
    st.sampled_from([1, 2, 60_000]),
    st.lists(granted, min_size=CLIENTS, max_size=CLIENTS),
)


@settings(max_examples=40)
@given(worlds, st.lists(st.one_of(living), min_size=20, max_size=60))
def test_each_subscription_has_its_copy_once(world: World, steps: list[tuple[object, ...]]) -> None:
    play(world, [step for step in steps if step[0] != "read" or step[-1] == 100])
    assert not world.left


@settings(max_examples=40)
@given(worlds, st.lists(st.one_of(*living, leaving), min_size=20, max_size=60))
def test_a_reconnect_loses_none_and_repeats_none_of_qos_2(
    world: World, steps: list[tuple[object, ...]]
) -> None:
    play(world, steps)


@settings(max_examples=40)
@given(worlds, st.lists(st.one_of(*living, leaving, dying), min_size=20, max_size=60))
def test_a_kill_loses_no_message_though_it_may_lose_copies(
    world: World, steps: list[tuple[object, ...]]
) -> None:
    play(world, steps)


@settings(max_examples=10)
@given(worlds, st.lists(st.sampled_from(TOPICS), min_size=1, max_size=8))
def test_copies_for_who_is_away_wait_on_disk_as_their_messages_do(
    world: World, topics: list[str]
) -> None:
    for who in range(CLIENTS):
        world.come(who)
        world.go(who)
    for topic in topics:
        world.publish(0, topic, 1)
        world.settle()
    assert [client.window.queued for client in world.clients] == [0] * CLIENTS
    world.finish()
    world.judge()
