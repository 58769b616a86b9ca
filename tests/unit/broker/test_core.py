"""Cores together: what is settled when, and what a replaced core hears before it appends."""

import pytest

from robustmq.broker import frames
from robustmq.broker.api import Options
from robustmq.broker.frames import Kind, Number
from robustmq.errors import Refusal
from robustmq.metrics import MESSAGES_DROPPED_REFUSED, MESSAGES_UNMATCHED
from robustmq.policy.principal import Principal
from tests.books import check_books
from tests.fabric import Fabric, Limits
from tests.unit.broker.links import kinds, topic_of


def test_a_message_crosses_from_any_core_to_any_core() -> None:
    fabric = Fabric(3)
    subscribers = [node.client() for node in fabric.nodes]
    for subscriber in subscribers:
        subscriber.subscribe("t/+")
    fabric.settle()
    sent = []
    for node in fabric.nodes:
        for number in range(3):
            sent.append(f"{node.index}{number}")
            node.publish(f"t/{number}", sent[-1], 1)
    fabric.settle()
    for subscriber in subscribers:
        assert sorted(subscriber.payloads) == sent


@pytest.mark.parametrize("topic_filter", ["t/+", "t/0"])
def test_suback_waits_for_every_core(topic_filter: str) -> None:
    fabric = Fabric(3)
    client = fabric.nodes[0].client()
    client.subscribe(topic_filter)
    for index in (0, 1):
        fabric.turn(index)
    fabric.turn(0)
    assert client.subacks == 0
    fabric.turn(2)
    fabric.turn(0)
    assert client.subacks == 1


def test_what_a_core_publishes_for_its_own_clients_crosses_no_link() -> None:
    fabric = Fabric(2)
    client = fabric.nodes[0].client()
    client.subscribe("t/0")
    fabric.settle()
    answer = fabric.nodes[0].publish("t/0", "x", 1)
    fabric.turn(0)
    assert kinds(fabric, 0, 1) == []
    assert client.payloads == ["x"]
    assert answer.got == [(0, True)]


def test_nobody_hears_a_message_twice_that_is_retained_while_it_is_delivered() -> None:
    fabric = Fabric(2)
    topic = topic_of(fabric, 1)
    first = fabric.nodes[0].client()
    first.subscribe(topic)
    fabric.settle()
    # The message is on its way to core 0 for the first client when the second one subscribes.
    fabric.nodes[1].publish(topic, "kept", 1, True)
    fabric.turn(1)
    second = fabric.nodes[0].client()
    second.subscribe(topic, retained=True)
    fabric.settle()
    assert first.payloads == ["kept"]
    assert second.payloads == ["kept"]
    assert second.messages[0].retain


def test_what_is_retained_after_its_core_knew_of_it_comes_as_it_is_published() -> None:
    fabric = Fabric(2)
    topic, other = topic_of(fabric, 1), topic_of(fabric, 0)
    fabric.nodes[1].publish(topic, "old", 1, True)
    fabric.settle()
    client = fabric.nodes[0].client()
    client.subscribe("t/+", retained=True)
    fabric.turn(0)
    fabric.turn(1)
    fabric.nodes[1].publish(topic, "new", 1, True)
    fabric.nodes[1].publish(other, "more", 1, True)
    fabric.turn(1)
    fabric.settle()
    assert sorted(client.payloads) == ["more", "new"]
    assert client.subacks == 1
    assert not any(message.retain for message in client.messages)


def test_a_retained_message_never_overtakes_a_newer_one() -> None:
    fabric = Fabric(2)
    topic = topic_of(fabric, 1)
    fabric.nodes[1].publish(topic, "old", 1, True)
    fabric.settle()
    client = fabric.nodes[0].client()
    client.subscribe(topic, retained=True)
    for index in (0, 1, 0, 1):
        fabric.turn(index)
    # The core that keeps it has read "old" for the client; "new" comes behind it.
    fabric.nodes[1].publish(topic, "new", 1, True)
    fabric.settle()
    assert client.payloads == ["old", "new"]


def test_many_retained_messages_come_in_batches_within_the_limit() -> None:
    fabric = Fabric(2, limits=Limits(max_batch_bytes=300))
    for number in range(2_500):
        fabric.nodes[0].publish(f"t/{number}", str(number), 0, True)
    fabric.settle()
    client = fabric.nodes[0].client()
    client.subscribe("t/+", Options(1), True)
    fabric.turn(0)
    fabric.turn(1)
    fabric.turn(0)
    fabric.turn(1)
    assert all(
        len(frame.data) < 500 for frame in fabric.rings[1, 0] if frame.data[0] == Kind.RETAINED
    )
    fabric.settle()
    assert sorted(map(int, client.payloads)) == list(range(2_500))


