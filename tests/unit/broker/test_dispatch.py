"""The owner's side: back-pressure by held answers, and retained messages page by page."""

import pytest

from robustmq.broker import dispatch
from robustmq.broker.api import Options
from robustmq.broker.frames import Kind
from robustmq.metrics import SHARD_APPENDS, SHARD_BYTES, SHARD_RECORDS
from tests.books import check_books
from tests.fabric import Client, Fabric, Limits


def topic_of(fabric: Fabric, core: int) -> str:
    """A topic that a core owns."""
    return next(
        name
        for name in (f"t/{number}" for number in range(1_000))
        if fabric.placement.owner_of(name.encode()) == core
    )


def slow_subscriber(fabric: Fabric, core: int, topic_filter: str) -> Client:
    """A subscriber on a core that nobody can push frames to any more."""
    client = fabric.nodes[core].client()
    client.subscribe(topic_filter)
    fabric.settle()
    fabric.stalled = {(peer, core) for peer in range(len(fabric.nodes)) if peer != core}
    return client


def test_while_a_core_is_behind_answers_are_held_and_then_all_given() -> None:
    fabric = Fabric(3, limits=Limits(pressure_bytes=1_000))
    topic = topic_of(fabric, 1)
    client = slow_subscriber(fabric, 2, topic)
    answers = []
    for number in range(20):
        answers += [node.publish(topic, f"{number}" * 50, 1) for node in fabric.nodes[:2]]
        fabric.turn(0)
        fabric.turn(1)
    fabric.settle()
    held = [answer for answer in answers if not answer.got]
    assert held
    fabric.stalled.clear()
    fabric.settle()
    assert [answer.got for answer in answers] == [[(0, True)]] * 40
    assert len(client.payloads) == 40
    check_books(fabric)


def test_publishers_are_blocked_while_answers_are_held() -> None:
    fabric = Fabric(3, limits=Limits(pressure_bytes=1_000))
    topic = topic_of(fabric, 1)
    slow_subscriber(fabric, 2, topic)
    for node in fabric.nodes[:2]:
        for _ in range(20):
            node.publish(topic, "x" * 200, 0)
            fabric.turn(0)
            fabric.turn(1)
    fabric.settle()
    assert [node.core.blocked for node in fabric.nodes] == [True, True, False]
    builders = [node.router.builder(topic.encode()) for node in fabric.nodes]
    assert [builder.blocked for builder in builders] == [True, True, False]
    fabric.stalled.clear()
    fabric.settle()
    assert [node.core.blocked for node in fabric.nodes] == [False] * 3
    assert [builder.blocked for builder in builders] == [False] * 3


def test_relief_needs_no_further_frame() -> None:
    # When the links have room again the flush at the end of a turn empties the backlog, and
    # nothing else need ever happen: the core itself must ask for the turn that gives answers.
    fabric = Fabric(2, limits=Limits(pressure_bytes=1_000))
    topic = topic_of(fabric, 0)
    slow_subscriber(fabric, 1, topic)
    answer = fabric.nodes[0].publish(topic, "x" * 2_000, 1)
    fabric.turn(0)
    fabric.turn(0)
    assert (len(answer.got), fabric.nodes[0].core.busy) == (0, False)
    fabric.stalled.clear()
    fabric.turn(0)
    assert (len(answer.got), fabric.nodes[0].core.busy) == (0, True)
    fabric.turn(0)
    assert (len(answer.got), fabric.nodes[0].core.busy) == (1, False)


def test_held_answers_survive_the_death_of_the_core_that_was_behind() -> None:
    fabric = Fabric(3, limits=Limits(pressure_bytes=1_000))
    topic = topic_of(fabric, 1)
    slow_subscriber(fabric, 2, topic)
    answer = fabric.nodes[0].publish(topic, "x" * 2_000, 2)
    fabric.turn(0)
    fabric.turn(1)
    fabric.turn(0)
    assert answer.got == []
    fabric.stalled.clear()
    fabric.replace(2)
    fabric.settle()
    assert answer.got == [(0, True)]
    check_books(fabric)


def test_a_core_that_died_gets_no_answer_that_was_held_for_it() -> None:
    fabric = Fabric(3, limits=Limits(pressure_bytes=1_000))
    topic = topic_of(fabric, 1)
    slow_subscriber(fabric, 2, topic)
    fabric.nodes[0].publish(topic, "x" * 2_000, 1)
    fabric.turn(0)
    fabric.turn(1)
    fabric.replace(0)
    fabric.settle()
    fabric.nodes[0].publish(topic, "y", 1)
    fabric.stalled.clear()
    fabric.settle()
    check_books(fabric)


