"""Wills: when they are published, how, and when not (parts 3.1.2.5, 3.1.3.2, 3.14.4)."""

import pytest

from tests.conformance import raw
from tests.conformance.peer import Peer, Site
from tests.conformance.raw import V5
from tests.conformance.statements import keeps


def _listener(site: Site, options: int = 0) -> Peer:
    listener = site.client("listener")
    listener.subscribe(f"{site.topic}/#", options)
    return listener


def _nothing_but_the_marker(site: Site, listener: Peer) -> None:
    site.client("marker").publish(f"{site.topic}/marker", b"marker", 0)
    assert listener.message().payload == b"marker"


@pytest.mark.parametrize("qos", [0, 1, 2])
@keeps(
    v311="3.1.2-8 3.1.2-9 3.1.2-14 3.1.2-16",
    v5="3.1.2-7 3.1.2-8 3.1.2-9 3.1.2-12 3.1.2-14",
)
def test_the_will_of_a_lost_connection_is_published(site: Site, qos: int) -> None:
    listener = _listener(site, 2)
    site.client(will=site.will("will", payload=b"last words", qos=qos)).drop()
    found = listener.message()
    assert found.topic == f"{site.topic}/will".encode()
    assert (found.payload, found.qos, found.retain) == (b"last words", qos, False)
    late = site.client("late")
    late.subscribe(f"{site.topic}/will")
    assert late.heard() == []


@keeps(v311="3.1.2-17", v5="3.1.2-15")
def test_a_will_with_retain_is_retained(site: Site) -> None:
    listener = _listener(site, 1)
    site.client(will=site.will("will", qos=1, retain=True)).drop()
    assert not listener.message().retain
    late = site.client("late")
    late.subscribe(f"{site.topic}/will", 1)
    found = late.message()
    assert (found.payload, found.retain, found.qos) == (b"gone", True, 1)


@keeps(v311="3.1.2-10 3.14.4-3", v5="3.1.2-8 3.1.2-10 3.14.4-3")
def test_disconnect_discards_the_will(site: Site) -> None:
    listener = _listener(site)
    site.client(will=site.will("will")).bye()
    _nothing_but_the_marker(site, listener)


@keeps(v311="3.1.2-10 4.1.0-1", v5="3.1.2-10")
def test_a_will_is_published_once(site: Site) -> None:
    listener = _listener(site)
    site.client(durable=True, will=site.will("will")).drop()
    assert listener.message().payload == b"gone"
    site.client(durable=True).drop()
    _nothing_but_the_marker(site, listener)


@keeps(v311="3.1.2-12", v5="3.1.2-11")
def test_without_a_will_nothing_is_published(site: Site) -> None:
    listener = _listener(site)
    site.client().drop()
    _nothing_but_the_marker(site, listener)


@keeps(v311="3.1.2-8 3.14.1-1", v5="3.1.2-8")
def test_a_client_that_breaks_the_protocol_leaves_its_will(site: Site) -> None:
    listener = _listener(site)
    client = site.client(will=site.will("will"))
    client.send(b"\xe1\0")
    assert client.refused(0x81)
    assert listener.message().payload == b"gone"


@keeps(v5="3.1.2-8 3.14.4-3")
def test_any_other_disconnect_publishes_the_will(site: Site) -> None:
    for reason in (0x04, 0x80, 0x98):
        listener = site.client(f"l{reason}")
        listener.subscribe(f"{site.topic}/#")
        site.client(f"c{reason}", will=site.will("will")).bye(reason)
        assert listener.message().payload == b"gone"


@keeps(v5="3.1.2-8")
def test_the_will_waits_for_its_delay(site: Site) -> None:
    listener = _listener(site)
    delayed = raw.block((raw.WILL_DELAY, 2))
    site.client(durable=True, will=site.will("will", properties=delayed)).drop()
    assert listener.heard() == []
    assert listener.message().payload == b"gone"


@keeps(v5="3.1.2-8 4.1.0-2")
def test_the_will_comes_when_the_session_ends_before_the_delay(site: Site) -> None:
    listener = _listener(site)
    delayed = raw.block((raw.WILL_DELAY, 60))
    site.client(will=site.will("will", properties=delayed)).drop()
    assert listener.message().payload == b"gone"


@keeps(v5="3.1.3-9 3.1.2-8")
def test_a_return_within_the_delay_prevents_the_will(site: Site) -> None:
    listener = _listener(site)
    delayed = raw.block((raw.WILL_DELAY, 2))
    site.client(durable=True, will=site.will("will", properties=delayed)).drop()
    again = site.client(durable=True)
    listener.silence(2.5)
    again.bye()
    _nothing_but_the_marker(site, listener)


@keeps(v5="3.1.3-10 3.3.2-4 3.3.2-15 3.3.2-16 3.3.2-20")
def test_the_will_s_properties_are_forwarded(site: Site) -> None:
    listener = _listener(site)
    pairs: list[tuple[str | bytes, str | bytes]] = [("b", "1"), ("a", "2"), ("b", "3")]
    properties = raw.block(
        (raw.PAYLOAD_FORMAT, 1),
        (raw.CONTENT_TYPE, "text/plain"),
        (raw.RESPONSE_TOPIC, "answers"),
        (raw.CORRELATION_DATA, b"\0\1"),
        *((raw.USER_PROPERTY, pair) for pair in pairs),
    )
    site.client(will=site.will("will", properties=properties)).drop()
    found = listener.message().properties
    assert found[raw.USER_PROPERTY] == [(b"b", b"1"), (b"a", b"2"), (b"b", b"3")]
    assert found[raw.PAYLOAD_FORMAT] == [1]
    assert found[raw.CONTENT_TYPE] == ["text/plain"]
    assert found[raw.RESPONSE_TOPIC] == ["answers"]
    assert found[raw.CORRELATION_DATA] == [b"\0\1"]
    assert raw.WILL_DELAY not in found


@keeps(v311="3.1.4-2 3.1.2-8", v5="3.1.4-3 3.1.2-8")
def test_a_client_that_is_taken_over_leaves_its_will(site: Site) -> None:
    listener = _listener(site)
    first = site.client(will=site.will("will"))
    site.client()
    first.rest()
    assert listener.message().payload == b"gone"


@keeps(v5="3.1.2-9 4.13.1-1")
def test_a_will_with_forbidden_properties_is_refused(site: Site) -> None:
    for properties in (
        raw.block((raw.TOPIC_ALIAS, 1)),
        raw.block((raw.PAYLOAD_FORMAT, 2)),
        raw.block((raw.WILL_DELAY, 1), (raw.WILL_DELAY, 1)),
        raw.block((raw.RESPONSE_TOPIC, "a/#")),
    ):
        peer = site.peer()
        peer.send(raw.connect(V5, site.name(), will=site.will("will", properties=properties)))
        assert peer.rejected(0x81, 0x82, 0x90)
