"""Meta services over groups that commit at once: who hears, who adopts, and who is back."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from robustmq.errors import ConfigError, Refusal, Refused
from robustmq.message.session_record import SessionChange, SessionHead
from robustmq.meta import commands, data
from robustmq.meta.commands import Change, Command, Fence, Found, Register
from robustmq.meta.data import Batch, Data
from robustmq.meta.machine import Applied, Machine, Outcome
from robustmq.meta.metadata import Metadata
from robustmq.meta.records import Record, encoded
from robustmq.workers import meta_messages as messages
from robustmq.workers.feed import BACKLOG_BYTES
from robustmq.workers.inherited_records import FILE
from robustmq.workers.meta_messages import Adopt, Hello, Records, Snapshot, Standing
from robustmq.workers.meta_service import MetaService
from tests.unit.meta.memory_store import MemoryStore

BAN = {"blacklist_type": "ClientId", "resource_name": "c"}


class Line:
    """The way to a process that keeps what it was told."""

    def __init__(self) -> None:
        self.epoch = 1
        self.backlog_bytes = 0
        self.told: list[messages.FromMeta] = []

    def send(self, message: bytes) -> None:
        self.told.append(messages.from_meta(message))

    def clear(self) -> None:
        pass


class Node:
    """A node's groups and service; what anybody proposes is folded by all at the turn's end."""

    def __init__(self, world: "World", number: int, directory: Path) -> None:
        self.world = world
        self.metadata, self.data = Metadata(MemoryStore()), Data(MemoryStore())
        self.made: dict[str, Machine] = {"metadata": self.metadata, "data_0": self.data}
        self.line = Line()
        self.is_cut = False
        self.service = MetaService(
            number, 1, [self.line], self.made, self, life=1, directory=directory, now_ms=0
        )
        self.service.feed.receive(0, messages.encode(Hello(1)))

    def propose(self, group: str, command: bytes, done: Callable[[Outcome], None]) -> None:
        self.world.proposed.append((group, command, self, done))

    def read(self, group: str, done: Callable[[Refused | None], None]) -> None:
        assert group in self.made
        refused = None if self.world.has_leader else Refused(Refusal.UNAVAILABLE, "nobody leads")
        self.world.asked.append(lambda: done(refused))

    def leader(self, group: str) -> int | None:
        assert group in self.made
        return 0

    def is_informed(self) -> bool:
        return any(isinstance(message, Snapshot) for message in self.line.told)

    def adopting(self) -> list[str]:
        told = (message for message in self.line.told if isinstance(message, Adopt))
        return [session.identity for message in told for session in message.sessions]

    def is_isolated(self) -> bool:
        return [each for each in self.line.told if isinstance(each, Standing)][-1].is_isolated


class World:
    """Nodes, time, and a log of each group that all fold."""

    def __init__(self, directory: Path, count: int) -> None:
        self.now_ms = 0
        self.index = 0
        self.has_leader = True
        self.proposed: list[tuple[str, bytes, Node, Callable[[Outcome], None]]] = []
        self.asked: list[Callable[[], None]] = []
        self.nodes = [Node(self, number, directory / str(number)) for number in range(count)]

    def run(self, milliseconds: int) -> None:
        until_ms = self.now_ms + milliseconds
        while self.now_ms < until_ms:
            self.now_ms += 10
            proposed, self.proposed = self.proposed, []
            for group, command, node, done in proposed:
                done(self.fold(group, command, node))
            asked, self.asked = self.asked, []
            for answer in asked:
                answer()
            for node in self.nodes:
                node.service.turn(self.now_ms, is_isolated=node.is_cut)

    def fold(self, group: str, command: bytes, by: Node | None = None) -> Applied:
        self.index += 1
        results = {node: node.made[group].apply(self.index, command) for node in self.nodes}
        assert len(set(results.values())) == 1
        return Applied(self.index, results[by or self.nodes[0]])

    def decide(self, command: Command) -> None:
        result = commands.outcome(self.fold("metadata", commands.encode(command)).result)
        assert isinstance(result, bytes), result

    def begin(self, owner: int, name: str) -> None:
        head = SessionHead(True, 60, 0, 5)
        change = SessionChange(name, owner, 1, 1, 0, head, whole=True)
        self.fold("data_0", data.encode(Batch(owner, 1, [change])))


@pytest.fixture
def three(tmp_path: Path) -> World:
    world = World(tmp_path, 3)
    world.decide(Found("c"))
    for number in range(3):
        world.decide(Register(number, f"s{number}", "c"))
    world.run(300)
    return world


def test_nobody_is_told_anything_before_it_is_known_what_was_decided(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    (node,) = world.nodes
    world.run(600)
    informed = [node.is_informed()]
    world.decide(Found("c"))
    world.has_leader = False
    world.run(600)
    informed.append(node.is_informed())
    world.has_leader = True
    world.run(600)
    assert [*informed, node.is_informed()] == [False, False, True]
    assert node.is_isolated()
    world.decide(Register(0, "s", "c"))
    world.run(10)
    assert not node.is_isolated()


def test_when_all_is_well_nothing_is_proposed(three: World) -> None:
    index = three.index
    three.run(5_000)
    assert three.index == index
    assert [node.is_isolated() for node in three.nodes] == [False] * 3


def test_sessions_of_a_fenced_node_are_asked_for_by_one_each(three: World) -> None:
    names = [f"c{number}" for number in range(9)]
    for name in names:
        three.begin(2, name)
    three.decide(Fence(2, 1))
    three.fold("data_0", data.encode(data.Open(2, 2)))
    three.run(100)
    asked = [node.adopting() for node in three.nodes]
    assert asked[2] == []
    assert sorted(asked[0] + asked[1]) == names
    assert three.nodes[2].is_isolated()
    three.run(2_500)
    assert three.nodes[0].adopting() == asked[0] * 2


def test_a_worker_hears_who_is_gone_before_it_is_asked_to_adopt(tmp_path: Path) -> None:
    """It would wait for the adoption of an earlier node's sessions for ever otherwise."""
    world = World(tmp_path, 4)
    world.decide(Found("c"))
    for number in range(4):
        world.decide(Register(number, f"s{number}", "c"))
    world.run(300)
    line = world.nodes[0].line
    for number in (3, 2):
        line.told.clear()
        world.decide(Fence(number, 1))
        world.fold("data_0", data.encode(data.Open(number, 2)))
        if number == 2:
            line.backlog_bytes = BACKLOG_BYTES
            world.run(300)
            assert line.told == []
            line.backlog_bytes = 0
            world.nodes[0].service.feed.drained(0)
        world.run(300)
        kinds = [type(told) for told in line.told if isinstance(told, Records | Snapshot | Adopt)]
        assert kinds[0] in {Records, Snapshot}
    last = [told.node for told in line.told if isinstance(told, Adopt) and told.is_last]
    assert sorted(last) == [2, 3]


