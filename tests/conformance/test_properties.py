"""Properties of MQTT 5 on their way through the server, and the limits that they set."""

import pytest

from tests.conformance import raw
from tests.conformance.conftest import ALIAS_MAXIMUM, PACKET_MAXIMUM, RECEIVE_MAXIMUM
from tests.conformance.peer import Packet, Site
from tests.conformance.raw import V5
from tests.conformance.statements import keeps


@pytest.mark.parametrize("qos", [0, 1, 2])
@keeps(v5="3.3.2-4 3.3.2-15 3.3.2-16 3.3.2-17 3.3.2-18 3.3.2-20")
def test_a_message_s_properties_are_forwarded(site: Site, qos: int) -> None:
    near, far = site.client("near"), site.client("far")
    away = site.client("away", durable=True)
    for client in (near, far, away):
        client.subscribe(site.topic, 2)
    away.bye()
    pairs: list[tuple[str | bytes, str | bytes]] = [("b", "1"), ("a", ""), ("b", "1"), ("", "x")]
    properties = raw.block(
        (raw.PAYLOAD_FORMAT, 1),
        (raw.CONTENT_TYPE, "text/\u20ac"),
        (raw.RESPONSE_TOPIC, "answers/here"),
        (raw.CORRELATION_DATA, bytes(range(256))),
        *((raw.USER_PROPERTY, pair) for pair in pairs),
    )
    site.client("publisher").publish(site.topic, b"x", qos, retain=True, properties=properties)
    late = site.client("late")
    late.subscribe(site.topic, 2)
    listeners = [near, far, late]
    if qos:
        listeners.append(site.client("away", durable=True))
    for client in listeners:
        found = client.message().properties
        assert found[raw.USER_PROPERTY] == [(b"b", b"1"), (b"a", b""), (b"b", b"1"), (b"", b"x")]
        assert found[raw.PAYLOAD_FORMAT] == [1]
        assert found[raw.CONTENT_TYPE] == ["text/\u20ac"]
        assert found[raw.RESPONSE_TOPIC] == ["answers/here"]
        assert found[raw.CORRELATION_DATA] == [bytes(range(256))]
        assert len(found) == 5


@keeps(v5="3.3.2-13 3.3.2-14 3.3.2-19 3.3.4-6 3.3.2-8")
def test_forbidden_properties_of_a_publish_end_the_connection(site: Site) -> None:
    for properties in (
        raw.block((raw.RESPONSE_TOPIC, b"\xff")),
        raw.block((raw.RESPONSE_TOPIC, "a/+")),
        raw.block((raw.RESPONSE_TOPIC, "#")),
        raw.block((raw.CONTENT_TYPE, b"\xc3")),
        raw.block((raw.SUBSCRIPTION_IDENTIFIER, 1)),
        raw.block((raw.PAYLOAD_FORMAT, 2)),
        raw.block((raw.MESSAGE_EXPIRY, 1), (raw.MESSAGE_EXPIRY, 2)),
        raw.block((raw.SESSION_EXPIRY, 1)),
        b"\x7e\0",
    ):
        client = site.client()
        client.send(raw.publish(V5, site.topic, b"x", properties=properties))
        assert client.refused(0x81, 0x82, 0x90)
    client = site.client()
    client.send(raw.publish(V5, site.topic, b"x", properties=raw.block((raw.TOPIC_ALIAS, 0))))
    assert client.refused(0x94, 0x82)


@keeps(v5="3.3.2-5 3.3.2-6")
def test_a_message_that_expires_while_it_waits_is_deleted(site: Site) -> None:
    away = site.client(durable=True)
    away.subscribe(f"{site.topic}/#", 1)
    away.bye()
    publisher = site.client("publisher")
    for topic, seconds in (("short", 1), ("long", 100)):
        expires = raw.block((raw.MESSAGE_EXPIRY, seconds))
        publisher.publish(f"{site.topic}/{topic}", b"x", properties=expires)
    publisher.publish(f"{site.topic}/ever", b"x")
    publisher.silence(2.1)
    again = site.client(durable=True)
    long, ever = again.messages(2)
    (left,) = long.properties[raw.MESSAGE_EXPIRY]
    assert isinstance(left, int)
    assert (long.topic[-4:], 1 < left <= 98) == (b"long", True)
    assert (ever.topic[-4:], ever.properties) == (b"ever", {})


