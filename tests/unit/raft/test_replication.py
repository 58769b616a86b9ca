"""Replication: logs that match, acknowledgements that mean something, commits that stay."""

import pytest

from robustmq.errors import Corrupt, Refusal, Refused
from robustmq.raft.message import EntryKind, HardState, MessageKind
from robustmq.settings.raft import Raft
from tests.unit.raft.group import HEARTBEAT, TIMEOUT, Group, entries
from tests.unit.raft.lone import Lone

APPEND, REPLY = MessageKind.APPEND, MessageKind.APPEND_REPLY


def follower(*terms: int, commit: int = 0) -> Lone:
    """A follower of 1 in term 5 with a log of these terms."""
    lone = Lone(entries(1, *terms), HardState(5, 1, commit), commit)
    lone.take()
    return lone


def test_a_proposal_is_applied_by_all() -> None:
    group = Group().elected()
    assert group.propose(b"a", b"b") == 2
    group.settle()
    for number in group.nodes:
        assert group.commands(number) == [b"a", b"b"]
        assert [each.index for each in group.applied[number]] == [1, 2, 3]
        assert group.applied[number][0].kind is EntryKind.NO_OP


def test_a_follower_takes_no_proposal() -> None:
    refused = Group().elected().nodes[1].propose([b"a"], 0)
    assert isinstance(refused, Refused)
    assert refused.code is Refusal.UNAVAILABLE


def test_what_is_proposed_in_a_turn_travels_together() -> None:
    group = Group().elected()
    group.log.clear()
    for each in range(50):
        group.propose(b"%d" % each)
    group.settle()
    assert len(group.delivered(APPEND)) == 2
    assert len(group.delivered(REPLY)) == 2


def test_an_entry_is_acknowledged_when_it_is_durable() -> None:
    lone = follower(1)
    lone.hears(APPEND, index=1, log_term=1, entries=entries(2, 5, 5))
    assert lone.take(sync=False) == []
    lone.hears(APPEND, index=3, log_term=5, entries=entries(4, 5))
    assert lone.take(sync=False) == []
    first, second = (each.number for each in lone.readies[-2:])
    lone.sync(first)
    assert [each.index for each in lone.take()] == [3]
    lone.sync(second)
    assert [each.index for each in lone.take()] == [4]


def test_a_leader_counts_its_own_disk_as_any_other() -> None:
    group = Group().elected()
    group.slow = {0, 2}
    group.propose(b"a")
    group.settle()
    assert group.nodes[0].commit == 1, "one disk of three has it"
    group.sync(2)
    group.settle()
    assert group.nodes[0].commit == 2, "a majority without the leader"
    assert group.commands(1) == [b"a"]
    assert group.commands(0) == [], "it applies what is durable here"
    group.sync(0)
    group.settle()
    assert group.commands(0) == [b"a"]


def test_defect_d_a_repeated_shorter_append_removes_nothing() -> None:
    lone = follower(1)
    lone.hears(APPEND, index=1, log_term=1, entries=entries(2, *[5] * 9), commit=10)
    lone.take()
    lone.hears(APPEND, index=1, log_term=1, entries=entries(2, 5, 5))
    assert [(each.rejected, each.index) for each in lone.take()] == [(False, 10)]
    assert lone.node.last_index == 10
    lone.hears(APPEND, index=10, log_term=5, entries=entries(11, *[5] * 5))
    lone.take()
    lone.hears(APPEND, index=11, log_term=5, entries=entries(12, 5))
    assert [each.index for each in lone.take()] == [12]
    assert lone.node.last_index == 15


def test_what_contradicts_is_replaced_from_the_first_other_term_on() -> None:
    lone = follower(1, 2, 2, 2)
    lone.hears(APPEND, index=1, log_term=1, entries=entries(2, 2, 5))
    lone.take()
    assert [each.term for each in lone.disk.entries] == [1, 2, 5]
    (written,) = (each.entries for each in lone.readies if each.entries)
    assert [each.index for each in written] == [3]


def test_what_is_committed_is_never_replaced() -> None:
    lone = follower(1, 2, 2, commit=3)
    lone.hears(APPEND, index=1, log_term=1, entries=entries(2, 5))
    lone.hears(APPEND, index=2, log_term=2, entries=entries(3, 5, 5))
    lone.take()
    assert [each.term for each in lone.disk.entries] == [1, 2, 2, 5]


