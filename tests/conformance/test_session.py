"""Sessions: what is kept, for how long, and what is sent again (parts 3.1.2, 4.1, 4.4)."""

from tests.conformance import raw
from tests.conformance.peer import Site
from tests.conformance.raw import V5
from tests.conformance.statements import keeps


def _resumed(site: Site) -> bool:
    client = site.client(durable=True)
    present = bool(client.connack.data[0])
    client.bye()
    return present


@keeps(v311="3.1.2-4 3.2.2-2 3.2.2-3 3.1.4-3", v5="3.1.2-5 3.1.2-6 3.2.2-3 3.2.2-1 3.1.2-23")
def test_a_session_is_made_and_resumed(site: Site) -> None:
    first = site.client(durable=True)
    assert first.connack.data[0] == 0
    first.subscribe(site.topic, 1)
    first.bye()
    again = site.client(durable=True)
    assert again.connack.data[0] == 1
    site.client("publisher").publish(site.topic, b"still subscribed")
    assert again.message().payload == b"still subscribed"


@keeps(v311="3.1.2-4 4.1.0-1", v5="3.1.2-5 3.1.2-23")
def test_a_session_is_resumed_after_a_connection_that_was_lost(site: Site) -> None:
    first = site.client(durable=True)
    first.subscribe(site.topic, 1)
    first.drop()
    assert site.client(durable=True).connack.data[0] == 1


@keeps(v311="3.1.2-5 4.5.0-1", v5="3.1.2-5 4.5.0-1")
def test_messages_are_kept_for_a_client_that_is_away(site: Site) -> None:
    away = site.client(durable=True)
    away.subscribe(f"{site.topic}/+", 2)
    away.bye()
    publisher = site.client("publisher")
    for qos in (1, 2, 1):
        publisher.publish(f"{site.topic}/{qos}", b"%d" % qos, qos)
    again = site.client(durable=True)
    assert sorted((one.qos, one.payload) for one in again.messages(3)) == [
        (1, b"1"),
        (1, b"1"),
        (2, b"2"),
    ]


@keeps(v311="3.1.2-6 3.2.2-1 3.1.4-3", v5="3.1.2-4 3.2.2-2 3.1.4-4")
def test_a_clean_start_discards_the_session(site: Site) -> None:
    away = site.client(durable=True)
    away.subscribe(site.topic, 1)
    away.bye()
    site.client("publisher").publish(site.topic, b"for the old session")
    clean = site.client()
    assert clean.connack.data[0] == 0
    assert clean.heard() == []
    clean.bye()
    assert not _resumed(site)


@keeps(v311="3.1.2-6", v5="4.1.0-2")
def test_a_session_of_a_clean_start_ends_with_its_connection(site: Site) -> None:
    for end in ("bye", "drop"):
        client = site.client(end)
        client.subscribe(site.topic, 1)
        getattr(client, end)()
        again = site.client(end, clean=False)
        assert again.connack.data[0] == 0
        site.client("publisher").publish(site.topic, b"x")
        assert again.heard() == []


@keeps(v311="3.1.2-7")
def test_retained_messages_outlive_the_session(site: Site) -> None:
    client = site.client()
    client.publish(site.topic, b"stays", retain=True)
    client.bye()
    other = site.client("other")
    other.subscribe(site.topic)
    assert other.message().payload == b"stays"


@keeps(v5="4.1.0-2 3.1.2-23")
def test_a_session_ends_when_its_interval_has_passed(site: Site) -> None:
    short = raw.block((raw.SESSION_EXPIRY, 1))
    site.client("short", clean=False, properties=short).bye()
    site.client("long", durable=True).bye()
    site.client("waiting").silence(2.2)
    assert site.client("short", clean=False, properties=short).connack.data[0] == 0
    assert site.client("long", durable=True).connack.data[0] == 1


@keeps(v5="4.1.0-1 4.1.0-2")
def test_disconnect_may_change_the_interval(site: Site) -> None:
    client = site.client(durable=True)
    client.bye(properties=raw.block((raw.SESSION_EXPIRY, 0)))
    assert not _resumed(site)


@keeps(v5="3.14.2-1 4.13.1-1")
def test_disconnect_cannot_revive_a_session_that_ends(site: Site) -> None:
    client = site.client()
    client.send(raw.disconnect(0, raw.block((raw.SESSION_EXPIRY, 60))))
    assert client.refused(0x82)


@keeps(v311="4.1.0-2", v5="4.1.0-1")
def test_a_session_lasts_while_its_connection_is_open(site: Site) -> None:
    fields = {} if site.version == 4 else {"properties": raw.block((raw.SESSION_EXPIRY, 0))}
    client = site.client(**fields)
    client.subscribe(site.topic, 1)
    client.silence(1.2)
    client.publish(site.topic, b"still there")
    assert client.message().payload == b"still there"


