"""Data types and the fixed header (MQTT 3.1.1 parts 1.5 and 2, MQTT 5 parts 1.5 and 2)."""

import pytest

from tests.conformance import raw
from tests.conformance.peer import Site
from tests.conformance.raw import V5
from tests.conformance.statements import keeps

BAD_TEXT = [b"\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf4\x90\x80\x80"]
WRONG_FLAGS = [0x81, 0x80, 0xA0, 0xA3, 0x60, 0x63, 0x41, 0x52, 0x71, 0xC1, 0xE1]


@pytest.mark.parametrize("bad", BAD_TEXT, ids=bytes.hex)
@keeps(v311="1.5.3-1 3.3.2-1", v5="1.5.4-1 3.3.2-1")
def test_a_topic_that_is_not_utf8_ends_the_connection(site: Site, bad: bytes) -> None:
    client = site.client()
    client.send(raw.publish(client.version, b"t/" + bad))
    assert client.refused(0x81)


@pytest.mark.parametrize("bad", BAD_TEXT, ids=bytes.hex)
@keeps(v311="1.5.3-1 3.8.3-1", v5="1.5.4-1 3.8.3-1")
def test_a_filter_that_is_not_utf8_ends_the_connection(site: Site, bad: bytes) -> None:
    client = site.client()
    client.send(raw.subscribe(client.version, 1, (b"t/" + bad, 0)))
    assert client.refused(0x81)


@keeps(v311="1.5.3-2 4.7.3-2", v5="1.5.4-2 4.7.3-2")
def test_null_in_a_topic_or_filter_ends_the_connection(site: Site) -> None:
    version = site.version
    for bad in (
        raw.publish(version, b"a\0b"),
        raw.subscribe(version, 1, (b"a\0b", 0)),
        raw.unsubscribe(version, 1, b"a\0b"),
    ):
        client = site.client()
        client.send(bad)
        assert client.refused(0x81)


@keeps(v311="1.5.3-3", v5="1.5.4-3")
def test_a_byte_order_mark_is_a_character_like_others(site: Site) -> None:
    client = site.client()
    marked = b"\xef\xbb\xbf" + site.topic.encode()
    client.send(raw.subscribe(client.version, 1, (marked, 0)))
    assert client.next(raw.SUBACK).code == 0
    client.send(raw.publish(client.version, site.topic, b"no"))
    client.send(raw.publish(client.version, marked, b"yes"))
    heard = client.next(raw.PUBLISH)
    assert (heard.topic, heard.payload) == (marked, b"yes")


@keeps(v5="1.5.5-1")
def test_an_integer_in_a_longer_form_than_needed_is_malformed(site: Site) -> None:
    for properties in (b"\x80\x00", b"\x82\x00\x01\x00"):
        client = site.client()
        client.send(raw.packet(0x30, raw.text(site.topic) + properties))
        assert client.refused(0x81)
    client = site.client()
    identifier = bytes((raw.SUBSCRIPTION_IDENTIFIER,)) + b"\x81\x00"
    client.send(raw.subscribe(V5, 1, (site.topic, 0), properties=identifier))
    assert client.refused(0x81)


@keeps(v5="1.5.5-1")
def test_what_the_server_sends_has_the_shortest_form(site: Site) -> None:
    client = site.client()
    client.subscribe(site.topic)
    for size in (0, 120, 127, 128, 16_400):
        client.publish(site.topic, bytes(size), 0)
        found = client.next(raw.PUBLISH)
        assert found.payload == bytes(size)
        client.send(raw.PING)
        assert client.next(raw.PINGRESP).size == 2


@keeps(v5="1.5.7-1")
def test_both_halves_of_a_user_property_are_text(site: Site) -> None:
    for pair in ((b"\xff", "value"), ("name", b"\xff"), ("na\0me", "value"), ("name", "va\0lue")):
        client = site.client()
        properties = raw.block((raw.USER_PROPERTY, pair))
        client.send(raw.publish(V5, site.topic, properties=properties))
        assert client.refused(0x81)