def test_defect_e_an_acknowledgement_of_another_term_does_not_count() -> None:
    lone = Lone(entries(1, 1, 1, 1, 1))
    lone.lead()
    lone.hears(REPLY, 1, 1, index=5)
    lone.hears(REPLY, 2, 1, index=5)
    assert lone.node.commit == 0
    lone.hears(REPLY, 1, index=5)
    assert lone.node.commit == 5


def test_an_acknowledgement_of_what_the_leader_does_not_have_does_not_count() -> None:
    lone = Lone()
    lone.lead()
    lone.hears(REPLY, 1, index=1 << 40)
    assert lone.node.commit == 0
    lone.hears(REPLY, 9, index=1)
    assert lone.node.commit == 0


def test_an_entry_of_an_earlier_term_is_committed_with_one_of_the_own() -> None:
    lone = Lone(entries(1, 1, 1))
    lone.lead()
    lone.hears(REPLY, 1, index=2)
    lone.hears(REPLY, 2, index=2)
    assert lone.node.commit == 0
    lone.hears(REPLY, 2, index=3)
    assert lone.node.commit == 3


def test_a_commit_is_of_what_matches_and_not_of_what_follows_it() -> None:
    lone = follower(1, 2, 2, 2)
    lone.hears(APPEND, index=1, log_term=1, commit=4)
    assert lone.node.commit == 1


def test_defect_n_a_stored_commit_beyond_the_log_is_clamped() -> None:
    lone = Lone(entries(1, 1, 1), HardState(2, 1, 9), 1)
    assert lone.node.commit == 2


def test_a_state_that_is_ahead_of_the_journal_is_refused() -> None:
    with pytest.raises(Corrupt, match="not of one replica"):
        Lone(entries(1, 1, 1), HardState(2), 3)
    with pytest.raises(Corrupt, match="breaks off"):
        Lone(entries(2, 1, 1), HardState(2))


@pytest.mark.parametrize(("count", "size"), [(4_000, 100), (1_000, 100), (200, 1_024), (1, 10)])
def test_defect_f_a_divergent_tail_converges_in_a_few_round_trips(count: int, size: int) -> None:
    group = Group(settings=Raft(append_bytes=65_536, inflight_bytes=262_144)).elected()
    group.isolate(0)
    for _ in range(count):
        group.nodes[0].propose([bytes(size)], group.now)
    group.settle()
    group.advance(3 * TIMEOUT)
    assert group.leader == 1
    for each in range(300):
        group.propose(b"%d" % each, at=1)
        group.settle()
    group.cut.clear()
    group.log.clear()
    group.advance(2 * HEARTBEAT)
    assert group.nodes[0].last_index == group.nodes[1].last_index
    assert group.commands(0)[-300:] == group.commands(1)
    appends = [each for each in group.delivered(APPEND) if each.to == 0]
    assert len(appends) < 10
    assert sum(len(entry.data) for each in appends for entry in each.entries) < 20_000


def test_a_tail_of_many_terms_converges_a_term_at_a_time() -> None:
    theirs = entries(1, *[1] * 100, *[3] * 100, *[5] * 100)
    lone = Lone(theirs, HardState(9))
    lone.hears(APPEND, term=9, index=350, log_term=8)
    (reply,) = lone.take()
    assert (reply.rejected, reply.index, reply.hint, reply.log_term) == (True, 350, 300, 5)
    lone.hears(APPEND, term=9, index=280, log_term=4)
    assert [(each.hint, each.log_term) for each in lone.take()] == [(200, 3)]
    leader = Lone(entries(1, *[1] * 100, *[2] * 100, *[4] * 100), HardState(8))
    leader.lead()
    leader.hears(REPLY, 1, rejected=True, index=300, hint=200, log_term=3)
    (append,) = (each for each in leader.take() if each.to == 1)
    assert (append.index, append.log_term) == (200, 2)