def test_a_node_that_is_back_has_what_nobody_adopted(three: World) -> None:
    three.begin(2, "c")
    three.decide(Fence(2, 1))
    three.fold("data_0", data.encode(data.Open(2, 2)))
    three.run(100)
    three.decide(Register(2, "s2", "c"))
    three.run(400)
    back = three.nodes[2]
    assert back.data.fence(2) == data.Fence(2, False)
    assert not back.is_isolated()
    three.decide(Fence(2, 2))
    three.decide(Register(2, "s2", "c"))
    three.run(400)
    late = commands.outcome(three.fold("data_0", data.encode(data.Open(2, 3))).result)
    assert isinstance(late, Refused) or back.data.fence(2).incarnation == 3
    three.run(1_400)
    assert not back.is_isolated()


def test_a_worker_that_was_replaced_is_asked_again(three: World) -> None:
    three.begin(2, "c")
    three.decide(Fence(2, 1))
    three.fold("data_0", data.encode(data.Open(2, 2)))
    three.run(100)
    (node,) = (node for node in three.nodes if node.adopting())
    node.line.epoch = 2
    node.service.feed.receive(0, messages.encode(Hello(2)))
    three.run(20)
    assert node.adopting() == ["c", "c"]


def test_the_file_of_an_earlier_version_is_taken_over_once(tmp_path: Path) -> None:
    folder = tmp_path / "0"
    folder.mkdir()
    many = {f"b{number}": BAN for number in range(1_500)}
    content = {"format": 1, "version": 7, "records": {"blacklist": many}}
    (folder / FILE).write_bytes(msgspec.json.encode(content))
    world = World(tmp_path, 1)
    world.decide(Found("c"))
    world.decide(Change([Record("blacklist", "b1", encoded({**BAN, "desc": "known"}))]))
    world.run(200)
    (node,) = world.nodes
    assert len([*node.metadata.records("blacklist")]) == 1_500
    row = node.metadata.record("blacklist", "b1")
    assert row is not None
    assert b"known" in row[1]
    assert not (folder / FILE).exists()
    (count,) = (len(each.records) for each in node.line.told if isinstance(each, Snapshot))
    assert count == 1_501


@pytest.mark.parametrize("content", [b"{", b'{"format": 2, "version": 0, "records": {}}'])
def test_a_file_that_cannot_be_used_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / FILE).write_bytes(content)
    with pytest.raises(ConfigError, match=FILE):
        World(tmp_path, 1)
