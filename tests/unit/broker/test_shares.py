"""Shared subscriptions over cores: one member per message, and nothing lost when one leaves."""

from collections import Counter

import pytest

from robustmq.broker import frames
from robustmq.broker.api import Options
from robustmq.broker.frames import Kind
from robustmq.broker.share_leads import filter_of, group_key
from robustmq.metrics import MESSAGES_DROPPED_QUEUE, SHARED_GROUPS
from tests.books import check_books
from tests.durable import DurableClient
from tests.fabric import Client, Fabric, Limits


def publish(fabric: Fabric, count: int, qos: int = 1, first: int = 0) -> list[str]:
    """Publish from all cores to a few topics in turn."""
    payloads = [str(number) for number in range(first, first + count)]
    for number, payload in enumerate(payloads):
        node = fabric.nodes[number % len(fabric.nodes)]
        node.publish(f"s/{number % 3}", payload, qos)
    fabric.settle()
    return payloads


def heard(*clients: Client) -> Counter[str]:
    """How often each payload was read."""
    return Counter(payload for client in clients for payload in client.payloads)


def leader_of(fabric: Fabric, group: str, topic_filter: str = "s/+") -> int:
    return fabric.placement.group_core(group_key(group.encode(), topic_filter.encode()))


def led_by(fabric: Fabric, core: int) -> str:
    """The name of a group whose leader is `core`."""
    return next(name for name in map(str, range(100)) if leader_of(fabric, name) == core)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_members_on_all_cores_share_round_robin(qos: int) -> None:
    fabric = Fabric(3)
    members = [node.client() for node in fabric.nodes for _ in range(2)]
    for member in members:
        member.join("g", "s/+")
    fabric.settle()
    payloads = publish(fabric, 60, qos)
    assert heard(*members) == Counter(payloads)
    assert [len(member.messages) for member in members] == [10] * 6
    assert {message.qos for member in members for message in member.messages} == {qos}


def test_groups_and_plain_subscriptions_do_not_disturb_each_other() -> None:
    fabric = Fabric(2)
    one, two, plain = (fabric.nodes[0].client() for _ in range(3))
    one.join("g", "s/+")
    two.join("h", "s/+")
    plain.subscribe("s/+")
    fabric.settle()
    payloads = publish(fabric, 10)
    for client in (one, two, plain):
        assert heard(client) == Counter(payloads)
    row = fabric.nodes[leader_of(fabric, "g")].turn.row
    assert row[SHARED_GROUPS] >= 1


def test_a_member_that_leaves_gives_what_it_did_not_acknowledge_to_the_others() -> None:
    fabric = Fabric(2)
    slow = fabric.nodes[0].client(limit=2)
    quick = fabric.nodes[1].client()
    slow.acknowledges = False
    slow.join("g", "s/+")
    fabric.settle()
    payloads = publish(fabric, 10)
    quick.join("g", "s/+")
    fabric.settle()
    slow.leave("g", "s/+")
    fabric.settle()
    # What is in flight to a client that is there stays its own (MQTT5 3.10.4).
    assert heard(slow, quick) == Counter(payloads)
    assert len(slow.messages) == 2
    check_books(fabric)


def test_a_member_that_goes_away_gives_back_what_it_has_in_flight() -> None:
    fabric = Fabric(2)
    gone, other = (node.client() for node in fabric.nodes)
    gone.acknowledges = False
    gone.join("g", "s/+")
    fabric.settle()
    payloads = publish(fabric, 10)
    other.join("g", "s/+")
    fabric.settle()
    gone.disconnect()
    fabric.settle()
    assert heard(other) == Counter(payloads)


def test_qos_2_that_was_sent_stays_with_its_member() -> None:
    fabric = Fabric(2)
    gone, other = (node.client() for node in fabric.nodes)
    gone.acknowledges = False
    gone.join("g", "s/+")
    fabric.settle()
    payloads = publish(fabric, 4, 2)
    other.join("g", "s/+")
    fabric.settle()
    gone.disconnect()
    fabric.settle()
    assert heard(other) == Counter()
    gone.messages.clear()
    gone.acknowledges = True
    gone.connect()
    assert heard(gone) == Counter(payloads)
    assert all(message.dup for message in gone.messages)


def test_a_clean_member_of_a_durable_group_gives_back_in_a_quiet_turn() -> None:
    fabric = Fabric(2)
    durable = DurableClient(fabric, 1)
    gone = fabric.nodes[0].client()
    gone.acknowledges = False
    durable.connect()
    for member in (durable, gone):
        member.join("g", "s/+")
    fabric.settle()
    payloads = publish(fabric, 10)
    # Nothing waits for the disk of the core that the member leaves.
    gone.disconnect()
    fabric.settle()
    durable.read()
    assert Counter(message.payload.decode() for message in durable.messages) == Counter(payloads)
    assert 0 < len(gone.messages) < len(payloads)


def test_messages_wait_while_no_member_is_there() -> None:
    fabric = Fabric(2)
    member = fabric.nodes[0].client()
    member.join("g", "s/+")
    fabric.settle()
    member.disconnect()
    fabric.settle()
    payloads = publish(fabric, 10)
    member.connect()
    fabric.settle()
    assert heard(member) == Counter(payloads)
    check_books(fabric)


