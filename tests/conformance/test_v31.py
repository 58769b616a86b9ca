"""What MQTT 3.1 says otherwise than 3.1.1."""

from tests.conformance import raw
from tests.conformance.peer import Site
from tests.conformance.statements import V31, keeps


@keeps(v31="3.1-1")
def test_the_protocol_is_mqisdp_with_level_3(site: Site) -> None:
    assert site.client().heard() == []
    for name, level in ((b"MQTT", 3), (b"MQIsdp", 4), (b"MQIsdp", 5)):
        peer = site.peer()
        peer.send(raw.connect(V31, site.name(), name=name, level=level))
        (connack,) = peer.rest()
        assert connack.data == b"\0\1"


@keeps(v31="3.1-2")
def test_a_client_identifier_is_wanted(site: Site) -> None:
    for clean in (False, True):
        peer = site.peer()
        peer.send(raw.connect(V31, "", clean=clean))
        (connack,) = peer.rest()
        assert connack.data == b"\0\2"
    for name in ("x", site.name() + "y" * 40):
        assert site.peer().send(raw.connect(V31, name)).next(raw.CONNACK).data == b"\0\0"


@keeps(v31="3.1-3 3.1-6")
def test_a_session_is_resumed_without_a_word(site: Site) -> None:
    away = site.client(durable=True)
    away.subscribe(site.topic, 1)
    away.bye()
    site.client("publisher").publish(site.topic, b"waits")
    again = site.client(durable=True)
    assert again.connack.data == b"\0\0"
    assert again.message().payload == b"waits"


@keeps(v31="3.1-4")
def test_name_and_password_may_be_missing_though_their_flags_are_set(site: Site) -> None:
    for flags, tail in ((0xC2, b""), (0xC2, raw.text("user")), (0x82, b"")):
        peer = site.peer()
        peer.send(raw.connect(V31, site.name(), flags=flags, tail=tail))
        assert peer.next(raw.CONNACK).data == b"\0\0"


@keeps(v31="3.1-5")
def test_requests_may_be_repeated_with_dup(site: Site) -> None:
    client = site.client()
    client.send(raw.subscribe(V31, 1, (site.topic, 2), first_byte=0x8A))
    assert client.next(raw.SUBACK).codes == b"\2"
    client.send(raw.publish(V31, site.topic, b"x", 2, 4))
    assert client.find(raw.PUBREC).packet_id == 4
    for flags in (2, 10):
        client.send(raw.answer(raw.PUBREL, 4, flags=flags))
        assert client.find(raw.PUBCOMP).packet_id == 4
    assert client.find(raw.PUBLISH).payload == b"x"
    client.send(raw.unsubscribe(V31, 5, site.topic, first_byte=0xAA))
    assert client.next(raw.UNSUBACK).packet_id == 5


@keeps(v31="3.1-8")
def test_exchanges_are_those_of_311(site: Site) -> None:
    client = site.client()
    client.subscribe(site.topic, 2)
    for qos in (0, 1, 2):
        client.publish(site.topic, b"%d" % qos, qos)
        found = client.message()
        assert (found.qos, found.payload, found.dup) == (qos, b"%d" % qos, False)
    client.send(raw.PING)
    assert client.next(raw.PINGRESP).data == b""
    client.bye()


@keeps(v31="3.1-9")
def test_the_lowest_connect_flag_is_not_looked_at(site: Site) -> None:
    peer = site.peer()
    peer.send(raw.connect(V31, site.name(), flags=0x03))
    assert peer.next(raw.CONNACK).data == b"\0\0"
