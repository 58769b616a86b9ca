"""CONNECT: what it may say, and what becomes of one that says anything else (part 3.1)."""

import pytest

from tests.conformance import raw
from tests.conformance.peer import Closed, Site
from tests.conformance.raw import V5, Will
from tests.conformance.statements import V311, keeps

BAD_TEXT = b"\xc3\x28"


@keeps(v311="3.1.0-1", v5="3.1.0-1")
def test_a_first_packet_that_is_no_connect_ends_the_connection(site: Site) -> None:
    version = site.version
    for first in (
        raw.PING,
        raw.publish(version, site.topic, b"x"),
        raw.subscribe(version, 1, (site.topic, 0)),
        raw.disconnect(),
        b"\xf0\0",
        b"GET /mqtt HTTP/1.1\r\n\r\n",
    ):
        peer = site.peer()
        peer.send(first, raw.connect(version, site.name()))
        assert peer.rest() == []


@keeps(v311="3.1.0-2", v5="3.1.0-2")
def test_a_second_connect_ends_the_connection(site: Site) -> None:
    client = site.client()
    client.send(raw.connect(client.version, client.client_id))
    assert client.refused(0x82)


@keeps(v311="3.1.0-2", v5="3.1.0-2 3.2.0-2")
def test_a_second_connect_in_the_same_write_gets_no_second_connack(site: Site) -> None:
    peer = site.peer()
    peer.send(raw.connect(site.version, site.name()) * 2)
    assert peer.next(raw.CONNACK).code == 0
    assert peer.refused(0x82)


@keeps(v311="3.1.2-1 3.2.2-6", v5="3.1.2-1")
def test_another_protocol_name_is_not_served(site: Site) -> None:
    for name in (b"MQTTX", b"mqtt", b"AMQP", b"", b"MQIsdpx"):
        peer = site.peer()
        peer.send(raw.connect(site.version, site.name(), name=name))
        assert peer.rest() == []


@keeps(v311="3.1.2-2 3.2.2-4 3.2.2-5 3.1.4-1")
def test_a_level_that_is_not_served_is_answered_with_1(site: Site) -> None:
    for level in (0, 2, 0x83, 0x85, 0xFF):
        peer = site.peer()
        peer.send(raw.connect(V311, site.name(), level=level), raw.PING)
        (connack,) = peer.rest()
        assert connack.data == b"\0\1"


@keeps(v5="3.1.2-2 3.2.2-6 3.2.2-7")
def test_a_version_that_is_not_served_is_answered_with_84(site: Site) -> None:
    for level in (6, 7, 0x7F):
        peer = site.peer()
        peer.send(raw.connect(V5, site.name(), level=level), raw.PING)
        (connack,) = peer.rest()
        assert (connack.data[0], connack.code) == (0, 0x84)


@keeps(v311="3.1.2-3 3.1.4-1", v5="3.1.2-3 3.1.4-1")
def test_the_reserved_connect_flag_is_refused(site: Site) -> None:
    peer = site.peer()
    peer.send(raw.connect(site.version, site.name(), flags=0x03))
    assert peer.rejected(0x81)


@pytest.mark.parametrize("flags", [0x0A, 0x12, 0x1A, 0x22, 0x32], ids=lambda flag: f"{flag:02x}")
@keeps(
    v311="3.1.2-11 3.1.2-13 3.1.2-15 3.1.4-1",
    v5="3.1.2-11 3.1.2-13 3.1.4-1",
)
def test_will_qos_and_retain_without_a_will_are_refused(site: Site, flags: int) -> None:
    peer = site.peer()
    peer.send(raw.connect(site.version, site.name(), flags=flags))
    assert peer.rejected(0x81, 0x82)


@keeps(v311="3.1.2-11")
def test_a_will_without_its_flag_is_refused(site: Site) -> None:
    peer = site.peer()
    peer.send(raw.connect(site.version, site.name(), will=Will(site.topic), flags=0x02))
    assert peer.rejected(0x81)


