"""Delayed publish on cores in one thread: what is taken, when it goes out, what a restart finds."""

import pytest

from robustmq.broker import delayed as module
from robustmq.broker.api import Handle
from robustmq.errors import Refusal, Refused
from robustmq.message.record import EXPIRES_AT, header_block
from robustmq.metrics import (
    DELAYED_MESSAGES,
    DELAYED_PUBLISHED,
    MESSAGES_DROPPED_EXPIRED,
    MESSAGES_DROPPED_REFUSED,
)
from robustmq.policy.principal import Principal
from tests.delayed import advance, limits, pending, restart
from tests.fabric import START_MS, Client, Fabric, Node

FULL = Refused(Refusal.QUOTA_EXCEEDED, "the disk is full")


def subscriber(fabric: Fabric, core: int = 0, topic_filter: str = "#") -> Client:
    client = fabric.nodes[core].client()
    client.subscribe(topic_filter)
    fabric.settle()
    return client


def refusal_of(node: Node, topic: str, qos: int = 1) -> Refusal:
    answer = node.publish(topic, "x", qos)
    assert answer.refused is not None
    assert node.publish(topic, "x", 0).refused == answer.refused
    return answer.refused.code


# -------------------------------------------------------------------- what is taken


def test_it_is_answered_when_it_is_durable_and_delivered_when_it_is_due() -> None:
    fabric = Fabric(2)
    client = subscriber(fabric, 1)
    node = fabric.nodes[0]
    node.table.hold = True
    node.table.demand_sync()
    answer = node.publish("$delayed/5//a/", "x", 1)
    fabric.settle()
    assert answer.got == []
    node.table.settle()
    fabric.settle()
    assert answer.got == [(0, True)]
    node.table.hold = False
    advance(fabric, 4_999)
    assert client.payloads == []
    advance(fabric, 1)
    (message,) = client.read()
    assert (message.topic, message.payload, message.qos) == (b"/a/", b"x", 1)
    assert pending(node) == 0


def test_without_a_subscriber_it_is_answered_as_matched() -> None:
    fabric = Fabric(1)
    answer = fabric.nodes[0].publish("$delayed/5/t", "x", 2)
    fabric.settle()
    assert answer.got == [(0, True)]
    advance(fabric, 5_000)
    assert pending(fabric.nodes[0]) == 0
    assert answer.got == [(0, True)]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_qos_retain_and_headers_stay(qos: int) -> None:
    fabric = Fabric(2)
    client = subscriber(fabric, 1)
    headers = header_block([(b"color", b"red")])
    fabric.nodes[0].publish("$delayed/5/t", "x", qos, True, headers=headers)
    fabric.settle()
    assert all(len(node.retained) == 0 for node in fabric.nodes)
    advance(fabric, 5_000)
    (message,) = client.read()
    assert (message.topic, message.qos, message.properties) == (
        b"t",
        qos,
        b"\x26\0\x05color\0\3red",
    )
    assert sum(len(node.retained) for node in fabric.nodes) == 1


def test_an_empty_retained_one_clears_when_it_is_due() -> None:
    fabric = Fabric(2)
    node = fabric.nodes[0]
    node.publish("t", "kept", 1, True)
    node.publish("$delayed/5/t", "", 1, True)
    fabric.settle()
    assert sum(len(each.retained) for each in fabric.nodes) == 1
    advance(fabric, 5_000)
    assert sum(len(each.retained) for each in fabric.nodes) == 0


def test_a_time_and_a_time_that_has_passed() -> None:
    fabric = Fabric(1)
    client = subscriber(fabric)
    node = fabric.nodes[0]
    node.publish(f"$delayed/{START_MS // 1_000 + 9}/t", "later", 1)
    node.publish("$delayed/1500000000/t", "passed", 1)
    node.publish("$delayed/0/t", "now", 1)
    fabric.settle()
    assert client.payloads == ["passed", "now"]
    advance(fabric, 8_999)
    assert client.payloads == ["passed", "now"]
    advance(fabric, 1)
    assert client.payloads == ["passed", "now", "later"]


