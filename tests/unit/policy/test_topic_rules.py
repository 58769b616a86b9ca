"""Rules for topics: the first that matches holds, remembered within a bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq.config import Storage, TopicRule, default_rule
from robustmq.message.topic import matches
from robustmq.policy.topic_rules import DEFAULT, TopicRules, log_name, own_log

# Few names, so that filters and topics meet.
LEVEL = st.sampled_from(["", "a", "b", "$", "$S", "ü"])
TOPICS = st.lists(LEVEL, min_size=1, max_size=4).map("/".join).filter(bool).map(str.encode)
FILTERS = st.builds(
    lambda levels, tail: "/".join([*levels, *tail]),
    st.lists(st.one_of(LEVEL, st.just("+")), max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool)


def rule(topic_filter: str) -> TopicRule:
    return TopicRule(filter=topic_filter)


@pytest.mark.parametrize(
    ("topic", "wanted"),
    [
        (b"a/b", "a/+"),
        (b"a/b/c", "a/#"),
        (b"a", "a/#"),
        (b"b/c", "b/c"),
        (b"b", "+"),
        (b"$SYS/a", None),
        (b"b/d", None),
    ],
)
def test_the_first_rule_that_matches_holds(topic: bytes, wanted: str | None) -> None:
    rules = [rule(each) for each in ("a/+", "a/#", "a/b", "b/c", "+")]
    default = TopicRule(filter="#", own_shard=True)
    expected = default if wanted is None else next(r for r in rules if r.filter == wanted)
    assert TopicRules(rules, default).of(topic) is expected


def test_without_rules_every_topic_has_the_default() -> None:
    assert TopicRules(()).of(b"a") is TopicRules(()).default is DEFAULT
    assert TopicRule(filter="#") == DEFAULT
    default = default_rule(Storage(flush="always", interval_ms=7))
    assert TopicRules((), default).of(b"$SYS/a").flush == "always"
    assert default.interval_ms == 7


def test_what_is_remembered_has_a_bound() -> None:
    rules = TopicRules([rule("a/#")], remembered=3)
    for number in range(10):
        topic = b"a/%d" % number
        assert rules.of(topic) is rules.of(topic)
        assert rules.of(topic).filter == "a/#"
        assert 1 <= len(rules._found) <= 3
    assert rules.of(b"b") is DEFAULT


@given(st.lists(FILTERS, max_size=8), st.lists(TOPICS, max_size=12), st.integers(1, 4))
def test_rules_equal_a_naive_scan(filters: list[str], topics: list[bytes], bound: int) -> None:
    rules = [rule(each) for each in filters]
    looked_up = TopicRules(rules, remembered=bound)
    for topic in [*topics, *topics]:
        found = [each for each in rules if matches(each.filter.encode(), topic)]
        assert looked_up.of(topic) is (found[0] if found else looked_up.default)


def test_a_topic_that_was_made_has_a_rule_of_its_own() -> None:
    rules = TopicRules([rule("a/#")])
    own = TopicRule(filter="#", own_shard=True, retention_ms=5)
    assert not TopicRules([rule("a/#")]).keep_logs
    assert rules.of(b"a/b").filter == "a/#"
    rules.hold(b"a/b", own)
    assert rules.keep_logs
    assert rules.of(b"a/b") is own
    assert rules.of_log(log_name(own, b"a/b", 3)) is own
    assert rules.of_file(b"a/b").filter == "a/#"
    rules.hold(b"a/b", None)
    assert rules.of(b"a/b").filter == "a/#"
    alone = TopicRules([])
    alone.hold(b"x", own)
    assert (alone.of(b"x"), alone.of(b"y")) == (own, alone.default)


def test_a_log_is_named_by_its_topic_and_partition() -> None:
    own = TopicRule(filter="#", own_shard=True)
    assert log_name(own, b"a/b") == b"ta/b"
    assert [own_log(log_name(own, b"a/b", number)) for number in (0, 12)] == [
        (b"a/b", 0),
        (b"a/b", 12),
    ]
    assert own_log(log_name(rule("a/#"), b"a/b", 3)) is None
    named = TopicRule(filter="b/#", kafka_topic="b")
    assert TopicRules([named, rule("a")]).named == [named]
