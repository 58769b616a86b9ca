"""SUBSCRIBE, UNSUBSCRIBE and their answers (parts 3.8 to 3.11)."""

import pytest

from tests.conformance import raw
from tests.conformance.peer import Site
from tests.conformance.raw import V5
from tests.conformance.statements import V311, keeps

NO_LOCAL = 0x04


@keeps(v311="2.3.1-7 3.8.4-1 3.8.4-2", v5="2.2.1-6 3.8.4-1 3.8.4-2")
def test_subscribe_is_answered_with_its_identifier(site: Site) -> None:
    client = site.client()
    for packet_id in (1, 300, 65_535):
        client.send(raw.subscribe(site.version, packet_id, (site.topic, 1)))
        found = client.next(raw.SUBACK)
        assert (found.packet_id, found.codes) == (packet_id, b"\1")


@keeps(v311="3.8.3-3", v5="3.8.3-2 4.13.1-1")
def test_a_subscribe_without_filters_ends_the_connection(site: Site) -> None:
    client = site.client()
    client.send(raw.subscribe(site.version, 1))
    assert client.refused(0x82)


@keeps(v311="3.8.3-4", v5="3.8.3-5 4.13.1-1")
def test_reserved_options_end_the_connection(site: Site) -> None:
    wrong = (0x03, 0x04, 0x08, 0x10, 0x80) if site.version == V311 else (0x03, 0x30, 0x40, 0x80)
    for options in wrong:
        client = site.client()
        client.send(raw.subscribe(site.version, 1, (site.topic, options)))
        assert client.refused(0x81, 0x82)


@keeps(
    v311="3.8.4-4 3.8.4-5 3.9.3-1 3.9.3-2",
    v5="3.8.4-5 3.8.4-6 3.8.4-7 3.9.3-1 3.9.3-2",
)
def test_each_filter_has_its_answer_in_order(site: Site) -> None:
    client = site.client()
    deep = "/".join("a" * 200)
    wanted = ((f"{site.topic}/a", 2), (deep, 0), (f"{site.topic}/b", 0), (f"{site.topic}/c", 1))
    client.send(raw.subscribe(site.version, 5, *wanted))
    found = client.next(raw.SUBACK)
    assert found.codes == (b"\2\x80\0\1" if site.version == V311 else b"\2\x8f\0\1")
    for topic, qos in (("a", 2), ("b", 0), ("c", 1)):
        client.publish(f"{site.topic}/{topic}", b"x", 2)
        assert client.message().qos == qos


@keeps(v311="3.8.4-4", v5="3.8.4-5")
def test_a_filter_that_is_there_twice_counts_as_the_last(site: Site) -> None:
    client = site.client()
    client.send(raw.subscribe(site.version, 5, (site.topic, 2), (site.topic, 0)))
    assert client.next(raw.SUBACK).codes == b"\2\0"
    client.publish(site.topic, b"x", 1)
    assert client.message().qos == 0
    assert client.heard() == []


@keeps(v311="3.8.4-3", v5="3.8.4-3 3.8.4-4")
def test_the_same_filter_again_replaces_and_loses_nothing(site: Site) -> None:
    client = site.client()
    client.subscribe(site.topic, 2)
    publisher = site.client("publisher")
    for number in range(20):
        publisher.send(raw.publish(site.version, site.topic, b"%d" % number, 1, number + 1))
        if number % 5 == 0:
            client.subscribe(site.topic, number % 2 + 1)
    assert [one.payload for one in client.messages(20)] == [b"%d" % n for n in range(20)]
    client.subscribe(site.topic, 0)
    client.publish(site.topic, b"last", 2)
    assert client.message().qos == 0
    assert client.heard() == []


@keeps(v5="3.8.3-3")
def test_no_local_keeps_a_client_from_its_own_messages(site: Site) -> None:
    client, other = site.client(), site.client("other")
    for one in (client, other):
        one.subscribe(site.topic, 2 | NO_LOCAL)
    for qos in (0, 1, 2):
        client.publish(site.topic, b"mine", qos)
    other.publish(site.topic, b"theirs", 0)
    assert client.message().payload == b"theirs"
    assert [one.payload for one in other.messages(3)] == [b"mine"] * 3


