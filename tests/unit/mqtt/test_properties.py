"""The property block: the table of the specification, once only, in bounds."""

from typing import Any

import pytest

from robustmq.errors import ProtocolError
from robustmq.mqtt import properties
from robustmq.mqtt.packets import PacketType, Properties
from robustmq.mqtt.properties import TABLE, WILL, Rule
from robustmq.mqtt.reasons import Reason
from robustmq.mqtt.wire import Reader

# The values of MQTT5 table 2-4, kept apart from the code's table on purpose.
SPECIFICATION = {
    0x01: "publish will",
    0x02: "publish will",
    0x03: "publish will",
    0x08: "publish will",
    0x09: "publish will",
    0x0B: "publish subscribe",
    0x11: "connect connack disconnect",
    0x12: "connack",
    0x13: "connack",
    0x15: "connect connack auth",
    0x16: "connect connack auth",
    0x17: "connect",
    0x18: "will",
    0x19: "connect",
    0x1A: "connack",
    0x1C: "connack disconnect",
    0x1F: "connack puback pubrec pubrel pubcomp suback unsuback disconnect auth",
    0x21: "connect connack",
    0x22: "connect connack",
    0x23: "publish",
    0x24: "connack",
    0x25: "connack",
    0x26: "connect connack publish will puback pubrec pubrel pubcomp subscribe suback"
    " unsubscribe unsuback disconnect auth",
    0x27: "connect connack",
    0x28: "connack",
    0x29: "connack",
    0x2A: "connack",
}
EXAMPLES: dict[str, Any] = {
    "content_type": "text/plain",
    "response_topic": "a/b",
    "correlation_data": b"\0\1",
    "subscription_identifiers": (300,),
    "assigned_client_id": "c",
    "authentication_method": "m",
    "authentication_data": b"d",
    "response_information": "i",
    "server_reference": "s",
    "reason_string": "r",
    "user_properties": (("k", "v"), ("k", "w"), ("", "")),
}
PAIRS = [(rule, packet) for rule in TABLE for packet in rule.packets]
MANY = {("user_properties", packet) for _, packet in PAIRS} | {
    ("subscription_identifiers", PacketType.PUBLISH)
}
ONCE = [(rule, packet) for rule, packet in PAIRS if (rule.name, packet) not in MANY]


def decode(block: bytes, packet: int) -> Properties | None:
    return properties.decode(Reader(block, 0, len(block)), packet)


def fault(block: bytes, packet: int) -> int:
    with pytest.raises(ProtocolError) as caught:
        decode(block, packet)
    return caught.value.reason


def name_of(packet: int) -> str:
    return "will" if packet == WILL else PacketType(packet).name.lower()


def example(rule: Rule) -> Properties:
    values = {rule.name: EXAMPLES.get(rule.name, 1)}
    if rule.name == "authentication_data":
        values["authentication_method"] = "m"
    return Properties(**values)


def field(rule: Rule, packet: int) -> bytes:
    alone = Properties(**{rule.name: EXAMPLES.get(rule.name, 1)})
    return properties.encode(alone, packet)[1:]


def test_the_table_is_that_of_the_specification() -> None:
    table = {rule.identifier: {name_of(packet) for packet in rule.packets} for rule in TABLE}
    assert table == {key: set(value.split()) for key, value in SPECIFICATION.items()}
    assert {rule.name for rule in TABLE} == set(Properties.__struct_fields__)
    assert len({rule.name for rule in TABLE}) == len(TABLE)


@pytest.mark.parametrize(("rule", "packet"), PAIRS)
def test_each_property_survives_in_each_packet(rule: Rule, packet: int) -> None:
    value = example(rule)
    assert decode(properties.encode(value, packet), packet) == value


@pytest.mark.parametrize(("rule", "packet"), ONCE)
def test_a_property_twice_is_a_protocol_error(rule: Rule, packet: int) -> None:
    block = field(rule, packet) * 2
    assert fault(bytes((len(block),)) + block, packet) == Reason.PROTOCOL_ERROR


def test_publish_keeps_several_subscription_identifiers_in_order() -> None:
    value = Properties(subscription_identifiers=(3, 1, 268_435_455))
    assert decode(properties.encode(value, PacketType.PUBLISH), PacketType.PUBLISH) == value


@pytest.mark.parametrize("rule", TABLE)
def test_a_property_in_the_wrong_packet_is_malformed(rule: Rule) -> None:
    block = field(rule, rule.packets[0])
    for packet in (WILL, *PacketType):
        if packet in rule.packets or packet in {
            PacketType.PINGREQ,
            PacketType.PINGRESP,
        }:
            continue
        assert fault(bytes((len(block),)) + block, packet) == Reason.MALFORMED_PACKET
        with pytest.raises(ValueError, match="cannot carry"):
            properties.encode(example(rule), packet)


