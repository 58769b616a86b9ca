"""The machine of the metadata group: every command, every refusal, and its image."""

from collections.abc import Sequence

import msgspec
import pytest

from robustmq.errors import Refusal, Refused
from robustmq.meta import commands
from robustmq.meta.commands import (
    Change,
    Command,
    Expectation,
    Fence,
    Forget,
    Found,
    Leave,
    Register,
    SetKey,
)
from robustmq.meta.image import Image
from robustmq.meta.metadata import Metadata
from robustmq.meta.records import BLACKLIST, CLUSTER, NODE, Cluster, Node, Record, check, encoded
from tests.unit.meta.memory_store import MemoryStore

BAN = encoded({"blacklist_type": "ClientId", "resource_name": "c"})


class Group:
    """A machine that is told commands one by one, and what it has told."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.machine = Metadata(self.store)
        self.told: list[tuple[int, Sequence[Record]]] = []
        self.machine.on_applied = lambda index, records: self.told.append((index, records))
        self.index = 0

    def do(self, command: Command) -> bytes | Refused:
        self.index += 1
        return commands.outcome(self.machine.apply(self.index, commands.encode(command)))

    def refused(self, command: Command) -> Refused:
        rows = dict(self.store.rows)
        result = self.do(command)
        assert isinstance(result, Refused)
        changed = {key for key, value in self.store.rows.items() if rows.get(key) != value}
        assert changed <= {b"#"}
        assert self.told[-1] == (self.index, ())
        return result

    def node(self, command: Command) -> Node:
        result = self.do(command)
        assert isinstance(result, bytes), result
        return msgspec.msgpack.decode(result, type=Node)


def register(number: int, store: str = "s", cluster: str = "c", workers: int = 2) -> Register:
    return Register(number, store, cluster, "10.0.0.1", 1228, 1229, workers=workers)


@pytest.fixture
def group() -> Group:
    group = Group()
    group.do(Found("c", "name"))
    return group


def test_the_cluster_is_founded_once() -> None:
    group = Group()
    first = group.do(Found("one", "n"))
    second = group.do(Found("two", "n"))
    assert isinstance(first, bytes)
    assert first == second
    assert msgspec.msgpack.decode(first, type=Cluster) == Cluster(id="one", name="n")
    assert [records for _, records in group.told][1] == ()


def test_a_node_registers_and_again(group: Group) -> None:
    node = group.node(register(2))
    assert (node.state, node.incarnation, node.workers) == ("live", 1, 2)
    assert group.node(register(2)) == node
    assert group.told[-1][1] == ()
    assert group.node(register(2, workers=4)).workers == 4


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (register(63), "must be 0 to 62"),
        (register(-1), "must be 0 to 62"),
        (register(1, store="other"), "taken by a node with another data directory"),
        (register(3, cluster="foreign"), "belongs to the cluster foreign"),
    ],
)
def test_a_node_is_refused(group: Group, command: Register, words: str) -> None:
    group.node(register(1))
    assert words in group.refused(command).detail


def test_a_fence_raises_the_incarnation_and_holds_for_one_only(group: Group) -> None:
    group.node(register(1))
    fenced = group.node(Fence(1, 1))
    assert (fenced.state, fenced.incarnation) == ("fenced", 2)
    assert "not live as incarnation 1" in group.refused(Fence(1, 1)).detail
    assert "not live as incarnation 2" in group.refused(Fence(1, 2)).detail
    assert "not live" in group.refused(Fence(9, 1)).detail
    back = group.node(register(1))
    assert (back.state, back.incarnation) == ("live", 2)
    assert group.node(Fence(1, 2)).incarnation == 3


def test_a_node_leaves_and_is_forgotten(group: Group) -> None:
    group.node(register(1))
    assert "no node 5" in group.refused(Leave(5)).detail
    assert "is not leaving" in group.refused(Forget(1, 1)).detail
    left = group.node(Leave(1))
    assert (left.state, left.incarnation) == ("leaving", 2)
    assert group.node(Leave(1)) == left
    assert "is leaving the cluster" in group.refused(register(1)).detail
    assert "is not leaving" in group.refused(Forget(1, 1)).detail
    assert group.do(Forget(1, 2)) == b""
    assert group.told[-1][1] == [Record(NODE, "1", None)] or group.told[-1][1] == (
        Record(NODE, "1", None),
    )
    assert group.do(Forget(1, 2)) == b""
    assert "has left the cluster" in group.refused(register(1)).detail
    assert group.node(register(1, store="new")).incarnation == 3


def test_records_change_together_or_not_at_all(group: Group) -> None:
    assert group.do(Change([Record("a", "x", b"\x80"), Record("a", "y", b"\x80")])) == b""
    assert group.machine.record("a", "x") == (2, b"\x80")
    refused = group.refused(
        Change([Record("a", "x", None)], [Expectation("a", "x", 2), Expectation("a", "y", 1)])
    )
    assert "the a y has been changed meanwhile" in refused.detail
    refused = group.refused(Change([Record("a", "x", b"\x81")], [Expectation("a", "x", 0)]))
    assert "the a x exists already" in refused.detail
    assert group.do(Change([Record("a", "x", None)], [Expectation("a", "x", 2)])) == b""
    assert group.machine.record("a", "x") is None


@pytest.mark.parametrize("kind", [NODE, CLUSTER])
def test_nodes_are_not_set_as_records(group: Group, kind: str) -> None:
    assert "not set like this" in group.refused(Change([Record(kind, "1", BAN)])).detail


def test_there_are_only_so_many_records(group: Group) -> None:
    group.node(register(1))
    many = [Record("a", str(number), BAN) for number in range(3)]
    assert group.do(Change(many, most=3)) == b""
    refused = group.refused(Change([Record("a", "more", BAN)], most=3))
    assert refused.code is Refusal.QUOTA_EXCEEDED
    assert "3 records at most" in refused.detail
    assert group.do(Change([Record("a", "0", BAN)], most=3)) == b""
    exchanged = [Record("a", "0", None), Record("a", "more", BAN)]
    assert group.do(Change(exchanged, most=3)) == b""
    assert group.do(Change([Record("a", "1", None)], most=1)) == b""
    assert "0 records at most" in group.refused(Change([Record("a", "z", BAN)], most=0)).detail


def test_keys_are_set_removed_and_walked(group: Group) -> None:
    for key in ("b/2", "a", "b/1"):
        assert group.do(SetKey(key, key.encode())) == b""
    assert [each.key for each in group.machine.keys("b/")] == ["b/1", "b/2"]
    assert [each.key for each in group.machine.keys("", "b")] == ["b/1", "b/2"]
    assert "exists already" in group.refused(SetKey("a", b"", 0)).detail
    assert "changed meanwhile" in group.refused(SetKey("a", b"", 1)).detail
    refused = group.refused(SetKey("c", b"", most=3))
    assert refused.code is Refusal.QUOTA_EXCEEDED
    assert group.do(SetKey("a", None, 3)) == b""
    assert group.do(SetKey("c", b"", 0, most=3)) == b""
    assert [each.key for each in group.machine.keys("")] == ["b/1", "b/2", "c"]


def test_a_command_of_the_future_is_refused_and_changes_nothing(group: Group) -> None:
    before = dict(group.store.rows)
    for data in (msgspec.msgpack.encode(["teleport", 1]), b"", b"\xc1", b"\x93"):
        group.index += 1
        result = commands.outcome(group.machine.apply(group.index, data))
        assert isinstance(result, Refused)
        assert result.code is Refusal.INTERNAL
    after = dict(group.store.rows)
    assert {**after, b"#": b""} == {**before, b"#": b""}


def test_a_machine_goes_on_where_its_store_is(group: Group) -> None:
    group.do(Change([Record("a", "x", BAN)], most=2))
    again = Metadata(MemoryStore(group.store.rows))
    assert again.index == group.index
    command = commands.encode(Change([Record("a", str(n), BAN) for n in range(2)], most=2))
    assert again.apply(9, command) == group.machine.apply(9, command)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (Record("", "x", None), "1 to 64 bytes"),
        (Record("a\0b", "x", None), "U+0000"),
        (Record("a", "x" * 1_025, None), "1024 bytes at most"),
        (Record("a", "x", bytes((1 << 20) + 1)), "exceeds 1048576 bytes"),
        (Record(BLACKLIST, "x", encoded({"blacklist_type": "Nobody"})), "cannot be used"),
        (Record(BLACKLIST, "x", b"\x01"), "cannot be used"),
        (Record("user", "t/u", encoded({"password": "plain"})), "no plain text|in none of"),
    ],
)
def test_what_is_proposed_is_looked_at(record: Record, words: str) -> None:
    sentence = check(record)
    assert sentence is not None
    assert any(each in sentence for each in words.split("|"))


def test_what_is_right_or_unknown_is_proposed() -> None:
    assert check(Record(BLACKLIST, "x", BAN)) is None
    assert check(Record("user", "t/u", encoded({"superuser": True}))) is None
    assert check(Record("of the future", "x", b"anything")) is None
    assert check(Record(NODE, "1", encoded(Node(number=1, store="s")))) is None


class Fold:
    """A fold of one kind that does not take everything."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {"stale": 1}
        self.changed: dict[str, int] = {}

    def clear(self) -> None:
        self.values.clear()

    def apply(self, name: str, value: dict[str, object] | None, changed: int = 0) -> None:
        self.changed[name] = changed
        if value is not None and value.get("bad"):
            raise ValueError("it is bad")
        self.values[name] = value


