"""Shared groups with durable members while cores die: nothing acknowledged is lost, QoS 2 is once.

Members with durable sessions and with clean ones come, go, read a little, leave, end, and their
cores and the leader's die. One durable member stays in the group, so that something is owed. In
the end all are there, and every acknowledged message must have reached one of them.
"""

from collections import Counter
from contextlib import ExitStack
from typing import NamedTuple, get_args
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq.broker import share_leads, shares
from robustmq.broker.api import Options
from robustmq.settings.topics import Strategy
from tests.books import check_books
from tests.durable import DurableClient
from tests.fabric import Answer, Client, Fabric, Limits, decode

GROUP, FILTER = "g", "s/+"
DURABLE, CLEAN = 3, 2
MEMBERS = DURABLE + CLEAN

cores = st.integers(0, 2)
members = st.integers(0, MEMBERS - 1)
strategies = st.sampled_from(["round_robin", *get_args(Strategy)])
operations = st.one_of(
    st.tuples(st.just("turn"), cores, st.integers(1, 3)),
    st.tuples(st.just("turn"), cores, st.just(100)),
    st.tuples(st.just("settle")),
    st.tuples(st.just("publish"), cores, st.integers(1, 4), st.integers(1, 2)),
    st.tuples(st.just("publish"), cores, st.integers(1, 4), st.integers(1, 2)),
    st.tuples(st.just("join"), members, st.integers(0, 2)),
    st.tuples(st.just("leave"), members),
    st.tuples(st.just("come"), members),
    st.tuples(st.just("go"), members),
    st.tuples(st.just("read"), members, st.sampled_from([1, 2, 100])),
    st.tuples(st.just("read"), members, st.sampled_from([1, 2, 100])),
    st.tuples(st.just("end"), members),
    st.tuples(st.just("replace"), cores, st.integers(0, 2)),
    st.tuples(st.just("tick")),
)


class Published(NamedTuple):
    """A publish of the model."""

    qos: int
    answer: Answer


class World:
    """The fabric, the members, and what was published.

    `exact`: all are granted QoS 2. `excused` may be lost (MQTT5 4.8.2).
    """

    def __init__(
        self, count: int, limit: int, exact: bool, strategy: Strategy = "round_robin"
    ) -> None:
        self.fabric = Fabric(count, Limits(max_batch_bytes=200, strategy=strategy))
        self.limit = limit
        self.exact = exact
        self.durable = [DurableClient(self.fabric, i % count, limit) for i in range(DURABLE)]
        self.clean = [self.clean_client((i + 1) % count) for i in range(CLEAN)]
        for client in self.durable:
            client.reads_on = False
        self.former: list[Client] = []
        self.published: list[Published] = []
        self.excused: set[bytes] = set()
        self.qos: dict[int, int] = {}
        self.join(0, 2)
        self.fabric.settle()
        assert self.durable[0].subacks == 1

    def member(self, who: int) -> DurableClient | Client:
        return self.durable[who] if who < DURABLE else self.clean[who - DURABLE]

    def clean_client(self, core: int) -> Client:
        client = self.fabric.nodes[core].client(limit=self.limit)
        client.reads_on = False
        return client

    def core(self, core: int) -> int:
        return core % len(self.fabric.nodes)

    def turn(self, core: int, frames: int) -> None:
        self.fabric.turn(self.core(core), frames)

    def settle(self) -> None:
        self.fabric.settle()

    def publish(self, core: int, count: int, qos: int) -> None:
        node = self.fabric.nodes[self.core(core)]
        for _ in range(count):
            number = len(self.published)
            answer = node.publish(f"s/{number % 2}", str(number), qos)
            self.published.append(Published(qos, answer))

    def join(self, who: int, qos: int) -> None:
        qos = 2 if self.exact or not who else qos
        self.member(who).join(GROUP, FILTER, Options(qos))
        self.qos[who] = qos

    def leave(self, who: int) -> None:
        if who and who in self.qos:
            self.member(who).leave(GROUP, FILTER)
            del self.qos[who]
            self.fabric.turn(self.member(who).node.index)

    def come(self, who: int) -> None:
        if self.member(who).outbox is None:
            self.member(who).connect()

    def go(self, who: int) -> None:
        member = self.member(who)
        if member.outbox is not None:
            if isinstance(member, Client):
                self.read(who, 100)
                self.excuse(member, 0, 2)
            member.disconnect()

    def excuse(self, client: Client, *qos: int) -> None:
        """What was sent at such a QoS, and goes unread with the connection, is nobody else's."""
        if client.outbox is not None and client.outbox.size:
            sent = decode(client.outbox.take())
            self.excused |= {message.payload for message in sent if message.qos in qos}

    def read(self, who: int, most: int) -> None:
        member = self.member(who)
        if isinstance(member, Client):
            member.read()
        else:
            member.read(most)
            if most < 100:
                self.go(who)
        # What an acknowledgement has let go is read after the commit that notes it.
        self.fabric.turn(member.node.index)

    def end(self, who: int) -> None:
        member = self.member(who)
        if not who or isinstance(member, Client):
            return
        member.end()
        self.qos.pop(who, None)
        self.excused |= member.unread

    def replace(self, core: int, lost: int) -> None:
        core = self.core(core)
        for client in self.clean:
            if client.node.index == core:
                self.excuse(client, 0, 2)
                self.former.append(client)
        restores = [each.restore for each in self.durable if each.home == core]
        self.fabric.crash(core, lost, restores)
        for place, client in enumerate(self.clean):
            if client.node.index == core:
                self.clean[place] = self.clean_client(core)
                self.qos.pop(DURABLE + place, None)

    def tick(self) -> None:
        for node in self.fabric.nodes:
            node.turn.now_ms += 1_000
            node.core.timers.run(node.turn.now_ms)
        self.fabric.settle()

    def finish(self) -> None:
        self.fabric.settle()
        for who in range(MEMBERS):
            self.come(who)
        idle = 0
        for _ in range(1_000):
            self.fabric.settle()
            everyone: list[DurableClient | Client] = [*self.durable, *self.clean]
            if any(each.outbox is not None and each.outbox.size for each in everyone):
                idle = 0
                for who in range(MEMBERS):
                    self.read(who, 100)
            elif idle == 2:
                return
            else:
                # Who had many is given more when it is noted that it has acknowledged them.
                idle += 1
                self.tick()
        raise AssertionError("the members never have everything")


