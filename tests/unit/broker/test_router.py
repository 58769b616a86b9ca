"""The publisher's side: one batch a turn, who must keep it, what is sent again, back-pressure."""

from collections.abc import Callable

import pytest

from robustmq._kernel.batch import records
from robustmq.broker import frames
from robustmq.broker.frames import Kind
from robustmq.broker.router import EPOCH_SHIFT
from robustmq.config import TopicRule
from robustmq.errors import Refusal
from robustmq.metrics import SHARD_APPENDS, SHARD_BYTES, SHARD_RECORDS
from tests.books import check_books
from tests.durable import DurableClient
from tests.fabric import Answer, Client, Fabric, Limits
from tests.unit.broker.links import durable, kinds, payloads, subscribed, topic_of, under_way


def slow_subscriber(fabric: Fabric, core: int) -> Client:
    """A subscriber on a core that nobody can push frames to any more."""
    client = subscribed(fabric, core)
    fabric.stalled = {(peer, core) for peer in range(len(fabric.nodes)) if peer != core}
    return client


def call_of(frame: bytes) -> int:
    """The number of a STORE or RETAIN."""
    return (
        frames.read_store(frame)[0].call if frame[0] == Kind.STORE else frames.read_retain(frame)[0]
    )


# -------------------------------------------------------------------- batches


def test_a_turn_makes_one_batch_and_sends_it_to_whom_wants_it() -> None:
    fabric = Fabric(3)
    subscribed(fabric, 1)
    node = fabric.nodes[0]
    for number in range(5):
        node.publish(f"t/{number % 2}", str(number), number % 2)
    fabric.turn(0)
    (frame,) = under_way(fabric, 0, 1, Kind.DELIVER)
    assert [value for *_, value, _ in records(frame[1:])] == [b"0", b"1", b"2", b"3", b"4"]
    assert [attributes for attributes, *_ in records(frame[1:])] == [0, 1, 0, 1, 0]
    assert kinds(fabric, 0, 2) == []
    row = node.turn.row
    assert (row[SHARD_APPENDS], row[SHARD_RECORDS], row[SHARD_BYTES]) == (1, 5, len(frame) - 1)


def test_a_full_batch_leaves_at_once() -> None:
    fabric = Fabric(2, limits=Limits(max_batch_bytes=200))
    subscribed(fabric, 1)
    node = fabric.nodes[0]
    for _ in range(6):
        node.publish("t/0", "x" * 60, 1)
    fabric.turn(0)
    batches = [frame[1:] for frame in under_way(fabric, 0, 1, Kind.DELIVER)]
    assert [len(records(batch)) for batch in batches] == [2, 2, 2]


def test_who_only_listens_answers_nothing() -> None:
    fabric = Fabric(2)
    client = subscribed(fabric, 1)
    answers = [fabric.nodes[0].publish("t/0", "x", qos) for qos in (0, 1)]
    fabric.turn(0)
    assert kinds(fabric, 0, 1) == [Kind.DELIVER]
    assert [len(answer.got) for answer in answers] == [0, 1]
    fabric.turn(1)
    assert kinds(fabric, 1, 0) == []
    assert client.payloads == ["x"] * 2


def test_each_message_that_nobody_wants_is_answered_so() -> None:
    fabric = Fabric(2)
    subscribed(fabric, 1, "t/1")
    answers = [fabric.nodes[0].publish(f"t/{number}", "x", 1) for number in range(3)]
    fabric.settle()
    assert [answer.got for answer in answers] == [[(0, False)], [(0, True)], [(0, False)]]


@pytest.mark.parametrize("cores", [1, 2])
def test_a_reply_may_publish_in_the_same_turn(cores: int) -> None:
    fabric = Fabric(cores)
    client = subscribed(fabric, cores - 1)
    node = fabric.nodes[0]
    answer = node.publish("t/0", "first", 1)
    settle: Callable[[int, bool], None] = answer.settle

    def again(code: int, matched: bool) -> None:
        settle(code, matched)
        node.publish("t/0", "second", 1)

    node.router.builder.expect(again, 0)
    # Nothing else need ever happen on this core: what is left would wait for that.
    fabric.turn(0)
    assert not node.turn.builders
    assert node.router.builder.count == 0
    fabric.settle()
    assert client.payloads == ["first", "second"]


