"""Elections: one leader a term; a healthy one stays, one without a majority does not."""

import pytest

from robustmq.raft.message import NOBODY, HardState, Message, MessageKind
from robustmq.raft.replica import Role
from tests.unit.raft.group import GROUP, HEARTBEAT, TIMEOUT, Group, entries
from tests.unit.raft.lone import Lone


def test_a_node_alone_leads_and_commits() -> None:
    group = Group(1)
    group.advance(TIMEOUT + 20)
    group.propose(b"a", b"b")
    group.settle()
    assert group.nodes[0].leads
    assert group.nodes[0].leader == 0
    assert group.commands(0) == [b"a", b"b"]
    assert group.nodes[0].silent_ms(group.now + 10 * TIMEOUT) < TIMEOUT


def test_three_elect_one_and_follow_it() -> None:
    group = Group().elected()
    assert [node.leader for node in group.nodes.values()] == [0, 0, 0]
    assert {node.term for node in group.nodes.values()} == {1}
    assert [node.role for node in group.nodes.values()] == [
        Role.LEADER,
        Role.FOLLOWER,
        Role.FOLLOWER,
    ]
    group.advance(5 * TIMEOUT)
    assert {node.term for node in group.nodes.values()} == {1}
    assert all(node.silent_ms(group.now) < TIMEOUT for node in group.nodes.values())


def test_a_vote_is_given_once_a_term_and_not_to_a_shorter_log() -> None:
    lone = Lone(entries(1, 1, 2))
    lone.hears(MessageKind.VOTE, 1, 3, index=9, log_term=1)
    assert lone.take()[0].rejected
    lone.hears(MessageKind.VOTE, 1, 3, index=1, log_term=2)
    assert lone.take()[0].rejected
    lone.hears(MessageKind.VOTE, 1, 3, index=2, log_term=2)
    assert not lone.take()[0].rejected
    lone.hears(MessageKind.VOTE, 2, 3, index=5, log_term=2)
    assert lone.take()[0].rejected
    lone.hears(MessageKind.VOTE, 1, 3, index=2, log_term=2)
    assert not lone.take()[0].rejected
    assert lone.disk.hard_state == HardState(3, 1, 0)


def test_a_vote_leaves_when_it_is_durable_and_is_kept_by_a_crash() -> None:
    lone = Lone()
    lone.hears(MessageKind.VOTE, 1, 5)
    assert lone.take(sync=False) == []
    assert lone.readies[-1].hard_state == HardState(5, 1, 0)
    lone.sync(lone.readies[-1].number)
    (reply,) = lone.take()
    assert (reply.kind, reply.to, reply.term) == (MessageKind.VOTE_REPLY, 1, 5)
    again = Lone(hard_state=lone.disk.hard_state)
    again.hears(MessageKind.VOTE, 2, 5)
    assert again.take()[0].rejected


def test_our_own_vote_counts_when_it_is_durable() -> None:
    lone = Lone()
    lone.now = TIMEOUT
    lone.node.tick(lone.now)
    lone.take()
    lone.hears(MessageKind.PRE_VOTE_REPLY, term=1)
    assert lone.node.role is Role.CANDIDATE
    assert lone.take(sync=False) == [], "the request for votes waits for the disk"
    lone.hears(MessageKind.VOTE_REPLY)
    assert not lone.node.leads
    lone.sync(lone.readies[-1].number)
    assert lone.node.leads


def test_a_replica_asks_before_it_raises_the_term() -> None:
    group = Group().elected()
    group.isolate(2)
    group.advance(20 * TIMEOUT)
    assert group.nodes[2].role is Role.PRE_CANDIDATE
    assert group.nodes[2].term == 1
    assert group.nodes[2].silent_ms(group.now) >= TIMEOUT
    group.cut.clear()
    group.advance(3 * TIMEOUT)
    assert group.leader == 0
    assert [node.term for node in group.nodes.values()] == [1, 1, 1]
    assert group.nodes[2].silent_ms(group.now) < TIMEOUT


def test_one_that_hears_nothing_does_not_depose_a_leader_that_others_hear() -> None:
    group = Group().elected()
    group.cut = {(0, 2), (1, 2)}
    group.advance(10 * TIMEOUT)
    assert group.leader == 0
    assert [node.term for node in group.nodes.values()] == [1, 1, 1]


def test_one_that_the_leader_alone_does_not_reach_does_not_depose_it() -> None:
    group = Group().elected()
    group.cut = {(0, 2), (2, 0)}
    group.advance(10 * TIMEOUT)
    assert group.leader == 0
    assert group.nodes[2].term == 1


def test_an_isolated_leader_steps_down_within_its_timeout() -> None:
    group = Group().elected()
    group.advance(HEARTBEAT)
    cut_at = group.now
    group.isolate(0)
    group.advance(TIMEOUT - HEARTBEAT - 20)
    assert group.leader == 0
    group.advance(HEARTBEAT + 20)
    assert group.now - cut_at <= TIMEOUT
    assert not group.nodes[0].leads
    assert group.nodes[0].leader == NOBODY
    assert group.nodes[0].silent_ms(group.now) >= TIMEOUT
    group.advance(2 * TIMEOUT)
    assert group.leader == 1


