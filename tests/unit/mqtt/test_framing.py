"""Framing: where a packet ends, and whose connection it is before it is complete."""

import pytest

from robustmq.errors import ProtocolError
from robustmq.mqtt.codec import encode
from robustmq.mqtt.framing import Peek, answer_version, connect_client_id, scan
from robustmq.mqtt.packets import V5, V31, V311, Connect, Properties, Publish, Will
from robustmq.mqtt.reasons import Reason

CONNECTS = [
    Connect("me", V31),
    Connect("me", V311, will=Will(b"w", b"x" * 300)),
    Connect("me", V5),
    Connect("me", V5, properties=Properties(user_properties=(("k", "v" * 200),))),
]


def test_a_packet_is_found_where_it_ends() -> None:
    first = encode(Publish(b"a", b"x" * 200), V311)
    second = encode(Publish(b"b"), V311)
    buffer = first + second
    assert scan(buffer, 0, 1000) == (0x30, 3, len(first))
    assert scan(buffer, len(first), 1000) == (0x30, len(first) + 2, len(buffer))
    assert scan(buffer, len(buffer), 1000) is None


def test_every_beginning_of_a_packet_is_incomplete() -> None:
    data = encode(Publish(b"a", b"x" * 20_000), V311)
    for size in (0, 1, 2, 3, 4, 5, 100, len(data) - 1):
        assert scan(data[:size], 0, 1_000_000) is None
    assert scan(data, 0, 1_000_000) == (0x30, 4, len(data))


def test_the_limit_counts_the_whole_packet() -> None:
    data = encode(Publish(b"a", b"x" * 200), V311)
    assert scan(data, 0, len(data)) is not None
    with pytest.raises(ProtocolError) as caught:
        scan(data, 0, len(data) - 1)
    assert caught.value.reason == Reason.PACKET_TOO_LARGE


def test_a_packet_too_large_is_noticed_by_its_header() -> None:
    with pytest.raises(ProtocolError) as caught:
        scan(b"\x30\xff\xff\xff\x7f", 0, 1000)
    assert caught.value.reason == Reason.PACKET_TOO_LARGE


def test_a_remaining_length_of_five_bytes_is_malformed() -> None:
    assert scan(b"\x30\x80\x80\x80", 0, 1000) is None
    with pytest.raises(ProtocolError) as caught:
        scan(b"\x30\x80\x80\x80\x80", 0, 1000)
    assert caught.value.reason == Reason.MALFORMED_PACKET


def test_a_remaining_length_may_be_longer_than_it_needs_to_be() -> None:
    assert scan(b"\xc0\x80\x00", 0, 1000) == (0xC0, 3, 3)


@pytest.mark.parametrize("packet", CONNECTS)
def test_the_client_identifier_is_known_as_soon_as_it_is_there(packet: Connect) -> None:
    data = encode(packet, packet.version)
    end = data.index(b"\0\2me") + 4
    for size in range(end):
        assert connect_client_id(data[:size]) is Peek.INCOMPLETE, size
    for size in range(end, len(data) + 1):
        assert connect_client_id(data[:size]) == b"me", size
    assert connect_client_id(data + b"\xc0\0") == b"me"


def test_an_empty_client_identifier_is_known_too() -> None:
    assert connect_client_id(encode(Connect(""), V5)) == b""


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\x11",
        b"\x10\xff\xff\xff\xff",
        b"\x10\0",
        b"\x10\x0c\0\x05",
        b"\x10\x0c\0\4MQTX",
        b"\x10\x0c\0\4MQTT\6",
        b"\x10\x0c\0\4MQTT\x85",
        b"\x10\x0c\0\4MQTT\4\2\0\0\0\1",
        b"\x10\x0d\0\4MQTT\4\2\0\0\0\1\xff",
        b"\x10\x0d\0\4MQTT\4\2\0\0\0\1\0",
        b"\x10\x20\0\4MQTT\5\2\0\0\xff\xff\xff\xff",
    ],
)
def test_garbage_is_not_a_connect(data: bytes) -> None:
    assert connect_client_id(data) is Peek.NOT_CONNECT


@pytest.mark.parametrize(
    ("body", "version"),
    [
        (b"\0\4MQTT\4\2", V311),
        (b"\0\4MQTT\5", V5),
        (b"\0\6MQIsdp\3", V31),
        (b"\0\4MQTT\6", V5),
        (b"\0\4MQTT\3", V311),
        (b"\0\4MQTT\x84", V311),
        (b"\0\6MQIsdp\4", V311),
        (b"\0\4HTTP\4", 0),
        (b"\0\4MQTT", 0),
        (b"", 0),
    ],
)
def test_a_refused_connect_is_answered_in_a_version_that_its_sender_reads(
    body: bytes, version: int
) -> None:
    assert answer_version(body) == version
