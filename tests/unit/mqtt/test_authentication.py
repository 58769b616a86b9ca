"""Logins by password and by AUTH (MQTT5 4.12): before CONNACK, and again while messages flow."""

import pytest

from robustmq import metrics
from robustmq.mqtt.packets import (
    V5,
    V31,
    V311,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Publish,
)
from robustmq.mqtt.reasons import Reason
from robustmq.policy.passwords import METHODS, written
from robustmq.settings.users import User
from tests.logins import ScriptedLogins
from tests.scram_client import ScramClient
from tests.unit.mqtt.scripted import Peer, Scene

METHOD = "SCRAM-SHA-256"
KEPT = tuple(written(method, "pencil", b"salt", 1) for method in METHODS)
USERS = (User(username="alice", password=KEPT), User(username="bob", password=KEPT))


@pytest.fixture
def logins() -> ScriptedLogins:
    return ScriptedLogins(users=USERS)


@pytest.fixture
def scene(logins: ScriptedLogins) -> Scene:
    return Scene(logins=logins)


def said(method: str | None, data: bytes | None = None) -> Properties:
    return Properties(authentication_method=method, authentication_data=data)


def data_of(packet: object) -> bytes:
    assert isinstance(packet, (Auth, Connack))
    assert packet.properties is not None
    assert packet.properties.authentication_method == METHOD
    assert packet.properties.authentication_data is not None
    return packet.properties.authentication_data


def proving(scene: Scene, client: ScramClient, method: str = METHOD) -> tuple[Peer, bytes]:
    peer = Peer(scene)
    peer.send(Connect("c", V5, properties=said(method, client.first())))
    (challenge,) = peer.got()
    assert isinstance(challenge, Auth)
    assert challenge.reason == Reason.CONTINUE_AUTHENTICATION
    return peer, data_of(challenge)


def proved(scene: Scene) -> Peer:
    client = ScramClient("alice", "pencil")
    peer, challenge = proving(scene, client)
    final = client.final(challenge)
    peer.send(Auth(Reason.CONTINUE_AUTHENTICATION, said(METHOD, final)))
    (connack,) = peer.got()
    assert isinstance(connack, Connack)
    assert connack.reason == Reason.SUCCESS
    assert client.is_server(data_of(connack))
    return peer


# ------------------------------------------------------------------ passwords


@pytest.mark.parametrize(
    ("version", "password", "answer"),
    [
        (V31, b"pencil", b"\x20\2\0\0"), (V311, b"pencil", b"\x20\2\0\0"),
        (V31, b"x", b"\x20\2\0\4"), (V311, b"x", b"\x20\2\0\4"), (V311, None, b"\x20\2\0\4"),
    ],
)  # fmt: skip
def test_a_password(
    scene: Scene, logins: ScriptedLogins, version: int, password: bytes | None, answer: bytes
) -> None:
    peer = Peer(scene, version)
    peer.send_bytes(b"")
    peer.send(Connect("c", version, username="alice", password=password))
    logins.look()
    assert peer.connection.outbox.take() == answer
    came = answer[3] == 0
    assert scene.cell(metrics.LOGINS_ACCEPTED) == scene.mqtt.connections == came
    assert scene.cell(metrics.LOGINS_REFUSED) == (not came)
    assert peer.connection.ended == (not came)


def test_who_gives_no_name_and_who_gives_a_wrong_one_are_told_apart(
    scene: Scene, logins: ScriptedLogins
) -> None:
    codes = []
    for version, name in ((V311, None), (V5, None), (V311, "eve"), (V5, "eve")):
        peer = Peer(scene, version)
        peer.send(Connect("c", version, username=name, password=b"x" if name else None))
        logins.look()
        (connack,) = peer.got()
        assert isinstance(connack, Connack)
        codes.append(connack.reason)
    refused = [Reason.NOT_AUTHORIZED] * 2 + [Reason.BAD_USER_NAME_OR_PASSWORD] * 2
    assert codes == refused