def test_an_image_folds_keeps_and_notices_gaps(group: Group) -> None:
    unusable: list[tuple[Record, str]] = []
    changes: list[set[str]] = []
    image = Image(lambda record, reason: unusable.append((record, reason)))
    image.changed = lambda kinds: changes.append({*kinds})
    fold = Fold()
    image.folds["a"] = fold
    assert not image.apply(0, 1, [])
    group.node(register(1))
    assert image.replace(group.index, group.machine.records())
    assert fold.values == {}
    assert image.nodes[1].address == "10.0.0.1"
    assert image.cluster == Cluster(id="c", name="name")
    assert changes == [{"a", "node", "cluster"}]
    bad = Record("a", "bad", encoded({"bad": True}))
    assert image.apply(2, 3, [Record("a", "x", encoded({}), 3), bad, Record("new", "y", b"?")])
    assert fold.values == {"x": {}}
    assert fold.changed["x"] == 3
    assert [record for record, _ in unusable] == [bad]
    assert image.of("new") == {"y": b"?"}
    assert not image.apply(4, 5, [Record("a", "x", None)])
    assert fold.values == {"x": {}}
    assert image.apply(1, 2, [Record("a", "x", None)])
    assert (fold.values, image.index) == ({"x": {}}, 3)
    assert not image.replace(2, [])
    assert image.apply(3, 4, [Record("a", "x", None), Record(NODE, "1", None)])
    assert fold.values == {"x": None}
    assert image.nodes == {}
    assert changes[-1] == {"a", "node"}
