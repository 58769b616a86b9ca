"""Delayed messages while cores die and disks refuse: none early or lost, at QoS 2 once, in order.

Operations are drawn at random; the clock is that of all cores and outlives them. Clients with
durable sessions read all the time, so that what comes too early is seen to do so.
"""

from collections import Counter
from itertools import product
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq.broker import delayed
from robustmq.broker.api import Options
from robustmq.errors import Refusal, Refused
from tests.delayed import pending
from tests.durable import DurableClient
from tests.fabric import START_MS, Answer, Fabric, Limits

FULL = Refused(Refusal.QUOTA_EXCEEDED, "the disk is full")
LONGEST_S = 20

cores = st.integers(0, 2)
operations = st.one_of(
    st.tuples(st.just("turn"), cores, st.sampled_from([1, 2, 100])),
    st.tuples(st.just("turn"), cores, st.sampled_from([1, 2, 100])),
    st.tuples(st.just("settle")),
    st.tuples(st.just("publish"), cores, st.integers(0, 2), st.integers(0, LONGEST_S)),
    st.tuples(st.just("publish"), cores, st.integers(0, 2), st.integers(0, 3)),
    st.tuples(st.just("publish_until"), cores, st.integers(0, 2), st.integers(-5, LONGEST_S)),
    st.tuples(st.just("tick"), st.sampled_from([1, 50, 1_000, 7_300])),
    st.tuples(st.just("replace"), cores, st.integers(0, 2)),
    st.tuples(st.just("refuse"), st.booleans()),
)


class Published(NamedTuple):
    """A publish of the model: when it may come out, and on which core it went in."""

    qos: int
    due_ms: int
    core: int
    answer: Answer

    @property
    def lane(self) -> tuple[int, int]:
        """Within which messages keep their order (MQTT5 4.6)."""
        return self.qos, self.core


class World:
    """The fabric, a client on each core, and what they are owed."""

    def __init__(self, count: int) -> None:
        self.fabric = Fabric(count, Limits(max_batch_bytes=200))
        self.now_ms = START_MS
        self.crashed = self.refused = False
        self.published: list[Published] = []
        self.clients = [DurableClient(self.fabric, home) for home in range(count)]
        for client in self.clients:
            client.connect()
            client.subscribe("#", Options(2))
        self.fabric.settle()

    def core(self, core: int) -> int:
        return core % len(self.fabric.nodes)

    def turn(self, core: int, frames: int) -> None:
        self.fabric.turn(self.core(core), frames)

    def settle(self) -> None:
        self.fabric.settle()

    def publish(self, core: int, qos: int, seconds: int) -> None:
        self._publish(core, qos, str(seconds), self.now_ms + seconds * 1_000)

    def publish_until(self, core: int, qos: int, seconds: int) -> None:
        second = self.now_ms // 1_000 + seconds
        self._publish(core, qos, str(second), max(self.now_ms, second * 1_000))

    def _publish(self, core: int, qos: int, when: str, due_ms: int) -> None:
        core = self.core(core)
        node = self.fabric.nodes[core]
        answer = node.publish(f"$delayed/{when}/t", str(len(self.published)), qos)
        refusal = node.table.refusal
        assert answer.refused == refusal
        self.published.append(Published(qos, due_ms, core, answer))

    def tick(self, milliseconds: int) -> None:
        # The clock stands still in a turn: what came in it is written before it moves on.
        for index in range(len(self.fabric.nodes)):
            self.fabric.turn(index)
        self.now_ms += milliseconds
        for node in self.fabric.nodes:
            node.turn.now_ms = self.now_ms
            node.core.timers.run(self.now_ms)

    def replace(self, core: int, lost: int) -> None:
        core = self.core(core)
        self.crashed = True
        restores = [client.restore for client in self.clients if client.home == core]
        self.fabric.crash(core, lost, restores).turn.now_ms = self.now_ms
        self.clients[core].connect()

    def refuse(self, refuses: bool) -> None:
        """The disk of a node with one core: what another refuses may come twice."""
        if len(self.fabric.nodes) == 1:
            self.refused |= refuses
            self.fabric.nodes[0].table.refuse(FULL if refuses else None)

    def read(self) -> None:
        for client in self.clients:
            heard = len(client.messages)
            client.read()
            for message in client.messages[heard:]:
                assert self.published[int(message.payload)].due_ms <= self.now_ms

    def finish(self) -> None:
        self.refuse(False)
        for _ in range(LONGEST_S + 5):
            self.fabric.settle()
            self.read()
            self.tick(1_000)
        assert all(pending(node) == 0 for node in self.fabric.nodes)


@pytest.fixture(autouse=True)
def _small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delayed, "_BUDGET", 3)


@settings(max_examples=120)
@given(st.integers(1, 3), st.lists(operations, min_size=20, max_size=80))
def test_none_early_none_lost_and_at_qos_2_once(
    count: int, steps: list[tuple[object, ...]]
) -> None:
    world = World(count)
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
        world.read()
    world.finish()
    for client in world.clients:
        heard = [int(message.payload) for message in client.messages]
        counts = Counter(heard)
        for number, (qos, _, _, answer) in enumerate(world.published):
            if answer.refused is not None:
                assert counts[number] == 0
            elif qos and answer.got:
                assert answer.got == [(0, True)]
                assert counts[number], f"message {number} is lost"
            if qos == 2:
                assert counts[number] <= 1, f"message {number} came twice"
            if not world.crashed:
                assert counts[number] == (answer.refused is None)
        if world.refused:
            # What was written late may be due before what went out meanwhile.
            continue
        for core, qos in product(range(count), [2] if world.crashed else [0, 1, 2]):
            lane = [n for n in heard if world.published[n].lane == (qos, core)]
            assert lane == sorted(lane, key=lambda n: (world.published[n].due_ms, n))