def test_while_a_password_is_looked_at_nothing_else_is(
    scene: Scene, logins: ScriptedLogins
) -> None:
    peer = Peer(scene)
    peer.send(
        Connect("c", V5, username="alice", password=b"pencil"),
        Pingreq(),
        Publish(b"t", b"x", qos=1, packet_id=1, retain=True),
    )
    assert peer.got() == []
    assert scene.broker.published == []
    logins.look()
    scene.broker.end_turn()
    assert [type(packet) for packet in peer.got()] == [Connack, Pingresp]
    assert peer.connection.session is not None
    assert peer.connection.session.principal.username == "alice"


@pytest.mark.parametrize("password", [b"pencil", b"wrong"])
def test_a_client_that_goes_while_its_password_is_looked_at(
    scene: Scene, logins: ScriptedLogins, password: bytes
) -> None:
    peer = Peer(scene)
    peer.send(Connect("c", V5, username="alice", password=password))
    peer.connection.lost()
    logins.look()
    assert peer.got() == []
    assert len(scene.mqtt.sessions) == scene.mqtt.connections == 0


def test_a_password_that_is_not_looked_at_in_time(scene: Scene, logins: ScriptedLogins) -> None:
    peer = Peer(scene)
    peer.send(Connect("c", V5, username="alice", password=b"pencil"))
    scene.broker.pass_ms(scene.mqtt.limits.connect_timeout_ms)
    assert peer.connection.ended
    logins.look()
    assert len(scene.mqtt.sessions) == 0


# ------------------------------------------------------------------ AUTH before CONNACK


def test_a_proof(scene: Scene) -> None:
    peer = proved(scene)
    session = peer.connection.session
    assert session is not None
    assert (session.client_id, session.principal.username) == ("c", "alice")
    peer.send(Pingreq())
    assert peer.got() == [Pingresp()]
    assert scene.cell(metrics.LOGINS_ACCEPTED) == 1


def test_a_proof_of_a_durable_session_waits_for_the_disk(scene: Scene) -> None:
    client = ScramClient("alice", "pencil")
    peer = Peer(scene)
    properties = Properties(
        session_expiry_interval=60, authentication_method=METHOD, authentication_data=client.first()
    )
    peer.send(Connect("c", V5, properties=properties))
    (challenge,) = peer.got()
    final = client.final(data_of(challenge))
    peer.send(Auth(Reason.CONTINUE_AUTHENTICATION, said(METHOD, final)))
    (connack,) = peer.got()
    assert client.is_server(data_of(connack))


def test_a_proof_that_fails(scene: Scene) -> None:
    for name, password in (("alice", "x"), ("nobody", "pencil")):
        client = ScramClient(name, password)
        peer, challenge = proving(scene, client)
        final = client.final(challenge)
        peer.send(Auth(Reason.CONTINUE_AUTHENTICATION, said(METHOD, final)))
        assert peer.got() == [Connack(Reason.BAD_USER_NAME_OR_PASSWORD)]
        assert peer.connection.ended
    assert len(scene.mqtt.sessions) == 0
    assert scene.cell(metrics.LOGINS_REFUSED) == 2


@pytest.mark.parametrize("method", ["GS2-KRB5", "", "scram-sha-256"])
def test_a_method_that_is_not_offered(scene: Scene, method: str) -> None:
    peer = Peer(scene)
    peer.send(Connect("c", V5, properties=said(method)))
    assert peer.got() == [Connack(Reason.BAD_AUTHENTICATION_METHOD)]
    assert peer.connection.ended


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (Pingreq(), Reason.PROTOCOL_ERROR), (Publish(b"t"), Reason.PROTOCOL_ERROR),
        (Connect("d", V5), Reason.PROTOCOL_ERROR),
        (Auth(Reason.REAUTHENTICATE, said(METHOD)), Reason.PROTOCOL_ERROR),
        (Auth(Reason.SUCCESS, said(METHOD)), Reason.PROTOCOL_ERROR),
        (Auth(Reason.CONTINUE_AUTHENTICATION, said("X")), Reason.BAD_AUTHENTICATION_METHOD),
        (Auth(Reason.CONTINUE_AUTHENTICATION, said(METHOD)), Reason.NOT_AUTHORIZED),
    ],
)  # fmt: skip
def test_before_connack_a_client_may_only_go_on_with_its_proof(
    scene: Scene, packet: Auth, reason: Reason
) -> None:
    peer, _ = proving(scene, ScramClient("alice", "pencil"))
    peer.send(packet)
    assert peer.got() == [Connack(reason)]
    assert peer.connection.ended


