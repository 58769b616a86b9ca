"""The meta service of nodes over groups that commit at once: who is here, and who hears."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from robustmq.errors import ConfigError, Refused
from robustmq.message.session_record import SessionChange, SessionHead
from robustmq.meta import commands, data
from robustmq.meta.commands import Change, Leave
from robustmq.meta.data import Batch
from robustmq.meta.machine import Applied, Machine, Outcome
from robustmq.meta.metadata import Metadata
from robustmq.meta.records import Record, encoded
from robustmq.settings.meta import MetaRuntime
from robustmq.workers import meta_messages as messages
from robustmq.workers.inherited_records import FILE
from robustmq.workers.meta_messages import Adopt, Hello, Snapshot, Standing
from robustmq.workers.meta_service import MetaService, Self, machines
from tests.unit.meta.memory_store import MemoryStore

SETTINGS = MetaRuntime(heartbeat_timeout_ms=1_000, heartbeat_check_time_ms=100)
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

    def __init__(self, world: "World", number: int, directory: Path, store: str = "s") -> None:
        self.world = world
        self.number = number
        self.made: dict[str, Machine] = {
            name: make(MemoryStore()) for name, make in machines(SETTINGS).items()
        }
        self.lines = [Line(), Line()]
        self.refusals: list[str] = []
        self.is_cut = False
        own = Self(number=number, store=store, new_cluster=f"id {number}", workers=1)
        self.service = MetaService(
            own,
            SETTINGS,
            self.lines,
            self.made,
            self,
            life=1,
            directory=directory,
            beat=self.beat,
            refused=self.refusals.append,
            now_ms=0,
        )
        for endpoint in (0, 1):
            self.service.feed.receive(endpoint, messages.encode(Hello(1)))

    def propose(self, group: str, command: bytes, done: Callable[[Outcome], None]) -> None:
        if not self.is_cut:
            self.world.proposed.append((group, command, self.number, done))

    def read(self, group: str, done: Callable[[Refused | None], None]) -> None:
        assert group in self.made
        self.world.asked.append(lambda: done(None))

    def leader(self, group: str) -> int | None:
        assert group in self.made
        return self.world.leader

    def beat(self, node: int, incarnation: int) -> None:
        if not self.is_cut:
            leader = self.world.nodes[node].service
            leader.heard(self.number, incarnation, self.world.now_ms)

    def state(self, number: int) -> str | None:
        node = self.service.nodes.get(number)
        return None if node is None else node.state

    def told(self, type_: type) -> list[messages.FromMeta]:
        return [message for message in self.lines[0].told if isinstance(message, type_)]


class World:
    """Nodes, time, and a log of each group that all fold."""

    def __init__(self, directory: Path, count: int) -> None:
        self.now_ms = 0
        self.leader: int | None = 0
        self.index = 0
        self.proposed: list[tuple[str, bytes, int, Callable[[Outcome], None]]] = []
        self.asked: list[Callable[[], None]] = []
        self.nodes = [Node(self, number, directory / str(number)) for number in range(count)]

    def run(self, milliseconds: int) -> None:
        until_ms = self.now_ms + milliseconds
        while self.now_ms < until_ms:
            self.now_ms += 10
            proposed, self.proposed = self.proposed, []
            for group, command, number, done in proposed:
                self.fold(group, command, number, done)
            asked, self.asked = self.asked, []
            for answer in asked:
                answer()
            for node in self.nodes:
                node.service.turn(self.now_ms, is_isolated=node.is_cut)

    def fold(
        self,
        group: str,
        command: bytes,
        number: int = 0,
        done: Callable[[Outcome], None] = lambda _outcome: None,
    ) -> None:
        self.index += 1
        results = [node.made[group].apply(self.index, command) for node in self.nodes]
        assert len(set(results)) == 1
        done(Applied(self.index, results[number]))

    def decide(self, command: commands.Command) -> None:
        self.fold("metadata", commands.encode(command))


@pytest.fixture
def three(tmp_path: Path) -> World:
    world = World(tmp_path, 3)
    world.run(300)
    return world


def session(owner: int, name: str) -> bytes:
    head = SessionHead(True, 60, 0, 5)
    change = SessionChange(name, owner, 1, 1, 0, head, whole=True)
    return data.encode(Batch(owner, 1, [change]))


def test_a_node_alone_founds_registers_and_tells_at_once(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    world.run(100)
    (node,) = world.nodes
    cluster = node.service.cluster
    assert cluster is not None
    assert cluster.id == "id 0"
    assert node.state(0) == "live"
    assert node.told(Snapshot)
    assert [message.is_isolated for message in node.told(Standing)][-1:] == [False]  # type: ignore[union-attr]
    index = world.index
    world.run(5_000)
    assert world.index == index


def test_three_nodes_are_one_cluster(three: World) -> None:
    assert {node.service.cluster.id for node in three.nodes if node.service.cluster} == {"id 0"}
    assert [node.state(1) for node in three.nodes] == ["live"] * 3
    index = three.index
    three.run(5_000)
    assert three.index == index


def test_nobody_is_told_anything_while_nobody_leads(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    world.leader = None
    world.run(1_000)
    assert world.nodes[0].lines[0].told == [] or not world.nodes[0].told(Snapshot)
    world.leader = 0
    world.run(100)
    assert world.nodes[0].told(Snapshot)


def test_a_silent_node_is_fenced_its_sessions_asked_for_and_it_comes_back(three: World) -> None:
    lost = three.nodes[2]
    for number in range(9):
        three.fold("data_0", session(2, f"c{number}"))
    lost.is_cut = True
    three.run(1_500)
    assert three.nodes[0].state(2) == "fenced"
    asked = [
        [each.identity for message in node.told(Adopt) for each in message.sessions]  # type: ignore[union-attr]
        for node in three.nodes
    ]
    assert asked[2] == []
    assert sorted(asked[0] + asked[1]) == [f"c{number}" for number in range(9)]
    assert lost.told(Standing)[-1] == Standing(1, True)
    lost.is_cut = False
    three.run(1_500)
    node = three.nodes[0].service.nodes[2]
    assert (node.state, node.incarnation) == ("live", 2)
    machine = lost.service.data["data_0"]
    assert machine.fence(2) == data.Fence(2, False)
    assert lost.told(Standing)[-1] == Standing(1, False)
    three.run(5_000)
    assert three.nodes[0].state(2) == "live"


def test_a_worker_that_was_replaced_is_asked_again(three: World) -> None:
    for number in range(9):
        three.fold("data_0", session(2, f"c{number}"))
    three.nodes[2].is_cut = True
    three.run(1_500)
    node = three.nodes[0]
    count = len(node.told(Adopt))
    node.lines[0].epoch = 2
    node.service.feed.receive(0, messages.encode(Hello(2)))
    three.run(20)
    assert len(node.told(Adopt)) == count + 1


def test_a_node_that_leaves_is_forgotten_and_told_why(three: World) -> None:
    three.decide(Leave(1))
    three.run(300)
    assert three.nodes[0].state(1) is None
    assert "has left the cluster" in three.nodes[1].refusals[-1]
    assert three.nodes[1].told(Standing)[-1] == Standing(1, True)


def test_another_node_of_the_same_number_is_told_why_it_is_not_taken(three: World) -> None:
    stranger = Node(three, 1, Path("nowhere"), store="other")
    stranger.made.update(three.nodes[1].made)
    stranger.service = MetaService(
        Self(number=1, store="other", workers=1),
        SETTINGS,
        stranger.lines,
        three.nodes[1].made,
        stranger,
        life=1,
        directory=Path("nowhere"),
        beat=stranger.beat,
        refused=stranger.refusals.append,
        now_ms=0,
    )
    three.nodes[1] = stranger
    three.run(200)
    assert "taken by a node with another data directory" in stranger.refusals[0]


def test_the_file_of_an_earlier_version_is_taken_over_once(tmp_path: Path) -> None:
    folder = tmp_path / "0"
    folder.mkdir()
    many = {f"b{number}": BAN for number in range(1_500)}
    content = {"format": 1, "version": 7, "records": {"blacklist": many}}
    (folder / FILE).write_bytes(msgspec.json.encode(content))
    world = World(tmp_path, 1)
    world.decide(commands.Found("c"))
    world.decide(Change([Record("blacklist", "b1", encoded({**BAN, "desc": "known"}))]))
    world.run(200)
    metadata = world.nodes[0].made["metadata"]
    assert isinstance(metadata, Metadata)
    assert len([*metadata.records("blacklist")]) == 1_500
    row = metadata.record("blacklist", "b1")
    assert row is not None
    assert b"known" in row[1]
    assert not (folder / FILE).exists()
    (snapshot,) = world.nodes[0].told(Snapshot)
    assert len(snapshot.records) == 1_501  # type: ignore[union-attr]


@pytest.mark.parametrize("content", [b"{", b'{"format": 2, "version": 0, "records": {}}'])
def test_a_file_that_cannot_be_used_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / FILE).write_bytes(content)
    with pytest.raises(ConfigError, match=FILE):
        World(tmp_path, 1)