def test_what_waits_is_bounded_and_the_rest_is_counted() -> None:
    fabric = Fabric(1, limits=Limits(max_pending=3))
    member = fabric.nodes[0].client()
    member.join("g", "s/+")
    fabric.settle()
    member.disconnect()
    fabric.settle()
    payloads = publish(fabric, 10)
    member.connect()
    fabric.settle()
    assert member.payloads == payloads[-3:]
    assert fabric.nodes[0].turn.row[MESSAGES_DROPPED_QUEUE] == 7


def test_what_is_assigned_to_a_client_that_has_just_gone_goes_to_another() -> None:
    fabric = Fabric(2)
    name = led_by(fabric, 1)
    gone = fabric.nodes[0].client()
    other = fabric.nodes[1].client()
    for client in (gone, other):
        client.join(name, "s/+")
    fabric.settle()
    for number in range(6):
        fabric.nodes[1].publish("s/0", str(number), 1)
    # The leader has shared them out; the client goes before its core reads its part.
    fabric.turn(1)
    assert Kind.ASSIGN in [frame.data[0] for frame in fabric.rings[1, 0]]
    gone.disconnect()
    fabric.settle()
    assert heard(other) == Counter(map(str, range(6)))


def test_a_member_of_an_earlier_life_is_forgotten_when_something_comes_for_it() -> None:
    fabric = Fabric(2)
    name = led_by(fabric, 1)
    key = group_key(name.encode(), b"s/+")
    member = fabric.nodes[0].client()
    member.join(name, "s/+")
    fabric.settle()
    fabric.nodes[1].core.receive(0, frames.join(0, 999, True, False, key))
    fabric.settle()
    payloads = publish(fabric, 10)
    assert heard(member) == Counter(payloads)
    check_books(fabric)


def test_the_last_member_ends_the_group_and_its_interest() -> None:
    fabric = Fabric(2)
    member = fabric.nodes[0].client()
    member.join("g", "s/+")
    fabric.settle()
    member.leave("g", "s/+")
    member.leave("g", "s/+")
    fabric.settle()
    publish(fabric, 3)
    assert member.payloads == []
    assert all(node.turn.row[SHARED_GROUPS] == 0 for node in fabric.nodes)
    check_books(fabric)


def test_a_join_is_answered_when_every_core_knows_the_group() -> None:
    fabric = Fabric(3)
    name = led_by(fabric, 0)
    member = fabric.nodes[0].client()
    member.join(name, "s/+")
    for index in (0, 1, 0):
        fabric.turn(index)
    second = fabric.nodes[1].client()
    second.join(name, "s/+")
    for index in (1, 0, 1):
        fabric.turn(index)
    assert (member.subacks, second.subacks) == (0, 0)
    fabric.settle()
    assert (member.subacks, second.subacks) == (1, 1)


def test_joining_again_changes_the_options_for_what_comes() -> None:
    fabric = Fabric(2)
    member = fabric.nodes[0].client()
    member.join("g", "s/+", Options(2))
    fabric.settle()
    member.join("g", "s/+", Options(0, identifier=b"\x0b\x07"))
    fabric.settle()
    assert member.subacks == 2
    publish(fabric, 2, 2)
    member.read()
    assert [m.qos for m in member.messages] == [0, 0]
    assert [m.properties for m in member.messages] == [b"\x0b\x07"] * 2
    check_books(fabric)


def test_pending_joins_are_answered_by_the_next_leader_each_with_its_own_membership() -> None:
    fabric = Fabric(3)
    name = led_by(fabric, 2)
    members = [fabric.nodes[0].client() for _ in range(3)]
    for member in members:
        member.join(name, "s/+")
    other = fabric.nodes[0].client()
    other_name = next(n for n in map(str, range(100)) if leader_of(fabric, n) == 2 and n != name)
    other.join(other_name, "s/+")
    members[2].leave(name, "s/+")
    fabric.turn(0)
    fabric.replace(2)
    fabric.settle()
    assert [member.subacks for member in members] == [1, 1, 1]
    assert other.subacks == 1
    check_books(fabric)
    payloads = publish(fabric, 12)
    assert heard(*members) == Counter(payloads)
    assert [len(member.messages) for member in members] == [6, 6, 0]
    assert heard(other) == Counter(payloads)


def test_members_on_a_core_that_died_are_gone() -> None:
    fabric = Fabric(2)
    name = led_by(fabric, 0)
    lost, other = fabric.nodes[1].client(), fabric.nodes[0].client()
    for client in (lost, other):
        client.join(name, "s/+")
    fabric.settle()
    fabric.replace(1)
    fabric.settle()
    payloads = publish(fabric, 6)
    assert heard(other) == Counter(payloads)
    check_books(fabric)


def test_a_group_whose_members_all_died_ends() -> None:
    fabric = Fabric(2)
    name = led_by(fabric, 0)
    fabric.nodes[1].client().join(name, "s/+")
    fabric.turn(1)
    fabric.turn(0)
    # Its join is not even answered: the next life of core 1 must not get that answer.
    fabric.replace(1)
    fabric.settle()
    assert fabric.nodes[0].turn.row[SHARED_GROUPS] == 0
    check_books(fabric)


def test_a_key_tells_its_filter() -> None:
    assert filter_of(group_key(b"g", b"a/+/#")) == b"a/+/#"
