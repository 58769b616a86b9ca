"""What is retained in a cluster: proposed to groups, and taken as they tell it."""

from array import array
from collections.abc import Callable, Sequence

from robustmq._kernel.batch import BatchBuilder, records
from robustmq._kernel.turn import Turn
from robustmq.broker.replicas import Copies, Proposals, group_of
from robustmq.broker.retained import Retained
from robustmq.broker.state import State
from robustmq.errors import Refusal
from robustmq.message.record import NO_HEADERS, RETAIN_BIT
from robustmq.metrics import CELLS
from robustmq.settings.mqtt import MqttRetained
from robustmq.storage.memory_table import MemoryTable

GROUPS = 3
Row = tuple[bytes, bytes | None]


class Replication:
    """Groups that decide when they are told to."""

    groups = GROUPS

    def __init__(self) -> None:
        self.asked: list[tuple[int, Sequence[Row], Callable[[int, int], None]]] = []

    def retain(self, group: int, rows: Sequence[Row], done: Callable[[int, int], None]) -> None:
        """Remember what is asked."""
        self.asked.append((group, rows, done))


def topics(group: int, count: int) -> list[bytes]:
    """Topics of one group."""
    return [t for t in (b"t/%d" % n for n in range(200)) if group_of(t, GROUPS) == group][:count]


def batch(*messages: tuple[bytes, bytes, bool]) -> bytes:
    """A batch of (topic, payload, retain)."""
    builder = BatchBuilder(Turn(array("Q", bytes(8 * CELLS))), 0, 1 << 20, None)
    for topic, payload, retain in messages:
        builder.append(topic, payload, NO_HEADERS, RETAIN_BIT if retain else 0, 1_000)
    return builder.take()[0]


def copies() -> tuple[Copies, Retained, MemoryTable]:
    """A core that keeps what it is told."""
    table = MemoryTable()
    state = State(table)
    retained = Retained(state, MqttRetained(), memoryview(array("Q", bytes(8 * CELLS))))
    return Copies(retained, state, GROUPS), retained, table


def kept(retained: Retained) -> dict[bytes, tuple[bytes, int, int]]:
    """By topic: the payload, and whose it is."""
    found, _ = retained.page(b"#", b"", 1_000)
    return {each.key: (each.value, each.source, each.position) for each in found}


def test_a_batch_goes_to_the_groups_of_its_topics_and_is_decided_when_all_have() -> None:
    replication = Replication()
    proposals = Proposals(replication, 2_049)
    (first,), (second,) = topics(0, 1), topics(2, 1)
    codes: list[int] = []
    sent = batch((first, b"a", True), (b"t/x", b"b", False), (second, b"c", True))
    proposals.propose(7, sent, codes.append)
    assert proposals.unanswered == len(sent)
    (one, one_rows, one_done), (two, two_rows, two_done) = replication.asked
    assert {one, two} == {0, 2}
    assert [topic for topic, _ in (*one_rows, *two_rows)] == [first, second]
    after: list[str] = []
    proposals.after(lambda: after.append("all"))
    one_done(0, 5)
    assert (codes, after) == ([], [])
    two_done(int(Refusal.UNAVAILABLE), 9)
    assert codes == [Refusal.UNAVAILABLE]
    assert after == ["all"]
    assert proposals.indexes == [5, 0, 9]
    assert proposals.unanswered == 0
    proposals.after(lambda: after.append("at once"))
    assert after == ["all", "at once"]


def test_who_waits_does_not_wait_for_what_is_proposed_later() -> None:
    replication = Replication()
    proposals = Proposals(replication, 1_024)
    (topic,) = topics(1, 1)
    done: list[str] = []
    proposals.propose(1, batch((topic, b"a", True)), lambda _: None)
    proposals.after(lambda: done.append("first"))
    proposals.propose(2, batch((topic, b"b", True)), lambda _: None)
    proposals.after(lambda: done.append("second"))
    replication.asked[1][2](0, 2)
    assert done == []
    replication.asked[0][2](0, 1)
    assert done == ["first", "second"]


def test_nothing_to_retain_is_decided_at_once() -> None:
    replication = Replication()
    codes: list[int] = []
    Proposals(replication, 1_024).propose(1, batch((b"t", b"a", False)), codes.append)
    assert codes == [0]
    assert not replication.asked


def test_what_a_group_tells_is_kept_with_its_place_and_cleared_again() -> None:
    replication = Replication()
    proposals = Proposals(replication, 2_049)
    (topic,) = topics(1, 1)
    proposals.propose(7, batch((topic, b"old", True), (topic, b"new", True)), lambda _: None)
    ((group, rows, _),) = replication.asked
    core, retained, table = copies()
    core.apply(group, 4, rows, is_whole=False, is_last=True)
    assert kept(retained) == {topic: (b"new", 2_049, 7)}
    assert core.reached == [0, 4, 0]
    table.commit()
    ((_, row),) = table.walk(b"T", b"U")
    assert records(row)[0][4] == b"new"
    proposals.propose(8, batch((topic, b"", True)), lambda _: None)
    assert replication.asked[1][1] == [(topic, None)]
    core.apply(group, 5, replication.asked[1][1], is_whole=False, is_last=True)
    assert kept(retained) == {}


def test_all_that_a_group_has_replaces_what_was_known_of_it_only() -> None:
    replication = Replication()
    proposals = Proposals(replication, 1_024)
    gone, stays, comes = topics(0, 3)
    (other,) = topics(1, 1)
    core, retained, table = copies()
    known = batch(*((topic, b"x", True) for topic in (gone, stays, other)))
    proposals.propose(1, known, lambda _: None)
    for group, rows, _ in replication.asked:
        core.apply(group, 3, rows, is_whole=False, is_last=True)
    table.commit()
    proposals.propose(2, batch((comes, b"y", True)), lambda _: None)
    first = [row for row in replication.asked[0][1] if row[0] == stays]
    core.apply(0, 8, first, is_whole=True, is_last=False)
    assert core.reached[0] == 3
    core.apply(0, 9, replication.asked[-1][1], is_whole=True, is_last=True)
    assert kept(retained).keys() == {stays, comes, other}
    assert core.reached[0] == 9
