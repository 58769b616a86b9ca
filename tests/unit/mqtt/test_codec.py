"""The codec: exact bytes of the specification, and the reason for each way to be wrong."""

import pytest

from robustmq.errors import ProtocolError
from robustmq.mqtt.codec import decode, encode
from robustmq.mqtt.packets import (
    V5,
    V31,
    V311,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from robustmq.mqtt.reasons import Reason
from robustmq.mqtt.wire import MAX_VARINT, varint

EXAMPLES: list[tuple[Packet, int, str]] = [
    (Connect("", V311), V311, "10 0c 0004 4d515454 04 02 0000 0000"),
    (
        Connect("c", V31, False, 10, "u", b"p", Will(b"w", b"x", 1, True)),
        V31,
        "10 1b 0006 4d5149736470 03 ec 000a 0001 63 0001 77 0001 78 0001 75 0001 70",
    ),
    (
        Connect(
            "c",
            V5,
            password=b"p",
            will=Will(b"w", b"", 2, False, Properties(will_delay_interval=1)),
            properties=Properties(session_expiry_interval=0xFFFFFFFF),
        ),
        V5,
        "10 21 0004 4d515454 05 56 0000 05 11ffffffff 0001 63 05 1800000001 0001 77 0000 0001 70",
    ),
    (Connack(Reason.SUCCESS, True), V311, "20 02 01 00"),
    (Connack(Reason.NOT_AUTHORIZED), V311, "20 02 00 05"),
    (Connack(Reason.NOT_AUTHORIZED), V5, "20 03 00 87 00"),
    (Connack(properties=Properties(maximum_qos=1)), V5, "20 05 00 00 02 24 01"),
    (Publish(b"a/b", b"hi"), V311, "30 07 0003 612f62 6869"),
    (Publish(b"a", b"", 2, True, True, 0xABCD), V311, "3d 05 0001 61 abcd"),
    (Publish(b"a", b"x", 1, packet_id=1), V5, "32 07 0001 61 0001 00 78"),
    (
        Publish(b"", b"x", properties=Properties(topic_alias=5)),
        V5,
        "30 07 0000 03 230005 78",
    ),
    (Puback(1), V311, "40 02 0001"),
    (Puback(1), V5, "40 02 0001"),
    (Puback(1, Reason.NO_MATCHING_SUBSCRIBERS), V5, "40 03 0001 10"),
    (
        Puback(1, Reason.SUCCESS, Properties(reason_string="r")),
        V5,
        "40 08 0001 00 04 1f000172",
    ),
    (Pubrec(2, Reason.QUOTA_EXCEEDED), V5, "50 03 0002 97"),
    (Pubrel(3), V31, "62 02 0003"),
    (Pubrel(3, Reason.PACKET_IDENTIFIER_NOT_FOUND), V5, "62 03 0003 92"),
    (Pubcomp(4), V311, "70 02 0004"),
    (
        Subscribe(5, [Subscription("a", 1), Subscription("+/#", 2)]),
        V311,
        "82 0c 0005 0001 61 01 0003 2b2f23 02",
    ),
    (
        Subscribe(
            5, [Subscription("a", 1, True, True, 2)], Properties(subscription_identifiers=(200,))
        ),
        V5,
        "82 0a 0005 03 0bc801 0001 61 2d",
    ),
    (
        Suback(6, [Reason.GRANTED_QOS_2, Reason.UNSPECIFIED_ERROR]),
        V311,
        "90 04 0006 02 80",
    ),
    (Suback(6, [Reason.GRANTED_QOS_1]), V5, "90 04 0006 00 01"),
    (Unsubscribe(7, ["a", "b"]), V311, "a2 08 0007 0001 61 0001 62"),
    (Unsubscribe(7, ["$share/g/a"]), V5, "a2 0f 0007 00 000a 2473686172652f672f61"),
    (Unsuback(8), V311, "b0 02 0008"),
    (Unsuback(8, [Reason.NO_SUBSCRIPTION_EXISTED]), V5, "b0 04 0008 00 11"),
    (Pingreq(), V31, "c0 00"),
    (Pingresp(), V5, "d0 00"),
    (Disconnect(), V311, "e0 00"),
    (Disconnect(), V5, "e0 00"),
    (Disconnect(Reason.SESSION_TAKEN_OVER), V5, "e0 01 8e"),
    (
        Disconnect(Reason.DISCONNECT_WITH_WILL, Properties(session_expiry_interval=1)),
        V5,
        "e0 07 04 05 1100000001",
    ),
    (Auth(), V5, "f0 00"),
    (
        Auth(Reason.CONTINUE_AUTHENTICATION, Properties(authentication_method="m")),
        V5,
        "f0 06 18 04 15 0001 6d",
    ),
]


@pytest.mark.parametrize(("packet", "version", "expected"), EXAMPLES)
def test_a_packet_has_these_bytes_and_they_are_it(
    packet: Packet, version: int, expected: str
) -> None:
    data = bytes.fromhex(expected)
    assert encode(packet, version).hex() == data.hex()
    assert data[1] == len(data) - 2
    assert decode(data[0], data[2:], version) == packet


def reason_for(first_byte: int, body: str, version: int) -> int:
    with pytest.raises(ProtocolError) as caught:
        decode(first_byte, bytes.fromhex(body), version)
    assert caught.value.detail.endswith(".")
    return caught.value.reason


NAME = "0004 4d515454"
CONNECT_FAULTS = [
    ("0004 4d515455 04 02 0000 0000", Reason.UNSUPPORTED_PROTOCOL_VERSION),
    ("0006 4d5149736470 04 02 0000 0000", Reason.UNSUPPORTED_PROTOCOL_VERSION),
    (f"{NAME} 03 02 0000 0000", Reason.UNSUPPORTED_PROTOCOL_VERSION),
    (f"{NAME} 06 02 0000 00 0000", Reason.UNSUPPORTED_PROTOCOL_VERSION),
    (f"{NAME} 85 02 0000 0000", Reason.UNSUPPORTED_PROTOCOL_VERSION),
    (f"{NAME} 04 03 0000 0000", Reason.MALFORMED_PACKET),
    (f"{NAME} 04 0a 0000 0000", Reason.MALFORMED_PACKET),
    (f"{NAME} 04 22 0000 0000", Reason.MALFORMED_PACKET),
    (f"{NAME} 04 1e 0000 0000 0001 77 0000", Reason.MALFORMED_PACKET),
    (f"{NAME} 04 42 0000 0000 0001 70", Reason.MALFORMED_PACKET),
    (f"{NAME} 04 82 0000 0000", Reason.MALFORMED_PACKET),
    (f"{NAME} 04 02 0000 0001", Reason.MALFORMED_PACKET),
    (f"{NAME} 04 02 0000 0001 00", Reason.MALFORMED_PACKET),
    (f"{NAME} 04 02 0000 0002 c080", Reason.MALFORMED_PACKET),
    (f"{NAME} 04 02 0000 0003 eda080", Reason.MALFORMED_PACKET),
    (f"{NAME} 04 02 0000 0000 00", Reason.MALFORMED_PACKET),
    (f"{NAME} 04 06 0000 0000 0000 0000", Reason.TOPIC_NAME_INVALID),
    (f"{NAME} 04 06 0000 0000 0001 23 0000", Reason.TOPIC_NAME_INVALID),
    (f"{NAME} 05 02 0000 06 210001 210002 0000", Reason.PROTOCOL_ERROR),
    (f"{NAME} 05 02 0000 02 0101 0000", Reason.MALFORMED_PACKET),
    (f"{NAME} 05 06 0000 00 0000 02 0102 0001 77 0000", Reason.PROTOCOL_ERROR),
    ("", Reason.MALFORMED_PACKET),
    (f"{NAME}", Reason.MALFORMED_PACKET),
    (f"{NAME} 04", Reason.MALFORMED_PACKET),
    (f"{NAME} 04 02 00", Reason.MALFORMED_PACKET),
]


@pytest.mark.parametrize(("body", "reason"), CONNECT_FAULTS)
def test_a_wrong_connect_has_its_reason(body: str, reason: Reason) -> None:
    assert reason_for(0x10, body, 0) == reason


def test_a_password_without_user_name_is_right_in_mqtt_5_only() -> None:
    body = f"{NAME} 05 42 0000 00 0000 0001 70"
    packet = decode(0x10, bytes.fromhex(body), 0)
    assert isinstance(packet, Connect)
    assert (packet.username, packet.password) == (None, b"p")


def test_mqtt_31_lets_the_length_decide_whether_credentials_are_there() -> None:
    packet = decode(0x10, bytes.fromhex("0006 4d5149736470 03 c2 0000 0001 63"), 0)
    assert packet == Connect("c", V31)


# first byte, body, version, reason
FAULTS = [
    (0x00, "", V5, Reason.MALFORMED_PACKET),
    (0xF0, "", V311, Reason.MALFORMED_PACKET),
    (0x11, f"{NAME} 04 02 0000 0000", V311, Reason.MALFORMED_PACKET),
    (0x36, "0001 61 0001", V311, Reason.MALFORMED_PACKET),
    (0x38, "0001 61", V311, Reason.MALFORMED_PACKET),
    (0x30, "", V311, Reason.MALFORMED_PACKET),
    (0x30, "0002 61", V311, Reason.MALFORMED_PACKET),
    (0x30, "0000", V311, Reason.TOPIC_NAME_INVALID),
    (0x30, "0000 00", V5, Reason.PROTOCOL_ERROR),
    (0x30, "0000 02 0101", V5, Reason.PROTOCOL_ERROR),
    (0x30, "0001 23", V311, Reason.TOPIC_NAME_INVALID),
    (0x30, "0003 612f2b", V311, Reason.TOPIC_NAME_INVALID),
    (0x30, "0001 00", V311, Reason.MALFORMED_PACKET),
    (0x30, "0001 ff", V311, Reason.MALFORMED_PACKET),
    (0x30, "0001 61", V5, Reason.MALFORMED_PACKET),
    (0x32, "0001 61 0000", V311, Reason.MALFORMED_PACKET),
    (0x32, "0001 61 00", V311, Reason.MALFORMED_PACKET),
    (0x30, "0001 61 03 230000", V5, Reason.TOPIC_ALIAS_INVALID),
    (0x41, "0001", V311, Reason.MALFORMED_PACKET),
    (0x40, "0000", V311, Reason.MALFORMED_PACKET),
    (0x40, "00", V311, Reason.MALFORMED_PACKET),
    (0x40, "0001 00", V311, Reason.MALFORMED_PACKET),
    (0x40, "0001 92", V5, Reason.PROTOCOL_ERROR),
    (0x40, "0001 00 00 00", V5, Reason.MALFORMED_PACKET),
    (0x60, "0001", V311, Reason.MALFORMED_PACKET),
    (0x6A, "0001", V311, Reason.MALFORMED_PACKET),
    (0x80, "0001 0001 61 00", V311, Reason.MALFORMED_PACKET),
    (0x82, "0001", V311, Reason.PROTOCOL_ERROR),
    (0x82, "0001 00", V5, Reason.PROTOCOL_ERROR),
    (0x82, "0000 0001 61 00", V311, Reason.MALFORMED_PACKET),
    (0x82, "0001 0001 61", V311, Reason.MALFORMED_PACKET),
    (0x82, "0001 0001 61 03", V311, Reason.MALFORMED_PACKET),
    (0x82, "0001 0001 61 04", V311, Reason.MALFORMED_PACKET),
    (0x82, "0001 00 0001 61 40", V5, Reason.MALFORMED_PACKET),
    (0x82, "0001 00 0001 61 80", V5, Reason.MALFORMED_PACKET),
    (0x82, "0001 00 0001 61 03", V5, Reason.PROTOCOL_ERROR),
    (0x82, "0001 00 0001 61 30", V5, Reason.PROTOCOL_ERROR),
    (0x82, "0001 00 000a 2473686172652f672f61 04", V5, Reason.PROTOCOL_ERROR),
    (0x82, "0001 0000 00", V311, Reason.TOPIC_FILTER_INVALID),
    (0x82, "0001 0002 6123 00", V311, Reason.TOPIC_FILTER_INVALID),
    (0x82, "0001 0002 612b 00", V311, Reason.TOPIC_FILTER_INVALID),
    (0x82, "0001 0003 232f61 00", V311, Reason.TOPIC_FILTER_INVALID),
    (0x82, "0001 0008 2473686172652f67 00", V311, Reason.TOPIC_FILTER_INVALID),
    (0x82, "0001 0009 2473686172652f672f 00", V311, Reason.TOPIC_FILTER_INVALID),
    (0x82, "0001 0009 2473686172652f2f61 00", V311, Reason.TOPIC_FILTER_INVALID),
    (0x82, "0001 000a 2473686172652f2b2f61 00", V311, Reason.TOPIC_FILTER_INVALID),
    (0x82, "0001 0001 00 00", V311, Reason.MALFORMED_PACKET),
    (0x92, "0001 00", V311, Reason.MALFORMED_PACKET),
    (0x90, "0001", V311, Reason.PROTOCOL_ERROR),
    (0x90, "0001 87", V311, Reason.MALFORMED_PACKET),
    (0x90, "0001 00 03", V5, Reason.PROTOCOL_ERROR),
    (0xA0, "0001 0001 61", V311, Reason.MALFORMED_PACKET),
    (0xA2, "0001", V311, Reason.PROTOCOL_ERROR),
    (0xA2, "0001 0001 2b", V5, Reason.MALFORMED_PACKET),
    (0xB0, "0001 00", V5, Reason.PROTOCOL_ERROR),
    (0xB0, "0001 00", V311, Reason.MALFORMED_PACKET),
    (0xC1, "", V311, Reason.MALFORMED_PACKET),
    (0xC0, "00", V311, Reason.MALFORMED_PACKET),
    (0xE0, "00", V311, Reason.MALFORMED_PACKET),
    (0xE0, "01", V5, Reason.PROTOCOL_ERROR),
    (0xE2, "", V5, Reason.MALFORMED_PACKET),
    (0xF0, "80", V5, Reason.PROTOCOL_ERROR),
    (0xF0, "18 04 16 0001 6d", V5, Reason.PROTOCOL_ERROR),
    (0x20, "02 00", V311, Reason.MALFORMED_PACKET),
    (0x20, "00 06", V311, Reason.MALFORMED_PACKET),
    (0x20, "00 8b 00", V5, Reason.PROTOCOL_ERROR),
]


@pytest.mark.parametrize(("first_byte", "body", "version", "reason"), FAULTS)
def test_a_wrong_packet_has_its_reason(
    first_byte: int, body: str, version: int, reason: Reason
) -> None:
    assert reason_for(first_byte, body, version) == reason


@pytest.mark.parametrize(
    ("first_byte", "body"), [(0x6A, "0001"), (0x8A, "0001 0001 61 00"), (0xAA, "0001 0001 61")]
)
def test_mqtt_31_marks_repeated_requests(first_byte: int, body: str) -> None:
    data = bytes.fromhex(body)
    assert decode(first_byte, data, V31) == decode(first_byte & ~0x08, data, V31)


def test_a_byte_order_mark_stays_in_a_string() -> None:
    packet = decode(0xA2, bytes.fromhex("0001 0003 efbbbf"), V311)
    assert packet == Unsubscribe(1, ["\ufeff"])


def test_mqtt_3_knows_one_failure_of_a_subscription() -> None:
    assert encode(Suback(1, [Reason.NOT_AUTHORIZED]), V311)[-1] == 0x80


@pytest.mark.parametrize(
    ("packet", "version"),
    [
        (Publish(b"a" * 65_536), V311),
        (Connect("a" * 65_536), V5),
        (Auth(), V311),
        (Puback(65_536), V311),
        (Puback(1, properties=Properties(topic_alias=1)), V5),
    ],
)
def test_what_mqtt_cannot_say_is_a_bug_of_the_caller(packet: Packet, version: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        encode(packet, version)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2_097_151, "ffff7f"),
        (2_097_152, "80808001"),
        (MAX_VARINT, "ffffff7f"),
    ],
)
def test_variable_byte_integers_are_those_of_table_1_1(value: int, expected: str) -> None:
    assert varint(value).hex() == expected


@pytest.mark.parametrize("value", [-1, MAX_VARINT + 1])
def test_variable_byte_integers_end_at_four_bytes(value: int) -> None:
    with pytest.raises(ValueError, match="variable byte integer"):
        varint(value)


def test_a_bridge_of_mqtt_3_says_so_in_its_level() -> None:
    """As mosquitto's do: 0x80 is added to the level."""
    for version in (V31, V311):
        packet = Connect("bridge", version, is_bridge=True)
        data = encode(packet, version)
        assert version | 0x80 in data
        assert decode(0x10, data[2:], 0) == packet
