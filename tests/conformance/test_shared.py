"""Shared subscriptions (part 4.8.2)."""

from tests.conformance import raw
from tests.conformance.peer import Peer, Site
from tests.conformance.statements import keeps
from tests.integration.supervised import until


def _member(site: Site, who: str, options: int = 2, **fields: object) -> Peer:
    client = site.client(who, **fields)
    client.subscribe(f"$share/group/{site.topic}", options)
    return client


def _reached(site: Site, members: list[Peer], publisher: Peer) -> Peer:
    """Publish until a message has come to one of the members, and return that one."""
    publisher.publish(site.topic, b"found", 2)
    found: list[Peer] = []

    def look() -> bool:
        for member in members:
            for one in member.heard():
                member.send(raw.answer(raw.PUBREC, one.packet_id))
                member.find(raw.PUBREL)
                member.send(raw.answer(raw.PUBCOMP, one.packet_id))
                found.append(member)
        return bool(found)

    until(look, "a member gets the message")
    return found[0]


@keeps(v5="4.8.2-1 4.8.2-2")
def test_each_message_goes_to_one_member(site: Site) -> None:
    members = [_member(site, who) for who in "ab"]
    publisher = site.client("publisher")
    for number in range(20):
        publisher.publish(site.topic, b"%d" % number, 1)
    payloads: list[bytes] = []

    def all_came() -> bool:
        for member in members:
            for one in member.heard():
                payloads.append(one.payload)
                member.send(raw.answer(raw.PUBACK, one.packet_id))
        return len(payloads) >= 20

    until(all_came, "every message comes to a member")
    assert sorted(payloads) == sorted(b"%d" % number for number in range(20))


@keeps(v5="4.8.2-3")
def test_a_member_s_granted_qos_is_respected(site: Site) -> None:
    for granted in (0, 1, 2):
        member = _member(site, f"g{granted}", granted)
        for qos in (0, 1, 2):
            site.client("publisher").publish(site.topic, b"x", qos)
            assert member.message().qos == min(granted, qos)
        member.bye()


@keeps(v5="4.8.2-4")
def test_a_delivery_that_was_begun_is_completed_when_the_member_returns(site: Site) -> None:
    first = _member(site, "first", durable=True)
    site.client("publisher").publish(site.topic, b"mine", 2)
    found = first.next(raw.PUBLISH)
    other = _member(site, "other")
    first.drop()
    again = site.client("first", durable=True)
    repeated = again.next(raw.PUBLISH)
    assert (repeated.payload, repeated.packet_id, repeated.dup) == (b"mine", found.packet_id, True)
    again.send(raw.answer(raw.PUBREC, found.packet_id))
    assert again.next(raw.PUBREL).packet_id == found.packet_id
    assert other.heard() == []


@keeps(v5="4.8.2-5")
def test_a_begun_delivery_of_a_session_that_ends_goes_to_nobody_else(site: Site) -> None:
    first = _member(site, "first")
    publisher = site.client("publisher")
    publisher.publish(site.topic, b"lost with its session", 2)
    first.next(raw.PUBLISH)
    other = _member(site, "other")
    first.drop()
    publisher.publish(site.topic, b"marker", 2)
    assert other.message().payload == b"marker"
    assert other.heard() == []


@keeps(v5="4.8.2-6")
def test_a_message_that_a_member_refuses_goes_to_nobody_else(site: Site) -> None:
    first = _member(site, "first")
    publisher = site.client("publisher")
    for qos, kind in ((1, raw.PUBACK), (2, raw.PUBREC)):
        publisher.publish(site.topic, b"refused", qos)
        found = first.next(raw.PUBLISH)
        other = _member(site, f"other{qos}")
        first.send(raw.answer(kind, found.packet_id, b"\x83"))
        assert first.heard() == []
        assert other.heard() == []
        other.bye()
    assert _reached(site, [first], publisher) is first
