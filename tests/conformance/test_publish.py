"""PUBLISH and its exchanges, from and to the server (parts 3.3 to 3.7, 4.3, 4.6)."""

import pytest

from tests.conformance import raw
from tests.conformance.peer import Site
from tests.conformance.raw import V5
from tests.conformance.statements import keeps


@keeps(v311="3.3.1-2", v5="3.3.1-2")
def test_dup_with_qos_0_ends_the_connection(site: Site) -> None:
    client = site.client()
    client.send(raw.publish(site.version, site.topic, b"x", dup=True))
    assert client.refused(0x81)


@pytest.mark.parametrize("qos", [1, 2])
@keeps(v311="3.3.1-3", v5="3.3.1-3 4.3.2-2 4.3.3-2")
def test_the_publisher_s_dup_is_not_passed_on(site: Site, qos: int) -> None:
    client = site.client()
    client.subscribe(site.topic, 2)
    client.send(raw.publish(site.version, site.topic, b"x", qos, 5, dup=True))
    found = client.find(raw.PUBLISH)
    assert (found.qos, found.dup) == (qos, False)


@keeps(v311="3.3.1-4", v5="3.3.1-4")
def test_qos_3_ends_the_connection(site: Site) -> None:
    for first_byte in (0x36, 0x37, 0x3E):
        client = site.client()
        client.send(raw.packet(first_byte, raw.text(site.topic) + b"\0\1\0"))
        assert client.refused(0x81)


@keeps(v311="3.3.2-1", v5="3.3.2-1")
def test_a_publish_without_a_whole_topic_ends_the_connection(site: Site) -> None:
    for body in (b"", b"\0", b"\0\5abc"):
        client = site.client()
        client.send(raw.packet(0x30, body))
        assert client.refused(0x81)


@keeps(v311="3.3.2-2 4.7.1-1", v5="3.3.2-2 4.7.0-1")
def test_a_wildcard_in_a_topic_ends_the_connection(site: Site) -> None:
    for topic in ("a/+", "+", "#", "a/#", "a+b"):
        client = site.client()
        client.send(raw.publish(site.version, topic, b"x"))
        assert client.refused(0x90, 0x81)


@keeps(v311="3.3.4-1", v5="3.3.4-1")
def test_each_qos_has_its_answer(site: Site) -> None:
    client = site.client()
    client.send(
        raw.publish(site.version, site.topic, b"0"),
        raw.publish(site.version, site.topic, b"1", 1, 11),
        raw.publish(site.version, site.topic, b"2", 2, 12),
    )
    found = client.next(raw.PUBACK)
    assert found.packet_id == 11
    found = client.next(raw.PUBREC)
    assert found.packet_id == 12
    client.send(raw.answer(raw.PUBREL, 12))
    assert client.next(raw.PUBCOMP).packet_id == 12
    assert client.heard() == []


@keeps(v311="2.3.1-6 4.3.2-2", v5="2.2.1-5 4.3.2-4 4.3.2-5")
def test_qos_1_again_after_puback_is_a_new_message(site: Site) -> None:
    listener = site.client("listener")
    listener.subscribe(site.topic, 1)
    client = site.client()
    for dup in (False, True):
        client.send(raw.publish(site.version, site.topic, b"x", 1, 300, dup=dup))
        assert client.next(raw.PUBACK).packet_id == 300
    assert [one.payload for one in listener.messages(2)] == [b"x", b"x"]


@keeps(v311="2.3.1-6 4.3.3-2", v5="2.2.1-5 4.3.3-8 4.3.3-10 4.3.3-11 4.3.3-12")
def test_qos_2_is_delivered_once_and_is_new_after_pubcomp(site: Site) -> None:
    listener = site.client("listener")
    listener.subscribe(site.topic, 2)
    client = site.client()
    for payload in (b"first", b"second"):
        for dup in (False, True, True):
            client.send(raw.publish(site.version, site.topic, payload, 2, 400, dup=dup))
            assert client.next(raw.PUBREC).packet_id == 400
        client.send(raw.answer(raw.PUBREL, 400))
        assert client.next(raw.PUBCOMP).packet_id == 400
    assert [one.payload for one in listener.messages(2)] == [b"first", b"second"]
    assert listener.heard() == []


