"""Packets: values that compare, with defaults that mean `nothing special`."""

import gc

import pytest

from robustmq.mqtt import packets
from robustmq.mqtt.packets import (
    ANSWER_REASONS,
    Connect,
    PacketType,
    Properties,
    Publish,
    Subscription,
    Unsuback,
)
from robustmq.mqtt.reasons import Reason


def test_packets_are_equal_by_value() -> None:
    assert Publish(b"a", b"x", 1, packet_id=7) == Publish(b"a", b"x", 1, False, False, 7)
    assert Publish(b"a") != Publish(b"b")


def test_a_subscription_can_be_a_key() -> None:
    assert len({Subscription("a", 1), Subscription("a", 1), Subscription("a", 2)}) == 2


def test_default_lists_are_not_shared() -> None:
    first = Unsuback(1)
    first.reasons.append(Reason.SUCCESS)
    assert Unsuback(2).reasons == []


def test_absent_properties_are_none_or_empty() -> None:
    absent = Properties()
    values = {name: getattr(absent, name) for name in Properties.__struct_fields__}
    assert values.pop("user_properties") == ()
    assert values.pop("subscription_identifiers") == ()
    assert set(values.values()) == {None}


def test_packets_do_not_burden_the_collector() -> None:
    assert not gc.is_tracked(Connect("a", properties=Properties(receive_maximum=1)))


@pytest.mark.parametrize("packet", list(ANSWER_REASONS))
def test_every_answer_has_a_code_for_success_and_its_codes_are_themselves(
    packet: PacketType,
) -> None:
    table = ANSWER_REASONS[packet]
    assert table[0] is Reason.SUCCESS
    assert all(code == reason.value for code, reason in table.items())


@pytest.mark.parametrize(
    ("packet", "absent"),
    [
        (PacketType.CONNACK, Reason.BAD_AUTHENTICATION_METHOD + 1),
        (PacketType.PUBACK, Reason.PACKET_TOO_LARGE),
        (PacketType.PUBCOMP, Reason.UNSPECIFIED_ERROR),
        (PacketType.SUBACK, Reason.TOPIC_NAME_INVALID),
        (PacketType.DISCONNECT, Reason.BANNED),
        (PacketType.DISCONNECT, Reason.PACKET_IDENTIFIER_NOT_FOUND),
        (PacketType.AUTH, Reason.NOT_AUTHORIZED),
    ],
)
def test_codes_of_other_packets_are_absent(packet: PacketType, absent: int) -> None:
    assert absent not in ANSWER_REASONS[packet]


def test_protocol_names_have_their_levels() -> None:
    assert packets.PROTOCOL_NAMES == {b"MQIsdp": (3,), b"MQTT": (4, 5)}
