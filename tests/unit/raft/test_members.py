"""Members: one change at a time, learners that never decide, and the quiet of those who left."""

from robustmq.errors import Refusal, Refused
from robustmq.raft.message import Membership, MessageKind
from robustmq.raft.quorum import agreed, majority
from robustmq.raft.replica import Role
from robustmq.settings.raft import Raft
from tests.unit.raft.group import HEARTBEAT, TIMEOUT, Group
from tests.unit.raft.lone import Lone


def refused(result: int | Refused | None) -> Refusal:
    assert isinstance(result, Refused), result
    return result.code


def test_majorities() -> None:
    assert [majority(count) for count in (1, 2, 3, 4, 5)] == [1, 2, 2, 3, 3]
    assert agreed([7]) == 7
    assert agreed([7, 3]) == 3
    assert agreed([9, 1, 5]) == 5
    assert agreed([9, 1, 5, 7]) == 5
    assert agreed([1, 2, 3, 4, 5]) == 3


def test_a_node_grows_to_three_and_shrinks_again() -> None:
    group = Group(1, spare=2).elected()
    leader = group.nodes[0]
    group.propose(b"a")
    for each in (1, 2):
        assert isinstance(leader.add_learner(each, group.now), int)
        group.advance(2 * HEARTBEAT)
        assert group.commands(each) == [b"a"]
        assert isinstance(leader.promote(each, group.now), int)
        group.advance(2 * HEARTBEAT)
    assert leader.membership == Membership((0, 1, 2))
    for each in (2, 1):
        assert isinstance(leader.remove(each, False, group.now), int)
        group.advance(2 * HEARTBEAT)
    assert leader.membership == Membership((0,))
    group.propose(b"b")
    group.settle()
    assert group.commands(0) == [b"a", b"b"]
    assert group.commands(1) == [b"a"]


def test_defect_g_one_change_at_a_time() -> None:
    group = Group(3, spare=2).elected()
    group.slow = {0, 1, 2}
    leader = group.nodes[0]
    assert isinstance(leader.add_learner(3, group.now), int)
    assert group.nodes[0].changing
    assert refused(leader.add_learner(4, group.now)) is Refusal.BUSY
    assert refused(leader.remove(2, True, group.now)) is Refusal.BUSY
    group.settle()
    for each in (0, 1):
        group.sync(each)
    group.settle()
    assert not leader.changing
    assert isinstance(leader.add_learner(4, group.now), int)


def test_a_leader_changes_nothing_before_it_has_committed_in_its_term() -> None:
    lone = Lone()
    lone.lead()
    assert refused(lone.node.remove(2, True, lone.now)) is Refusal.BUSY
    lone.hears(MessageKind.APPEND_REPLY, 1, index=1)
    assert isinstance(lone.node.remove(2, True, lone.now), int)


def test_a_follower_changes_nothing() -> None:
    group = Group().elected()
    node = group.nodes[1]
    assert refused(node.add_learner(7, group.now)) is Refusal.UNAVAILABLE
    assert refused(node.promote(7, group.now)) is Refusal.UNAVAILABLE
    assert refused(node.remove(2, True, group.now)) is Refusal.UNAVAILABLE
    assert refused(node.transfer_leadership(2, group.now)) is Refusal.UNAVAILABLE


def test_what_makes_no_sense_is_refused() -> None:
    group = Group(1, spare=1).elected()
    leader = group.nodes[0]
    assert "already" in str(leader.add_learner(0, group.now))
    assert "no learner" in str(leader.promote(0, group.now))
    assert "does not belong" in str(leader.remove(1, True, group.now))
    assert "last voter" in str(leader.remove(0, True, group.now))
    assert "does not vote" in str(leader.transfer_leadership(1, group.now))


def test_a_learner_neither_votes_nor_counts() -> None:
    group = Group(3, spare=1).elected()
    group.nodes[0].add_learner(3, group.now)
    group.advance(HEARTBEAT)
    index = group.nodes[0].commit
    group.isolate(1)
    group.isolate(2)
    group.propose(b"a")
    group.settle()
    assert group.nodes[3].last_index == index + 1
    assert group.nodes[0].commit == index
    group.advance(TIMEOUT)
    assert group.leader == -1
    group.advance(5 * TIMEOUT)
    assert group.nodes[3].role is Role.FOLLOWER
    assert group.nodes[3].term == 1


