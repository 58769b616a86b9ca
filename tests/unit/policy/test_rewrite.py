"""Rewritten topics: which rule holds, what it makes, and what it may not make."""

import time

import pytest

from robustmq.errors import Refusal, Refused
from robustmq.policy.principal import Principal
from robustmq.policy.rewrite import Rewriting
from robustmq.settings.topics import TopicRewrite

WHO = Principal("c1", "ann", "10.0.0.7")


def rule(source: str, regex: str, dest: str, action: str = "all") -> TopicRewrite:
    assert action in {"all", "publish", "subscribe"}
    return TopicRewrite(
        action=action,  # type: ignore[arg-type]
        source_topic=source,
        regex=regex,
        dest_topic=dest,
    )


# The example of EMQX's manual.
EXAMPLE = (
    rule("y/+/z/#", "^y/(.+)/z/(.+)$", "y/z/$2"),
    rule("x/#", "^x/y/(.+)$", "z/y/x/$1"),
    rule("x/y/+", r"^x/y/(\d+)$", "z/y/$1"),
)


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("y/def", "y/def"),
        ("y/a/z/b", "y/z/b"),
        ("x/1/2", "x/1/2"),
        ("x/y/2", "z/y/2"),
        # The last rule matches, so the one before is not asked although its regex would.
        ("x/y/z", "x/y/z"),
        ("x/y/z/1", "z/y/x/z/1"),
    ],
)
def test_the_last_rule_of_the_file_that_matches_holds(topic: str, expected: str) -> None:
    rewriting = Rewriting(EXAMPLE, 2)
    for _ in range(3):
        assert rewriting.name(WHO, topic.encode()) == expected.encode()
    assert rewriting.filter(WHO, topic) == expected


def test_rules_are_for_publishing_or_subscribing_or_both() -> None:
    rewriting = Rewriting(
        [rule("a", "^a$", "p", "publish"), rule("a", "^a$", "s", "subscribe")], 10
    )
    assert rewriting.rewrites
    assert rewriting.name(WHO, b"a") == b"p"
    assert rewriting.filter(WHO, "a") == "s"
    assert not Rewriting([rule("a", "^a$", "s", "subscribe")], 10).rewrites
    assert Rewriting([], 10).name(WHO, b"a") == b"a"
    assert Rewriting([], 10).filter(WHO, "a/#") == "a/#"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("x/#", "new/#"),
        ("x/+/b", "new/+/b"),
        ("$share/g/x/a", "$share/g/new/a"),
        ("$share/x/y", "$share/x/y"),
        ("$exclusive/x/a", "$exclusive/new/a"),
    ],
)
def test_filters_are_rewritten_as_topics_are(written: str, expected: str) -> None:
    assert Rewriting([rule("x/#", "^x/(.*)$", "new/$1")], 10).filter(WHO, written) == expected


def test_of_a_delayed_message_the_topic_behind_the_delay_is_rewritten() -> None:
    rewriting = Rewriting([rule("x/#", "^x/(.*)$", "new/$1")], 10)
    assert rewriting.name(WHO, b"$delayed/5/x/a") == b"$delayed/5/new/a"
    assert rewriting.name(WHO, b"$delayed/5") == b"$delayed/5"
    late = Rewriting([rule("late/#", "^late/(.*)$", "$delayed/9/$1")], 10)
    assert late.name(WHO, b"late/a") == b"$delayed/9/a"


def test_a_topic_may_name_the_client_and_is_not_remembered_for_others() -> None:
    rewriting = Rewriting([rule("in", "^in$", "in/${clientid}/${username}/${host}")], 10)
    assert rewriting.name(WHO, b"in") == b"in/c1/ann/10.0.0.7"
    assert rewriting.name(Principal("c2", "bob", "::1"), b"in") == b"in/c2/bob/::1"
    assert rewriting.name(Principal("c3"), b"in") == b"in"
    refused = rewriting.name(Principal("a/#", "x", "::1"), b"in")
    assert isinstance(refused, Refused)
    assert isinstance(rewriting.filter(Principal("a/#", "x", "::1"), "in"), Refused)


@pytest.mark.parametrize(
    ("topic", "dest"), [(b"x/", "$1"), (b"x/" + b"y" * 40_000, "$1$1")], ids=["empty", "long"]
)
def test_what_becomes_no_topic_is_refused(topic: bytes, dest: str) -> None:
    rewriting = Rewriting([rule("x/#", "^x/(.*)$", dest)], 10)
    for refused in (rewriting.name(WHO, topic), rewriting.filter(WHO, topic.decode())):
        assert isinstance(refused, Refused)
        assert refused.code is Refusal.TOPIC_INVALID
        assert "mqtt_runtime.topic_rewrite" in refused.detail


@pytest.mark.parametrize("written", ["x/b#", "x/$share/g/t", "x/$exclusive/t"])
def test_what_becomes_no_plain_filter_is_refused(written: str) -> None:
    rewriting = Rewriting([rule("x/#", "^x/(.*)$", "$1")], 10)
    assert isinstance(rewriting.filter(WHO, written), Refused)


def test_an_expression_that_would_explode_takes_no_time() -> None:
    rewriting = Rewriting([rule("#", "^(a+)+(a|aa)+$", "x")], 10)
    begin = time.monotonic()
    topic = b"a" * 60_000 + b"!"
    assert rewriting.name(WHO, topic) == topic
    assert time.monotonic() - begin < 10
