"""Shared groups under random operations: each message is acknowledged by exactly one member."""

from collections import Counter, deque
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq.message.record import CLIENT, header_block
from robustmq.settings.topics import Strategy
from robustmq.shard.share_group import ShareGroup
from robustmq.shard.share_strategy import RoundRobin
from tests.books import check_books
from tests.fabric import Client, Fabric, Limits

members = st.integers(0, 3)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("join"), members, st.booleans()),
            st.tuples(st.just("leave"), members),
            st.tuples(st.just("share"), st.integers(1, 5)),
            st.tuples(st.just("take")),
        )
    ),
    st.integers(0, 6),
)
def test_a_group_equals_a_round_robin_over_who_is_ready(
    steps: list[tuple[object, ...]], most: int
) -> None:
    group = ShareGroup(most, RoundRobin())
    order: list[int] = []
    known: dict[int, bool] = {}
    pending: deque[bytes] = deque()
    number = dropped = 0
    for name, *arguments in steps:
        if name == "join":
            member, ready = arguments
            assert isinstance(member, int)
            group.join(member, bool(ready))
            if ready and member not in order:
                order.append(member)
            if not ready and member in order:
                order.remove(member)
            known[member] = bool(ready)
        elif name == "leave":
            member = arguments[0]
            assert isinstance(member, int)
            group.leave(member)
            known.pop(member, None)
            if member in order:
                order.remove(member)
        elif name == "share":
            count = arguments[0]
            assert isinstance(count, int)
            raws = [b"%d" % (number + i) for i in range(count)]
            number += count
            expected: dict[int, list[bytes]] = {}
            for raw in raws:
                if order:
                    expected.setdefault(order[0], []).append(raw)
                    order.append(order.pop(0))
                else:
                    pending.append(raw)
            while len(pending) > most:
                pending.popleft()
                dropped += 1
            assert group.share(b"batch", raws) == expected
        else:
            taken = [waiting.raw for waiting in group.take_waiting()]
            assert taken == (list(pending) if order else [])
            if order:
                pending.clear()
        assert sorted(group.members) == sorted(known)
        assert len(group) == len(known)
        assert all((member in group) == (member in known) for member in range(4))
        assert group.dropped == dropped


clients = st.integers(1, 4)
operations = st.one_of(
    st.tuples(st.just("turn"), st.integers(0, 2), st.sampled_from([1, 2, 100])),
    st.tuples(st.just("turn"), st.integers(0, 2), st.sampled_from([1, 2, 100])),
    st.tuples(st.just("publish"), st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.just("publish"), st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.just("join"), clients),
    # A client that leaves while it is connected keeps what it has in flight (MQTT5 3.10.4), so
    # only those that acknowledge do.
    st.tuples(st.just("leave"), st.integers(1, 2)),
    st.tuples(st.just("disconnect"), clients),
    st.tuples(st.just("connect"), clients),
    st.tuples(st.just("read"), clients),
)


class Group:
    """A group with one member that stays; the others come and go, some without acknowledging."""

    def __init__(self, count: int, strategy: Strategy) -> None:
        self.fabric = Fabric(count, Limits(strategy=strategy))
        self.clients = [self.fabric.nodes[i % count].client(limit=3) for i in range(5)]
        self.clients[3].acknowledges = self.clients[4].acknowledges = False
        self.clients[0].join("g", "s/+")
        self.fabric.settle()
        self.number = 0

    def turn(self, core: int, frames: int) -> None:
        self.fabric.turn(core % len(self.fabric.nodes), frames)

    def publish(self, core: int, topic: int) -> None:
        node = self.fabric.nodes[core % len(self.fabric.nodes)]
        headers = header_block([(CLIENT, b"%d" % core)])
        node.publish(f"s/{topic}", str(self.number), 1, headers=headers)
        self.number += 1

    def join(self, who: int) -> None:
        self.clients[who].join("g", "s/+")

    def leave(self, who: int) -> None:
        self.clients[who].leave("g", "s/+")

    def disconnect(self, who: int) -> None:
        if self.clients[who].outbox is not None:
            self.clients[who].disconnect()

    def connect(self, who: int) -> None:
        if self.clients[who].outbox is None:
            self.clients[who].connect()

    def read(self, who: int) -> None:
        self.clients[who].read()

    def rest(self) -> None:
        """Read and take turns until nobody has anything to read."""
        while True:
            self.fabric.settle()
            if not [client for client in self.clients if client.read()]:
                return


@settings(max_examples=150)
@given(
    st.sampled_from([1, 2, 2, 3]),
    st.sampled_from(["round_robin", *get_args(Strategy)]),
    st.lists(operations, min_size=20, max_size=80),
)
def test_each_message_is_acknowledged_by_exactly_one_member(
    count: int, strategy: Strategy, steps: list[tuple[object, ...]]
) -> None:
    world = Group(count, strategy)
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
    world.rest()
    # Members that hold messages without acknowledging them go, and leave them to the others.
    for who in (3, 4):
        world.disconnect(who)
        world.leave(who)
    world.rest()
    done = Counter(
        message.payload for client in world.clients[:3] for message in client.acknowledged
    )
    assert done == Counter(b"%d" % number for number in range(world.number))
    check_books(world.fabric)


def test_clients_of_the_model_are_independent() -> None:
    # The model above relies on it: a client reads and acknowledges only what is its own.
    fabric = Fabric(1)
    one, two = Client(fabric.nodes[0]), Client(fabric.nodes[0])
    one.subscribe("s/1")
    fabric.settle()
    fabric.nodes[0].publish("s/1", "x", 1)
    fabric.settle()
    assert one.payloads == ["x"]
    assert two.payloads == []