@keeps(v311="3.1.2-14", v5="3.1.2-12")
def test_the_will_qos_is_0_1_or_2(site: Site) -> None:
    for qos in (0, 1, 2):
        site.client(f"q{qos}", will=Will(site.topic, qos=qos)).bye()
    peer = site.peer()
    peer.send(raw.connect(site.version, site.name(), will=Will(site.topic, qos=3)))
    assert peer.rejected(0x81)


@keeps(v311="3.1.2-9", v5="3.1.2-9")
def test_a_will_flag_without_the_whole_will_is_refused(site: Site) -> None:
    for tail in (b"", raw.text(site.topic), raw.text(site.topic) + b"\0\5wi"):
        peer = site.peer()
        properties = raw.lengthy(b"", site.version) if tail else b""
        peer.send(raw.connect(site.version, site.name(), flags=0x06, tail=properties + tail))
        assert peer.rejected(0x81)


@keeps(v311="3.1.2-18 3.1.2-20", v5="3.1.2-16 3.1.2-18")
def test_a_name_or_password_without_its_flag_is_refused(site: Site) -> None:
    for flags, tail in ((0x02, raw.text("user")), (0x82, raw.text("user") + raw.text("pass"))):
        peer = site.peer()
        peer.send(raw.connect(site.version, site.name(), flags=flags, tail=tail))
        assert peer.rejected(0x81)


@keeps(v311="3.1.2-19 3.1.2-21", v5="3.1.2-17 3.1.2-19")
def test_a_flag_without_its_name_or_password_is_refused(site: Site) -> None:
    for flags, tail in ((0x82, b""), (0xC2, raw.text("user")), (0xC2, raw.text("user") + b"\0\4p")):
        peer = site.peer()
        peer.send(raw.connect(site.version, site.name(), flags=flags, tail=tail))
        assert peer.rejected(0x81)


@keeps(v311="3.1.2-22")
def test_a_password_without_a_name_is_refused(site: Site) -> None:
    peer = site.peer()
    peer.send(raw.connect(site.version, site.name(), password=b"secret"))
    assert peer.rejected()


@keeps(v5="3.1.2-17")
def test_a_password_without_a_name_is_allowed(site: Site) -> None:
    site.client(password=b"secret").bye()


@keeps(v311="3.1.3-1 3.1.4-4", v5="3.1.3-1 3.1.4-5 3.2.0-1")
def test_all_fields_in_their_order_are_accepted(site: Site) -> None:
    listener = site.client("listener")
    listener.subscribe(f"{site.topic}/#")
    fields = {"will": site.will("will", payload=b"the will"), "keep_alive": 60}
    client = site.client(username="user", password=b"pass", **fields)
    client.drop()
    found = listener.message()
    assert (found.topic, found.payload) == (f"{site.topic}/will".encode(), b"the will")


@keeps(v311="3.1.3-3", v5="3.1.3-3")
def test_a_connect_without_an_identifier_is_refused(site: Site) -> None:
    head = raw.text(b"MQTT") + bytes((site.version, 2)) + b"\0\0" + raw.lengthy(b"", site.version)
    for body in (head, head + b"\0", head + b"\0\4abc"):
        peer = site.peer()
        peer.send(raw.packet(0x10, body))
        assert peer.rejected(0x81)


@pytest.mark.parametrize("bad", [b"\xff", b"a\0b", b"\xed\xa0\x80", b"\xc3"], ids=bytes.hex)
@keeps(v311="3.1.3-4 1.5.3-1 1.5.3-2", v5="3.1.3-4 1.5.4-1 1.5.4-2 3.1.3-8")
def test_an_identifier_that_is_not_text_is_refused(site: Site, bad: bytes) -> None:
    peer = site.peer()
    peer.send(raw.connect(site.version, bad))
    assert peer.rejected(0x81, 0x85)