def test_retained_pages_wait_for_a_core_that_is_behind() -> None:
    fabric = Fabric(2, limits=Limits(max_batch_bytes=500, pressure_bytes=2_000))
    for number in range(200):
        fabric.nodes[0].publish(f"t/{number}", "x" * 100, 0, True)
        fabric.settle()
    client = fabric.nodes[0].client()
    client.subscribe("t/+", retained=True)
    for index in (0, 1, 0):
        fabric.turn(index)
    assert client.subacks == 1
    fabric.stalled = {(1, 0)}
    for _ in range(100):
        fabric.turn(1)
    assert not fabric.nodes[1].core.busy
    assert fabric.nodes[1].links.backlog(0) < 3_000
    fabric.stalled.clear()
    fabric.settle()
    assert len(client.payloads) == 200
    check_books(fabric)


def test_exact_filters_share_a_turn() -> None:
    fabric = Fabric(2)
    topic = topic_of(fabric, 1)
    fabric.nodes[1].publish(topic, "x", 1, True)
    fabric.settle()
    clients = [fabric.nodes[0].client() for _ in range(50)]
    for client in clients:
        client.subscribe(topic, Options(1), True)
    for index in (0, 1, 0, 1):
        fabric.turn(index)
    found = [frame.data[0] for frame in fabric.rings[1, 0]]
    assert found == [Kind.RETAINED] * 50
    fabric.settle()
    assert all(client.payloads == ["x"] for client in clients)


def test_a_filter_that_matches_nothing_retained_ends_too() -> None:
    fabric = Fabric(2)
    for owner in range(2):
        fabric.nodes[0].publish(topic_of(fabric, owner), "x", 1, True)
    fabric.settle()
    client = fabric.nodes[0].client()
    client.subscribe("other/+", retained=True)
    fabric.settle()
    assert client.subacks == 1
    assert client.payloads == []
    check_books(fabric)


def test_a_repeat_is_answered_but_neither_stored_nor_delivered() -> None:
    fabric = Fabric(2)
    topic = topic_of(fabric, 1)
    client = fabric.nodes[0].client()
    client.subscribe(topic)
    fabric.settle()
    node = fabric.nodes[0]
    answer = node.publish(topic, "once", 1)
    fabric.turn(0)
    frame = fabric.rings[0, 1][-1]
    assert frame.data[0] == Kind.APPEND
    fabric.rings[0, 1].append(frame)
    fabric.settle()
    assert client.payloads == ["once"]
    assert answer.got == [(0, True)]
    row = fabric.nodes[1].turn.row
    assert (row[SHARD_APPENDS], row[SHARD_RECORDS]) == (1, 1)
    assert row[SHARD_BYTES] == len(frame.data) - 14


def test_a_topic_is_routed_anew_when_interests_change() -> None:
    fabric = Fabric(3)
    topic = topic_of(fabric, 0)
    heard: dict[str, list[int]] = {}
    clients: list[Client] = []
    for step, topic_filter in enumerate((topic, "t/#", "+/+")):
        clients.append(fabric.nodes[step % 3].client())
        clients[-1].subscribe(topic_filter)
        fabric.settle()
        fabric.nodes[0].publish(topic, f"in {step}")
        fabric.settle()
    for step, topic_filter in enumerate((topic, "t/#", "+/+")):
        clients[step].unsubscribe(topic_filter)
        fabric.settle()
        fabric.nodes[0].publish(topic, f"out {step}")
        fabric.settle()
    for number, client in enumerate(clients):
        for payload in client.payloads:
            heard.setdefault(payload, []).append(number)
    assert heard == {
        "in 0": [0],
        "in 1": [0, 1],
        "in 2": [0, 1, 2],
        "out 0": [1, 2],
        "out 1": [2],
    }


def test_many_known_topics_are_forgotten_at_once_for_a_wildcard() -> None:
    fabric = Fabric(1)
    node = fabric.nodes[0]
    one, two = node.client(), node.client()
    one.subscribe("t/#")
    fabric.settle()
    topics = [f"t/{number}" for number in range(300)]
    for topic in topics:
        node.publish(topic, "first")
    fabric.settle()
    two.subscribe("t/+")
    fabric.settle()
    for topic in topics:
        node.publish(topic, "second")
    fabric.settle()
    assert one.payloads == ["first"] * 300 + ["second"] * 300
    assert two.payloads == ["second"] * 300


def test_sets_of_cores_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_MOST_TUPLES", 2)
    fabric = Fabric(3)
    topics = [f"t/{number}" for number in range(12)]
    clients = [fabric.nodes[number % 3].client() for number in range(12)]
    for number, client in enumerate(clients):
        client.subscribe(topics[number])
        client.subscribe(topics[number * 5 % 12])
    fabric.settle()
    for topic in topics:
        fabric.nodes[0].publish(topic, topic, 1)
    fabric.settle()
    for number, client in enumerate(clients):
        assert set(client.payloads) == {topics[number], topics[number * 5 % 12]}
    assert all(len(node.dispatch._tuples) <= 2 for node in fabric.nodes)