# -------------------------------------------------------------------- what is kept


def test_who_must_keep_a_message_is_asked_and_the_publisher_waits_for_all() -> None:
    fabric = Fabric(3)
    node = durable(fabric, 1, 2)
    answers = [node.publish("t/0", "x", qos) for qos in (0, 1, 2)]
    fabric.turn(0)
    assert [answer.got for answer in answers] == [[]] * 3
    calls = {}
    for core in (1, 2):
        (frame,) = under_way(fabric, 0, core, Kind.STORE)
        (epoch, calls[core]), _, batch = frames.read_store(frame)
        assert epoch == 1
        assert payloads([batch]) == [b"x"] * 3
    node.core.receive(2, frames.confirm(calls[2], 0))
    node.core.receive(2, frames.confirm(calls[2], 0))
    assert [answer.got for answer in answers] == [[]] * 3
    node.core.receive(1, frames.confirm(calls[1], 0))
    assert [answer.got for answer in answers] == [[], [(0, True)], [(0, True)]]


def test_calls_are_numbered_in_order_and_name_the_life_of_the_core() -> None:
    fabric = Fabric(2)
    fabric.replace(0)
    fabric.settle()
    node = durable(fabric, 1)
    for number in range(3):
        node.publish("t/0", str(number), 1)
        fabric.turn(0)
    found = [frames.read_store(frame) for frame in under_way(fabric, 0, 1, Kind.STORE)]
    assert [number for number, _, _ in found] == [(2, 1), (2, 2), (2, 3)]


def test_a_core_that_keeps_a_message_gives_it_to_its_clients_too() -> None:
    fabric = Fabric(2)
    client = subscribed(fabric, 1)
    node = durable(fabric, 1)
    answer = node.publish("t/0", "x", 1)
    fabric.turn(0)
    assert kinds(fabric, 0, 1) == [Kind.STORE]
    fabric.settle()
    assert client.payloads == ["x"]
    assert answer.got == [(0, True)]


def test_a_core_keeps_its_own_messages_as_it_keeps_others() -> None:
    fabric = Fabric(2)
    client = subscribed(fabric, 0)
    node = durable(fabric, 0)
    answer = node.publish("t/0", "x", 2)
    fabric.turn(0)
    assert client.payloads == ["x"]
    assert answer.got == [(0, True)]
    assert not node.router._peers[0].calls


@pytest.mark.parametrize("refusing", [1, 2])
def test_one_refusal_is_the_answer_for_every_publisher_of_the_batch(refusing: int) -> None:
    fabric = Fabric(3)
    node = durable(fabric, 1, 2)
    answers = [node.publish("t/0", "x", qos) for qos in (1, 2)]
    fabric.turn(0)
    for core in (1, 2):
        (frame,) = under_way(fabric, 0, core, Kind.STORE)
        (_, call), _, _ = frames.read_store(frame)
        code = Refusal.UNAVAILABLE if core == refusing else 0
        node.core.receive(core, frames.confirm(call, code))
        node.core.receive(core, frames.confirm(call, code))
    assert [answer.got for answer in answers] == [[(Refusal.UNAVAILABLE, True)]] * 2


def test_the_first_of_two_refusals_counts() -> None:
    fabric = Fabric(3)
    node = durable(fabric, 1, 2)
    answer = node.publish("t/0", "x", 1)
    fabric.turn(0)
    for core, code in ((2, Refusal.BUSY), (1, Refusal.UNAVAILABLE)):
        (frame,) = under_way(fabric, 0, core, Kind.STORE)
        node.core.receive(core, frames.confirm(call_of(frame), code))
    assert answer.got == [(Refusal.BUSY, True)]


