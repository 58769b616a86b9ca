"""What a session was owed on a node that has it no more comes to its new home, each once.

Three nodes of one core each; frames between them wait, nodes die at any moment and find what they
had written, and the session may move on once more while it is being handed what it is owed.
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq import metrics
from robustmq.broker.api import Heir, Options
from robustmq.message.core_number import FIRST_REMOTE
from robustmq.mqtt.bequests import Bequests
from robustmq.mqtt.registry import Registrar
from robustmq.mqtt.session import Session
from robustmq.mqtt.session_table import SessionTable
from robustmq.settings.mqtt import MqttInbox
from tests.durable import DurableClient
from tests.fabric import START_MS, Fabric

SITES: Final = 3
NAME: Final = "client"
FILTERS: Final = ("a/#", "+/b", "c")
TOPICS: Final = ("a/b", "a/c", "x/b", "c")
TICK_MS: Final = 100


class _Frame(NamedTuple):
    source_life: int
    target_life: int
    data: bytes


class Owner(Session):
    """The session as the node that has it knows it."""

    def __init__(self, client: DurableClient, born: int) -> None:
        self.client = client
        self.born = born
        self.principal = cast("Any", type("P", (), {"identity": NAME}))
        self.window = client.window


class Site:
    """One node: its core, and what it does for sessions that others have had."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.number = number
        self.life = 1
        self.fabric = Fabric(1)
        self.owner: Owner | None = None
        self.known = [1] * SITES
        self.begin()

    @property
    def node(self) -> int:
        return self.number

    @property
    def version(self) -> int:
        return 1

    def homes(self, client_id: bytes) -> list[int]:
        assert client_id == NAME.encode()
        return [FIRST_REMOTE + each for each in range(SITES) if each != self.number]

    def send(self, core: int, frame: bytes) -> None:
        target = core - FIRST_REMOTE
        link = self.world.links[self.number, target]
        link.append(_Frame(self.life, self.known[target], frame))

    def get(self, identity: str) -> Session | None:
        return self.owner if identity == NAME else None

    def is_quiet(self, identity: str) -> bool:
        return identity == NAME

    def begin(self) -> None:
        self.bequests = Bequests(
            self.fabric.nodes[0].core,
            cast("SessionTable", self),
            cast("Registrar", self),
            self,
            is_ready=lambda: True,
            retry_ms=TICK_MS,
            at_once=1,
            page_bytes=200,
        )

    def crash(self) -> None:
        self.life += 1
        owner = self.owner
        restores: list[Callable[[], None]] = [owner.client.restore] if owner else []
        self.fabric.crash(0, 0, restores)
        if owner is not None:
            owner.window = owner.client.window
        self.fabric.nodes[0].turn.now_ms = self.world.now_ms
        self.begin()
        for peer in range(SITES):
            if peer != self.number:
                self.meet(peer)
                self.world.sites[peer].meet(self.number)

    def meet(self, peer: int) -> None:
        life = self.world.sites[peer].life
        if self.known[peer] != life:
            self.known[peer] = life
            self.bequests.replaced(FIRST_REMOTE + peer)

    def turn(self, most: int) -> bool:
        node = self.fabric.nodes[0]
        node.turn.now_ms = self.world.now_ms
        active = False
        for peer in range(SITES):
            link = self.world.links.get((peer, self.number))
            for _ in range(min(most, len(link or ()))):
                frame = cast("deque[_Frame]", link).popleft()
                active = True
                if (frame.source_life, frame.target_life) == (self.known[peer], self.life):
                    self.bequests.receive(FIRST_REMOTE + peer, frame.data)
        node.core.timers.run(self.world.now_ms)
        self.bequests.run()
        return self.fabric.turn(0) or active or self.bequests.busy

    def owed(self) -> int:
        return self.fabric.nodes[0].turn.row[metrics.ESTATES]


class World:
    """The sites, and the session that one of them has."""

    def __init__(self) -> None:
        self.now_ms = START_MS
        self.links: dict[tuple[int, int], deque[_Frame]] = {
            (a, b): deque() for a in range(SITES) for b in range(SITES) if a != b
        }
        self.sites = [Site(self, number) for number in range(SITES)]
        self.moves = self.crashes = 0
        self.is_interrupted = False

    def open(self, number: int, options: Options, born: int = 7) -> DurableClient:
        site = self.sites[number]
        client = DurableClient(site.fabric, 0)
        for each in FILTERS:
            client.subscribe(each, options)
        site.fabric.settle()
        site.owner = Owner(client, born)
        return client

    def give_up(self, number: int) -> None:
        """As `SessionTable.give_up`."""
        site = self.sites[number]
        assert site.owner is not None
        client, site.owner = site.owner.client, None
        heir = Heir(NAME, 7)
        # The node was fenced, and is back.
        site.fabric.nodes[0].core.estates.begin()
        site.fabric.nodes[0].core.estates.leave(client.window, heir)
        if self.is_interrupted:
            # It is killed when that is written, and before the session has ended.
            site.fabric.turn(0)
            site.owner = Owner(client, 7)
            site.crash()
            site.owner = None
            site.fabric.nodes[0].core.estates.leave(client.window, heir)
        if client.outbox is not None:
            client.disconnect()
        for each in FILTERS:
            site.fabric.nodes[0].core.unsubscribe(client.window, each.encode())
        site.fabric.nodes[0].core.drop(client.window)
        # Until that is written, a restart finds the session and gives it up again.
        site.turn(0)

    def run(self, operations: list[tuple[Any, ...]], home: int, options: Options) -> int:
        """Let it happen; returns who has the session at the end."""
        for what, *arguments in operations:
            if what == "turn":
                number, most = arguments
                self.sites[number].turn(most)
            elif what == "crash":
                self.crashes += 1
                self.sites[arguments[0]].crash()
            elif what == "tick":
                self.now_ms += TICK_MS
            elif what == "move":
                self.moves += 1
                self.give_up(home)
                home = (home + 1) % SITES
                self.open(home, options)
        return home

    def settle(self) -> None:
        for _ in range(2_000):
            if not sum(site.turn(100) for site in self.sites):
                if not any(site.owed() for site in self.sites):
                    return
                self.now_ms += TICK_MS
        raise AssertionError("something is owed for ever")