def test_retained_messages_that_are_on_their_way_end_with_the_subscription() -> None:
    fabric = Fabric(2)
    fabric.nodes[0].publish(topic_of(fabric, 1), "kept", 1, True)
    fabric.settle()
    client = fabric.nodes[0].client()
    client.subscribe("t/+", retained=True)
    for index in (0, 1, 0, 1):
        fabric.turn(index)
    assert Kind.RETAINED in kinds(fabric, 1, 0)
    client.unsubscribe("t/+")
    fabric.settle()
    assert client.payloads == []
    check_books(fabric)


def test_an_unsubscribe_while_the_subscribe_is_pending() -> None:
    fabric = Fabric(2)
    topic = topic_of(fabric, 1)
    client = fabric.nodes[0].client()
    client.subscribe(topic)
    client.unsubscribe(topic)
    fabric.nodes[1].publish(topic, "never", 1)
    fabric.settle()
    assert client.subacks == 1
    assert client.payloads == []
    check_books(fabric)


def test_the_answer_to_an_earlier_subscribe_settles_no_later_one() -> None:
    fabric = Fabric(2)
    topic = topic_of(fabric, 1)
    bystander = fabric.nodes[0].client()
    bystander.subscribe("t/+")
    fabric.settle()
    client = fabric.nodes[0].client()
    client.subscribe(topic)
    fabric.turn(0)
    fabric.turn(1)
    client.unsubscribe(topic)
    client.subscribe(topic, retained=True)
    # Core 1 has answered the first subscribe only, and now retains a message.
    fabric.nodes[1].publish(topic, "kept", 1, True)
    fabric.turn(1)
    fabric.settle()
    assert client.payloads == ["kept"]
    assert client.subacks == 2


def test_one_core_wants_a_filter_until_its_last_user_is_gone() -> None:
    fabric = Fabric(2)
    topic = topic_of(fabric, 1)
    one, two, member = (fabric.nodes[0].client() for _ in range(3))
    one.subscribe(topic)
    two.subscribe(topic)
    fabric.settle()
    group = next(
        name
        for name in map(str, range(100))
        if fabric.placement.group_core(f"{name}\0{topic}".encode()) == 0
    )
    member.join(group, topic)
    fabric.settle()
    for number, user in enumerate([one, two]):
        user.unsubscribe(topic)
        fabric.settle()
        fabric.nodes[1].publish(topic, f"{number}", 1)
        fabric.settle()
        check_books(fabric)
    assert member.payloads == ["0", "1"]
    assert two.payloads == ["0"]
    member.leave(group, topic)
    fabric.settle()
    answer = fabric.nodes[1].publish(topic, "2", 1)
    fabric.settle()
    assert answer.got == [(0, False)]
    check_books(fabric)


def test_a_publish_that_nobody_wants_is_answered_so() -> None:
    fabric = Fabric(2)
    answer = fabric.nodes[0].publish(topic_of(fabric, 1), "x", 1)
    fabric.settle()
    assert answer.got == [(0, False)]
    assert fabric.nodes[0].turn.row[MESSAGES_UNMATCHED] == 1


def test_a_refused_publish_is_counted_and_goes_nowhere() -> None:
    fabric = Fabric(1)
    answer = fabric.nodes[0].publish("$SYS/x", "x", 1)
    fabric.settle()
    assert answer.refused is not None
    assert answer.refused.code is Refusal.NOT_AUTHORIZED
    assert answer.got == []
    assert fabric.nodes[0].turn.row[MESSAGES_DROPPED_REFUSED] == 1
    refused = fabric.nodes[0].core.route(Principal("publisher"), b"$SYS/x")
    assert refused == answer.refused


def test_a_replaced_core_appends_only_when_all_have_told_what_they_want() -> None:
    fabric = Fabric(3)
    client = fabric.nodes[1].client()
    client.subscribe("t/0")
    fabric.settle()
    fabric.replace(2)
    # Core 0 is faster to meet the new core 2 than core 1, where the subscriber is.
    node = fabric.nodes[2]
    answer = node.publish("t/0", "x", 1)
    assert node.core.blocked
    for index in (0, 0, 2, 2, 0, 2):
        fabric.turn(index)
    assert answer.got == []
    assert node.core.blocked
    fabric.settle()
    assert client.payloads == ["x"]
    assert answer.got == [(0, True)]
    assert not node.core.blocked


def test_a_core_that_dies_before_it_has_told_is_waited_for_in_its_next_life() -> None:
    fabric = Fabric(3)
    node = fabric.replace(2)
    answer = node.publish("t/0", "x", 1)
    for index in (0, 0, 2):
        fabric.turn(index)
    fabric.replace(1)
    fabric.rings[1, 2].clear()
    fabric.turn(2)
    assert answer.got == []
    fabric.settle()
    assert answer.got == [(0, False)]
    check_books(fabric)


def test_two_cores_that_start_at_once_do_not_wait_for_each_other() -> None:
    fabric = Fabric(2)
    nodes = [fabric.replace(0), fabric.replace(1)]
    answers = [node.publish("t/0", "x", 1) for node in nodes]
    fabric.settle()
    assert [answer.got for answer in answers] == [[(0, False)]] * 2
    check_books(fabric)