def test_an_answer_counts_for_the_core_that_was_asked() -> None:
    fabric = Fabric(3)
    node = durable(fabric, 1)
    answer = node.publish("t/0", "x", 1)
    fabric.turn(0)
    (frame,) = under_way(fabric, 0, 1, Kind.STORE)
    confirm = frames.confirm(call_of(frame), 0)
    node.core.receive(2, confirm)
    assert answer.got == []
    node.core.receive(1, confirm)
    assert answer.got == [(0, True)]


@pytest.mark.parametrize(("stores", "others"), [(False, 0), (True, 0), (False, 1)])
def test_a_batch_of_qos_0_is_asked_of_nobody_unless_it_is_stored(stores: bool, others: int) -> None:
    rules = (TopicRule(filter="stored/#", store_qos0=True),) if stores else ()
    fabric = Fabric(2, Limits(topic_rules=rules))
    here, there = (DurableClient(fabric, core) for core in (0, 1))
    for client in (here, there):
        client.subscribe("t/#")
        client.connect()
    fabric.settle()
    node = fabric.nodes[0]
    node.publish("t/0", "heard")
    for _ in range(others):
        node.publish("t/1", "another", 1)
    fabric.turn(0)
    assert kinds(fabric, 0, 1) == [Kind.STORE if stores or others else Kind.DELIVER]
    fabric.settle()
    for client in (here, there):
        client.read()
        client.disconnect()
    node.publish("t/0", "not heard")
    fabric.settle()
    for client in (here, there):
        client.connect()
        fabric.settle()
        client.read()
        heard = [message.payload for message in client.messages]
        assert heard == [b"heard"] + [b"another"] * others


# -------------------------------------------------------------------- what is retained


def test_retained_records_go_to_the_cores_that_keep_their_topics() -> None:
    fabric = Fabric(3)
    node = fabric.nodes[0]
    topics = [topic_of(fabric, core) for core in (1, 2)]
    answers = []
    for number in range(4):
        answers.append(node.publish(topics[number % 2], str(number), number % 3, True))
        answers.append(node.publish(topics[number % 2], "live", 1))
    fabric.turn(0)
    for core in (1, 2):
        ((call, position, _, batch),) = map(
            frames.read_retain, under_way(fabric, 0, core, Kind.RETAIN)
        )
        assert call == core + 1
        assert position == (1 << EPOCH_SHIFT) + core
        assert payloads([batch]) == [str(core - 1).encode(), str(core + 1).encode()]
    assert not any(answer.got for answer in answers)
    fabric.settle()
    assert [len(answer.got) for answer in answers] == [0, 1, 1, 1, 1, 1, 0, 1]


@pytest.mark.parametrize("first", [1, 2])
def test_a_message_waits_for_who_keeps_it_and_for_who_retains_it(first: int) -> None:
    fabric = Fabric(3)
    topic = topic_of(fabric, 2)
    node = durable(fabric, 1)
    answer = node.publish(topic, "x", 1, True)
    fabric.turn(0)
    (store,) = under_way(fabric, 0, 1, Kind.STORE)
    (retain,) = under_way(fabric, 0, 2, Kind.RETAIN)
    confirms = {1: frames.confirm(call_of(store), 0), 2: frames.confirm(call_of(retain), 0)}
    node.core.receive(first, confirms[first])
    assert answer.got == []
    node.core.receive(3 - first, confirms[3 - first])
    assert answer.got == [(0, True)]


def test_positions_go_on_from_the_life_of_the_core() -> None:
    fabric = Fabric(2)
    topics = [topic_of(fabric, core) for core in (0, 1)]
    for _ in range(3):
        fabric.nodes[1].publish(topics[0], "x", 0, True)
        fabric.turn(1)
    router = fabric.nodes[1].router
    first = 1 << EPOCH_SHIFT
    assert router.retained_so_far(topics[0].encode()) == (first + 3, [first + 3])
    assert router.retained_so_far(topics[1].encode()) == (first + 3, [0])
    assert router.retained_so_far(b"t/+") == (first + 3, [first + 3, 0])
    again = fabric.replace(1).router
    assert again.retained_so_far(b"#") == (2 << EPOCH_SHIFT, [0, 0])
    fabric.settle()
    assert fabric.nodes[0].scans._arrived[1] == 2 << EPOCH_SHIFT


