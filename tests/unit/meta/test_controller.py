"""The controller: it fences by silence only, and proposes nothing twice without need."""

from collections.abc import Sequence

import pytest

from robustmq.errors import Refused
from robustmq.message.session_record import SessionChange, SessionHead
from robustmq.meta import commands, data
from robustmq.meta.commands import Change, Command, Fence, Forget, Found, Leave, Register
from robustmq.meta.controller import Controller, Proposal
from robustmq.meta.data import Batch, Data
from robustmq.meta.metadata import Metadata
from robustmq.meta.records import (
    CONNECTOR,
    NODE,
    SCHEDULE,
    SHARD,
    Connector,
    Record,
    Shard,
    encoded,
    node_of,
    shard_of,
)
from tests.unit.meta.memory_store import MemoryStore

TIMEOUT_MS = 3_000
RETRY_MS = 1_000


class World:
    """A controller over two groups, with nodes 0 to 2."""

    def __init__(self) -> None:
        self.metadata = Metadata(MemoryStore())
        self.data = Data(MemoryStore())
        self.index = 0
        self.controller = Controller(
            self.metadata, {"data_0": self.data}, timeout_ms=TIMEOUT_MS, retry_ms=RETRY_MS
        )
        self.do(Found("c"))
        for number in range(3):
            self.do(Register(number, "s", "c"))

    def do(self, command: Command) -> bytes | Refused:
        return self.fold(Proposal("metadata", commands.encode(command)))

    def fold(self, proposal: Proposal) -> bytes | Refused:
        self.index += 1
        machine = self.metadata if proposal.group == "metadata" else self.data
        return commands.outcome(machine.apply(self.index, proposal.command))

    def state(self, number: int) -> tuple[str, int]:
        row = self.metadata.record(NODE, str(number))
        assert row is not None
        node = node_of(row[1])
        return node.state, node.incarnation

    def run(self, until_ms: int, heard: Sequence[int], now_ms: int = 0) -> list[Proposal]:
        """Take turns while those are heard; fold what is proposed."""
        found: list[Proposal] = []
        for at_ms in range(now_ms, until_ms, 250):
            for number in heard:
                self.controller.heard(number, self.state(number)[1], at_ms)
            proposals = self.controller.turn(at_ms)
            for proposal in proposals:
                self.fold(proposal)
            found += proposals
        return found


@pytest.fixture
def world() -> World:
    world = World()
    world.controller.lead(0)
    return world


def test_who_does_not_lead_proposes_nothing() -> None:
    world = World()
    assert world.run(9_000, []) == []
    world.controller.lead(9_000)
    world.controller.resign()
    assert world.run(19_000, [], 9_000) == []


def test_a_silent_node_is_fenced_once_and_opened_to_others(world: World) -> None:
    assert world.run(2_999, [0, 1]) == []
    found = world.run(9_000, [0, 1], 3_000)
    fence = Proposal("metadata", commands.encode(Fence(2, 1)))
    opened = Proposal("data_0", data.encode(data.Open(2, 2)))
    assert found == [fence, opened]
    assert world.state(2) == ("fenced", 2)
    assert world.data.fence(2) == data.Fence(2, True)


def test_a_sign_of_life_of_an_earlier_incarnation_is_none(world: World) -> None:
    world.run(4_000, [0, 1])
    world.do(Register(2, "s", "c"))
    for at_ms in range(4_000, 8_000, 250):
        world.controller.heard(2, 1, at_ms)
        world.run(at_ms + 1, [0, 1], at_ms)
    assert world.state(2) == ("fenced", 3)


def test_silence_while_nobody_listened_does_not_count(world: World) -> None:
    world.run(2_000, [0, 1, 2])
    assert world.run(60_250, [0], 60_000) == []
    assert len(world.run(70_000, [0], 60_250)) == 4


def test_what_is_not_folded_is_proposed_again_but_not_at_once(world: World) -> None:
    times = [at_ms for at_ms in range(0, 6_000, 250) if world.controller.turn(at_ms)]
    assert times == [3_000, 4_000, 5_000]


def test_a_node_that_leaves_is_forgotten_when_it_has_nothing(world: World) -> None:
    head = SessionHead(True, 60, 0, 5)
    change = SessionChange("c", 1, 1, 1, 0, head, whole=True)
    world.fold(Proposal("data_0", data.encode(Batch(1, 1, [change]))))
    world.do(Leave(1))
    assert world.run(1_000, [0, 2]) == [Proposal("data_0", data.encode(data.Open(1, 2)))]
    taken = SessionChange("c", 2, 2, 2, 1, head)
    world.fold(Proposal("data_0", data.encode(Batch(2, 1, [taken]))))
    forget = Proposal("metadata", commands.encode(Forget(1, 2)))
    assert world.run(2_000, [0, 2], 1_000) == [forget]
    assert world.metadata.record(NODE, "1") is None


def test_shards_and_connectors_are_placed(world: World) -> None:
    connector = encoded(Connector(connector_type="file", topic_name="t"))
    shard = encoded(Shard(topic="t"))
    world.do(Change([Record(SHARD, "t", shard), Record(CONNECTOR, "c", connector)]))
    assert len(world.run(1_000, [0, 1, 2])) == 2
    row = world.metadata.record(SHARD, "t")
    assert row is not None
    placed = shard_of(row[1])
    assert placed.leader in {0, 1, 2}
    scheduled = world.metadata.record(SCHEDULE, "c")
    world.do(Change([Record(CONNECTOR, "c", None)]))
    world.run(2_000, [0, 1, 2], 1_000)
    assert scheduled is not None
    assert world.metadata.record(SCHEDULE, "c") is None
    assert placed.leader is not None
    others = {0, 1, 2} - {placed.leader}
    world.run(9_000, sorted(others), 2_000)
    row = world.metadata.record(SHARD, "t")
    assert row is not None
    assert (shard_of(row[1]).leader, shard_of(row[1]).leader_epoch) == (None, 2)


def test_who_changed_a_shard_meanwhile_comes_first(world: World) -> None:
    world.do(Change([Record(SHARD, "t", encoded(Shard(topic="t")))]))
    (proposal,) = world.controller.turn(0)
    world.do(Change([Record(SHARD, "t", None)]))
    assert isinstance(world.fold(proposal), Refused)
    assert world.metadata.record(SHARD, "t") is None