def test_no_handle_is_given_for_such_a_topic() -> None:
    core = Fabric(1).nodes[0].core
    principal = Principal("publisher")
    assert core.route(principal, b"$delayed/5/t") is None
    assert isinstance(core.route(principal, b"$delayed/5"), Refused)
    assert isinstance(core.route(principal, b"$delayedx/5/t"), Handle)


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        ("$delayed/x/t", Refusal.TOPIC_INVALID),
        ("$delayed/5/", Refusal.TOPIC_INVALID),
        ("$delayed/5", Refusal.TOPIC_INVALID),
        ("$delayed/5/+", Refusal.TOPIC_INVALID),
        ("$delayed/61/t", Refusal.TOPIC_INVALID),
        (f"$delayed/{START_MS // 1_000 + 61}/t", Refusal.TOPIC_INVALID),
        ("$delayed/5/$SYS/t", Refusal.NOT_AUTHORIZED),
        ("$delayed/5" + "/a" * 101, Refusal.TOPIC_INVALID),
    ],
)
def test_what_is_refused(topic: str, code: Refusal) -> None:
    node = Fabric(1, limits(max_delay_seconds=60)).nodes[0]
    assert refusal_of(node, topic) == code
    assert node.turn.row[MESSAGES_DROPPED_REFUSED] == 2
    assert pending(node) == 0


def test_the_greatest_delay_and_the_deepest_topic_are_taken() -> None:
    node = Fabric(1, limits(max_delay_seconds=60)).nodes[0]
    assert node.publish("$delayed/60" + "/a" * 100, "x", 1).refused is None


def test_switched_off_it_refuses_but_what_waits_goes_out() -> None:
    fabric = Fabric(1)
    fabric.nodes[0].publish("$delayed/5/t", "x", 1)
    fabric.settle()
    fabric.limits = limits(enable=False)
    node = restart(fabric)
    client = subscriber(fabric)
    assert refusal_of(node, "$delayed/5/t") == Refusal.TOPIC_INVALID
    advance(fabric, 5_000)
    assert client.payloads == ["x"]


def test_a_core_keeps_no_more_than_its_limit() -> None:
    fabric = Fabric(1, limits(max_messages=3))
    node = fabric.nodes[0]
    for _ in range(3):
        assert node.publish("$delayed/5/t", "x", 1).refused is None
    assert refusal_of(node, "$delayed/5/t") == Refusal.QUOTA_EXCEEDED
    fabric.settle()
    assert refusal_of(restart(fabric), "$delayed/5/t") == Refusal.QUOTA_EXCEEDED
    advance(fabric, 5_000)
    assert fabric.nodes[0].publish("$delayed/5/t", "x", 1).refused is None


def test_nothing_is_taken_that_cannot_be_written() -> None:
    node = Fabric(1).nodes[0]
    node.table.refuse(FULL)
    assert node.publish("$delayed/5/t", "x", 1).refused == FULL
    assert pending(node) == 0


# -------------------------------------------------------------------- when it is due


def test_they_go_out_by_due_time_and_then_by_arrival() -> None:
    fabric = Fabric(1)
    client = subscriber(fabric)
    for payload, seconds in (("c", 3), ("a", 1), ("d", 3), ("b", 2)):
        fabric.nodes[0].publish(f"$delayed/{seconds}/t", payload, 1)
    fabric.settle()
    advance(fabric, 10_000)
    assert client.payloads == ["a", "b", "c", "d"]


def test_one_timer_waits_for_the_next_of_many() -> None:
    fabric = Fabric(1)
    node = fabric.nodes[0]
    before = len(node.core.timers)
    for seconds in range(1, 501):
        node.publish(f"$delayed/{seconds}/t", "x", 1)
    fabric.settle()
    assert len(node.core.timers) == before + 1
    assert node.core.timers.next_ms == START_MS + 1_000
    advance(fabric, 1_000)
    assert node.core.timers.next_ms == START_MS + 2_000


