"""The publisher's side: one batch per shard and turn, the window, and what is sent again."""

from collections.abc import Callable

from robustmq._kernel.batch import records
from robustmq.broker import frames
from robustmq.broker.frames import Kind
from robustmq.errors import Refusal
from tests.fabric import Fabric, Limits, Node


def topic_of(fabric: Fabric, core: int) -> str:
    """A topic that a core owns."""
    return next(
        name
        for name in (f"t/{number}" for number in range(1_000))
        if fabric.placement.owner_of(name.encode()) == core
    )


def appends(fabric: Fabric) -> list[tuple[int, int, bool, bytes]]:
    """The appends on the way from core 0 to core 1."""
    return [frames.read_append(frame.data) for frame in fabric.rings[0, 1]]


def far(fabric: Fabric) -> tuple[Node, str]:
    """Core 0, and a topic of core 1."""
    return fabric.nodes[0], topic_of(fabric, 1)


def test_a_turn_makes_one_batch_per_shard() -> None:
    fabric = Fabric(2)
    node, topic = far(fabric)
    for number in range(5):
        node.publish(topic, str(number), number % 3, number == 3)
    fabric.turn(0)
    ((call, _, retained, batch),) = appends(fabric)
    assert call
    assert retained
    assert [value for *_, value, _ in records(batch)] == [b"0", b"1", b"2", b"3", b"4"]
    assert [attributes for attributes, *_ in records(batch)] == [0, 1, 2, 4, 1]


def test_a_full_batch_leaves_at_once_and_batches_are_numbered() -> None:
    fabric = Fabric(2, limits=Limits(max_batch_bytes=200))
    node, topic = far(fabric)
    for _ in range(6):
        node.publish(topic, "x" * 60, 1)
    fabric.turn(0)
    batches = [batch for *_, batch in appends(fabric)]
    assert len(batches) == 3
    assert [int.from_bytes(batch[53:57], "big") for batch in batches] == [0, 2, 4]
    assert {batch[43:53] for batch in batches} == {(0).to_bytes(8, "big") + (1).to_bytes(2, "big")}


def test_qos_0_asks_for_an_answer_only_as_often_as_the_window_needs_it() -> None:
    fabric = Fabric(2, limits=Limits(pressure_bytes=4_000))
    node, topic = far(fabric)
    for _ in range(10):
        node.publish(topic, "x" * 100)
        fabric.turn(0)
    calls = [call for call, *_ in appends(fabric)]
    assert calls.count(0) == 9
    assert not node.core.blocked


def test_beyond_the_window_publishers_are_blocked_until_half_is_answered() -> None:
    fabric = Fabric(2, limits=Limits(pressure_bytes=4_000))
    node, topic = far(fabric)
    states = []
    for _ in range(30):
        node.publish(topic, "x" * 100)
        fabric.turn(0)
        states.append(node.core.blocked)
    assert states == sorted(states)
    assert states[-1]
    other = topic_of(fabric, 0)
    assert node.router.builder(topic.encode()).blocked
    assert not node.router.builder(other.encode()).blocked
    fabric.settle()
    assert [node.core.blocked, node.router.builder(topic.encode()).blocked] == [False, False]


def test_a_builder_made_while_its_core_is_behind_is_blocked() -> None:
    fabric = Fabric(2, shards=8, limits=Limits(pressure_bytes=1_000))
    node, topic = far(fabric)
    node.publish(topic, "x" * 2_000)
    fabric.turn(0)
    others = (f"u/{number}".encode() for number in range(1_000))
    other = next(name for name in others if fabric.placement.owner_of(name) == 1)
    assert node.router.builder(other).blocked


def test_a_replacement_gets_what_was_not_answered_in_order_and_no_qos_0() -> None:
    fabric = Fabric(2, limits=Limits(pressure_bytes=4_000))
    node, topic = far(fabric)
    answers = []
    for number in range(20):
        answers.append(node.publish(topic, f"{number}" + "x" * 200, number % 2))
        fabric.turn(0)
    assert node.core.blocked
    fabric.replace(1)
    fabric.notice(0, 1)
    fabric.turn(0)
    again = [
        value
        for frame in fabric.rings[0, 1]
        if frame.data[0] == Kind.APPEND and frame.target_life == 2
        for *_, value, _ in records(frames.read_append(frame.data)[3])
    ]
    assert [int((value or b"").rstrip(b"x")) for value in again] == list(range(1, 20, 2))
    fabric.settle()
    assert [len(answer.got) for answer in answers] == [0, 1] * 10
    assert [node.core.blocked] == [False]


def test_blocked_by_qos_0_alone_a_replacement_frees_the_publishers() -> None:
    fabric = Fabric(2, limits=Limits(pressure_bytes=1_000))
    node, topic = far(fabric)
    node.publish(topic, "x" * 2_000)
    fabric.turn(0)
    assert node.core.blocked
    fabric.replace(1)
    fabric.settle()
    assert [node.core.blocked] == [False]


def test_a_refusal_reaches_every_publisher_of_the_batch() -> None:
    fabric = Fabric(2)
    node, topic = far(fabric)
    answers = [node.publish(topic, "x", qos) for qos in (1, 2)]
    fabric.turn(0)
    ((call, *_),) = appends(fabric)
    refused = frames.appended(call, Refusal.UNAVAILABLE, [])
    node.core.receive(1, refused)
    node.core.receive(1, refused)
    assert [answer.got for answer in answers] == [[(Refusal.UNAVAILABLE, True)]] * 2


def test_a_reply_may_publish() -> None:
    fabric = Fabric(2)
    node, topic = far(fabric)
    client = fabric.nodes[1].client()
    client.subscribe("t/#")
    fabric.settle()
    answer = node.publish(topic, "first", 1)
    settle: Callable[[int, bool], None] = answer.settle

    def again(code: int, matched: bool) -> None:
        settle(code, matched)
        node.publish(topic, "second", 1)

    node.router.builder(topic.encode()).expect(again, 0)
    fabric.settle()
    assert client.payloads == ["first", "second"]