def test_pending_publishes_are_sent_again_to_the_replacement() -> None:
    fabric = Fabric(2)
    topic = topic_of(fabric, 1)
    answers = [fabric.nodes[0].publish(topic, str(qos), qos, True) for qos in (1, 2)]
    fabric.turn(0)
    fabric.replace(1)
    fabric.settle()
    assert [answer.got for answer in answers] == [[(0, False)]] * 2
    client = fabric.nodes[0].client()
    client.subscribe(topic, retained=True)
    fabric.settle()
    assert client.payloads == ["2"]


def test_a_pending_subscribe_settles_with_the_replacement() -> None:
    fabric = Fabric(3)
    client = fabric.nodes[0].client()
    client.subscribe("t/+")
    for index in (0, 1, 0):
        fabric.turn(index)
    fabric.replace(2)
    fabric.settle()
    assert client.subacks == 1
    fabric.nodes[1].publish(topic_of(fabric, 2), "x", 1)
    fabric.settle()
    assert client.payloads == ["x"]


def test_a_subscribe_that_was_taken_back_leaves_no_interest_at_the_replacement() -> None:
    fabric = Fabric(2)
    topic = topic_of(fabric, 1)
    client = fabric.nodes[0].client()
    client.subscribe(topic)
    client.unsubscribe(topic)
    fabric.turn(0)
    fabric.replace(1)
    fabric.settle()
    assert client.subacks == 1
    check_books(fabric)


def test_retained_messages_of_a_core_that_died_are_not_waited_for() -> None:
    fabric = Fabric(2)
    fabric.nodes[0].publish(topic_of(fabric, 1), "x", 1, True)
    fabric.settle()
    client = fabric.nodes[0].client()
    client.subscribe("t/+", retained=True)
    for index in (0, 1, 0):
        fabric.turn(index)
    assert client.subacks == 1
    fabric.replace(1)
    fabric.settle()
    assert client.payloads == []
    check_books(fabric)


def test_a_core_is_not_answered_what_its_predecessor_asked() -> None:
    fabric = Fabric(3)
    fabric.stalled = {(2, 1)}
    fabric.nodes[2].publish(topic_of(fabric, 1), "x", 1, True)
    fabric.settle()
    fabric.nodes[0].client().subscribe("t/+", retained=True)
    fabric.settle()
    fabric.replace(0)
    fabric.notice(1, 0)
    fabric.stalled.clear()
    fabric.turn(2)
    fabric.turn(1)
    assert Kind.RETAINED not in kinds(fabric, 1, 0)
    fabric.settle()
    check_books(fabric)


def test_an_answer_that_nobody_waits_for_is_passed_over() -> None:
    fabric = Fabric(2)
    client = fabric.nodes[0].client()
    client.subscribe("t/+")
    core = fabric.nodes[0].core
    core.receive(1, frames.wanted(1, Number(0, 0), 0, []))
    core.receive(1, frames.wanted(1, Number(0, 0), 0, []))
    assert client.subacks == 0
    for frame in (
        frames.wanted(99, Number(0, 0), 5, [1]),
        frames.retained(99, True, b""),
        frames.joined(99),
        frames.confirm(99, 0),
    ):
        core.receive(1, frame)
    fabric.settle()
    assert client.subacks == 1
    check_books(fabric)


def test_timers_of_the_port() -> None:
    fabric = Fabric(1)
    core = fabric.nodes[0].core
    called: list[str] = []
    core.at(1_000, lambda: called.append("late"))
    core.at(500, lambda: called.append("early"))
    core.at(700, lambda: called.append("never")).cancel()
    core.timers.run(999)
    assert called == ["early"]
    core.timers.run(1_050)
    assert called == ["early", "late"]
    assert core.timers.next_ms is None


def test_authorize_asks_admission() -> None:
    core = Fabric(1).nodes[0].core
    assert core.authorize(Principal("p"), "a/#") is None
    refused = core.authorize(Principal("p"), "/".join("a" * 101))
    assert refused is not None
    assert refused.code is Refusal.TOPIC_INVALID


@pytest.mark.parametrize("keeper", [0, 1])
def test_what_is_published_first_in_a_turn_comes_before_the_subscription(keeper: int) -> None:
    fabric = Fabric(2)
    topic = topic_of(fabric, keeper)
    node = fabric.nodes[0]
    there, late = node.client(), node.client()
    there.subscribe(topic)
    fabric.settle()
    node.publish(topic, "before", 0)
    node.publish(topic, "kept", 1, True)
    late.subscribe(topic, retained=True)
    node.publish(topic, "after", 0)
    fabric.settle()
    assert there.payloads == ["before", "kept", "after"]
    assert sorted(late.payloads) == ["after", "kept"]
    assert [message.payload for message in late.messages if message.retain] == [b"kept"]