@pytest.mark.parametrize("rule", TABLE)
def test_a_truncated_property_is_malformed(rule: Rule) -> None:
    packet = rule.packets[0]
    block = field(rule, packet)
    whole = len(block) // 3 if rule.name == "user_properties" else len(block)
    for size in range(1, whole):
        assert fault(bytes((size,)) + block, packet) == Reason.MALFORMED_PACKET
        assert fault(bytes((len(block),)) + block[:size], packet) == Reason.MALFORMED_PACKET


@pytest.mark.parametrize(
    ("packet", "block", "reason"),
    [
        (PacketType.PUBLISH, b"\1\2", Reason.PROTOCOL_ERROR),
        (PacketType.PUBLISH, b"\x0b\0", Reason.PROTOCOL_ERROR),
        (PacketType.PUBLISH, b"\x23\0\0", Reason.TOPIC_ALIAS_INVALID),
        (PacketType.PUBLISH, b"\x08\0\0", Reason.TOPIC_NAME_INVALID),
        (PacketType.PUBLISH, b"\x08\0\3a/+", Reason.TOPIC_NAME_INVALID),
        (PacketType.PUBLISH, b"\x08\0\1#", Reason.TOPIC_NAME_INVALID),
        (PacketType.PUBLISH, b"\x03\0\2\xff\xfe", Reason.MALFORMED_PACKET),
        (PacketType.PUBLISH, b"\x03\0\1\0", Reason.MALFORMED_PACKET),
        (PacketType.PUBLISH, b"\x26\0\1a\0\3\xed\xa0\x80", Reason.MALFORMED_PACKET),
        (PacketType.CONNECT, b"\x21\0\0", Reason.PROTOCOL_ERROR),
        (PacketType.CONNECT, b"\x27\0\0\0\0", Reason.PROTOCOL_ERROR),
        (PacketType.CONNECT, b"\x17\2", Reason.PROTOCOL_ERROR),
        (PacketType.CONNECT, b"\x19\2", Reason.PROTOCOL_ERROR),
        (PacketType.CONNECT, b"\x16\0\1d", Reason.PROTOCOL_ERROR),
        (PacketType.CONNACK, b"\x24\2", Reason.PROTOCOL_ERROR),
        (PacketType.CONNACK, b"\x2a\2", Reason.PROTOCOL_ERROR),
        (PacketType.SUBSCRIBE, b"\x0b\xff\xff\xff\xff\1", Reason.MALFORMED_PACKET),
        (PacketType.SUBSCRIBE, b"\x0b\x81\0", Reason.MALFORMED_PACKET),
        (PacketType.SUBSCRIBE, b"\x7f", Reason.MALFORMED_PACKET),
        (PacketType.SUBSCRIBE, b"\0", Reason.MALFORMED_PACKET),
        (PacketType.SUBSCRIBE, b"\xa6\0", Reason.MALFORMED_PACKET),
    ],
)
def test_values_out_of_bounds_have_their_reason(packet: int, block: bytes, reason: Reason) -> None:
    assert fault(bytes((len(block),)) + block, packet) == reason


def test_no_properties_are_none_and_one_byte() -> None:
    assert decode(b"\0", PacketType.PUBLISH) is None
    assert properties.encode(None, PacketType.PUBLISH) == b"\0"
    assert properties.encode(Properties(), PacketType.PUBLISH) == b"\0"


def test_a_zero_is_a_value_and_not_absence() -> None:
    value = Properties(session_expiry_interval=0, topic_alias_maximum=0)
    encoded = properties.encode(value, PacketType.CONNECT)
    assert encoded == b"\x08\x11\0\0\0\0\x22\0\0"
    assert decode(encoded, PacketType.CONNECT) == value


def test_reading_stops_at_the_end_of_the_block() -> None:
    reader = Reader(b"xx\2\1\1payload", 2, 12)
    assert properties.decode(reader, PacketType.PUBLISH) == Properties(payload_format=1)
    assert reader.rest() == b"payload"


def test_a_block_longer_than_the_packet_is_malformed() -> None:
    assert fault(b"\5\1\1", PacketType.PUBLISH) == Reason.MALFORMED_PACKET
    assert fault(b"", PacketType.PUBLISH) == Reason.MALFORMED_PACKET
    assert fault(b"\x80\0", PacketType.PUBLISH) == Reason.MALFORMED_PACKET