# -------------------------------------------------------------------- a core is replaced


def test_a_replacement_is_asked_again_in_order_and_gets_no_deliveries() -> None:
    fabric = Fabric(2)
    topic = topic_of(fabric, 1)
    subscribed(fabric, 1, "u")
    node = durable(fabric, 1)
    answers: list[Answer] = []
    for number in range(6):
        node.publish("u", "gone with the old one", 1)
        answers.append(node.publish(topic if number % 2 else "t/#", str(number), 1, number == 3))
        fabric.turn(0)
    asked = [
        frame.data for frame in fabric.rings[0, 1] if frame.data[0] in {Kind.STORE, Kind.RETAIN}
    ]
    assert len(asked) >= 6
    fabric.replace(1)
    fabric.notice(0, 1)
    fabric.turn(0)
    again = [frame.data for frame in fabric.rings[0, 1] if frame.target_life == 2]
    assert [frame for frame in again if frame[0] in {Kind.STORE, Kind.RETAIN}] == asked
    assert not [frame for frame in again if frame[0] == Kind.DELIVER]
    fabric.settle()
    assert all(len(answer.got) == 1 for answer in answers)
    assert not node.router._peers[1].calls


def test_what_the_predecessor_had_answered_is_not_sent_again() -> None:
    fabric = Fabric(2)
    node = durable(fabric, 1)
    answers = []
    for number in range(3):
        answers.append(node.publish("t/0", str(number), 1))
        fabric.turn(0)
    stores = under_way(fabric, 0, 1, Kind.STORE)
    node.core.receive(1, frames.confirm(call_of(stores[1]), 0))
    assert [len(answer.got) for answer in answers] == [0, 1, 0]
    fabric.replace(1)
    fabric.notice(0, 1)
    fabric.turn(0)
    assert under_way(fabric, 0, 1, Kind.STORE) == [stores[0], stores[2]]


def test_a_durable_core_is_owed_messages_until_its_replacement_has_told() -> None:
    fabric = Fabric(2)
    node = durable(fabric, 1)
    fabric.replace(1)
    fabric.notice(0, 1)
    # What the replacement has told is not read yet: its predecessor's word still counts.
    early = node.publish("t/0", "x", 1)
    node.core.run_turn()
    assert early.got == []
    fabric.settle()
    late = node.publish("t/0", "y", 1)
    fabric.settle()
    assert (early.got, late.got) == ([(0, True)], [(0, False)])
    check_books(fabric)


# -------------------------------------------------------------------- back-pressure


def test_publishers_are_blocked_while_too_much_waits_for_room() -> None:
    fabric = Fabric(3, limits=Limits(pressure_bytes=1_000))
    client = slow_subscriber(fabric, 2)
    answers = []
    for number in range(20):
        answers += [node.publish("t/0", f"{number}" * 50, 1) for node in fabric.nodes[:2]]
        fabric.turn(0)
        fabric.turn(1)
    fabric.settle()
    assert [node.core.blocked for node in fabric.nodes] == [True, True, False]
    assert [node.router.builder.blocked for node in fabric.nodes] == [True, True, False]
    fabric.stalled.clear()
    fabric.settle()
    assert [node.core.blocked for node in fabric.nodes] == [False] * 3
    assert [answer.got for answer in answers] == [[(0, True)]] * 40
    assert len(client.payloads) == 40
    check_books(fabric)


def test_relief_needs_no_further_frame() -> None:
    # When the links have room again the flush at the end of a turn empties the backlog, and
    # nothing else need ever happen: the core itself must ask for the turn that lets them go on.
    fabric = Fabric(2, limits=Limits(pressure_bytes=1_000))
    slow_subscriber(fabric, 1)
    node = fabric.nodes[0]
    node.publish("t/0", "x" * 2_000)
    fabric.turn(0)
    fabric.turn(0)
    assert (node.core.blocked, node.core.busy) == (True, False)
    fabric.stalled.clear()
    fabric.turn(0)
    assert (node.core.blocked, node.core.busy) == (True, True)
    fabric.turn(0)
    assert (node.core.blocked, node.core.busy) == (False, False)