@keeps(v5="3.8.3-4")
def test_no_local_on_a_shared_subscription_ends_the_connection(site: Site) -> None:
    client = site.client()
    client.send(raw.subscribe(V5, 1, (f"$share/g/{site.topic}", NO_LOCAL)))
    assert client.refused(0x82)


@keeps(v311="3.10.3-1 1.5.3-1", v5="3.10.3-1 1.5.4-1")
def test_an_unsubscribe_that_is_not_text_ends_the_connection(site: Site) -> None:
    client = site.client()
    client.send(raw.unsubscribe(site.version, 1, b"a/\xff"))
    assert client.refused(0x81)


@keeps(v311="3.10.3-2", v5="3.10.3-2 4.13.1-1")
def test_an_unsubscribe_without_filters_ends_the_connection(site: Site) -> None:
    client = site.client()
    client.send(raw.unsubscribe(site.version, 1))
    assert client.refused(0x82)


@keeps(v311="3.10.4-1", v5="3.10.4-1")
def test_only_the_very_same_filter_is_deleted(site: Site) -> None:
    client = site.client()
    client.subscribe(f"{site.topic}/a", 1)
    for other in (f"{site.topic}/A", f"{site.topic}/+", f"{site.topic}/#", f"{site.topic}/a/"):
        client.unsubscribe(other)
    client.publish(f"{site.topic}/a", b"still here")
    assert client.message().payload == b"still here"
    client.unsubscribe(f"{site.topic}/a")
    client.publish(f"{site.topic}/a", b"no more")
    assert client.heard() == []


@keeps(v311="3.10.4-2 3.10.4-4", v5="3.10.4-2 3.10.4-4")
def test_after_unsuback_no_message_is_added(site: Site) -> None:
    client, publisher = site.client(), site.client("publisher")
    client.subscribe(f"{site.topic}/a", 1)
    client.subscribe(f"{site.topic}/b", 1)
    client.unsubscribe(f"{site.topic}/a")
    publisher.publish(f"{site.topic}/a", b"unwanted")
    publisher.publish(f"{site.topic}/b", b"wanted")
    found = client.messages(1)
    while found[-1].payload != b"wanted":
        found += client.messages(1)
    assert client.heard() == []


@keeps(v311="3.10.4-3", v5="3.10.4-3")
def test_what_was_begun_is_completed_after_unsubscribe(site: Site) -> None:
    client = site.client(durable=True)
    client.subscribe(site.topic, 2)
    client.publish(site.topic, b"begun", 2)
    found = client.next(raw.PUBLISH)
    client.unsubscribe(site.topic)
    client.send(raw.answer(raw.PUBREC, found.packet_id))
    assert client.next(raw.PUBREL).packet_id == found.packet_id
    client.drop()
    assert site.client(durable=True).next(raw.PUBREL).packet_id == found.packet_id


@keeps(
    v311="2.3.1-7 3.10.4-4 3.10.4-5 3.10.4-6",
    v5="2.2.1-6 3.10.4-5 3.10.4-6 3.11.3-1 3.11.3-2 3.11.2-1 3.11.2-2",
)
def test_unsubscribe_is_answered_once_for_all_filters(site: Site) -> None:
    fields = {"properties": raw.block((raw.MAXIMUM_PACKET, 32))} if site.version == V5 else {}
    client = site.client(**fields)
    client.subscribe(f"{site.topic}/a", 1)
    client.subscribe(f"{site.topic}/b", 1)
    client.send(raw.unsubscribe(site.version, 513, f"{site.topic}/a", "none", f"{site.topic}/b"))
    found = client.next(raw.UNSUBACK)
    assert found.packet_id == 513
    assert found.codes == (b"\0\x11\0" if site.version == V5 else b"")
    assert found.properties == {}
    assert client.heard() == []


@keeps(v311="4.7.1-2 4.7.1-3", v5="4.7.1-1 4.7.1-2")
def test_wildcards_that_do_not_stand_alone_end_the_connection(site: Site) -> None:
    for topic_filter in ("a#", "a/b#", "#/a", "a/#/b", "##", "a+", "+a/b", "a/b+/c", "++"):
        client = site.client()
        client.send(raw.subscribe(site.version, 1, (topic_filter, 0)))
        assert client.refused(0x81, 0x82, 0x8F)