def test_a_stale_rejection_does_not_move_a_follower_back() -> None:
    lone = Lone()
    lone.lead()
    lone.hears(REPLY, 1, index=1)
    lone.node.propose([b"a"], lone.now)
    lone.take()
    lone.hears(REPLY, 1, index=2)
    lone.hears(REPLY, 1, rejected=True, index=1, hint=0)
    lone.node.propose([b"b"], lone.now)
    (append,) = (each for each in lone.take() if each.kind is APPEND and each.to == 1)
    assert append.index == 2


def test_bytes_in_flight_are_bounded_and_the_rest_follows_the_acknowledgements() -> None:
    settings = Raft(append_bytes=1_024, inflight_bytes=4_096, inflight_messages=100)
    lone = Lone(settings=settings)
    lone.lead()
    lone.hears(REPLY, 1, index=1)
    lone.take()
    for _ in range(100):
        lone.node.propose([bytes(500)], lone.now)
    sent = [each for each in lone.take() if each.kind is APPEND and each.to == 1]
    flying = sum(entry.size for each in sent for entry in each.entries)
    assert 4_096 <= flying <= 5_120
    lone.hears(REPLY, 1, index=sent[0].entries[-1].index)
    assert any(each.kind is APPEND and each.to == 1 for each in lone.take())


def test_a_follower_whose_messages_are_lost_is_found_behind_by_a_heartbeat() -> None:
    group = Group().elected()
    group.cut = {(0, 2)}
    group.propose(b"a")
    group.settle()
    group.cut.clear()
    assert group.commands(2) == []
    group.advance(2 * HEARTBEAT)
    assert group.commands(2) == [b"a"]


def test_a_broken_link_is_probed_at_once() -> None:
    group = Group().elected()
    group.cut = {(0, 2)}
    group.propose(b"a")
    group.settle()
    group.cut.clear()
    group.nodes[0].unreachable(2)
    group.settle()
    assert group.commands(2) == [b"a"]


def test_more_than_may_be_uncommitted_is_refused() -> None:
    lone = Lone(settings=Raft(uncommitted_bytes=1_024))
    lone.lead()
    assert isinstance(lone.node.propose([bytes(5_000)], lone.now), int), "one is always taken"
    refused = lone.node.propose([b"a"], lone.now)
    assert isinstance(refused, Refused)
    assert refused.code is Refusal.BUSY
    lone.take()
    lone.hears(REPLY, 1, index=2)
    assert lone.node.commit == 2
    assert lone.node.propose([b"a"], lone.now) == 3


def test_what_is_applied_comes_in_bounded_pieces() -> None:
    group = Group(1, settings=Raft(apply_bytes=1_024))
    group.advance(TIMEOUT + 1_000)
    group.propose(*[bytes(400)] * 10)
    node = group.nodes[0]
    first = node.ready()
    assert first is not None
    group.disks[0].write(first)
    group.disks[0].sync(first.number)
    node.persisted(first.number)
    pieces = []
    while (ready := node.ready()) is not None:
        pieces.append(len(ready.committed))
    assert pieces == [2, 2, 2, 2, 2]


def test_an_old_part_of_the_log_is_read_from_the_journal() -> None:
    group = Group(settings=Raft(cache_bytes=1_024)).elected()
    group.isolate(2)
    for each in range(100):
        group.propose(b"%d" % each + bytes(100))
        group.settle()
    assert len(group.nodes[0]._log._cache) < 12
    group.cut.clear()
    group.advance(3 * TIMEOUT)
    assert group.commands(2) == group.commands(0)


def test_writes_under_way_that_were_replaced_are_not_durable() -> None:
    lone = follower(1)
    lone.hears(APPEND, 1, 5, index=1, log_term=1, entries=entries(2, 5, 5))
    lone.take(sync=False)
    lone.hears(APPEND, 2, 6, index=1, log_term=1, entries=entries(2, 6))
    lone.take(sync=False)
    lone.hears(APPEND, 1, 7, index=1, log_term=1, entries=entries(2, 5, 5), commit=3)
    lone.take(sync=False)
    one, two, three = (each.number for each in lone.readies[-3:])
    lone.sync(one)
    lone.take(sync=False)
    assert lone.node.handed == 1, "the disk may lose these entries by the second write"
    lone.sync(two)
    lone.sync(three)
    lone.take()
    assert lone.node.handed == 3