@keeps(v311="4.3.3-2", v5="4.3.3-11 3.7.2-1")
def test_a_pubrel_for_nothing_is_answered_too(site: Site) -> None:
    client = site.client()
    client.send(raw.answer(raw.PUBREL, 77))
    found = client.next(raw.PUBCOMP)
    assert found.packet_id == 77
    assert found.code == (0x92 if site.version == V5 else 0)


@keeps(v311="2.3.1-4 4.3.2-1 4.3.3-1", v5="2.2.1-4 4.3.2-1 4.3.2-2 4.3.3-1 4.3.3-2")
def test_messages_in_flight_have_identifiers_of_their_own(site: Site) -> None:
    client = site.client()
    client.subscribe(site.topic, 2)
    publisher = site.client("publisher")
    for number in range(30):
        publisher.publish(site.topic, b"%d" % number, 1 + number % 2)
    found = [client.next(raw.PUBLISH) for _ in range(30)]
    identifiers = {one.packet_id for one in found}
    assert len(identifiers) == 30
    assert 0 not in identifiers
    assert not any(one.dup for one in found)


@keeps(v311="4.3.3-1 2.3.1-6", v5="4.3.3-4 2.2.1-5 3.6.2-1")
def test_pubrel_follows_pubrec_and_repeats_with_it(site: Site) -> None:
    client = site.client()
    client.subscribe(site.topic, 2)
    client.publish(site.topic, b"x", 2)
    found = client.next(raw.PUBLISH)
    for _ in range(2):
        client.send(raw.answer(raw.PUBREC, found.packet_id))
        pubrel = client.next(raw.PUBREL)
        assert (pubrel.packet_id, pubrel.flags, pubrel.code) == (found.packet_id, 2, 0)
    client.send(raw.answer(raw.PUBCOMP, found.packet_id))
    assert client.heard() == []


@keeps(v5="4.3.3-4 3.6.2-1")
def test_no_pubrel_follows_a_refusal(site: Site) -> None:
    client = site.client()
    client.subscribe(site.topic, 2)
    client.publish(site.topic, b"x", 2)
    client.send(raw.answer(raw.PUBREC, client.next(raw.PUBLISH).packet_id, b"\x80\0"))
    assert client.heard() == []
    client.send(raw.answer(raw.PUBREC, 999))
    found = client.next(raw.PUBREL)
    assert (found.packet_id, found.code) == (999, 0x92)


@keeps(v5="3.4.2-1 3.5.2-1 3.6.2-1 3.7.2-1 3.14.2-1 4.13.1-1")
def test_answers_with_reasons_that_are_not_theirs_end_the_connection(site: Site) -> None:
    for kind, reason in (
        (raw.PUBACK, 0x01),
        (raw.PUBACK, 0x92),
        (raw.PUBREC, 0x04),
        (raw.PUBREL, 0x80),
        (raw.PUBCOMP, 0x10),
    ):
        client = site.client()
        client.send(raw.answer(kind, 1, bytes((reason,))))
        assert client.refused(0x81, 0x82)
    client = site.client()
    client.send(raw.disconnect(0x01))
    assert client.refused(0x81, 0x82)


@keeps(v5="3.4.2-1 3.5.2-1")
def test_what_nobody_wants_is_acknowledged_with_10(site: Site) -> None:
    client = site.client()
    assert client.publish(site.topic, b"x", 1) == 0x10
    assert client.publish(site.topic, b"x", 2) == 0x10
    client.subscribe(site.topic)
    assert client.publish(site.topic, b"x", 1) == 0
    assert client.publish(site.topic, b"x", 2) == 0


@keeps(v5="3.4.2-1 3.5.2-1 4.3.3-9 3.4.2-2 3.4.2-3 3.5.2-2 3.5.2-3 3.9.2-1 3.9.2-2 3.9.3-2")
def test_refusals_have_listed_reasons_and_fit_into_a_small_packet(site: Site) -> None:
    client = site.client(properties=raw.block((raw.MAXIMUM_PACKET, 24)))
    for qos, kind in ((1, raw.PUBACK), (2, raw.PUBREC), (2, raw.PUBREC)):
        client.send(raw.publish(V5, "$delayed/1/t", b"x", qos, 9))
        found = client.next(kind)
        assert (found.packet_id, found.code) == (9, 0x90)
        assert raw.REASON_STRING not in found.properties
        assert raw.USER_PROPERTY not in found.properties
    client.send(raw.answer(raw.PUBREL, 9))
    assert client.next(raw.PUBCOMP).code == 0x92
    deep = "/".join("a" * 200)
    client.send(raw.subscribe(V5, 2, (deep, 0), (site.topic, 1)))
    suback = client.next(raw.SUBACK)
    assert suback.codes == b"\x8f\1"
    assert suback.properties == {}