@pytest.mark.parametrize("kind", [Kind.STORE, Kind.RETAIN])
def test_beyond_the_pressure_publishers_wait_until_half_is_answered(kind: Kind) -> None:
    fabric = Fabric(2, limits=Limits(pressure_bytes=1_000))
    topic = topic_of(fabric, 1)
    node = durable(fabric, 1) if kind == Kind.STORE else fabric.nodes[0]
    states = []
    for _ in range(8):
        node.publish(topic, "x" * 100, 1, kind == Kind.RETAIN)
        fabric.turn(0)
        states.append(node.core.blocked)
    sizes = [len(frame) for frame in under_way(fabric, 0, 1, kind)]
    assert states == [sum(sizes[: number + 1]) > 1_000 for number in range(8)]
    left = sum(sizes)
    for frame in under_way(fabric, 0, 1, kind):
        node.core.receive(1, frames.confirm(call_of(frame), 0))
        left -= len(frame)
        assert node.core.busy is (left <= 500)
        node.core.run_turn()
        assert node.core.blocked is (left > 500)
        if left <= 500:
            break
    assert left > 0


def test_one_core_that_is_behind_is_enough() -> None:
    fabric = Fabric(3, limits=Limits(pressure_bytes=1_000))
    node = durable(fabric, 1, 2)
    node.publish("t/0", "x" * 2_000, 1)
    fabric.turn(0)
    (frame,) = under_way(fabric, 0, 1, Kind.STORE)
    node.core.receive(1, frames.confirm(call_of(frame), 0))
    node.core.run_turn()
    assert node.core.blocked
    (frame,) = under_way(fabric, 0, 2, Kind.STORE)
    node.core.receive(2, frames.confirm(call_of(frame), 0))
    node.core.run_turn()
    assert not node.core.blocked


def test_behind_with_deliveries_alone_a_replacement_frees_the_publishers() -> None:
    fabric = Fabric(2, limits=Limits(pressure_bytes=1_000))
    slow_subscriber(fabric, 1)
    node = fabric.nodes[0]
    node.publish("t/0", "x" * 2_000)
    fabric.turn(0)
    assert node.core.blocked
    fabric.replace(1)
    fabric.settle()
    assert not node.core.blocked


@pytest.mark.parametrize("retain", [False, True])
def test_behind_with_what_must_be_kept_publishers_wait_for_the_replacement(retain: bool) -> None:
    fabric = Fabric(2, limits=Limits(pressure_bytes=1_000))
    topic = topic_of(fabric, 1)
    node = fabric.nodes[0] if retain else durable(fabric, 1)
    answer = node.publish(topic, "x" * 2_000, 1, retain)
    fabric.turn(0)
    fabric.replace(1)
    fabric.notice(0, 1)
    node.core.run_turn()
    found = [(node.core.blocked, len(answer.got))]
    fabric.settle()
    found.append((node.core.blocked, len(answer.got)))
    assert found == [(True, 0), (False, 1)]


def test_a_core_that_died_gets_no_answer_to_what_it_asked() -> None:
    fabric = Fabric(2)
    topic = topic_of(fabric, 1)
    first = fabric.nodes[0].publish(topic, "old", 1, True)
    fabric.turn(0)
    fabric.turn(1)
    assert kinds(fabric, 1, 0) == [Kind.CONFIRM]
    node = fabric.replace(0)
    # It has the same number of a call as its predecessor had.
    second = node.publish(topic, "new", 1, True)
    fabric.turn(0)
    assert (first.got, second.got) == ([], [])
    fabric.settle()
    assert (first.got, second.got) == ([], [(0, False)])
    check_books(fabric)
