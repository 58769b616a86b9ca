"""Retained messages (part 3.3.1.3)."""

from tests.conformance import raw
from tests.conformance.peer import Packet, Site
from tests.conformance.raw import V5
from tests.conformance.statements import keeps
from tests.integration.supervised import until

AS_PUBLISHED = 0x08
IF_NEW = 0x10
NEVER = 0x20


def _late(site: Site, count: int, options: int = 2) -> list[Packet]:
    """What a new subscriber is sent: so many messages, and what else comes with them."""
    late = site.client("late")
    late.subscribe(f"{site.topic}/#", options)
    found = late.messages(count) + late.heard()
    late.bye()
    return found


@keeps(v311="3.3.1-5 3.3.1-6 3.3.1-8", v5="3.3.1-5 3.3.1-9")
def test_the_last_retained_message_of_each_topic_goes_to_new_subscribers(site: Site) -> None:
    client = site.client()
    for payload in (b"old", b"new"):
        for qos in (0, 1, 2):
            client.publish(f"{site.topic}/{qos}", payload, qos, retain=True)
    client.publish(f"{site.topic}/0", b"new", 1, retain=True)
    late = site.client("late")
    late.subscribe(f"{site.topic}/#", 2)
    found = late.messages(3)
    assert sorted((one.topic[-1:], one.payload, one.qos) for one in found) == [
        (b"0", b"new", 1),
        (b"1", b"new", 1),
        (b"2", b"new", 2),
    ]
    assert all(one.retain and not one.dup for one in found)


@keeps(v311="3.3.1-7", v5="3.3.1-5")
def test_a_retained_qos_0_message_replaces_the_one_before(site: Site) -> None:
    client = site.client()
    client.publish(f"{site.topic}/a", b"old", 1, retain=True)
    client.publish(f"{site.topic}/a", b"new", 0, retain=True)
    until(lambda: _late(site, 1)[0].payload == b"new", "the new message is the retained one")


@keeps(v311="3.3.1-9", v5="3.3.1-12")
def test_an_established_subscription_sees_no_retain_flag(site: Site) -> None:
    client = site.client()
    client.subscribe(site.topic, 1)
    for qos in (0, 1):
        client.publish(site.topic, b"live", qos, retain=True)
        assert not client.message().retain


@keeps(v5="3.3.1-13")
def test_retain_as_published_keeps_the_flag(site: Site) -> None:
    client = site.client()
    client.subscribe(site.topic, AS_PUBLISHED)
    for retain in (True, False):
        client.publish(site.topic, b"live", 0, retain=retain)
        assert client.message().retain == retain


@keeps(v311="3.3.1-10 3.3.1-11", v5="3.3.1-6 3.3.1-7")
def test_an_empty_retained_message_removes_and_is_not_stored(site: Site) -> None:
    client = site.client()
    topic = f"{site.topic}/a"
    client.subscribe(topic, 1)
    client.publish(topic, b"first", retain=True)
    client.publish(topic, b"", retain=True)
    assert [(one.payload, one.retain) for one in client.messages(2)] == [
        (b"first", False),
        (b"", False),
    ]
    client.publish(f"{site.topic}/other", b"other", retain=True)
    assert [one.payload for one in _late(site, 1)] == [b"other"]


@keeps(v311="3.3.1-12", v5="3.3.1-8")
def test_a_message_without_retain_changes_nothing(site: Site) -> None:
    client = site.client()
    client.publish(f"{site.topic}/a", b"kept", retain=True)
    client.publish(f"{site.topic}/a", b"not this")
    client.publish(f"{site.topic}/a", b"")
    client.publish(f"{site.topic}/b", b"nor this")
    assert [one.payload for one in _late(site, 1)] == [b"kept"]


@keeps(v311="3.8.4-3", v5="3.3.1-9 3.8.4-4")
def test_subscribing_again_sends_what_is_retained_again(site: Site) -> None:
    client = site.client()
    client.publish(site.topic, b"kept", retain=True)
    for _ in range(2):
        client.subscribe(site.topic, 1)
        found = client.message()
        assert (found.payload, found.retain) == (b"kept", True)


@keeps(v5="3.3.1-10")
def test_retain_handling_1_sends_to_new_subscriptions_only(site: Site) -> None:
    client = site.client()
    client.publish(site.topic, b"kept", retain=True)
    client.subscribe(site.topic, 1 | IF_NEW)
    assert client.message().payload == b"kept"
    client.subscribe(site.topic, 1 | IF_NEW)
    assert client.heard() == []
    client.unsubscribe(site.topic)
    client.subscribe(site.topic, 1 | IF_NEW)
    assert client.message().payload == b"kept"


@keeps(v5="3.3.1-11")
def test_retain_handling_2_sends_nothing(site: Site) -> None:
    site.client().publish(f"{site.topic}/a", b"kept", retain=True)
    assert _late(site, 0, options=2 | NEVER) == []


@keeps(v5="3.3.1-9")
def test_a_shared_subscription_is_sent_nothing_retained(site: Site) -> None:
    client = site.client()
    client.publish(site.topic, b"kept", retain=True)
    client.subscribe(f"$share/{site.topic}/{site.topic}", 1)
    assert client.heard() == []


@keeps(v5="3.3.2-5 3.3.2-6")
def test_a_retained_message_expires(site: Site) -> None:
    client = site.client()
    for topic, seconds in (("short", 1), ("long", 100)):
        expires = raw.block((raw.MESSAGE_EXPIRY, seconds))
        client.publish(f"{site.topic}/{topic}", b"x", retain=True, properties=expires)
    client.silence(2.1)
    (found,) = _late(site, 1)
    (left,) = found.properties[raw.MESSAGE_EXPIRY]
    assert found.topic.endswith(b"long")
    assert isinstance(left, int)
    assert 1 < left < 100
    assert site.version == V5