@keeps(v311="3.3.5-2")
def test_a_publish_that_is_not_allowed_is_acknowledged_or_ends_the_connection(site: Site) -> None:
    client = site.client()
    client.subscribe("$delayed/#")
    client.publish(f"$delayed/1/{site.topic}", b"x", 1)
    client.publish(f"$delayed/1/{site.topic}", b"x", 2)
    assert client.heard() == []


@pytest.mark.parametrize("qos", [0, 1, 2])
@keeps(v311="4.6.0-5 4.6.0-6", v5="4.6.0-5 4.6.0-6")
def test_a_client_s_messages_stay_in_order(site: Site, qos: int) -> None:
    near, far = site.client("near"), site.client("far")
    for listener in (near, far):
        listener.subscribe(f"{site.topic}/#", 2)
    publisher = site.client("publisher")
    for start in range(0, 60, 15):
        publisher.send(
            *(
                raw.publish(site.version, site.topic, b"%d" % number, qos, 100 + number)
                for number in range(start, start + 15)
            )
        )
        for number in range(start, start + 15) if qos else ():
            answer = publisher.find(raw.PUBACK if qos == 1 else raw.PUBREC)
            assert answer.packet_id == 100 + number
            if qos == 2:
                publisher.send(raw.answer(raw.PUBREL, answer.packet_id))
                publisher.find(raw.PUBCOMP)
    for listener in (near, far):
        assert [one.payload for one in listener.messages(60)] == [b"%d" % n for n in range(60)]


@keeps(v5="4.3.3-7 4.3.3-13 3.3.2-5")
def test_an_exchange_goes_on_though_the_message_has_expired(site: Site) -> None:
    client = site.client(durable=True)
    client.subscribe(site.topic, 2)
    expires = raw.block((raw.MESSAGE_EXPIRY, 2))
    client.send(raw.publish(V5, site.topic, b"sent", 2, 3, properties=expires))
    assert client.find(raw.PUBREC).packet_id == 3
    found = client.find(raw.PUBLISH)
    client.drop()
    site.client("waiting").silence(2.3)
    again = site.client(durable=True)
    repeated = again.next(raw.PUBLISH)
    assert (repeated.packet_id, repeated.dup) == (found.packet_id, True)
    again.send(raw.answer(raw.PUBREC, found.packet_id), raw.answer(raw.PUBREL, 3))
    assert {again.read().kind for _ in range(2)} == {raw.PUBREL, raw.PUBCOMP}


@keeps(v311="3.3.5-1", v5="3.3.4-2")
def test_overlapping_subscriptions_give_one_copy_with_the_highest_qos(site: Site) -> None:
    client = site.client()
    client.subscribe(f"{site.topic}/#", 2)
    client.subscribe(f"{site.topic}/+", 1)
    client.subscribe(f"{site.topic}/a", 0)
    client.publish(f"{site.topic}/a", b"x", 2)
    assert client.message().qos == 2
    assert client.heard() == []


@keeps(v311="4.5.0-1 3.3.2-3", v5="4.5.0-1 3.3.2-3")
def test_every_session_with_a_matching_filter_gets_the_message(site: Site) -> None:
    filters = [f"{site.topic}/a/b", f"{site.topic}/+/b", f"{site.topic}/#", "+/a/+", "#"]
    clients = [site.client(f"m{at}") for at in range(len(filters))]
    for client, topic_filter in zip(clients, filters, strict=True):
        client.subscribe(topic_filter, 1)
    away = site.client("away", durable=True)
    away.subscribe(f"{site.topic}/a/#", 1)
    away.bye()
    site.client("publisher").publish(f"{site.topic}/a/b", b"for all")
    for client in (*clients, site.client("away", durable=True)):
        while (found := client.message()).topic != f"{site.topic}/a/b".encode():
            pass
        assert found.payload == b"for all"


@keeps(v311="3.8.4-6", v5="3.8.4-8")
def test_a_message_has_the_lower_qos_of_both(site: Site) -> None:
    for granted in (0, 1, 2):
        client = site.client(f"g{granted}")
        client.subscribe(site.topic, granted)
        for qos in (0, 1, 2):
            client.publish(site.topic, b"x", qos)
            assert client.message().qos == min(qos, granted)
        client.bye()