def test_a_leader_that_stood_still_hears_its_followers_before_it_leaves_office() -> None:
    lone = Lone()
    lone.lead()
    lone.now += 3 * TIMEOUT
    lone.node.tick(lone.now)
    assert lone.node.role is Role.LEADER
    lone.hears(MessageKind.HEARTBEAT_REPLY, 2)
    lone.now += HEARTBEAT
    lone.node.tick(lone.now)
    assert lone.node.role is Role.LEADER
    lone.now += 3 * TIMEOUT
    lone.node.tick(lone.now)
    lone.now += HEARTBEAT
    lone.node.tick(lone.now)
    assert not lone.node.leads
    assert lone.node.silent_ms(lone.now) >= TIMEOUT


def test_a_leader_that_hears_nobody_is_replaced_though_it_is_heard() -> None:
    group = Group().elected()
    group.cut = {(1, 0), (2, 0)}
    group.advance(4 * TIMEOUT)
    assert group.leader == 1
    assert not group.nodes[0].leads
    group.cut.clear()
    group.advance(HEARTBEAT)
    assert group.nodes[0].leader == 1
    assert group.leader == 1


def test_a_leader_of_the_past_hears_of_the_present() -> None:
    lone = Lone(hard_state=HardState(7))
    lone.hears(MessageKind.HEARTBEAT, 1, 4)
    (reply,) = lone.take()
    assert (reply.to, reply.term) == (1, 7)
    leader = Lone()
    leader.lead()
    leader.hears(MessageKind.HEARTBEAT_REPLY, 2, 9)
    assert not leader.node.leads
    assert leader.node.term == 9


def test_a_request_for_votes_is_not_heard_while_there_is_a_leader() -> None:
    lone = Lone()
    lone.hears(MessageKind.HEARTBEAT, 1, 1)
    lone.take()
    lone.hears(MessageKind.VOTE, 2, 8, index=9, log_term=7)
    assert lone.take() == []
    assert lone.node.term == 1
    lone.hears(MessageKind.PRE_VOTE, 2, 8, index=9, log_term=7)
    assert lone.take()[0].rejected
    lone.hears(MessageKind.VOTE, 2, 8, index=9, log_term=7, context=1)
    assert not lone.take()[0].rejected, "the leader has ordered it"
    assert lone.node.term == 8


def test_a_crashed_leader_is_replaced_and_follows() -> None:
    group = Group().elected()
    group.propose(b"a")
    group.settle()
    group.crash(0)
    group.advance(3 * TIMEOUT)
    assert group.leader == 1
    group.propose(b"b", at=1)
    group.settle()
    group.start(0)
    group.advance(TIMEOUT)
    assert group.leader == 1
    assert group.commands(0) == [b"a", b"b"]
    assert [node.term for node in group.nodes.values()] == [2, 2, 2]


def test_the_office_is_given_to_one_that_has_everything() -> None:
    group = Group().elected()
    group.cut = {(0, 2), (2, 0)}
    group.propose(b"a")
    group.settle()
    assert group.nodes[0].transfer_leadership(2, group.now) is None
    assert not isinstance(group.nodes[0].propose([b"no"], group.now), int)
    group.cut.clear()
    group.advance(2 * HEARTBEAT)
    assert group.leader == 2
    assert group.nodes[2].term == 2
    group.propose(b"b", at=2)
    group.settle()
    assert group.commands(0) == [b"a", b"b"]


def test_an_office_that_cannot_be_given_is_kept() -> None:
    group = Group().elected()
    group.isolate(2)
    assert group.nodes[0].transfer_leadership(2, group.now) is None
    assert group.nodes[0].transfer_leadership(7, group.now) is not None
    group.advance(TIMEOUT + 20)
    assert group.leader == 0
    group.propose(b"a")
    group.settle()
    assert group.commands(1) == [b"a"]


def test_whatever_comes_for_another_group_or_node_is_ignored() -> None:
    lone = Lone()
    lone.node.step(Message(MessageKind.APPEND, GROUP + 1, 1, 0, 5), 0)
    lone.node.step(Message(MessageKind.APPEND, GROUP, 1, 2, 5), 0)
    assert lone.node.term == 0
    assert lone.take() == []


@pytest.mark.parametrize("leads", [False, True])
@pytest.mark.parametrize("kind", MessageKind)
def test_no_message_is_more_than_a_replica_can_bear(kind: MessageKind, leads: bool) -> None:
    lone = Lone()
    if leads:
        lone.lead()
    for sender in (1, 9):
        for term in (0, 1, 2):
            lone.hears(kind, sender, term)
            lone.hears(kind, sender, term, rejected=True, index=77, hint=5, log_term=3, context=4)
            lone.hears(kind, sender, term, index=1 << 60, log_term=1 << 60, commit=1 << 60)
            lone.hears(kind, sender, term, entries=entries(1, 1, 1), commit=1)
            lone.take()
    assert lone.node.commit <= lone.node.last_index