@keeps(v5="3.3.2-6")
def test_a_live_message_keeps_its_interval(site: Site) -> None:
    client = site.client()
    client.subscribe(site.topic)
    client.publish(site.topic, b"x", properties=raw.block((raw.MESSAGE_EXPIRY, 1000)))
    (left,) = client.message().properties[raw.MESSAGE_EXPIRY]
    assert isinstance(left, int)
    assert 900 < left <= 1000


@keeps(v5="3.3.2-12 3.3.2-7")
def test_every_alias_up_to_the_maximum_is_taken_and_ends_with_the_connection(site: Site) -> None:
    client = site.client(durable=True)
    assert client.connack.properties[raw.ALIAS_MAXIMUM] == [ALIAS_MAXIMUM]
    client.subscribe(f"{site.topic}/#")
    for alias in range(1, ALIAS_MAXIMUM + 1):
        known = raw.block((raw.TOPIC_ALIAS, alias))
        client.publish(f"{site.topic}/{alias}", b"name", 0, properties=known)
        client.publish("", b"alias", 0, properties=known)
        found = client.messages(2)
        assert [one.topic for one in found] == [f"{site.topic}/{alias}".encode()] * 2
    client.bye()
    again = site.client(durable=True)
    again.send(raw.publish(V5, "", b"x", properties=raw.block((raw.TOPIC_ALIAS, 1))))
    assert again.refused(0x82, 0x94)


@keeps(v5="3.3.2-12 4.13.1-1")
def test_an_alias_above_the_maximum_ends_the_connection(site: Site) -> None:
    client = site.client()
    above = raw.block((raw.TOPIC_ALIAS, ALIAS_MAXIMUM + 1))
    client.send(raw.publish(V5, site.topic, b"x", properties=above))
    assert client.refused(0x94)


@keeps(v5="3.1.2-27 3.3.2-11")
def test_without_a_maximum_the_server_uses_no_alias(site: Site) -> None:
    for properties in (b"", raw.block((raw.ALIAS_MAXIMUM, 0))):
        client = site.client(properties=properties)
        client.subscribe(site.topic)
        for _ in range(3):
            client.publish(site.topic, b"x", 0)
            found = client.message()
            assert (found.topic, found.properties) == (site.topic.encode(), {})


@keeps(v5="3.1.2-26 3.3.2-11 3.3.2-8 3.3.2-7")
def test_the_server_s_aliases_stay_within_the_maximum(site: Site) -> None:
    for _ in range(2):
        client = site.client(properties=raw.block((raw.ALIAS_MAXIMUM, 2)))
        client.subscribe(f"{site.topic}/#")
        names: dict[object, bytes] = {}
        for number in range(12):
            topic = f"{site.topic}/{number % 4}".encode()
            client.publish(topic.decode(), b"x", 0)
            found = client.message()
            (alias,) = found.properties.get(raw.TOPIC_ALIAS, [None])
            if alias is not None:
                assert alias in {1, 2}
                names.setdefault(alias, found.topic)
                if found.topic:
                    names[alias] = found.topic
            assert (found.topic or names[alias]) == topic
        client.bye()


@keeps(v5="3.1.2-24 3.1.2-25")
def test_no_packet_exceeds_the_client_s_maximum(site: Site) -> None:
    client = site.client(properties=raw.block((raw.MAXIMUM_PACKET, 100)))
    client.subscribe(site.topic, 2)
    for qos in (0, 1, 2):
        client.publish(site.topic, bytes(200), qos)
        client.publish(site.topic, b"fits", qos)
        found = client.message()
        assert (found.payload, found.size <= 100) == (b"fits", True)
    assert client.heard() == []


@keeps(v5="3.1.2-24 3.2.2-19 3.2.2-20")
def test_connack_fits_into_the_client_s_maximum(site: Site) -> None:
    least = raw.block((raw.MAXIMUM_PACKET, 8), (raw.AUTHENTICATION_METHOD, "NO-SUCH-METHOD"))
    peer = site.peer()
    peer.send(raw.connect(V5, site.name(), properties=least))
    (found,) = peer.rest()
    assert found.size <= 8
    assert raw.REASON_STRING not in found.properties
    assert raw.USER_PROPERTY not in found.properties