@pytest.mark.parametrize("first_byte", WRONG_FLAGS, ids=lambda byte: f"{byte:02x}")
@keeps(
    v311="2.2.2-1 2.2.2-2 3.6.1-1 3.8.1-1 3.10.1-1 3.14.1-1 4.8.0-1",
    v5="2.1.3-1 3.6.1-1 3.8.1-1 3.10.1-1 3.14.1-1 4.13.1-1",
)
def test_wrong_flags_end_the_connection(site: Site, first_byte: int) -> None:
    version = site.version
    empty = raw.lengthy(b"", version)
    bodies = {
        0x80: b"\0\1" + empty + raw.text(site.topic) + b"\0",
        0xA0: b"\0\1" + empty + raw.text(site.topic),
        0xC0: b"",
        0xE0: b"",
    }
    client = site.client()
    client.send(raw.packet(first_byte, bodies.get(first_byte & 0xF0, b"\0\1")))
    assert client.refused(0x81)


@keeps(v311="2.2.2-1 2.2.2-2", v5="2.1.3-1")
def test_packets_of_no_kind_and_of_the_server_end_the_connection(site: Site) -> None:
    for kind in (0, raw.CONNACK, raw.SUBACK, raw.UNSUBACK, raw.PINGRESP):
        client = site.client()
        client.send(raw.packet(kind << 4, b"\0\0\0\0"))
        assert client.refused(0x81, 0x82)


@keeps(v311="2.3.1-1", v5="4.13.1-1")
def test_a_packet_identifier_of_zero_ends_the_connection(site: Site) -> None:
    version = site.version
    for bad in (
        raw.publish(version, site.topic, b"", 1, 0),
        raw.publish(version, site.topic, b"", 2, 0),
        raw.subscribe(version, 0, (site.topic, 0)),
        raw.unsubscribe(version, 0, site.topic),
        raw.answer(raw.PUBREL, 0),
        raw.answer(raw.PUBACK, 0),
    ):
        client = site.client()
        client.send(bad)
        assert client.refused(0x81, 0x82)


@keeps(v311="2.3.1-5 4.3.1-1", v5="2.2.1-2 4.3.1-1")
def test_qos_0_has_no_identifier_and_no_dup(site: Site) -> None:
    client = site.client()
    client.subscribe(site.topic, 2)
    client.send(raw.publish(client.version, site.topic, b"\0\1two bytes stay the payload's"))
    found = client.next(raw.PUBLISH)
    assert (found.qos, found.dup, found.packet_id) == (0, False, 0)
    assert found.payload == b"\0\1two bytes stay the payload's"


@keeps(v5="2.2.2-1")
def test_no_properties_are_a_length_of_zero(site: Site) -> None:
    client = site.client()
    suback = client.subscribe(site.topic)
    assert suback.data[2:] == b"\0\0"
    client.publish(site.topic, b"x", 0)
    assert client.next(raw.PUBLISH).data == raw.text(site.topic) + b"\0x"
    client.send(raw.packet(0x30, raw.text(site.topic)))
    assert client.refused(0x81)


@keeps(v311="4.8.0-1", v5="4.13.1-1")
def test_a_remaining_length_of_five_bytes_ends_the_connection(site: Site) -> None:
    client = site.client()
    client.send(b"\x30\xff\xff\xff\xff\x01")
    assert client.refused(0x81)


@keeps(v311="4.8.0-1", v5="4.13.1-1")
def test_bytes_behind_the_end_of_a_packet_end_the_connection(site: Site) -> None:
    version = site.version
    for bad in (
        raw.packet(0xC0, b"\0"),
        raw.packet(0x40, b"\0\1\0\0\0"),
        raw.packet(0x62, b"\0"),
        raw.packet(0x82, b"\0\1" + raw.lengthy(b"", version) + raw.text("a")),
        raw.packet(0x30, b"\0\x09abc"),
    ):
        client = site.client()
        client.send(bad)
        assert client.refused(0x81, 0x82)