@keeps(v311="4.7.1-2 4.7.1-3 4.7.3-4", v5="4.7.1-1 4.7.1-2 4.7.3-4 3.3.2-3")
def test_what_filters_match(site: Site) -> None:
    root = site.topic
    cases = {
        f"{root}/sport/#": ["/sport", "/sport/", "/sport/a", "/sport/a/b"],
        f"{root}/+": ["/sport", "/"],
        f"{root}/+/+": ["/sport/a", "/sport/", "//"],
        f"{root}/sport/+": ["/sport/a", "/sport/"],
        f"{root}/+/a": ["/sport/a"],
        f"{root}/SPORT": [],
        f"{root}/ sport": [],
        f"{root}//+": ["//"],
    }
    topics = ["/sport", "/sport/", "/sport/a", "/sport/a/b", "/", "//"]
    publisher = site.client("publisher")
    for at, (topic_filter, expected) in enumerate(cases.items()):
        client = site.client(f"m{at}")
        client.subscribe(topic_filter)
        client.subscribe(f"{root}-end")
        for topic in topics:
            publisher.publish(root + topic, b"", 1)
        publisher.publish(f"{root}-end", b"", 1)
        found = []
        while (one := client.message()).topic != f"{root}-end".encode():
            found.append(one.topic.decode().removeprefix(root))
        assert sorted(found) == sorted(expected), topic_filter


@keeps(v311="4.7.2-1", v5="4.7.2-1")
def test_a_leading_wildcard_does_not_match_dollar(site: Site) -> None:
    wide, narrow = site.client("wide"), site.client("narrow")
    for topic_filter in ("#", f"+/{site.topic}", "+/#"):
        wide.subscribe(topic_filter)
    narrow.subscribe(f"$own/{site.topic}")
    publisher = site.client("publisher")
    publisher.publish(f"$own/{site.topic}", b"hidden", 0)
    publisher.publish(f"own/{site.topic}", b"plain", 0)
    assert narrow.message().payload == b"hidden"
    found = wide.message()
    while found.topic != f"own/{site.topic}".encode():
        assert not found.topic.startswith(b"$")
        found = wide.message()


@keeps(v311="4.7.3-1", v5="4.7.3-1")
def test_an_empty_topic_or_filter_ends_the_connection(site: Site) -> None:
    for bad in (
        raw.publish(site.version, "", b"x"),
        raw.subscribe(site.version, 1, ("", 0)),
        raw.unsubscribe(site.version, 1, ""),
    ):
        client = site.client()
        client.send(bad)
        assert client.refused(0x81, 0x82, 0x8F, 0x90)


@keeps(v311="4.7.3-3", v5="4.7.3-3")
def test_topics_of_65535_bytes_are_taken(site: Site) -> None:
    client = site.client()
    topic = site.topic + "x" * (65_535 - len(site.topic))
    client.subscribe(topic, 1)
    client.publish(topic, b"far")
    assert client.message().topic == topic.encode()


@keeps(v311="4.7.3-4", v5="4.7.3-4")
def test_nothing_is_normalized(site: Site) -> None:
    client = site.client()
    composed, decomposed = f"{site.topic}/\u00e9", f"{site.topic}/e\u0301"
    client.subscribe(composed)
    client.publish(decomposed, b"no", 0)
    client.publish(composed.upper(), b"no", 0)
    client.publish(composed + " ", b"no", 0)
    client.publish(composed, b"yes", 0)
    assert client.message().payload == b"yes"
    assert client.heard() == []


@pytest.mark.parametrize(
    "shared", ["$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g#/a"]
)
@keeps(v5="4.8.2-1 4.8.2-2")
def test_a_shared_filter_has_a_name_and_a_filter(site: Site, shared: str) -> None:
    client = site.client()
    client.send(raw.subscribe(V5, 1, (shared, 0)))
    assert client.refused(0x81, 0x82, 0x8F)
