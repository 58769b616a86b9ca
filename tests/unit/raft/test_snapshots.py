"""Snapshots: for whom the log is too short, while the group goes on; and the log's start."""

from robustmq.raft.message import HardState, Membership, Message, MessageKind, Snapshot
from robustmq.raft.ready import Read
from robustmq.settings.raft import Raft
from tests.unit.raft.group import GROUP, HEARTBEAT, TIMEOUT, Group, entries
from tests.unit.raft.lone import Lone

SNAPSHOT = MessageKind.SNAPSHOT
MEMBERS = Membership((0, 1, 2))


def compacted() -> Group:
    """A leader that has nothing below its entry 90 for the follower 2, which was away."""
    settings = Raft(election_timeout_ms=TIMEOUT, heartbeat_interval_ms=HEARTBEAT, cache_bytes=0)
    group = Group(settings=settings).elected()
    group.isolate(2)
    group.propose(*[b"%d" % each for each in range(100)])
    group.settle()
    assert group.nodes[0].compact(90) == Snapshot(90, 1, MEMBERS)
    group.disks[0].compact(group.nodes[0].start)
    group.cut.clear()
    group.advance(2 * HEARTBEAT)
    return group


def arrived(group: Group, index: int) -> Message:
    """What the follower's host makes of a snapshot that has arrived whole."""
    snapshot = group.nodes[0].describe(index)
    return Message(SNAPSHOT, GROUP, 0, 2, group.nodes[0].term, snapshot=snapshot)


def test_a_follower_for_whom_the_log_is_too_short_gets_a_snapshot() -> None:
    group = compacted()
    assert group.snapshots == [(0, 2)]
    leader = group.nodes[0]
    index = group.disks[0].applied
    assert leader.snapshot_begins(2, index)
    assert {each.node: each.snapshot for each in leader.followers()} == {1: 0, 2: index}
    group.propose(b"meanwhile")
    group.advance(3 * HEARTBEAT)
    assert group.commands(1)[-1] == b"meanwhile"
    assert leader.compact(index + 1).index == index, "the snapshot's follower needs what follows"
    group.disks[0].compact(leader.start)
    leader.snapshot_ended(2, index, True)
    group.nodes[2].step(arrived(group, index), group.now)
    group.advance(2 * HEARTBEAT)
    assert group.nodes[2].start.index == index
    assert group.commands(2) == [b"meanwhile"]
    assert group.snapshots == [(0, 2)]


def test_a_snapshot_that_was_lost_is_asked_for_again() -> None:
    group = compacted()
    leader = group.nodes[0]
    assert leader.snapshot_begins(2, 101)
    leader.snapshot_ended(2, 101, False)
    group.settle()
    assert group.snapshots == [(0, 2)], "not before the follower is heard again"
    group.advance(2 * HEARTBEAT)
    assert group.snapshots == [(0, 2), (0, 2)]
    assert not leader.snapshot_begins(2, 89), "older than the log's start"
    group.settle()
    assert group.snapshots == [(0, 2)] * 3
    assert not leader.snapshot_begins(1, 101), "it needs none"


def test_a_snapshot_is_acknowledged_when_it_is_installed() -> None:
    lone = Lone(entries(1, 1, 2, 2), HardState(5, 1))
    snapshot = Snapshot(9, 4, Membership((0, 1), (2,)))
    lone.hears(SNAPSHOT, snapshot=snapshot)
    assert lone.take(sync=False) == []
    (ready,) = (each for each in lone.readies if each.snapshot)
    assert ready.snapshot == snapshot
    lone.hears(MessageKind.READ_REPLY, index=5, context=1)
    lone.hears(MessageKind.APPEND, index=9, log_term=4, entries=entries(10, 5), commit=10)
    assert lone.take(sync=False) == []
    assert not [each for ready in lone.readies for each in ready.reads], "the store is behind"
    lone.sync(ready.number)
    assert [each.index for each in lone.take(sync=False)] == [9]
    assert [each for ready in lone.readies for each in ready.reads] == [Read(1, 5)]
    assert not [each for ready in lone.readies for each in ready.committed]
    lone.sync(lone.disk.pending[-1].number)
    assert [each.index for each in lone.take()] == [10]
    assert [each.index for each in lone.readies[-1].committed] == [10]
    assert lone.node.membership == snapshot.membership
    assert lone.node.start == snapshot


def test_a_snapshot_of_what_is_there_only_commits() -> None:
    lone = Lone(entries(1, 1, 2, 2), HardState(5, 1))
    lone.hears(SNAPSHOT, snapshot=Snapshot(2, 2, MEMBERS))
    (reply,) = lone.take()
    assert (reply.rejected, reply.index) == (False, 2)
    assert lone.node.commit == 2
    assert lone.node.last_index == 3
    assert not any(each.snapshot for each in lone.readies)
    lone.hears(SNAPSHOT, snapshot=Snapshot(1, 1, MEMBERS))
    assert [each.index for each in lone.take()] == [2]


def test_a_snapshot_of_an_earlier_term_is_ignored() -> None:
    lone = Lone(entries(1, 1), HardState(5, 1))
    lone.hears(SNAPSHOT, term=4, snapshot=Snapshot(9, 4, MEMBERS))
    lone.take()
    assert lone.node.last_index == 1


def test_a_log_starts_anew_where_it_was_compacted() -> None:
    group = Group().elected()
    group.propose(*[b"%d" % each for each in range(10)])
    group.settle()
    assert group.nodes[1].compact(99).index == 11, "not beyond what was handed out"
    assert group.nodes[1].compact(3).index == 11
    group.disks[1].applied_durable = 11
    group.disks[1].compact(group.nodes[1].start)
    group.crash(1)
    group.start(1)
    group.propose(b"on")
    group.advance(2 * HEARTBEAT)
    assert group.commands(1) == [b"on"]
    assert group.nodes[1].describe(12).membership == MEMBERS


def test_an_append_that_begins_below_the_start_is_taken_behind_it() -> None:
    lone = Lone(entries(1, 1, 1, 1), HardState(2, 1), applied=3)
    assert lone.node.compact(3).index == 3
    lone.hears(MessageKind.APPEND, index=1, log_term=1, entries=entries(2, 1, 1, 2, 2), commit=4)
    assert [each.index for each in lone.take()] == [5]
    assert lone.node.commit == 4
    lone.hears(MessageKind.APPEND, index=0, log_term=0, entries=entries(1, 1))
    assert [(each.index, each.rejected) for each in lone.take()] == [(4, False)]


def test_the_members_as_of_an_entry_are_kept() -> None:
    group = Group(3, spare=1).elected()
    first = group.propose(b"before")
    group.nodes[0].add_learner(3, group.now)
    group.settle()
    last = group.propose(b"behind")
    group.settle()
    node = group.nodes[0]
    assert node.describe(first).membership == MEMBERS
    assert node.describe(last).membership == Membership((0, 1, 2), (3,))
    assert node.compact(last).membership == Membership((0, 1, 2), (3,))
    assert node.membership == Membership((0, 1, 2), (3,))
