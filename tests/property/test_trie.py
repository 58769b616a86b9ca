"""Laws of the look-ups by filter: trie and topic map equal the naive definition."""

import importlib
import importlib.util
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq._kernel.pure.trie import Trie
from robustmq.message.topic import matches
from robustmq.message.topic_map import TopicMap

FAST = "robustmq._kernel.fast.trie"
NAMES = ["robustmq._kernel.pure.trie"]
if os.environ.get("ROBUSTMQ_REQUIRE_KERNEL") == "1" or importlib.util.find_spec(FAST):
    NAMES.append(FAST)

# Few names, so that filters and topics meet; some around U+0001, `$` and the separator's code.
LEVEL = st.sampled_from([b"", b"a", b"b", b"ab", b"$", b"$S", b"\1", b"!", "ü".encode()])
TOPICS = st.lists(LEVEL, min_size=1, max_size=5).map(b"/".join).filter(bool)
FILTERS = st.builds(
    lambda levels, tail: b"/".join([*levels, *tail]),
    st.lists(st.one_of(LEVEL, st.just(b"+")), max_size=5),
    st.sampled_from([[], [b"#"]]),
).filter(bool)
KEYS = st.integers(0, 3)
STEPS = st.lists(st.tuples(st.booleans(), FILTERS, KEYS), max_size=40)


@pytest.mark.parametrize("name", NAMES)
@given(STEPS, st.lists(TOPICS, max_size=8))
def test_a_trie_equals_the_naive_match(
    name: str, steps: list[tuple[bool, bytes, int]], topics: list[bytes]
) -> None:
    trie: Trie[int] = importlib.import_module(name).Trie()
    model: dict[tuple[bytes, int], None] = {}
    # Each filter and key is discarded at the end, as a session that goes does.
    for add, topic_filter, key in steps:
        if add:
            assert trie.add(topic_filter, key) == ((topic_filter, key) not in model)
            model[topic_filter, key] = None
        else:
            assert trie.discard(topic_filter, key) == ((topic_filter, key) in model)
            model.pop((topic_filter, key), None)
        assert len(trie) == len(model)
    for topic in topics:
        expected = [key for topic_filter, key in model if matches(topic_filter, topic)]
        assert sorted(trie.match(topic)) == sorted(expected)
    for topic_filter, key in list(model):
        assert trie.discard(topic_filter, key)
    assert len(trie) == 0
    assert [trie.match(topic) for topic in topics] == [[] for _ in topics]


@given(st.lists(st.tuples(st.booleans(), TOPICS), max_size=60), FILTERS, st.integers(1, 5))
def test_a_topic_map_equals_the_naive_match(
    steps: list[tuple[bool, bytes]], topic_filter: bytes, budget: int
) -> None:
    topics: TopicMap[bytes] = TopicMap()
    model: set[bytes] = set()
    for put, topic in steps:
        if put:
            assert topics.put(topic, topic) == (topic if topic in model else None)
            model.add(topic)
        else:
            assert topics.pop(topic) == (topic if topic in model else None)
            model.discard(topic)
        assert len(topics) == len(model)
    expected = sorted(
        (topic for topic in model if matches(topic_filter, topic)),
        key=lambda topic: topic.split(b"/"),
    )
    assert topics.match(topic_filter) == expected
    paged: list[bytes] = []
    cursor: bytes | None = b""
    while cursor is not None:
        values, cursor = topics.page(topic_filter, cursor, budget)
        assert len(values) <= budget
        paged += values
    assert paged == expected


@given(st.sets(TOPICS, max_size=40), st.integers(1, 4), FILTERS)
def test_the_order_survives_chunks_of_any_size(
    names: set[bytes], size: int, topic_filter: bytes
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robustmq.message.topic_map.CHUNK", size)
        topics: TopicMap[bytes] = TopicMap()
        for topic in names:
            topics.put(topic, topic)
        for topic in sorted(names)[::2]:
            topics.pop(topic)
        left = sorted(names)[1::2]
        expected = {topic for topic in left if matches(topic_filter, topic)}
        assert set(topics.match(topic_filter)) == expected
        assert len(topics) == len(left)
