"""A message on both sides of a log: keys, headers, expiry, and what has no place in MQTT."""

import pytest

from robustmq.errors import Corrupt
from robustmq.message.crossing import Arrived, Logged, from_log, murmur2, partition_of, to_log
from robustmq.message.record import (
    CLIENT,
    EXPIRES_AT,
    NO_HEADERS,
    PUBLISHER,
    header_block,
    read_headers,
)

NOW = 1_700_000_000_000
Headers = list[tuple[bytes, bytes | None]]


def logged(headers: Headers, *, keyed: bool = True) -> tuple[bytes, Headers, bool]:
    key, block, is_keyed = to_log(b"a/b", header_block(headers), NOW, keyed=keyed)
    return key, list(read_headers(block)), is_keyed


def arrived(
    headers: Headers, key: bytes | None = None, value: bytes = b"", timestamp: int = NOW
) -> tuple[Headers, int]:
    block, deadline = from_log(b"a/b", key, value, header_block(headers), timestamp)
    return list(read_headers(block)), deadline


def test_a_plain_message_is_itself_and_its_key_the_topic() -> None:
    assert to_log(b"a/b", NO_HEADERS, NOW) == Logged(b"a/b", NO_HEADERS, False)
    assert from_log(b"a/b", b"a/b", b"x", NO_HEADERS, NOW) == Arrived(NO_HEADERS, 0)
    assert from_log(b"a/b", None, b"x", NO_HEADERS, NOW) == Arrived(NO_HEADERS, 0)


def test_the_first_user_property_key_is_the_record_key() -> None:
    given: Headers = [(b"x", b"1"), (b"key", b"k1"), (b"key", b"k2")]
    assert logged(given) == (b"k1", [(b"x", b"1"), (b"key", b"k2")], True)
    assert arrived([(b"x", b"1"), (b"key", b"k2")], b"k1") == (
        [(b"key", b"k1"), (b"x", b"1"), (b"key", b"k2")],
        0,
    )


def test_a_key_that_is_the_topic_comes_back() -> None:
    assert logged([(b"key", b"a/b")]) == (b"a/b", [(b"key", b"a/b")], True)
    assert arrived([(b"key", b"a/b")], b"a/b") == ([(b"key", b"a/b")], 0)


def test_where_topics_share_a_log_the_topic_is_the_key() -> None:
    assert logged([(b"key", b"k")], keyed=False) == (b"a/b", [(b"key", b"k")], False)


def test_what_is_ours_stays_here() -> None:
    assert logged([(PUBLISHER, bytes(8)), (CLIENT, b"c"), (b"x", b"1")]) == (
        b"a/b",
        [(b"x", b"1")],
        False,
    )


@pytest.mark.parametrize(
    ("left_ms", "seconds"), [(5_000, b"5"), (4_001, b"5"), (0, b"0"), (-9_000, b"0")]
)
def test_expiry_is_said_in_seconds(left_ms: int, seconds: bytes) -> None:
    given: Headers = [(EXPIRES_AT, (NOW + left_ms).to_bytes(8, "big"))]
    assert logged(given)[1] == [(b"mqtt.message-expiry-interval", seconds)]


def test_expiry_counts_from_the_time_of_the_record() -> None:
    deadline = NOW + 7_000
    expected = [(EXPIRES_AT, deadline.to_bytes(8, "big")), (b"x", b"1")]
    given: Headers = [(b"x", b"1"), (b"mqtt.message-expiry-interval", b"7")]
    assert arrived(given) == (expected, deadline)


@pytest.mark.parametrize("said", [b"", b"-1", b"1.5", b"soon", b"9" * 11, "\u0663".encode()])
def test_an_expiry_that_is_no_number_is_none(said: bytes) -> None:
    assert arrived([(b"mqtt.message-expiry-interval", said)]) == ([], 0)


@pytest.mark.parametrize(("said", "read"), [(b"0", b"\0"), (b"1", b"\1"), (b"\1", b"\1")])
def test_the_payload_format_is_a_digit_in_logs(said: bytes, read: bytes) -> None:
    assert logged([(b"mqtt.payload-format", read)])[1][0][1] == read.replace(b"\0", b"0").replace(
        b"\1", b"1"
    )
    assert arrived([(b"mqtt.payload-format", said)], value=b"text")[0] == [
        (b"mqtt.payload-format", read)
    ]


def test_properties_that_no_publish_may_carry_are_left_out() -> None:
    long = b"x" * 65_536
    assert arrived(
        [
            (b"mqtt.payload-format", b"2"),
            (b"mqtt.content-type", b"\xff"),
            (b"mqtt.response-topic", b"a/#"),
            (b"mqtt.correlation-data", long),
            (b"nothing", None),
            (b"a\0b", b"1"),
            (b"\xff", b"1"),
            (b"b", b"\0"),
            (b"c", long),
            (b"d", b"1"),
        ],
        key=b"\xff",
    ) == ([(b"d", b"1")], 0)


def test_what_is_said_to_be_text_and_is_not_is_not_said_to_be() -> None:
    assert arrived([(b"mqtt.payload-format", b"1")], value=b"\xff") == ([], 0)


def test_of_a_property_that_is_said_twice_the_first_counts() -> None:
    given: Headers = [(b"mqtt.content-type", b"a"), (b"mqtt.content-type", b"b")]
    assert arrived(given) == (given[:1], 0)


def test_nobody_can_say_what_only_the_broker_says() -> None:
    given: Headers = [(EXPIRES_AT, bytes(8)), (PUBLISHER, bytes(7) + b"x"), (CLIENT, b"me")]
    found, deadline = arrived(given)
    assert deadline == 0
    assert found == [(b"mqtt.user." + CLIENT, b"me")]


def test_damaged_headers_are_corrupt() -> None:
    with pytest.raises(Corrupt):
        from_log(b"a/b", None, b"", b"\x04\x02a", NOW)


@pytest.mark.parametrize(
    ("data", "value"),
    # From the tests of Kafka's own clients.
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_keys_are_hashed_as_producers_of_kafka_do(data: bytes, value: int) -> None:
    assert murmur2(data) == value % (1 << 32)
    assert partition_of(data, 12) == (value & 0x7FFF_FFFF) % 12
