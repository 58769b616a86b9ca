"""Topic rules: names, filters, shared filters, matching, and an even hash."""

import subprocess
import sys
from pathlib import Path

import pytest

from robustmq.errors import ProtocolError
from robustmq.message import topic
from robustmq.message.topic import SharedFilter
from robustmq.mqtt.reasons import Reason

ROOT = Path(__file__).parents[3]


def test_the_reasons_are_those_of_mqtt() -> None:
    assert Reason(topic.TOPIC_FILTER_INVALID) is Reason.TOPIC_FILTER_INVALID
    assert Reason(topic.TOPIC_NAME_INVALID) is Reason.TOPIC_NAME_INVALID


@pytest.mark.parametrize(
    "name", [b"a", b"/", b"a//b", b" ", b"$SYS/x", "ü/日本".encode(), b"a" * 65_535]
)
def test_these_are_topic_names(name: bytes) -> None:
    topic.validate_name(name)


@pytest.mark.parametrize(
    "name", [b"", b"a/+", b"#", b"a#", b"a\0", b"\xff", b"\xed\xa0\x80", b"a" * 65_536]
)
def test_these_are_not_topic_names(name: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        topic.validate_name(name)
    assert caught.value.reason == Reason.TOPIC_NAME_INVALID


FILTERS = ["a", "/", "#", "+", "+/+", "a/#", "/#", "+/#", "a/+/b", "$SYS/#", "//", "ü/+"]


@pytest.mark.parametrize(
    "topic_filter",
    [*FILTERS, "$share", "$shared/a", *(f"$share/g/{inner}" for inner in FILTERS)],
)
def test_these_are_topic_filters(topic_filter: str) -> None:
    topic.validate_filter(topic_filter)


@pytest.mark.parametrize(
    "topic_filter",
    [
        *("", "a#", "#/a", "a/#/b", "a+", "+a", "a/b+/c", "##", "++", "a\0", "\ud800"),
        "ü" * 32_768,
        *("$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g#/a"),
        *("$share/g/a#", "$share/g/#/a", "$share/g\0/a", "$share/g/a\0"),
    ],
)
def test_these_are_not_topic_filters(topic_filter: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        topic.validate_filter(topic_filter)
    assert caught.value.reason == Reason.TOPIC_FILTER_INVALID


def test_a_shared_filter_is_a_group_and_a_filter() -> None:
    assert topic.shared_filter("$share/g/a/+/#") == SharedFilter("g", "a/+/#")
    assert topic.shared_filter("$share/g//") == SharedFilter("g", "/")
    assert topic.shared_filter("$share/g/$share/h/a") == SharedFilter("g", "$share/h/a")
    assert topic.shared_filter("share/g/a") is None
    assert topic.shared_filter("$SHARE/g/a") is None


@pytest.mark.parametrize(
    ("topic_filter", "wildcard"), [("a/b", False), ("a/+", True), ("#", True), ("$x", False)]
)
def test_a_wildcard_is_plus_or_hash(topic_filter: str, wildcard: bool) -> None:
    assert topic.is_wildcard(topic_filter.encode()) is wildcard


def test_empty_levels_count() -> None:
    assert topic.levels(b"/a//") == [b"", b"a", b"", b""]


# The examples of MQTT5 4.7.1 and 4.7.2, and their neighbours.
@pytest.mark.parametrize(
    ("topic_filter", "names", "others"),
    [
        (
            b"sport/tennis/player1/#",
            [b"sport/tennis/player1", b"sport/tennis/player1/ranking", b"sport/tennis/player1/a/b"],
            [b"sport/tennis/player2", b"sport/tennis", b"sport/tennis/player11"],
        ),
        (b"sport/#", [b"sport", b"sport/"], [b"sports", b"$sport"]),
        (b"#", [b"a", b"/", b"a/b/c"], [b"$SYS", b"$SYS/a"]),
        (b"sport/tennis/+", [b"sport/tennis/player1"], [b"sport/tennis/player1/ranking"]),
        (b"sport/+", [b"sport/", b"sport/x"], [b"sport", b"sport/x/"]),
        (b"+/+", [b"/finance", b"a/b"], [b"finance", b"$SYS/a"]),
        (b"/+", [b"/finance", b"/"], [b"finance", b"/a/b"]),
        (b"+", [b"finance"], [b"/finance", b"$x"]),
        (b"+/monitor/Clients", [b"a/monitor/Clients"], [b"$SYS/monitor/Clients"]),
        (b"$SYS/#", [b"$SYS", b"$SYS/a"], [b"SYS/a"]),
        (b"$SYS/monitor/+", [b"$SYS/monitor/Clients"], [b"$SYS/monitor"]),
        (b"+/#", [b"a", b"a/b", b"/"], [b"$a", b"$a/b"]),
        (b"a/+/#", [b"a/b", b"a/", b"a/b/c", b"a/$b"], [b"a"]),
        (b"a", [b"a"], [b"A", b"a/", b"/a"]),
    ],
)
def test_filters_match_as_the_specification_says(
    topic_filter: bytes, names: list[bytes], others: list[bytes]
) -> None:
    assert [topic.matches(topic_filter, name) for name in names] == [True] * len(names)
    assert [topic.matches(topic_filter, name) for name in others] == [False] * len(others)


def test_the_hash_never_changes() -> None:
    assert topic.stable_hash(b"") == 0xB4B2797457A0A6E4
    assert topic.stable_hash(b"client-1") == 0xDE5C9A078171F0EF
    assert topic.stable_hash(b"a/b") == 0xA08FCA8B55D2EB0D


def test_the_hash_does_not_depend_on_the_seed_of_python() -> None:
    script = "from robustmq.message.topic import stable_hash; print(stable_hash(b'client-1'))"
    seeds = [
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert seeds == [f"{topic.stable_hash(b'client-1')}\n"] * 2


@pytest.mark.parametrize("pattern", [b"client-%d", b"%d", b"site/%d/state", b"%08x-0000-0000"])
@pytest.mark.parametrize("buckets", [2, 3, 4, 7, 16, 64])
def test_the_hash_is_even_over_any_number_of_cores(pattern: bytes, buckets: int) -> None:
    names = 20_000
    counts = [0] * buckets
    for number in range(names):
        counts[topic.stable_hash(pattern % number) % buckets] += 1
    expected = names / buckets
    chi_square = sum((count - expected) ** 2 / expected for count in counts)
    # Beyond six standard deviations of the distribution an even hash never gets here.
    freedom = buckets - 1
    assert chi_square < freedom + 6 * (2 * freedom) ** 0.5 + 10


def test_the_upper_half_of_the_hash_is_as_good_as_the_lower() -> None:
    ones = [0] * 64
    for number in range(10_000):
        value = topic.stable_hash(b"%d" % number)
        assert 0 <= value < 1 << 64
        for bit in range(64):
            ones[bit] += value >> bit & 1
    assert all(4_700 < count < 5_300 for count in ones)