def test_a_client_may_give_up(scene: Scene) -> None:
    peer, _ = proving(scene, ScramClient("alice", "pencil"))
    peer.send(Disconnect())
    assert peer.got() == []
    assert peer.connection.ended
    peer, _ = proving(scene, ScramClient("alice", "pencil"))
    peer.send_bytes(b"\xf0\1\xff")
    assert [type(packet) for packet in peer.got()] == [Connack]


def test_a_proof_has_as_long_as_a_connect(scene: Scene) -> None:
    peer, _ = proving(scene, ScramClient("alice", "pencil"))
    scene.broker.pass_ms(scene.mqtt.limits.connect_timeout_ms)
    assert peer.connection.ended


# ------------------------------------------------------------------ AUTH again


def again(peer: Peer, client: ScramClient) -> bytes:
    peer.send(Auth(Reason.REAUTHENTICATE, said(METHOD, client.first())))
    (challenge,) = peer.got()
    return data_of(challenge)


def test_a_client_proves_again_while_messages_flow(scene: Scene) -> None:
    peer = proved(scene)
    for _ in range(2):
        client = ScramClient("alice", "pencil")
        challenge = again(peer, client)
        peer.send(Publish(b"t", b"x", qos=1, packet_id=1, retain=True))
        scene.broker.answer()
        assert peer.got() == [Puback(1)]
        peer.send(Auth(Reason.CONTINUE_AUTHENTICATION, said(METHOD, client.final(challenge))))
        (answer,) = peer.got()
        assert isinstance(answer, Auth)
        assert answer.reason == Reason.SUCCESS
        assert client.is_server(data_of(answer))
    scene.broker.pass_ms(scene.mqtt.limits.connect_timeout_ms)
    assert not peer.connection.ended


@pytest.mark.parametrize(("name", "password"), [("alice", "x"), ("bob", "pencil")])
def test_a_second_proof_that_fails_or_is_another_users(
    scene: Scene, name: str, password: str
) -> None:
    peer = proved(scene)
    client = ScramClient(name, password)
    challenge = again(peer, client)
    peer.send(Auth(Reason.CONTINUE_AUTHENTICATION, said(METHOD, client.final(challenge))))
    assert peer.got() == [Disconnect(Reason.NOT_AUTHORIZED)]
    assert peer.connection.ended


def test_a_second_proof_that_takes_too_long(scene: Scene) -> None:
    peer = proved(scene)
    again(peer, ScramClient("alice", "pencil"))
    scene.broker.pass_ms(scene.mqtt.limits.connect_timeout_ms)
    assert peer.got() == [Disconnect(Reason.NOT_AUTHORIZED)]


@pytest.mark.parametrize(
    "packet",
    [
        Auth(Reason.CONTINUE_AUTHENTICATION, said(METHOD, b"x")),
        Auth(Reason.SUCCESS, said(METHOD)),
        Auth(Reason.REAUTHENTICATE, said("SCRAM-SHA-512", b"n,,n=alice,r=x")),
        Auth(Reason.REAUTHENTICATE, said(None)),
    ],
)
def test_auth_that_belongs_to_nothing(scene: Scene, packet: Auth) -> None:
    peer = proved(scene)
    peer.send(packet)
    assert peer.got() == [Disconnect(Reason.PROTOCOL_ERROR)]


def test_auth_that_begins_twice(scene: Scene) -> None:
    peer = proved(scene)
    again(peer, ScramClient("alice", "pencil"))
    peer.send(Auth(Reason.REAUTHENTICATE, said(METHOD, b"n,,n=alice,r=x")))
    assert peer.got() == [Disconnect(Reason.PROTOCOL_ERROR)]


def test_auth_of_a_client_that_came_without_a_method(scene: Scene, logins: ScriptedLogins) -> None:
    peer = Peer(scene)
    peer.send(Connect("c", V5, username="alice", password=b"pencil"))
    logins.look()
    peer.got()
    peer.send(Auth(Reason.REAUTHENTICATE, said(METHOD, b"n,,n=alice,r=x")))
    scene.broker.end_turn()
    assert peer.got() == [Disconnect(Reason.PROTOCOL_ERROR)]