def test_a_turn_publishes_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BUDGET", 10)
    fabric = Fabric(1)
    node = fabric.nodes[0]
    for number in range(25):
        node.publish("$delayed/5/t", str(number), number % 3)
    fabric.settle()
    client = subscriber(fabric)
    advance(fabric, 5_000, turns=1)
    assert node.turn.row[DELAYED_PUBLISHED] == 10
    assert node.core.busy
    fabric.turn(0)
    assert node.turn.row[DELAYED_PUBLISHED] == 20
    fabric.settle()
    assert client.payloads == [str(number) for number in range(25)]
    assert not node.core.busy


def test_a_turn_publishes_bounded_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BUDGET_BYTES", 1_000)
    fabric = Fabric(1)
    node = fabric.nodes[0]
    for _ in range(3):
        node.publish("$delayed/5/t", "x" * 600, 1)
    fabric.settle()
    advance(fabric, 5_000, turns=1)
    assert node.turn.row[DELAYED_PUBLISHED] == 2


def test_publishers_that_must_pause_pause_these_too() -> None:
    fabric = Fabric(2, limits(max_batch_bytes=200, pressure_bytes=500))
    client = subscriber(fabric, 1)
    node = fabric.nodes[0]
    for number in range(50):
        node.publish("$delayed/5/t", str(number), 1)
    fabric.settle()
    fabric.stalled = {(0, 1)}
    advance(fabric, 5_000)
    assert 0 < node.turn.row[DELAYED_PUBLISHED] < 50
    fabric.stalled.clear()
    fabric.settle()
    assert client.payloads == [str(number) for number in range(50)]


def test_one_that_expires_first_is_dropped_and_another_is_not() -> None:
    fabric = Fabric(1)
    client = subscriber(fabric)
    node = fabric.nodes[0]

    def expiring(milliseconds: int) -> bytes:
        return header_block([(EXPIRES_AT, (START_MS + milliseconds).to_bytes(8, "big"))])

    node.publish("$delayed/5/t", "early", 1, True, headers=expiring(5_000))
    node.publish("$delayed/5/t", "late", 1, headers=expiring(8_000))
    fabric.settle()
    advance(fabric, 5_000)
    (message,) = client.read()
    assert message.payload == b"late"
    assert message.properties == b"\x02\0\0\0\3"
    assert node.turn.row[MESSAGES_DROPPED_EXPIRED] == 1
    assert (pending(node), len(node.retained)) == (0, 0)


def test_a_clock_that_is_set_back_hides_nothing() -> None:
    fabric = Fabric(1)
    client = subscriber(fabric)
    fabric.nodes[0].publish("$delayed/5/t", "first", 1)
    fabric.settle()
    advance(fabric, 5_000)
    advance(fabric, -3_600_000)
    fabric.nodes[0].publish("$delayed/5/t", "second", 1)
    fabric.settle()
    advance(fabric, 5_000)
    assert client.payloads == ["first", "second"]


def test_a_clock_that_is_set_back_publishes_nothing_twice() -> None:
    fabric = Fabric(2)
    home = fabric.placement.retained_core(b"t")
    node = fabric.nodes[1 - home]
    fabric.stalled = {(1 - home, home)}
    node.publish("$delayed/0/t", "owed", 1, True)
    fabric.settle()
    advance(fabric, -10_000)
    node.publish("$delayed/2/t", "x", 0)
    fabric.settle()
    advance(fabric, 20_000)
    assert node.turn.row[DELAYED_PUBLISHED] == 2
    fabric.stalled.clear()
    fabric.settle()
    assert pending(node) == 0


def test_what_is_due_a_millisecond_later_waits() -> None:
    fabric = Fabric(1)
    client = subscriber(fabric)
    fabric.nodes[0].publish("$delayed/5/t", "first", 1)
    advance(fabric, 1)
    fabric.nodes[0].publish("$delayed/5/t", "second", 1)
    fabric.settle()
    advance(fabric, 4_999)
    assert client.payloads == ["first"]
    advance(fabric, 50)
    assert client.payloads == ["first", "second"]


# -------------------------------------------------------------------- refusals when due


