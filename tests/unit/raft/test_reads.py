"""Reads: confirmed by a majority after they came, and never below what was answered before."""

from robustmq.raft.message import MessageKind
from robustmq.raft.ready import Read
from robustmq.settings.raft import Raft
from tests.unit.raft.group import HEARTBEAT, TIMEOUT, Group, entries
from tests.unit.raft.lone import Lone

HEARTBEAT_REPLY = MessageKind.HEARTBEAT_REPLY


def reads_of(lone: Lone) -> list[Read]:
    return [read for ready in lone.readies for read in ready.reads]


def young(lone: Lone) -> Lone:
    """A leader whose first entry is committed."""
    lone.lead()
    lone.hears(MessageKind.APPEND_REPLY, 1, index=lone.node.last_index)
    lone.take()
    return lone


def test_a_read_of_any_replica_sees_what_was_committed() -> None:
    group = Group().elected()
    index = group.propose(b"a")
    group.settle()
    for number, node in group.nodes.items():
        node.read_index(number + 10, group.now)
    group.settle()
    assert group.reads == {each: [Read(each + 10, index)] for each in group.nodes}


def test_a_node_alone_answers_at_once() -> None:
    group = Group(1)
    group.advance(TIMEOUT + 100)
    group.nodes[0].read_index(5, group.now)
    group.settle()
    assert group.reads[0] == [Read(5, 1)]


def test_reads_that_come_together_share_a_round() -> None:
    lone = young(Lone())
    for token in range(100):
        lone.node.read_index(token, lone.now)
    said = lone.take()
    assert [each.kind for each in said] == [MessageKind.HEARTBEAT] * 2
    lone.hears(HEARTBEAT_REPLY, 2, context=said[0].context)
    lone.take()
    assert {read.token for read in reads_of(lone)} == set(range(100))


def test_an_answer_to_an_earlier_round_confirms_nothing() -> None:
    lone = young(Lone())
    lone.node.read_index(1, lone.now)
    first = lone.take()[0].context
    lone.node.read_index(2, lone.now)
    second = lone.take()[0].context
    assert second > first
    lone.hears(HEARTBEAT_REPLY, 1, context=first)
    lone.take()
    assert reads_of(lone) == [Read(1, 1)]
    lone.hears(HEARTBEAT_REPLY, 2, context=second)
    lone.take()
    assert reads_of(lone) == [Read(1, 1), Read(2, 1)]


def test_a_later_round_confirms_all_before_it() -> None:
    lone = young(Lone())
    lone.node.read_index(1, lone.now)
    lone.take()
    lone.node.read_index(2, lone.now)
    lone.hears(HEARTBEAT_REPLY, 1, context=lone.take()[0].context)
    lone.take()
    assert reads_of(lone) == [Read(1, 1), Read(2, 1)]


def test_a_new_leader_reads_when_it_has_committed_in_its_term() -> None:
    lone = Lone(entries(1, 1, 1))
    lone.lead()
    lone.node.read_index(1, lone.now)
    assert lone.take() == []
    lone.hears(MessageKind.APPEND_REPLY, 1, index=3)
    heartbeat = next(each for each in lone.take() if each.kind is MessageKind.HEARTBEAT)
    lone.hears(HEARTBEAT_REPLY, 1, context=heartbeat.context)
    lone.take()
    assert reads_of(lone) == [Read(1, 3)]


def test_an_isolated_leader_confirms_no_read() -> None:
    group = Group().elected()
    group.isolate(0)
    group.nodes[0].read_index(1, group.now)
    group.advance(TIMEOUT - 2 * HEARTBEAT)
    assert group.reads[0] == []
    group.advance(3 * TIMEOUT)
    assert group.reads[0] == [Read(1, None)]


def test_whoever_knows_no_leader_says_so() -> None:
    lone = Lone()
    lone.node.read_index(1, lone.now)
    lone.take()
    assert reads_of(lone) == [Read(1, None)]
    lone.hears(MessageKind.READ, 2, context=9)
    (reply,) = lone.take()
    assert (reply.kind, reply.rejected, reply.context) == (MessageKind.READ_REPLY, True, 9)


def test_a_follower_answers_when_it_has_what_must_be_seen() -> None:
    lone = Lone()
    lone.hears(MessageKind.HEARTBEAT, 1, 1)
    lone.node.read_index(7, lone.now)
    assert lone.take()[-1].kind is MessageKind.READ
    lone.hears(MessageKind.READ_REPLY, 1, index=2, context=7)
    lone.hears(MessageKind.APPEND, 1, entries=entries(1, 1, 1))
    lone.take()
    assert reads_of(lone) == []
    lone.hears(MessageKind.COMMIT, 1, commit=2)
    lone.take()
    assert reads_of(lone) == [Read(7, 2)]
    assert [each.index for each in lone.readies[-1].committed] == [1, 2]


def test_more_reads_than_may_wait_are_turned_away() -> None:
    lone = young(Lone(settings=Raft(pending_reads=2)))
    for token in (1, 2, 3):
        lone.node.read_index(token, lone.now)
    lone.hears(MessageKind.READ, 1, context=4)
    said = lone.take()
    assert next((each.context, each.rejected) for each in said if each.to == 1) == (4, True)
    assert reads_of(lone) == [Read(3, None)]


def test_a_read_of_a_follower_is_turned_away_when_its_leader_is_replaced() -> None:
    lone = young(Lone())
    lone.hears(MessageKind.READ, 2, context=4)
    lone.take()
    lone.hears(MessageKind.HEARTBEAT, 1, lone.node.term + 1)
    replies = [each for each in lone.take() if each.kind is MessageKind.READ_REPLY]
    assert [(each.to, each.context, each.rejected) for each in replies] == [(2, 4, True)]