@keeps(v5="3.1.2-24 3.2.0-1")
def test_a_client_that_cannot_take_connack_is_not_sent_it(site: Site) -> None:
    for size in (4, 8):
        peer = site.peer()
        limit = raw.block((raw.MAXIMUM_PACKET, size))
        peer.send(raw.connect(V5, site.name(), properties=limit))
        assert all((one.code, one.size <= size) == (0x95, True) for one in peer.rest())


@keeps(v5="3.1.2-24 3.14.2-1")
def test_a_client_that_cannot_take_suback_is_ended(site: Site) -> None:
    client = site.client(properties=raw.block((raw.MAXIMUM_PACKET, 30)))
    client.send(raw.subscribe(V5, 1, *((f"{site.topic}/{at}", 0) for at in range(40))))
    assert client.refused(0x95)


@keeps(v5="3.14.2-3 3.14.2-4 3.14.2-1 3.14.2-2 3.6.2-2 3.6.2-3 3.7.2-2 3.7.2-3")
def test_the_server_s_last_words_fit_into_the_client_s_maximum(site: Site) -> None:
    client = site.client(properties=raw.block((raw.MAXIMUM_PACKET, 40)))
    client.send(raw.answer(raw.PUBREL, 5), raw.answer(raw.PUBREC, 6))
    for kind in (raw.PUBCOMP, raw.PUBREL):
        found = client.next(kind)
        assert found.size <= 40
        assert raw.USER_PROPERTY not in found.properties
    client.send(raw.publish(V5, "a/+", b"x"))
    (farewell,) = client.rest()
    assert (farewell.kind, farewell.size <= 40) == (raw.DISCONNECT, True)
    assert raw.USER_PROPERTY not in farewell.properties
    assert raw.SESSION_EXPIRY not in farewell.properties


@keeps(v5="4.13.1-1 3.14.2-1")
def test_a_packet_above_the_server_s_maximum_ends_the_connection(site: Site) -> None:
    client = site.client()
    assert client.connack.properties[raw.MAXIMUM_PACKET] == [PACKET_MAXIMUM]
    client.send(raw.publish(V5, site.topic, bytes(PACKET_MAXIMUM)))
    assert client.refused(0x95)


@keeps(v5="3.1.2-28")
def test_response_information_is_not_given_unasked(site: Site) -> None:
    for properties in (b"", raw.block((raw.REQUEST_RESPONSE, 0))):
        client = site.client(properties=properties)
        assert raw.RESPONSE_INFORMATION not in client.connack.properties


@keeps(v5="3.1.2-29")
def test_without_request_problem_information_no_reason_is_explained(site: Site) -> None:
    client = site.client(properties=raw.block((raw.REQUEST_PROBLEMS, 0)))
    deep = "/".join("a" * 200)
    client.send(
        raw.subscribe(V5, 1, (deep, 0)),
        raw.unsubscribe(V5, 2, "none"),
        raw.publish(V5, "$delayed/1/t", b"x", 1, 3),
        raw.publish(V5, "$delayed/1/t", b"x", 2, 4),
        raw.answer(raw.PUBREL, 5),
        raw.answer(raw.PUBREC, 6),
    )
    found = [client.read() for _ in range(6)]
    assert all(one.properties == {} for one in found), found
    client.subscribe(site.topic)
    named = raw.block((raw.USER_PROPERTY, ("a", "b")))
    client.publish(site.topic, b"x", 0, properties=named)
    assert client.message().properties == {raw.USER_PROPERTY: [(b"a", b"b")]}


@keeps(v5="3.3.4-3 3.3.4-4")
def test_one_copy_carries_all_subscription_identifiers(site: Site) -> None:
    client = site.client()
    for topic_filter, number in (("#", 1), ("+", 268_435_455), ("a", 0)):
        block = raw.block((raw.SUBSCRIPTION_IDENTIFIER, number)) if number else b""
        client.subscribe(f"{site.topic}/{topic_filter}", 1, block)
    for qos in (0, 1):
        client.publish(f"{site.topic}/a", b"x", qos)
        found = client.message()
        identifiers = found.properties[raw.SUBSCRIPTION_IDENTIFIER]
        assert sorted(map(repr, identifiers)) == ["1", "268435455"]
    assert client.heard() == []


