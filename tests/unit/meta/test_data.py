"""The machine of the data groups: sessions with one owner each, and what is retained."""

import msgspec
import pytest

from robustmq.errors import Refusal, Refused
from robustmq.message.session_record import (
    SessionChange,
    SessionHead,
    SubscriptionRecord,
    Verdict,
)
from robustmq.meta import commands, data
from robustmq.meta.data import ALL, Batch, Close, Command, Data, Open, Retained
from tests.unit.meta.memory_store import MemoryStore

HEAD = SessionHead(True, 60, 0, 5)


class Group:
    """A machine that is told commands one by one."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.machine = Data(self.store)
        self.index = 0

    def do(self, command: Command) -> bytes | Refused:
        self.index += 1
        return commands.outcome(self.machine.apply(self.index, data.encode(command)))

    def change(self, change: SessionChange, incarnation: int = 1) -> Verdict:
        result = self.do(Batch(change.owner, incarnation, [change]))
        assert isinstance(result, bytes), result
        (verdict,) = data.verdicts(result)
        return verdict

    def retain(self, topic: bytes, message: bytes | None) -> None:
        assert self.do(Batch(0, 1, [], [Retained(topic, message)])) == b""

    def owned(self, node: int) -> list[str]:
        return [row.identity for row in self.machine.owned(node)]


@pytest.fixture
def group() -> Group:
    return Group()


def begin(owner: int, generation: int = 1, identity: str = "c") -> SessionChange:
    return SessionChange(identity, owner, generation, generation, 0, HEAD, whole=True)


def test_a_session_has_one_owner(group: Group) -> None:
    assert group.change(begin(1)) is Verdict.DONE
    assert group.change(begin(2, 2)) is Verdict.TAKEN
    assert (group.owned(1), group.owned(2)) == (["c"], [])
    assert group.machine.counts == (1, 0)
    assert group.change(SessionChange("x", 1, 1, 1, None, HEAD)) is Verdict.GONE


def test_subscriptions_follow_and_repeats_change_nothing(group: Group) -> None:
    group.change(begin(1))
    more = SessionChange("c", 1, 1, 5, None, HEAD, [SubscriptionRecord(b"a/#", 1)])
    assert group.change(more) is Verdict.DONE
    rows = dict(group.store.rows)
    assert group.change(more) is Verdict.DONE
    assert group.change(SessionChange("c", 1, 1, 4, None, None)) is Verdict.DONE
    assert {**group.store.rows, b"#": b""} == {**rows, b"#": b""}
    row = group.machine.session("c")
    assert row is not None
    assert [each.written for each in row.subscriptions] == [b"a/#"]
    assert group.change(SessionChange("c", 1, 1, 6, None, None)) is Verdict.DONE
    assert group.machine.session("c") is None
    assert group.machine.counts == (0, 0)
    assert group.owned(1) == []


def test_only_of_a_fenced_node_sessions_are_adopted_and_once(group: Group) -> None:
    group.change(begin(1))
    adoption = SessionChange("c", 2, 2, 2, 1, HEAD)
    assert group.change(adoption) is Verdict.TAKEN
    assert group.do(Open(1, 2)) == b""
    assert group.change(adoption) is Verdict.DONE
    assert group.change(SessionChange("c", 3, 3, 3, 1, HEAD)) is Verdict.TAKEN
    assert (group.owned(1), group.owned(2)) == ([], ["c"])


def test_what_a_fenced_node_says_is_void_until_it_is_back(group: Group) -> None:
    group.change(begin(1))
    group.change(begin(1, 1, "d"))
    group.do(Open(1, 2))
    for incarnation in (1, 2):
        refused = group.do(Batch(1, incarnation, [begin(1, 7, "e")], [Retained(b"t", b"m")]))
        assert isinstance(refused, Refused)
        assert refused.code is Refusal.UNAVAILABLE
        assert "has not come back" in refused.detail
    assert group.machine.retained(b"t") is None
    group.change(SessionChange("c", 2, 2, 2, 1, HEAD))
    assert group.do(Close(1, 2)) == b""
    assert group.owned(1) == ["d"]
    assert isinstance(group.do(Open(1, 2)), Refused)
    assert isinstance(group.do(Close(1, 1)), Refused)
    assert group.change(SessionChange("d", 2, 2, 2, 1, HEAD)) is Verdict.TAKEN
    assert group.change(begin(1, 7, "e"), 2) is Verdict.DONE
    assert isinstance(group.do(Batch(1, 1)), Refused)
    assert group.do(Open(1, 3)) == b""
    assert group.machine.fence(1) == data.Fence(3, True)


def test_nobody_changes_what_is_anothers(group: Group) -> None:
    result = group.do(Batch(3, 1, [begin(1)]))
    assert isinstance(result, bytes)
    assert data.verdicts(result) == [Verdict.TAKEN]


def test_owned_sessions_are_walked_from_a_start_on(group: Group) -> None:
    for identity in ("b", "a", "c"):
        group.change(begin(1, 1, identity))
    group.change(begin(2, 1, "z"))
    assert [row.identity for row in group.machine.owned(1, "b")] == ["b", "c"]


def test_retained_messages_are_read_by_their_index(group: Group) -> None:
    group.retain(b"a", b"1")
    group.retain(b"b", b"2")
    group.retain(b"a", b"3")
    group.retain(b"b", None)
    group.retain(b"never", None)
    machine = group.machine
    assert machine.counts == (0, 1)
    assert (machine.retained(b"a"), machine.retained(b"b")) == (b"3", None)
    everything = machine.changes((0, b""), 10)
    assert everything.rows == [(3, Retained(b"a", b"3")), (4, Retained(b"b", None))]
    assert everything.after is None
    assert machine.changes((3, ALL), 10).rows == [(4, Retained(b"b", None))]
    first = machine.changes((0, b""), 1)
    assert first.after == (3, b"a")
    assert machine.changes(first.after, 1).rows == [(4, Retained(b"b", None))]
    group.retain(b"b", b"5")
    assert machine.changes((3, ALL), 10).rows == [(6, Retained(b"b", b"5"))]


def test_of_several_in_a_batch_the_last_counts(group: Group) -> None:
    rows = [Retained(b"a", b"1"), Retained(b"b", b"2"), Retained(b"a", None)]
    group.do(Batch(0, 1, [], rows))
    assert group.machine.counts == (0, 1)
    assert group.machine.changes((0, b""), 9).rows == [(1, Retained(b"b", b"2"))]


def test_who_was_away_for_too_long_reads_all(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "CLEARED_KEPT", 2)
    group.retain(b"stays", b"m")
    for name in (b"a", b"b", b"c"):
        group.retain(name, name)
        group.retain(name, None)
    whole = group.machine.changes((2, ALL), 10)
    assert whole.is_whole
    assert whole.rows == [(1, Retained(b"stays", b"m"))]
    part = group.machine.changes((3, ALL), 10)
    assert not part.is_whole
    assert [row.topic for _, row in part.rows] == [b"b", b"c"]
    assert sum(key.startswith((b"t", b"r")) for key in group.store.rows) == 5


def test_what_is_not_understood_changes_nothing(group: Group) -> None:
    told: list[int] = []
    group.machine.on_applied = lambda index, *_: told.append(index)
    wrong = [
        b"",
        msgspec.msgpack.encode(["teleport"]),
        data.encode(Open(99, 1)),
        data.encode(Batch(-1, 1)),
    ]
    for index, command in enumerate(wrong, start=1):
        assert isinstance(commands.outcome(group.machine.apply(index, command)), Refused)
    assert set(group.store.rows) == {b"#"}
    assert told == [1, 2, 3, 4]
    assert Data(MemoryStore(group.store.rows)).index == 4