@keeps(v311="3.1.3-5", v5="3.1.3-5")
def test_identifiers_of_1_to_23_letters_and_digits_are_allowed(site: Site) -> None:
    serial = site.topic[1:]
    for client_id in (
        "0123456789",
        "abcdefghijklmnopqrstuvwxyz"[:23],
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    ):
        name = (serial + client_id)[:23]
        site.peer().send(raw.connect(site.version, name)).next(raw.CONNACK)
    for letter in "Zz9":
        connack = site.peer().send(raw.connect(site.version, letter)).next(raw.CONNACK)
        assert connack.code == 0


@keeps(v311="3.1.3-5", v5="3.1.3-5")
def test_longer_identifiers_and_other_characters_are_allowed_too(site: Site) -> None:
    for client_id in (site.name() + "x" * 1000, site.name() + "/+#$ ü€😀"):
        connack = site.peer().send(raw.connect(site.version, client_id)).next(raw.CONNACK)
        assert connack.code == 0


@keeps(v311="3.1.3-6 3.1.3-7", v5="3.1.3-6")
def test_clients_without_identifiers_are_not_taken_for_each_other(site: Site) -> None:
    first, second = (site.peer() for _ in range(2))
    for peer in (first, second):
        peer.send(raw.connect(site.version, ""))
        assert peer.next(raw.CONNACK).code == 0
    first.subscribe(site.topic)
    assert second.heard() == []
    second.publish(site.topic, b"both live", 0)
    assert first.message().payload == b"both live"


@keeps(v5="3.1.3-7 3.2.2-16")
def test_an_assigned_identifier_is_told_and_works(site: Site) -> None:
    properties = raw.block((raw.SESSION_EXPIRY, 60))
    told = set()
    for _ in range(2):
        peer = site.peer()
        peer.send(raw.connect(V5, "", properties=properties))
        connack = peer.next(raw.CONNACK)
        (name,) = connack.properties[raw.ASSIGNED_IDENTIFIER]
        assert isinstance(name, str)
        told.add(name)
        peer.bye()
        peer = site.peer()
        peer.send(raw.connect(V5, name, clean=False, properties=properties))
        assert peer.next(raw.CONNACK).data[0] == 1
    assert len(told) == 2


@keeps(v311="3.1.3-7 3.1.3-8 3.1.3-9 3.2.2-4 3.2.2-5")
def test_no_identifier_and_no_clean_session_is_answered_with_2(site: Site) -> None:
    peer = site.peer()
    peer.send(raw.connect(V311, "", clean=False), raw.PING)
    (connack,) = peer.rest()
    assert connack.data == b"\0\2"


@keeps(v5="3.1.3-6")
def test_no_identifier_and_no_clean_start_is_allowed(site: Site) -> None:
    peer = site.peer()
    peer.send(raw.connect(V5, "", clean=False))
    connack = peer.next(raw.CONNACK)
    assert (connack.code, connack.data[0]) == (0, 0)
    assert raw.ASSIGNED_IDENTIFIER in connack.properties


@keeps(v311="3.1.3-10", v5="3.1.3-11")
def test_a_will_topic_that_is_not_text_is_refused(site: Site) -> None:
    for bad in (BAD_TEXT, b"a\0b", b"", b"a/+", b"#"):
        peer = site.peer()
        peer.send(raw.connect(site.version, site.name(), will=Will(bad)))
        assert peer.rejected(0x81, 0x90)


@keeps(v311="3.1.3-11", v5="3.1.3-12")
def test_a_user_name_that_is_not_text_is_refused(site: Site) -> None:
    for bad in (BAD_TEXT, b"a\0b"):
        peer = site.peer()
        peer.send(raw.connect(site.version, site.name(), username=bad))
        assert peer.rejected(0x81)


@keeps(v311="3.1.4-1", v5="3.1.4-1")
def test_bytes_behind_connect_s_last_field_are_refused(site: Site) -> None:
    peer = site.peer()
    peer.send(raw.connect(site.version, site.name(), tail=b"\0"))
    assert peer.rejected(0x81)