@keeps(v311="3.1.3-2", v5="3.1.3-2")
def test_sessions_are_told_apart_by_their_identifiers(site: Site) -> None:
    for who in "ab":
        client = site.client(who, durable=True)
        client.subscribe(f"{site.topic}/{who}", 1)
        client.bye()
    publisher = site.client("publisher")
    for who in "ab":
        publisher.publish(f"{site.topic}/{who}", who.encode())
    for who in "ab":
        assert site.client(who, durable=True).message().payload == who.encode()


@keeps(
    v311="4.4.0-1 3.3.1-1 2.3.1-4 4.6.0-6 4.3.2-1",
    v5="4.4.0-1 3.3.1-1 4.3.2-3 4.6.0-5 4.3.3-3",
)
def test_what_was_not_acknowledged_is_sent_again_in_order_with_dup(site: Site) -> None:
    client = site.client(durable=True)
    client.subscribe(site.topic, 2)
    publisher = site.client("publisher")
    for number in range(4):
        publisher.publish(site.topic, b"%d" % number, 1 + number // 2)
    first = [client.next(raw.PUBLISH) for _ in range(4)]
    assert not any(one.dup for one in first)
    client.drop()
    again = site.client(durable=True)
    second = [again.next(raw.PUBLISH) for _ in range(4)]
    assert all(one.dup for one in second)
    assert [(one.payload, one.qos, one.packet_id) for one in second] == [
        (one.payload, one.qos, one.packet_id) for one in first
    ]
    publisher.publish(site.topic, b"new", 1)
    new = again.next(raw.PUBLISH)
    assert (new.payload, new.dup) == (b"new", False)
    assert new.packet_id not in {one.packet_id for one in first}


@keeps(v311="4.4.0-1 4.3.3-1", v5="4.4.0-1 4.3.3-5 4.3.3-6")
def test_after_pubrec_only_pubrel_is_sent_again(site: Site) -> None:
    client = site.client(durable=True)
    client.subscribe(site.topic, 2)
    site.client("publisher").publish(site.topic, b"once", 2)
    found = client.next(raw.PUBLISH)
    client.send(raw.answer(raw.PUBREC, found.packet_id))
    assert client.next(raw.PUBREL).packet_id == found.packet_id
    client.drop()
    again = site.client(durable=True)
    assert again.next(raw.PUBREL).packet_id == found.packet_id
    assert again.heard() == []
    again.send(raw.answer(raw.PUBCOMP, found.packet_id))
    again.drop()
    assert site.client(durable=True).heard() == []


@keeps(v5="4.4.0-1")
def test_nothing_is_sent_again_on_the_same_connection(site: Site) -> None:
    client = site.client(durable=True)
    client.subscribe(site.topic, 2)
    publisher = site.client("publisher")
    for qos in (1, 2):
        publisher.publish(site.topic, b"never acknowledged", qos)
        client.next(raw.PUBLISH)
    client.silence(1.0)


@keeps(v5="4.4.0-2 4.3.2-3")
def test_a_refused_message_is_not_sent_again(site: Site) -> None:
    client = site.client(durable=True)
    client.subscribe(site.topic, 2)
    publisher = site.client("publisher")
    for qos, kind in ((1, raw.PUBACK), (2, raw.PUBREC)):
        publisher.publish(site.topic, b"unwanted", qos)
        client.send(raw.answer(kind, client.next(raw.PUBLISH).packet_id, b"\x83"))
    assert client.heard() == []
    client.drop()
    assert site.client(durable=True).heard() == []


@keeps(v311="4.3.3-2", v5="4.3.3-10 4.4.0-1")
def test_a_qos_2_message_sent_again_on_a_new_connection_is_delivered_once(site: Site) -> None:
    listener = site.client("listener")
    listener.subscribe(site.topic, 2)
    client = site.client(durable=True)
    packet = raw.publish(site.version, site.topic, b"once", 2, 7)
    client.send(packet)
    assert client.next(raw.PUBREC).packet_id == 7
    client.drop()
    again = site.client(durable=True)
    again.send(raw.publish(site.version, site.topic, b"once", 2, 7, dup=True))
    assert again.next(raw.PUBREC).packet_id == 7
    again.send(raw.answer(raw.PUBREL, 7))
    assert again.next(raw.PUBCOMP).packet_id == 7
    again.publish(site.topic, b"marker", 2)
    assert [one.payload for one in listener.messages(2)] == [b"once", b"marker"]


@keeps(v5="3.1.2-23")
def test_an_interval_that_was_shortened_is_told(site: Site) -> None:
    client = site.client(properties=raw.block((raw.SESSION_EXPIRY, 0xFFFFFFFF)))
    assert client.version == V5
    assert client.connack.properties[raw.SESSION_EXPIRY] == [604_800]
