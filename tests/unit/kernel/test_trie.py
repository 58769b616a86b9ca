"""The subscription trie: twin and kernel find the same keys, and forget what is discarded."""

import importlib
import importlib.util
import os
import sys
import tracemalloc

import pytest

from robustmq._kernel.pure.trie import Trie

FAST = "robustmq._kernel.fast.trie"
NAMES = ["robustmq._kernel.pure.trie"]
if os.environ.get("ROBUSTMQ_REQUIRE_KERNEL") == "1" or importlib.util.find_spec(FAST):
    NAMES.append(FAST)


@pytest.fixture(params=NAMES)
def trie(request: pytest.FixtureRequest) -> Trie[str]:
    made: Trie[str] = importlib.import_module(request.param).Trie()
    return made


def matched(trie: Trie[str], topic: bytes) -> set[str]:
    found = trie.match(topic)
    assert len(found) == len(set(found))
    return set(found)


def test_an_empty_trie_matches_nothing(trie: Trie[str]) -> None:
    assert trie.match(b"a") == []
    assert len(trie) == 0
    assert not trie.discard(b"a", "x")
    assert not trie.discard(b"a/#", "x")


def test_every_kind_of_filter_is_found(trie: Trie[str]) -> None:
    filters = ["a/b", "a/+", "+/b", "+/+", "#", "a/#", "+/#", "a/b/#", "a/+/#", "/#", "a/b/+"]
    for one in filters:
        assert trie.add(one.encode(), one)
    assert len(trie) == len(filters)
    assert matched(trie, b"a/b") == set(filters) - {"/#", "a/b/+"}
    assert matched(trie, b"a") == {"#", "a/#", "+/#"}
    assert matched(trie, b"/") == {"+/+", "#", "+/#", "/#"}
    assert matched(trie, b"a/b/c") == {"#", "a/#", "+/#", "a/b/#", "a/+/#", "a/b/+"}


def test_a_leading_wildcard_is_blind_to_dollar_topics(trie: Trie[str]) -> None:
    for one in ["#", "+/a", "+/#", "$SYS/#", "$SYS/+", "$SYS/a", "a/+", "a/#"]:
        trie.add(one.encode(), one)
    assert matched(trie, b"$SYS/a") == {"$SYS/#", "$SYS/+", "$SYS/a"}
    assert matched(trie, b"$SYS") == {"$SYS/#"}
    assert matched(trie, b"a/$SYS") == {"#", "+/#", "a/+", "a/#"}


@pytest.mark.parametrize("topic_filter", [b"a/b", b"a/+", b"a/#"])
def test_keys_of_one_filter_keep_their_order_and_occur_once(
    trie: Trie[str], topic_filter: bytes
) -> None:
    assert trie.add(topic_filter, "x")
    assert not trie.add(topic_filter, "x")
    assert trie.add(topic_filter, "z")
    assert trie.add(topic_filter, "y")
    assert not trie.add(topic_filter, "z")
    assert trie.match(b"a/b") == ["x", "z", "y"]
    assert len(trie) == 3
    assert not trie.discard(topic_filter, "other")
    assert trie.discard(topic_filter, "z")
    assert not trie.discard(topic_filter, "z")
    assert trie.match(b"a/b") == ["x", "y"]
    assert trie.discard(topic_filter, "x")
    assert trie.match(b"a/b") == ["y"]
    assert trie.discard(topic_filter, "y")
    assert not trie.discard(topic_filter, "y")
    assert trie.match(b"a/b") == []
    assert len(trie) == 0


def test_a_key_occurs_once_for_each_filter_that_matches(trie: Trie[str]) -> None:
    for one in (b"a", b"+", b"#"):
        trie.add(one, "x")
    assert trie.match(b"a") == ["x", "x", "x"]


def test_discarding_one_filter_leaves_its_neighbours(trie: Trie[str]) -> None:
    for one in ["a/+", "a/+/b", "a/#", "a/+/+", "a/+/#"]:
        trie.add(one.encode(), one)
    trie.discard(b"a/+/b", "a/+/b")
    assert matched(trie, b"a/x/b") == {"a/#", "a/+/+", "a/+/#"}
    trie.discard(b"a/+", "a/+")
    assert matched(trie, b"a/x") == {"a/#", "a/+/#"}


def test_keys_may_be_tuples_and_equal_numbers(trie: Trie[object]) -> None:
    trie.add(b"a", (1, 2))
    trie.add(b"a", 0)
    assert trie.match(b"a") == [(1, 2), 0]
    assert trie.discard(b"a", (1, 2))
    assert trie.match(b"a") == [0]


def test_the_depth_of_a_filter_is_no_danger(trie: Trie[str]) -> None:
    deepest = b"+/" * 32_000 + b"+"
    trie.add(deepest, "x")
    assert trie.match(b"/" * 32_000) == ["x"]
    assert trie.match(b"/" * 31_999) == []
    assert trie.discard(deepest, "x")
    trie.add(deepest, "x")
    # What is left dies with the trie, and must not do so on the C stack.
    del trie


def test_what_was_discarded_holds_no_memory_and_no_key(trie: Trie[object]) -> None:
    key = object()
    references = sys.getrefcount(key)
    filters = [b"a/%d/%s" % (n, tail) for n in range(500) for tail in (b"x", b"+", b"+/y", b"#")]
    for one in filters:
        trie.add(one, "first")
        trie.discard(one, "first")
    tracemalloc.start()
    try:
        for one in filters:
            trie.add(one, key)
            trie.add(one, "second")
        for one in filters:
            trie.discard(one, key)
            trie.discard(one, "second")
        held = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(inclusive=True, filename_pattern="*trie*")]
        )
    finally:
        tracemalloc.stop()
    assert len(trie) == 0
    assert sys.getrefcount(key) == references
    assert sum(trace.size for trace in held.statistics("filename")) < 100_000


def test_an_exact_filter_costs_no_nodes(trie: Trie[str]) -> None:
    filters = [b"site/%d/device/%d/state" % (n, n) for n in range(20_000)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for one in filters:
            trie.add(one, "x")
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown / len(filters) < 150
