"""Extended authentication with a method that the server offers (parts 3.15, 4.12)."""

from collections.abc import Iterator

import pytest

from robustmq.policy.passwords import written
from tests.conformance import raw
from tests.conformance.peer import Packet, Peer, Site
from tests.conformance.raw import V5
from tests.conformance.statements import keeps
from tests.integration.supervised import Node
from tests.integration.wire_client import serve
from tests.scram_client import ScramClient

METHOD = "SCRAM-SHA-256"
CONTINUE = 0x18
ANEW = 0x19
SMALL = 200


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    kept = written(METHOD, "pencil", b"a salt", 4_096)
    config = f'[[users]]\nusername = "alice"\npassword = ["{kept}"]\n'
    yield from serve(tmp_path_factory.mktemp("scram") / "data", config=config)


def _proof(data: bytes) -> bytes:
    return raw.block((raw.AUTHENTICATION_METHOD, METHOD), (raw.AUTHENTICATION_DATA, data))


def _auth(reason: int, data: bytes) -> bytes:
    properties = _proof(data)
    return raw.packet(0xF0, bytes((reason,)) + raw.varint(len(properties)) + properties)


def _data(packet: Packet) -> bytes:
    assert packet.properties[raw.AUTHENTICATION_METHOD] == [METHOD]
    (data,) = packet.properties[raw.AUTHENTICATION_DATA]
    assert isinstance(data, bytes)
    return data


def _challenged(site: Site, who: ScramClient, limits: bytes = b"") -> tuple[Peer, Packet]:
    """Return a connection that has said who it is, and the server's challenge."""
    peer = site.peer()
    peer.send(raw.connect(V5, site.name(), properties=_proof(who.first()) + limits))
    challenge = peer.next(raw.AUTH)
    assert challenge.code == CONTINUE
    return peer, challenge


@keeps(v5="4.12.0-2 4.12.0-5 3.15.2-1 3.2.0-1")
def test_a_client_proves_itself_before_connack(site: Site) -> None:
    who = ScramClient("alice", "pencil", METHOD)
    peer, challenge = _challenged(site, who)
    peer.send(_auth(CONTINUE, who.final(_data(challenge))))
    connack = peer.next(raw.CONNACK)
    assert connack.code == 0
    assert who.is_server(_data(connack))
    assert peer.heard() == []


@keeps(v5="4.12.0-4 4.13.2-1 3.14.0-1 3.1.4-6")
def test_a_wrong_proof_is_refused(site: Site) -> None:
    who = ScramClient("alice", "wrong", METHOD)
    peer, challenge = _challenged(site, who)
    peer.send(_auth(CONTINUE, who.final(_data(challenge))), raw.PING)
    assert peer.rejected(0x86, 0x87)


@keeps(v5="4.12.0-4 4.13.1-1")
def test_another_packet_than_auth_before_connack_ends_the_connection(site: Site) -> None:
    for packet in (raw.PING, raw.publish(V5, site.topic, b"x"), raw.subscribe(V5, 1, ("a", 0))):
        peer, _ = _challenged(site, ScramClient("alice", "pencil", METHOD))
        peer.send(packet)
        assert all(one.kind == raw.CONNACK and one.code >= 0x80 for one in peer.rest())


@keeps(v5="3.15.2-2 3.15.2-3")
def test_auth_fits_into_what_the_client_takes(site: Site) -> None:
    limits = raw.block((raw.MAXIMUM_PACKET, SMALL))
    _, challenge = _challenged(site, ScramClient("alice", "pencil", METHOD), limits)
    assert challenge.size <= SMALL
    assert raw.REASON_STRING not in challenge.properties
    assert raw.USER_PROPERTY not in challenge.properties


def _open(site: Site) -> Peer:
    who = ScramClient("alice", "pencil", METHOD)
    peer, challenge = _challenged(site, who)
    peer.send(_auth(CONTINUE, who.final(_data(challenge))))
    assert peer.next(raw.CONNACK).code == 0
    return peer


@keeps(v5="4.12.0-2 4.12.0-5 3.15.2-1")
def test_a_client_proves_itself_anew_while_messages_flow(site: Site) -> None:
    peer = _open(site)
    peer.subscribe(site.topic)
    again = ScramClient("alice", "pencil", METHOD, nonce="again")
    peer.send(_auth(ANEW, again.first()))
    challenge = peer.next(raw.AUTH)
    assert challenge.code == CONTINUE
    peer.publish(site.topic, b"meanwhile", 0)
    assert peer.message().payload == b"meanwhile"
    peer.send(_auth(CONTINUE, again.final(_data(challenge))))
    success = peer.next(raw.AUTH)
    assert success.code == 0
    assert again.is_server(_data(success))
    assert peer.heard() == []


@keeps(v5="4.12.1-2 4.13.2-1 3.14.2-1")
def test_a_proof_that_fails_anew_ends_the_connection(site: Site) -> None:
    peer = _open(site)
    again = ScramClient("alice", "wrong", METHOD, nonce="again")
    peer.send(_auth(ANEW, again.first()))
    peer.send(_auth(CONTINUE, again.final(_data(peer.next(raw.AUTH)))))
    assert peer.refused(0x86, 0x87)


@keeps(v5="4.12.1-2 4.13.1-1")
def test_another_method_anew_ends_the_connection(site: Site) -> None:
    peer = _open(site)
    properties = raw.block((raw.AUTHENTICATION_METHOD, "SCRAM-SHA-512"))
    peer.send(raw.packet(0xF0, bytes((ANEW,)) + raw.varint(len(properties)) + properties))
    assert peer.refused(0x82, 0x8C)
