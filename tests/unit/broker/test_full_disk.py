"""Writing fails in the middle of a turn: who is told, what goes on, what is asked for again."""

import pytest

from robustmq import metrics
from robustmq.errors import Refusal, Refused
from tests.durable import DurableClient
from tests.fabric import Fabric, Node

FULL = Refused(Refusal.QUOTA_EXCEEDED, "the disk is full")
LATER_MS = 1_000


def fail_commits(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk be full from the next commit on."""
    commit = node.table.commit

    def failing() -> bool:
        node.table.refuse(FULL)
        monkeypatch.undo()
        return commit()

    monkeypatch.setattr(node.table, "commit", failing)


def heal(fabric: Fabric, node: Node) -> None:
    """Make room, and let the core notice."""
    node.table.refuse(None)
    node.table.completed()
    fabric.settle()


def sleeping(fabric: Fabric, home: int) -> DurableClient:
    """A durable session that is offline and wants "t/#"."""
    client = DurableClient(fabric, home)
    client.subscribe("t/#")
    fabric.settle()
    return client


def test_a_message_whose_commit_fails_is_refused_and_may_come_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fabric = Fabric(2)
    client = sleeping(fabric, 1)
    fail_commits(fabric.nodes[1], monkeypatch)
    first = fabric.nodes[0].publish("t/0", "first", 1)
    fabric.settle()
    second = fabric.nodes[0].publish("t/0", "second", 1)
    fabric.settle()
    assert first.got == second.got == [(Refusal.QUOTA_EXCEEDED, True)]
    assert fabric.nodes[1].turn.row[metrics.MESSAGES_DROPPED_REFUSED] == 1
    heal(fabric, fabric.nodes[1])
    third = fabric.nodes[0].publish("t/0", "third", 1)
    fabric.settle()
    assert third.got == [(0, True)]
    assert first.got == [(Refusal.QUOTA_EXCEEDED, True)]
    client.connect()
    fabric.settle()
    client.read()
    assert [message.payload for message in client.messages] == [b"first", b"third"]


def test_a_message_of_qos_2_that_may_still_be_written_is_not_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fabric = Fabric(2)
    sleeping(fabric, 1)
    fail_commits(fabric.nodes[1], monkeypatch)
    answer = fabric.nodes[0].publish("t/0", "once", 2)
    fabric.settle()
    assert answer.got == []
    heal(fabric, fabric.nodes[1])
    assert answer.got == [(0, True)]


def test_what_is_written_first_is_refused_and_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fabric = Fabric(1)
    (node,) = fabric.nodes
    live = node.client()
    live.subscribe("live")
    client = sleeping(fabric, 0)
    fail_commits(node, monkeypatch)
    answer = node.publish("t/0", "once", 2)
    node.router.flush()
    node.publish("live", "behind it")
    fabric.settle()
    assert answer.got == [(Refusal.QUOTA_EXCEEDED, True)]
    assert node.publish("t/0", "later", 2).refused == FULL
    node.publish("live", "goes on")
    fabric.settle()
    assert live.payloads == ["behind it", "goes on"]
    heal(fabric, node)
    assert [*node.table.walk(b"O", b"P")] == []
    again = node.publish("t/0", "again", 2)
    fabric.settle()
    assert again.got == [(0, True)]
    client.connect()
    fabric.settle()
    client.read()
    assert [message.payload for message in client.messages] == [b"again"]


def test_what_an_earlier_life_may_have_acknowledged_is_asked_for_until_it_is_kept() -> None:
    fabric = Fabric(2)
    client = sleeping(fabric, 1)
    fabric.nodes[0].publish("t/0", "once", 2)
    fabric.turn(0)
    fabric.nodes[1].table.refuse(FULL)
    node = fabric.crash(0, 1 << 30, [])
    fabric.settle()
    assert len([*node.table.walk(b"O", b"P")]) == 1
    heal(fabric, fabric.nodes[1])
    node.turn.now_ms += LATER_MS
    node.core.timers.run(node.turn.now_ms)
    fabric.settle()
    assert [*node.table.walk(b"O", b"P")] == []
    client.connect()
    fabric.settle()
    client.read()
    assert [message.payload for message in client.messages] == [b"once"]


def test_retained_messages_that_cannot_be_kept_are_counted() -> None:
    fabric = Fabric(1)
    (node,) = fabric.nodes
    node.table.refuse(FULL)
    answer = node.publish("t/0", "x", 1, retain=True)
    fabric.settle()
    assert answer.got == [(Refusal.QUOTA_EXCEEDED, False)]
    assert node.turn.row[metrics.RETAINED_REFUSED] == 1


def test_what_is_written_and_waits_for_its_sync_is_not_refused() -> None:
    """It is there after a crash, and a core would not take it after what came behind it."""
    fabric = Fabric(2)
    client = sleeping(fabric, 1)
    node = fabric.nodes[0]
    node.table.hold = True
    once = node.publish("t/0", "once", 2)
    fabric.settle()
    behind = node.publish("t/0", "behind it", 1)
    never = node.publish("t/0", "never", 2)
    node.router.flush()
    last = node.publish("t/0", "last", 1)
    node.table.refuse(FULL)
    fabric.settle()
    assert never.got == [(Refusal.QUOTA_EXCEEDED, True)]
    assert behind.got == [(Refusal.QUOTA_EXCEEDED, True)]
    assert once.got == last.got == []
    node.table.settle()
    fabric.settle()
    assert once.got == last.got == [(0, True)]
    client.connect()
    fabric.settle()
    client.read()
    assert [message.payload for message in client.messages] == [b"once", b"last"]
