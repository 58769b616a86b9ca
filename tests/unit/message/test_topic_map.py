"""The topic map: what a filter finds, in which order, page by page."""

import pytest

from robustmq.message import topic_map
from robustmq.message.topic_map import TopicMap

TOPICS = [b"a", b"a/b", b"a/b/c", b"a/", b"/a", b"a!", b"a/b!", b"b/a", b"$SYS/a", b"$SYS", b"~"]


@pytest.fixture
def topics() -> TopicMap[bytes]:
    made: TopicMap[bytes] = TopicMap()
    for topic in TOPICS:
        assert made.put(topic, topic) is None
    return made


def test_it_is_a_map() -> None:
    topics: TopicMap[int] = TopicMap()
    assert topics.put(b"a/b", 1) is None
    assert topics.put(b"a/b", 2) == 1
    assert len(topics) == 1
    assert topics.get(b"a/b") == 2
    assert topics.get(b"a") is None
    assert topics.pop(b"a") is None
    assert topics.pop(b"a/b") == 2
    assert topics.match(b"#") == []
    assert len(topics) == 0


@pytest.mark.parametrize(
    ("topic_filter", "expected"),
    [
        (b"a", [b"a"]),
        (b"x", []),
        (b"a/b", [b"a/b"]),
        (b"#", [b"/a", b"a", b"a/", b"a/b", b"a/b/c", b"a/b!", b"a!", b"b/a", b"~"]),
        (b"a/#", [b"a", b"a/", b"a/b", b"a/b/c", b"a/b!"]),
        (b"+", [b"a", b"a!", b"~"]),
        (b"+/+", [b"/a", b"a/", b"a/b", b"a/b!", b"b/a"]),
        (b"+/a", [b"/a", b"b/a"]),
        (b"a/+", [b"a/", b"a/b", b"a/b!"]),
        (b"a/+/c", [b"a/b/c"]),
        (b"+/b/#", [b"a/b", b"a/b/c"]),
        (b"$SYS/#", [b"$SYS", b"$SYS/a"]),
        (b"$SYS/+", [b"$SYS/a"]),
        (b"/+", [b"/a"]),
    ],
)
def test_a_filter_finds_its_topics_in_order(
    topics: TopicMap[bytes], topic_filter: bytes, expected: list[bytes]
) -> None:
    assert topics.match(topic_filter) == expected


@pytest.mark.parametrize("budget", [1, 2, 3, 5, 100])
def test_pages_are_bounded_and_make_up_the_whole(topics: TopicMap[bytes], budget: int) -> None:
    found: list[bytes] = []
    cursor: bytes | None = b""
    pages = 0
    while cursor is not None:
        values, cursor = topics.page(b"a/#", cursor, budget)
        assert len(values) <= budget
        found += values
        pages += 1
        assert pages < 20
    assert found == topics.match(b"a/#")


def test_what_stays_is_found_once_though_its_neighbours_come_and_go() -> None:
    topics: TopicMap[int] = TopicMap()
    for number in range(0, 4000, 2):
        topics.put(b"t/%04d" % number, number)
    found: list[int] = []
    cursor: bytes | None = b""
    step = 0
    while cursor is not None:
        values, cursor = topics.page(b"t/+", cursor, 7)
        found += values
        topics.put(b"t/%04d" % (step * 2 + 1), -1)
        if step % 3 == 0:
            topics.pop(b"t/%04d" % (3998 - step * 2))
        step += 1
    kept = [n for n in range(0, 4000, 2) if topics.get(b"t/%04d" % n) is not None]
    assert [n for n in found if n in set(kept)] == kept


def test_order_holds_over_many_chunks() -> None:
    topics: TopicMap[int] = TopicMap()
    count = topic_map.CHUNK * 5
    for number in range(count):
        # A stride that is prime to the count: neither rising nor falling.
        value = number * 7919 % count
        topics.put(b"d/%06d/s" % value, value)
    assert topics.match(b"d/+/s") == list(range(count))
    assert topics.match(b"d/#") == list(range(count))
    assert topics.match(b"d/+/x") == []
    for number in range(0, count, 2):
        assert topics.pop(b"d/%06d/s" % number) == number
    assert topics.match(b"#") == list(range(1, count, 2))


def test_a_filter_leaps_over_what_cannot_match() -> None:
    topics: TopicMap[int] = TopicMap()
    for number in range(50):
        for sub in range(100):
            topics.put(b"site/%02d/d/%02d" % (number, sub), sub)
        topics.put(b"site/%02d/state" % number, number)
    values, cursor = topics.page(b"site/+/state", b"", 160)
    assert cursor is None
    assert values == list(range(50))