numbers = st.integers(0, SITES - 1)
operations = st.one_of(
    st.tuples(st.just("turn"), numbers, st.integers(1, 3)),
    st.tuples(st.just("turn"), numbers, st.just(100)),
    st.tuples(st.just("turn"), numbers, st.just(100)),
    st.tuples(st.just("tick")),
    st.tuples(st.just("crash"), numbers),
    st.tuples(st.just("move")),
)


def publish(world: World, number: int, topics: list[str]) -> list[str]:
    site = world.sites[number]
    payloads = [f"{number}-{index}" for index in range(len(topics))]
    for payload, topic in zip(payloads, topics, strict=True):
        site.fabric.nodes[0].publish(topic, payload, 1 + len(payload) % 2)
        site.fabric.settle()
    return payloads


def received(world: World, home: int) -> list[str]:
    site = world.sites[home]
    assert site.owner is not None
    client = site.owner.client
    client.connect()
    for _ in range(50):
        site.fabric.settle()
        client.read()
    return [message.payload.decode() for message in client.messages]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(operations, max_size=60),
    st.lists(st.sampled_from(TOPICS), min_size=1, max_size=20),
    st.sampled_from((Options(2), Options(1, identifier=b"\x0b\x05"))),
)
def test_what_was_owed_comes_each_once(
    history: list[tuple[Any, ...]], topics: list[str], options: Options
) -> None:
    world = World()
    world.open(0, options)
    owed = publish(world, 0, topics)
    world.give_up(0)
    world.open(1, options)
    home = world.run(history, 1, options)
    world.settle()
    got = received(world, home)
    counted = Counter(got)
    assert {*counted} == {*owed}
    if not (world.moves and world.crashes):
        assert max(counted.values()) == 1
    if not world.moves:
        assert got == owed


def test_a_session_that_has_begun_anew_is_owed_nothing() -> None:
    world = World()
    world.open(0, Options(1))
    publish(world, 0, ["c", "c"])
    world.give_up(0)
    world.open(1, Options(1), born=8)
    world.settle()
    assert received(world, 1) == []
    assert world.sites[0].fabric.nodes[0].turn.row[metrics.ESTATES_ENDED] == 1


def test_what_finds_no_room_waits_where_it_is_and_holds_nobody_up() -> None:
    world = World()
    world.open(0, Options(1))
    owed = publish(world, 0, ["c"] * 12)
    world.give_up(0)
    world.open(1, Options(1))
    node = world.sites[1].fabric.nodes[0]
    node.parts.inbox._limits = MqttInbox(max_messages=4)
    for _ in range(50):
        world.now_ms += TICK_MS
        for site in world.sites:
            site.turn(100)
    assert world.sites[0].owed() == 1
    assert not world.sites[0].bequests.busy
    assert node.turn.row[metrics.MESSAGES_DROPPED_QUEUE] == 0
    got = received(world, 1)
    assert 0 < len(got) <= 4
    client = world.sites[1].owner.client if world.sites[1].owner else None
    assert client is not None
    for _ in range(400):
        world.now_ms += TICK_MS
        for site in world.sites:
            site.turn(100)
        client.read()
        node.core.close()
    assert [message.payload.decode() for message in client.messages] == owed
    assert world.sites[0].owed() == 0


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_nothing_is_left_of_what_was_taken(is_interrupted: bool) -> None:
    world = World()
    world.is_interrupted = is_interrupted
    world.open(0, Options(1))
    publish(world, 0, ["c", "a/b"])
    world.give_up(0)
    world.open(1, Options(1))
    world.settle()
    assert received(world, 1) == ["0-0", "0-1"]
    world.give_up(1)
    world.settle()
    for site in world.sites[:2]:
        rows = site.fabric.nodes[0].table.walk(b"", b"\xff")
        assert not [key for key, _ in rows if key[:1] in {b"V", b"W", b"L", b"B", b"F"}]


def test_who_was_connected_again_elsewhere_keeps_the_order_of_new_messages() -> None:
    world = World()
    world.open(0, Options(1))
    publish(world, 0, ["c"] * 5)
    world.give_up(0)
    world.open(1, Options(1))
    new = publish(world, 1, ["c"] * 3)
    world.settle()
    got = received(world, 1)
    assert [each for each in got if each in new] == new
    assert sorted(got) == sorted([*new, *(f"0-{index}" for index in range(5))])
