"""The delayed messages of a core in pages, and one of them removed."""

from typing import Any

import pytest

from robustmq.broker.delayed_view import DelayedView
from robustmq.errors import Refusal, Refused
from robustmq.metrics import DELAYED_MESSAGES
from robustmq.workers.questions import listing
from tests.delayed import advance, pending
from tests.fabric import START_MS, Fabric, Node


def _view(node: Node) -> DelayedView:
    return DelayedView(node.parts.state, node.parts.delayed, node.index)


def _all(view: DelayedView, limit: int) -> list[dict[str, Any]]:
    """Read page after page, as the server process does."""
    page = listing(view.walk, lambda: 0)
    items: list[dict[str, Any]] = []
    start: int | None = 0
    while start is not None:
        answer = page({"start": start, "limit": limit})
        assert isinstance(answer, dict)
        assert len(answer["items"]) <= limit
        items += answer["items"]
        start = answer["next"]
    return items


def _key(entry: dict[str, Any]) -> dict[str, int]:
    _, due_ms, number = entry["id"].split("-")
    return {"due_ms": int(due_ms), "number": int(number)}


def test_messages_are_listed_in_the_order_in_which_they_are_due() -> None:
    fabric = Fabric(1)
    (node,) = fabric.nodes
    node.publish("$delayed/9/late", "xyz", 2, True)
    node.publish("$delayed/5/soon", "", 0)
    fabric.settle()
    first, second = _all(_view(node), 10)
    assert first["topic"] == "soon"
    assert {key: value for key, value in second.items() if key != "id"} == {
        "tenant": "default",
        "topic": "late",
        "qos": 2,
        "retain": True,
        "publish_at": START_MS,
        "due_at": START_MS + 9_000,
        "payload_bytes": 3,
    }


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
@pytest.mark.parametrize("forget", [False, True])
def test_pages_hold_each_message_once_also_those_of_one_millisecond(
    limit: int, forget: bool
) -> None:
    fabric = Fabric(1)
    (node,) = fabric.nodes
    topics = [f"t{number}" for number in range(20)]
    for number, topic in enumerate(topics):
        node.publish(f"$delayed/{5 + number // 8}/{topic}", "x", 1)
    fabric.settle()
    view = _view(node)
    if not forget:
        assert [entry["topic"] for entry in _all(view, limit)] == topics
        return
    seen = []
    start = 0
    while True:
        # A view that knows nothing of the page before finds its end by counting.
        entries = _view(node).walk(start, {})
        found = [entry for _, entry in zip(range(limit), entries, strict=False)]
        if not found:
            break
        start = found[-1][0]
        seen += [entry["topic"] for _, entry in found if entry is not None]
    assert seen == topics


def test_what_is_removed_is_never_delivered() -> None:
    fabric = Fabric(1)
    (node,) = fabric.nodes
    client = node.client()
    client.subscribe("#")
    for topic in ("a", "b", "c"):
        node.publish(f"$delayed/5/{topic}", topic, 1)
    fabric.settle()
    view = _view(node)
    entries = _all(view, 10)
    assert view.delete(_key(entries[1]))
    # It is gone at once, also before the turn has written that.
    assert not view.delete(_key(entries[1]))
    assert [entry["topic"] for entry in _all(view, 10)] == ["a", "c"]
    fabric.settle()
    assert pending(node) == node.turn.row[DELAYED_MESSAGES] == 2
    advance(fabric, 5_000)
    assert client.payloads == ["a", "c"]
    assert not view.delete(_key(entries[0]))
    assert pending(node) == 0


def test_one_that_is_due_in_the_same_turn_as_it_is_removed_does_not_go_out() -> None:
    fabric = Fabric(1)
    (node,) = fabric.nodes
    client = node.client()
    client.subscribe("#")
    node.publish("$delayed/5/a", "a", 1)
    fabric.settle()
    view = _view(node)
    (entry,) = _all(view, 10)
    node.turn.now_ms += 5_000
    assert view.delete(_key(entry))
    advance(fabric, 0)
    assert client.payloads == []
    assert pending(node) == 0


@pytest.mark.parametrize("due_ms", [0, 1 << 63, 1 << 64, -1])
def test_what_is_not_there_cannot_be_removed(due_ms: int) -> None:
    fabric = Fabric(1)
    assert not _view(fabric.nodes[0]).delete({"due_ms": due_ms, "number": 1})


def test_nothing_is_removed_while_the_disk_refuses() -> None:
    fabric = Fabric(1)
    (node,) = fabric.nodes
    node.publish("$delayed/5/a", "a", 1)
    fabric.settle()
    view = _view(node)
    (entry,) = _all(view, 10)
    node.table.refuse(Refused(Refusal.QUOTA_EXCEEDED, "the disk is full"))
    with pytest.raises(ValueError, match="the disk is full"):
        view.delete(_key(entry))