@keeps(v5="3.3.4-3 3.8.4-3")
def test_an_identifier_is_replaced_with_its_subscription(site: Site) -> None:
    client = site.client()
    client.subscribe(site.topic, 1, raw.block((raw.SUBSCRIPTION_IDENTIFIER, 5)))
    client.subscribe(site.topic, 1, raw.block((raw.SUBSCRIPTION_IDENTIFIER, 6)))
    client.publish(site.topic, b"x")
    assert client.message().properties == {raw.SUBSCRIPTION_IDENTIFIER: [6]}
    client.subscribe(site.topic, 1)
    client.publish(site.topic, b"x")
    assert client.message().properties == {}
    client.send(
        raw.subscribe(
            V5, 60, (site.topic, 0), properties=raw.block((raw.SUBSCRIPTION_IDENTIFIER, 0))
        )
    )
    assert client.refused(0x82)


@pytest.mark.parametrize("kinds", [(1,), (2,), (1, 2)], ids=str)
@keeps(v5="3.3.4-9 3.3.4-10 4.9.0-1 4.9.0-2 4.9.0-3")
def test_the_client_s_receive_maximum_is_kept(site: Site, kinds: tuple[int, ...]) -> None:
    client = site.client(properties=raw.block((raw.RECEIVE_MAXIMUM, 3)))
    client.subscribe(f"{site.topic}/#", 2)
    publisher = site.client("publisher")
    for number in range(12):
        qos = kinds[number % len(kinds)]
        publisher.publish(f"{site.topic}/{qos}", b"%d" % number, qos)
    publisher.publish(f"{site.topic}/0", b"at once", 0)
    open_, seen = 0, 0
    unanswered: list[Packet] = []
    while seen < 12 or unanswered:
        for one in client.heard():
            if one.kind == raw.PUBREL:
                client.send(raw.answer(raw.PUBCOMP, one.packet_id))
                open_ -= 1
            elif one.qos:
                unanswered.append(one)
                open_ += 1
                seen += 1
        assert open_ <= 3
        if unanswered:
            one = unanswered.pop(0)
            kind = raw.PUBACK if one.qos == 1 else raw.PUBREC
            client.send(raw.answer(kind, one.packet_id))
            open_ -= one.qos == 1


@keeps(v5="4.9.0-3 4.13.1-1")
def test_a_client_that_exceeds_the_server_s_receive_maximum_is_ended(site: Site) -> None:
    client = site.client()
    assert client.connack.properties[raw.RECEIVE_MAXIMUM] == [RECEIVE_MAXIMUM]
    for packet_id in range(1, RECEIVE_MAXIMUM + 1):
        client.send(raw.publish(V5, site.topic, b"x", 2, packet_id))
        assert client.next(raw.PUBREC).packet_id == packet_id
    assert client.heard() == []
    client.send(raw.publish(V5, site.topic, b"x", 2, 100))
    assert client.refused(0x93)


@keeps(v5="3.3.4-9 4.9.0-1 4.9.0-2")
def test_the_receive_maximum_is_kept_for_what_had_waited(site: Site) -> None:
    limits = raw.block((raw.RECEIVE_MAXIMUM, 3), (raw.SESSION_EXPIRY, 3600))
    away = site.client(clean=False, properties=limits)
    away.subscribe(f"{site.topic}/a/#", 2)
    away.subscribe(f"{site.topic}/+/b", 2)
    away.bye()
    publishers = [site.client(who) for who in ("near", "far", "other")]
    for number in range(24):
        topic = f"{site.topic}/a/{'abc'[number % 3]}"
        publishers[number % 3].publish(topic, b"%d" % number, 1 + number % 2)
    seen: set[bytes] = set()
    while len(seen) < 24:
        client = site.client(clean=False, properties=limits)
        owed: dict[int, int] = {}
        for _ in range(4):
            for one in client.heard():
                if one.kind == raw.PUBREL:
                    owed[one.packet_id] = 0
                else:
                    seen.add(one.payload)
                    owed[one.packet_id] = one.qos
            assert len(owed) <= 3
            for packet_id, qos in list(owed.items())[:2]:
                if qos == 1:
                    client.send(raw.answer(raw.PUBACK, packet_id))
                    del owed[packet_id]
                elif qos == 2:
                    client.send(raw.answer(raw.PUBREC, packet_id))
                else:
                    client.send(raw.answer(raw.PUBCOMP, packet_id))
                    del owed[packet_id]
        client.drop()