def test_while_the_disk_refuses_what_is_due_waits() -> None:
    fabric = Fabric(1)
    client = subscriber(fabric)
    node = fabric.nodes[0]
    for qos in range(3):
        node.publish("$delayed/5/t", str(qos), qos)
    fabric.settle()
    node.table.refuse(FULL)
    advance(fabric, 5_000)
    assert client.payloads == []
    node.table.refuse(None)
    advance(fabric, 500)
    assert client.payloads == ["0", "1", "2"]


@pytest.mark.parametrize("qos", [1, 2])
def test_what_a_core_refuses_to_keep_is_tried_again(qos: int) -> None:
    fabric = Fabric(2)
    home = fabric.placement.retained_core(b"t")
    node = fabric.nodes[1 - home]
    node.publish("$delayed/5/t", "x", qos, True)
    node.publish("$delayed/5/t", "y", qos, True)
    fabric.settle()
    fabric.nodes[home].table.refuse(FULL)
    advance(fabric, 5_000)
    assert pending(node) == 2
    assert len(fabric.nodes[home].retained) == 0
    fabric.nodes[home].table.refuse(None)
    advance(fabric, 499)
    assert pending(node) == 2
    advance(fabric, 1)
    assert pending(node) == 0
    client = fabric.nodes[0].client()
    client.subscribe("t", retained=True)
    fabric.settle()
    assert client.payloads == ["y"]


# -------------------------------------------------------------------- restarts


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_what_is_overdue_after_a_restart_goes_out_in_order(qos: int) -> None:
    fabric = Fabric(1)
    for seconds in (3, 1, 9, 2):
        fabric.nodes[0].publish(f"$delayed/{seconds}/t", str(seconds), qos)
    fabric.settle()
    table = fabric.nodes[0].table.crash()
    later = START_MS + 5_000
    node = fabric.nodes[0] = Node(fabric, 0, fabric.limits, table)
    node.turn.now_ms = later
    client = node.client()
    client.subscribe("#")
    node.core.start()
    fabric.settle()
    assert client.payloads == ["1", "2", "3"]
    assert node.turn.row[DELAYED_MESSAGES] == 1
    advance(fabric, 4_000)
    assert client.payloads == ["1", "2", "3", "9"]
    assert pending(restart(fabric)) == 0


def test_after_a_restart_nothing_goes_out_until_the_others_have_told_what_they_want() -> None:
    fabric = Fabric(2)
    client = subscriber(fabric, 1)
    fabric.nodes[0].publish("$delayed/0/t", "x", 1)
    fabric.turn(0)
    fabric.replace(0)
    fabric.turn(0)
    assert client.payloads == []
    fabric.settle()
    assert client.payloads == ["x"]


def test_the_count_is_found_again_also_where_its_row_is_missing() -> None:
    fabric = Fabric(1)
    for _ in range(4):
        fabric.nodes[0].publish("$delayed/5/t", "x", 1)
    fabric.settle()
    node = restart(fabric)
    assert (pending(node), node.turn.row[DELAYED_MESSAGES]) == (4, 4)
    node.table.delete(b"D")
    node.table.commit()
    assert pending(restart(fabric)) == 4
    advance(fabric, 5_000)
    assert pending(fabric.nodes[0]) == 0
    assert fabric.nodes[0].turn.row[DELAYED_MESSAGES] == 0
    assert fabric.nodes[0].turn.row[DELAYED_PUBLISHED] == 4


def test_a_qos_1_message_that_is_owed_when_its_core_dies_is_published_again() -> None:
    fabric = Fabric(2)
    home = fabric.placement.retained_core(b"t")
    node = fabric.nodes[1 - home]
    node.publish("$delayed/5/t", "x", 1, True)
    fabric.settle()
    fabric.stalled = {(1 - home, home)}
    advance(fabric, 5_000)
    assert pending(node) == 1
    # What it has asked to be kept dies with it.
    fabric.rings[1 - home, home].clear()
    fabric.stalled.clear()
    fabric.replace(1 - home)
    advance(fabric, 5_000)
    assert len(fabric.nodes[home].retained) == 1
    assert pending(fabric.nodes[1 - home]) == 0
