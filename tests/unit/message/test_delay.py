"""Topics of delayed publishes: what is a delay, what a time, and what neither."""

import pytest

from robustmq.errors import ProtocolError
from robustmq.message.delay import INTERVAL_MAX, Delay, delay_seconds, is_delayed, read_delay

NOW_MS = 1_700_000_000_123


@pytest.mark.parametrize(
    ("topic", "delayed"),
    [
        (b"$delayed/5/t", True),
        (b"$delayed/", True),
        (b"$delayed", True),
        (b"$delayedx/5/t", False),
        (b"$delaye", False),
        (b"delayed/5/t", False),
        (b"/$delayed/5/t", False),
    ],
)
def test_which_topics_are_delayed(topic: bytes, delayed: bool) -> None:
    assert is_delayed(topic) is delayed


@pytest.mark.parametrize(
    ("topic", "due_ms", "inner"),
    [
        (b"$delayed/5/a/b", NOW_MS + 5_000, b"a/b"),
        (b"$delayed/0/a", NOW_MS, b"a"),
        (b"$delayed/007/a", NOW_MS + 7_000, b"a"),
        (b"$delayed/5//a/", NOW_MS + 5_000, b"/a/"),
        (b"$delayed/5//", NOW_MS + 5_000, b"/"),
        (b"$delayed/5/$SYS/x", NOW_MS + 5_000, b"$SYS/x"),
        (b"$delayed/1000000000/a", NOW_MS + INTERVAL_MAX * 1_000, b"a"),
        (b"$delayed/1000000001/a", NOW_MS, b"a"),
        (b"$delayed/1700000000/a", NOW_MS, b"a"),
        (b"$delayed/1700000001/a", 1_700_000_001_000, b"a"),
        (b"$delayed/999999999999/a", 999_999_999_999_000, b"a"),
    ],
)
def test_when_and_where(topic: bytes, due_ms: int, inner: bytes) -> None:
    assert read_delay(topic, NOW_MS) == Delay(due_ms, inner)


@pytest.mark.parametrize(
    "topic",
    [
        b"$delayed",
        b"$delayed/",
        b"$delayed/5",
        b"$delayed/5/",
        b"$delayed//t",
        b"$delayed/x/t",
        b"$delayed/-5/t",
        b"$delayed/+5/t",
        b"$delayed/5.5/t",
        b"$delayed/ 5/t",
        b"$delayed/\xc2\xb2/t",
        b"$delayed/1000000000000/t",
        b"$delayed/" + b"9" * 5_000 + b"/t",
        b"$delayed/5/#",
        b"$delayed/5/a/+",
        b"$delayed/5/a\0",
        b"$delayed/5/\xff",
        b"$delayed/5/$delayed/5/t",
        b"$delayed/5/$delayed",
    ],
)
def test_what_is_neither(topic: bytes) -> None:
    with pytest.raises(ProtocolError) as raised:
        read_delay(topic, NOW_MS)
    assert raised.value.reason == 0x90
    assert delay_seconds(topic, NOW_MS) == 0


def test_how_long() -> None:
    assert delay_seconds(b"$delayed/5/t", NOW_MS) == 5
    assert delay_seconds(b"$delayed/1700000002/t", NOW_MS) == 2
    assert delay_seconds(b"$delayed/1600000000/t", NOW_MS) == 0
    assert delay_seconds(b"t", NOW_MS) == 0
