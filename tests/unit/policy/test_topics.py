"""What is configured for clients and topics: names, payloads, subscriptions by rule."""

import pytest

from robustmq.config import TopicRule
from robustmq.errors import Refusal, Refused
from robustmq.policy.principal import Principal
from robustmq.policy.topic_rules import TopicRules
from robustmq.policy.topics import Topics
from robustmq.settings.mqtt import MqttRuntime
from robustmq.settings.topics import AutoSubscribe

WHO = Principal("c1", "ann", "10.0.0.7")
PLAIN = Topics(MqttRuntime(), TopicRules(()))


def test_without_rules_topics_are_what_they_are() -> None:
    assert not PLAIN.rewrites
    assert PLAIN.name(WHO, b"a/b") == b"a/b"
    assert PLAIN.payload(b"a", b"\xff") is None
    assert list(PLAIN.automatic(WHO)) == []


@pytest.mark.parametrize(
    ("written", "known_by"),
    [
        ("a/#", "a/#"),
        ("$share/g/a", "$share/g/a"),
        ("$queue/a/+", "$share/$queue/a/+"),
        ("$exclusive/a", "$exclusive/a"),
        ("$queue", "$queue"),
        ("$queueing/a", "$queueing/a"),
    ],
)
def test_a_subscription_is_known_by_one_filter(written: str, known_by: str) -> None:
    assert PLAIN.filter(WHO, written) == known_by


@pytest.mark.parametrize(
    "written",
    ["$queue/", "$exclusive/", "$exclusive/$share/g/a", "$queue/$exclusive/a", "$share/g/$queue/a"],
)
def test_what_is_shared_or_exclusive_holds_a_plain_filter(written: str) -> None:
    refused = PLAIN.filter(WHO, written)
    assert isinstance(refused, Refused)
    assert refused.code is Refusal.TOPIC_INVALID


def test_a_rule_asks_whether_text_is_text() -> None:
    rules = TopicRules([TopicRule(filter="text/#", check_payload_format=True)])
    topics = Topics(MqttRuntime(), rules)
    for topic in (b"text/a", b"$delayed/5/text/a"):
        assert topics.payload(topic, "grün".encode()) is None
        refused = topics.payload(topic, b"\xff")
        assert refused is not None
        assert refused.code is Refusal.PAYLOAD_INVALID
        assert "check_payload_format" in refused.detail
    assert topics.payload(b"other", b"\xff") is None


def test_rules_subscribe_clients_whose_names_fit() -> None:
    rules = (
        AutoSubscribe(topic="in/${clientid}", qos=1),
        AutoSubscribe(topic="user/${username}/#", retain_handling=2),
    )
    topics = Topics(MqttRuntime(auto_subscribe=rules), TopicRules(()))
    assert list(topics.automatic(WHO)) == [("in/c1", rules[0]), ("user/ann/#", rules[1])]
    assert list(topics.automatic(Principal("c2"))) == [("in/c2", rules[0])]
    assert list(topics.automatic(Principal("#", "a/b"))) == []