@keeps(v5="3.1.4-2 3.1.4-1 3.2.2-8")
def test_a_connect_with_forbidden_properties_is_refused(site: Site) -> None:
    twice = raw.block((raw.SESSION_EXPIRY, 1), (raw.SESSION_EXPIRY, 1))
    for properties in (
        twice,
        raw.block((raw.RECEIVE_MAXIMUM, 0)),
        raw.block((raw.MAXIMUM_PACKET, 0)),
        raw.block((raw.REQUEST_PROBLEMS, 2)),
        raw.block((raw.REQUEST_RESPONSE, 2)),
        raw.block((raw.TOPIC_ALIAS, 1)),
        raw.block((raw.AUTHENTICATION_DATA, b"x")),
        b"\x7f\0",
        raw.block((raw.SESSION_EXPIRY, 1))[:3],
    ):
        peer = site.peer()
        peer.send(raw.connect(V5, site.name(), properties=properties))
        assert peer.rejected(0x81, 0x82)


@keeps(v311="3.1.4-2", v5="3.1.4-3 4.13.2-1 3.14.2-1 3.14.2-2 3.14.4-1 3.14.4-2")
def test_the_same_identifier_again_ends_the_first_connection(site: Site) -> None:
    first = site.client()
    second = site.client()
    rest = first.rest()
    if site.version == V5:
        (farewell,) = rest
        assert (farewell.kind, farewell.code) == (raw.DISCONNECT, 0x8E)
        assert raw.SESSION_EXPIRY not in farewell.properties
    else:
        assert rest == []
    assert second.heard() == []


@keeps(v311="3.1.4-5", v5="3.1.4-6 3.14.0-1")
def test_what_follows_a_rejected_connect_is_not_processed(site: Site) -> None:
    listener = site.client("listener")
    listener.subscribe(f"{site.topic}/#")
    peer = site.peer()
    bad = raw.connect(site.version, site.name(), flags=0x03)
    peer.send(bad, raw.publish(site.version, f"{site.topic}/never", b"x", retain=True))
    assert all(one.kind == raw.CONNACK for one in peer.rest())
    listener.publish(f"{site.topic}/marker", b"marker", 0)
    assert listener.message().payload == b"marker"


@keeps(v311="3.2.0-1 3.1.4-4", v5="3.2.0-1 3.1.4-5")
def test_connack_comes_first_whatever_follows_connect(site: Site) -> None:
    durable = site.client(durable=True)
    durable.subscribe(site.topic, 1)
    durable.bye()
    site.client("publisher").publish(site.topic, b"waits")
    properties = raw.block((raw.SESSION_EXPIRY, 60)) if site.version == V5 else b""
    again = site.peer()
    again.send(
        raw.connect(site.version, site.name(), clean=False, properties=properties),
        raw.PING,
        raw.subscribe(site.version, 9, (f"{site.topic}/b", 0)),
    )
    assert again.next(raw.CONNACK).code == 0
    assert {again.read().kind for _ in range(3)} == {raw.PUBLISH, raw.PINGRESP, raw.SUBACK}


@keeps(v311="7.0.0-2 7.1.1-1", v5="4.2-1")
def test_a_plain_conversation_byte_by_byte(site: Site) -> None:
    client = site.peer()
    for byte in raw.connect(site.version, site.name(), keep_alive=30):
        client.send(bytes((byte,)))
    assert client.next(raw.CONNACK).code == 0
    for byte in raw.subscribe(site.version, 1, (site.topic, 1)) + raw.publish(
        site.version, site.topic, b"payload", 1, 2
    ):
        client.send(bytes((byte,)))
    heard = {client.read().kind for _ in range(3)}
    assert heard == {raw.SUBACK, raw.PUBLISH, raw.PUBACK}
    client.send(raw.disconnect())
    with pytest.raises(Closed):
        client.read()