def test_a_learner_votes_when_it_has_caught_up() -> None:
    group = Group(1, spare=1, settings=Raft(promote_entries=5)).elected()
    leader = group.nodes[0]
    group.propose(*[b"x"] * 100)
    group.isolate(1)
    leader.add_learner(1, group.now)
    group.advance(HEARTBEAT)
    assert "has not caught up" in str(leader.promote(1, group.now))
    group.cut.clear()
    group.advance(2 * HEARTBEAT)
    group.slow = {1}
    group.propose(*[b"x"] * 100)
    group.settle()
    assert "100 entries behind" in str(leader.promote(1, group.now))
    group.sync(1)
    group.settle()
    assert isinstance(leader.promote(1, group.now), int)


def test_no_replica_leaves_that_the_majority_needs_unless_forced() -> None:
    group = Group().elected()
    group.isolate(2)
    group.advance(TIMEOUT + HEARTBEAT)
    leader = group.nodes[0]
    assert refused(leader.remove(1, False, group.now)) is Refusal.UNAVAILABLE
    assert isinstance(leader.remove(2, False, group.now), int)
    group.settle()
    assert leader.membership == Membership((0, 1))
    group.advance(TIMEOUT)
    assert isinstance(leader.remove(1, True, group.now), int)


def test_a_dead_node_is_replaced() -> None:
    group = Group(3, spare=1).elected()
    group.propose(b"a")
    group.settle()
    group.crash(2)
    group.advance(TIMEOUT)
    leader = group.nodes[0]
    leader.add_learner(3, group.now)
    group.advance(2 * HEARTBEAT)
    leader.remove(2, False, group.now)
    group.advance(2 * HEARTBEAT)
    leader.promote(3, group.now)
    group.advance(2 * HEARTBEAT)
    assert leader.membership == Membership((0, 1, 3))
    group.crash(0)
    group.advance(3 * TIMEOUT)
    assert group.leader == 1
    assert group.commands(3) == [b"a"]


def test_one_that_was_removed_hears_of_it_and_is_quiet() -> None:
    group = Group().elected()
    group.isolate(2)
    group.nodes[0].remove(2, False, group.now)
    group.settle()
    group.cut.clear()
    group.advance(3 * TIMEOUT)
    assert group.nodes[2].removed
    assert group.nodes[2].role is Role.FOLLOWER
    assert [node.term for node in group.nodes.values()] == [1, 1, 1]
    group.log.clear()
    group.advance(10 * TIMEOUT)
    assert not [each for each in group.log if each.sender == 2]
    assert not group.nodes[0].removed


def test_one_that_was_removed_may_come_back() -> None:
    group = Group().elected()
    group.isolate(2)
    group.nodes[0].remove(2, False, group.now)
    group.settle()
    group.cut.clear()
    group.advance(3 * TIMEOUT)
    group.nodes[0].add_learner(2, group.now)
    group.advance(2 * HEARTBEAT)
    assert not group.nodes[2].removed
    group.nodes[0].promote(2, group.now)
    group.advance(2 * HEARTBEAT)
    group.crash(0)
    group.crash(1)
    group.start(1)
    group.advance(4 * TIMEOUT)
    assert group.leader in {1, 2}


def test_a_leader_that_leaves_leads_until_that_is_committed() -> None:
    group = Group().elected()
    group.propose(b"a")
    group.nodes[0].remove(0, False, group.now)
    assert group.leader == 0
    group.settle()
    assert not group.nodes[0].leads
    assert group.nodes[0].removed
    group.advance(3 * TIMEOUT)
    assert group.leader == 1
    assert group.nodes[1].membership == Membership((1, 2))
    assert group.commands(2) == [b"a"]


def test_one_whose_leaving_is_known_to_nobody_else_still_leads() -> None:
    group = Group(2).elected()
    group.isolate(0)
    group.nodes[0].remove(0, True, group.now)
    group.settle()
    group.crash(0)
    group.start(0)
    group.cut.clear()
    group.advance(4 * TIMEOUT)
    assert group.nodes[1].membership == Membership((1,))
    assert group.leader == 1
