"""Nodes that fall silent and return, controllers that change: fenced once, adopted once."""

import heapq
import os
import random
from collections import Counter
from collections.abc import Callable
from itertools import count

import pytest

from robustmq.errors import Refused
from robustmq.message.session_record import SessionChange, SessionHead, SessionRecord, Verdict
from robustmq.message.topic import stable_hash
from robustmq.meta import commands, data
from robustmq.meta.adoption import Adoption
from robustmq.meta.commands import Found, Register
from robustmq.meta.controller import Controller
from robustmq.meta.data import Batch, Close, Data
from robustmq.meta.metadata import Metadata
from robustmq.meta.records import NODE, Node, node_of
from tests.unit.meta.memory_store import MemoryStore

SEEDS = int(os.environ.get("ROBUSTMQ_SEEDS", "10"))
NODES = 4
SESSIONS = 40
TIMEOUT_MS = 1_000
TICK_MS = 100
END_MS = 30_000
HEAD = SessionHead(True, 60, 0, 5)


class Replica:
    """One node: the groups as it has folded them, and what it does of itself."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.number = number
        self.metadata = Metadata(MemoryStore())
        self.data = Data(MemoryStore())
        self.folded = {"metadata": 0, "data_0": 0}
        groups = {"data_0": self.data}
        self.controller = Controller(self.metadata, groups, timeout_ms=TIMEOUT_MS, retry_ms=500)
        self.adoption = Adoption(
            number, 2, groups, lambda name: stable_hash(name.encode()) % 2, 700
        )
        self.silent_until_ms = 0
        self.incarnation = 1

    @property
    def is_silent(self) -> bool:
        return self.world.now_ms < self.silent_until_ms

    def nodes(self) -> dict[int, Node]:
        values = (record.value for record in self.metadata.records(NODE))
        return {node.number: node for node in map(node_of, filter(None, values))}

    def fold(self, most: int) -> None:
        for group, log in self.world.logs.items():
            machine = self.metadata if group == "metadata" else self.data
            for command in log[self.folded[group] :][:most]:
                self.folded[group] += 1
                machine.apply(self.folded[group], command)

    def turn(self) -> None:
        world = self.world
        if self.is_silent:
            return
        self.fold(world.chance.randrange(1, 9))
        node = self.nodes().get(self.number)
        if node is None or node.state == "fenced":
            # It notices that it was given up, and comes back.
            world.propose("metadata", commands.encode(Register(self.number, "s", "c")))
            return
        if self.data.fence(self.number).is_open:
            world.propose("data_0", data.encode(Close(self.number, node.incarnation)))
        self.incarnation = node.incarnation
        world.later(lambda: world.heard(self.number, node.incarnation), lost=0.1)
        for proposal in self.controller.turn(world.now_ms):
            world.propose(proposal.group, proposal.command)
        if world.chance.random() < 0.01:
            self.adoption.replaced(world.chance.randrange(2))
        for task in self.adoption.turn(self.nodes(), world.now_ms):
            for session in task.sessions:
                self.adopt(session)

    def adopt(self, session: SessionRecord) -> None:
        """What a worker does with a session that it is asked to adopt."""
        generation = self.world.now_ms << 8 | self.number
        change = SessionChange(
            session.identity, self.number, generation, 1, session.generation, HEAD
        )
        self.world.propose("data_0", data.encode(Batch(self.number, self.incarnation, [change])))


class World:
    """Time, chance, the logs of both groups, and who leads."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now_ms = 0
        self.logs: dict[str, list[bytes]] = {"metadata": [], "data_0": []}
        self.truth = Replica(self, 99)
        self.tenures: Counter[tuple[str, int]] = Counter()
        self.fences: Counter[int] = Counter()
        self.silences: Counter[int] = Counter()
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self.commit("metadata", commands.encode(Found("c")))
        self.replicas = [Replica(self, number) for number in range(NODES)]
        for number in range(NODES):
            self.commit("metadata", commands.encode(Register(number, "s", "c")))
        for number in range(SESSIONS):
            owner = number % NODES
            change = SessionChange(f"c{number}", owner, 1, 1, 0, HEAD, whole=True)
            self.commit("data_0", data.encode(Batch(owner, 1, [change])))
        self.leader = self.replicas[0]
        self.leader.controller.lead(0)

    def commit(self, group: str, command: bytes) -> None:
        """Append to the log; the truth folds it at once."""
        before = {n: node.state for n, node in self.truth.nodes().items()}
        taken: SessionChange | None = None
        if group == "data_0":
            decoded = data._commands.decode(command)
            if isinstance(decoded, Batch):
                (taken,) = decoded.sessions
        self.logs[group].append(command)
        machine = self.truth.metadata if group == "metadata" else self.truth.data
        known = self.truth.data.session(taken.identity) if taken is not None else None
        outcome = commands.outcome(machine.apply(len(self.logs[group]), command))
        if taken is not None and not isinstance(outcome, Refused):
            moved = known is not None and known.generation == taken.takes
            if moved and data.verdicts(outcome) == [Verdict.DONE]:
                assert known is not None
                self.tenures[taken.identity, known.generation] += 1
        for number, node in self.truth.nodes().items():
            if node.state == "fenced" and before.get(number) == "live":
                self.fences[number] += 1

    def later(self, action: Callable[[], None], lost: float = 0.05) -> None:
        if self.chance.random() >= lost:
            at_ms = self.now_ms + self.chance.randrange(1, 300)
            heapq.heappush(self._due, (at_ms, next(self._order), action))

    def propose(self, group: str, command: bytes) -> None:
        self.later(lambda: self.commit(group, command))
        if self.chance.random() < 0.05:
            self.later(lambda: self.commit(group, command))

    def heard(self, number: int, incarnation: int) -> None:
        if not self.leader.is_silent:
            self.leader.controller.heard(number, incarnation, self.now_ms)

    def run(self) -> None:
        while self.now_ms < END_MS:
            self.now_ms += TICK_MS
            while self._due and self._due[0][0] <= self.now_ms:
                heapq.heappop(self._due)[2]()
            if self.now_ms < END_MS * 2 // 3:
                self.disturb()
            for replica in self.replicas:
                replica.turn()

    def depose(self, old: Replica) -> None:
        if old is not self.leader:
            old.controller.resign()

    def disturb(self) -> None:
        chance = self.chance
        if chance.random() < 0.02:
            silent = [replica for replica in self.replicas if replica.is_silent]
            one = chance.choice(self.replicas)
            if len(silent) < NODES - 2 and one is not self.leader and one not in silent:
                one.silent_until_ms = self.now_ms + chance.randrange(100, 6_000)
                self.silences[one.number] += 1
        if chance.random() < 0.01:
            awake = [replica for replica in self.replicas if not replica.is_silent]
            # The old one does not know it at once.
            old = self.leader
            self.leader = chance.choice(awake)
            if old is not self.leader:
                self.later(lambda: self.depose(old), lost=0)
            self.leader.controller.lead(self.now_ms)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_each_is_fenced_once_and_each_session_adopted_once(seed: int) -> None:
    world = World(seed)
    world.run()
    for replica in world.replicas:
        replica.silent_until_ms = 0
        replica.fold(10**9)
        assert replica.metadata.index == len(world.logs["metadata"])
        assert [*replica.metadata.records()] == [*world.truth.metadata.records()]
        assert replica.data._store.rows == world.truth.data._store.rows  # type: ignore[attr-defined]
    assert set(world.tenures.values()) <= {1}
    nodes = world.truth.nodes()
    assert {node.state for node in nodes.values()} == {"live"}
    assert {n: node.incarnation - 1 for n, node in nodes.items() if node.incarnation > 1} == dict(
        world.fences
    )
    owners = [world.truth.data.session(f"c{number}") for number in range(SESSIONS)]
    assert all(owner is not None and owner.owner in nodes for owner in owners)
    counted = sum(len([*world.truth.data.owned(number)]) for number in nodes)
    assert counted == SESSIONS


def test_there_is_something_to_see() -> None:
    fences: Counter[int] = Counter()
    tenures = 0
    for seed in range(6):
        world = World(seed)
        world.run()
        fences += world.fences
        tenures += len(world.tenures)
        assert sum(world.fences.values()) <= sum(world.silences.values()) + 4
    assert sum(fences.values()) > 6
    assert tenures > 60