def judge(world: World) -> None:
    """What was acknowledged has reached a member, at QoS 2 one and once."""
    everyone: list[DurableClient | Client] = [*world.durable, *world.clean, *world.former]
    heard: Counter[int] = Counter()
    excused = world.excused.union(*(client.lost for client in world.durable))
    for client in everyone:
        heard.update(int(message.payload) for message in client.messages)
    for number, (qos, answer) in enumerate(world.published):
        assert all(code == 0 for code, _ in answer.got)
        assert len(answer.got) <= 1
        if answer.got and str(number).encode() not in excused:
            assert heard[number], f"message {number} of QoS {qos} has reached nobody"
        if qos == 2 and heard[number] > 1:
            grants = [
                message.qos
                for client in everyone
                for message in client.messages
                if int(message.payload) == number
            ]
            # Who was granted QoS 1 and did not acknowledge it may have had it before.
            assert grants.count(2) <= 1, f"message {number} came at QoS {grants}"
            assert not world.exact, f"message {number} came {heard[number]} times"


def check_rest(world: World) -> None:
    """At rest the books agree, and no message has a row."""
    world.tick()
    world.tick()
    check_books(world.fabric)
    for node in world.fabric.nodes:
        left = [
            key
            for first in b"ABKLOX"
            for key, _ in node.table.walk(bytes((first,)), bytes((first + 1,)))
        ]
        assert not left


def drive(world: World, steps: list[tuple[object, ...]]) -> None:
    """Do the steps, each by its name, and then let everybody have everything."""
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
    world.finish()


def play(
    count: int,
    limit: int,
    exact: bool,
    steps: list[tuple[object, ...]],
    *,
    strategy: Strategy,
    few: bool = False,
) -> World:
    """Play; with `few` a member has two messages at a time, and a page is of three."""
    with ExitStack() as stack:
        if few:
            stack.enter_context(patch.object(shares, "_MOST", 2))
            stack.enter_context(patch.object(share_leads, "_PAGE", 3))
        world = World(count, limit, exact, strategy)
        drive(world, steps)
    return world


@settings(max_examples=300)
@given(
    st.integers(1, 3),
    st.sampled_from([1, 2, 60_000]),
    st.booleans(),
    st.booleans(),
    strategies,
    st.lists(operations, min_size=20, max_size=80),
)
def test_nothing_acknowledged_is_lost(  # noqa: PLR0917
    count: int,
    limit: int,
    exact: bool,
    few: bool,
    strategy: Strategy,
    steps: list[tuple[object, ...]],
) -> None:
    judge(play(count, limit, exact, steps, strategy=strategy, few=few))


@settings(max_examples=100)
@given(st.integers(1, 3), st.booleans(), strategies, st.lists(operations, min_size=20, max_size=60))
def test_at_rest_the_books_agree_and_no_message_has_a_row(
    count: int, few: bool, strategy: Strategy, steps: list[tuple[object, ...]]
) -> None:
    world = play(count, 60_000, False, steps, strategy=strategy, few=few)
    check_rest(world)
