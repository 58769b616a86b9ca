"""The automaton of a connection: how it opens, what it answers, and every way in which it ends."""

import gc

import pytest

from robustmq import metrics
from robustmq._kernel.intake import CLAIM
from robustmq.errors import Refusal, Refused
from robustmq.mqtt.connection import Connection
from robustmq.mqtt.packets import (
    V5,
    V31,
    V311,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Subscription,
    Will,
)
from robustmq.mqtt.reasons import Reason
from robustmq.settings.listener import MqttListener, MqttListeners
from robustmq.settings.mqtt import MqttRuntime
from tests.unit.mqtt.scripted import Peer, Scene, connected

VERSIONS = (V31, V311, V5)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def ended(peer: Peer) -> bool:
    return peer.connection.ended and peer.stream.calls[:1] == ["close"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_life(scene: Scene, version: int) -> None:
    peer = connected(scene, version=version)
    assert scene.mqtt.connections == scene.cell(metrics.CONNECTIONS) == 1
    assert scene.broker.opened == [True]
    peer.send(Pingreq())
    assert peer.got() == [Pingresp()]
    peer.send(Disconnect())
    assert ended(peer)
    assert peer.got() == []
    assert scene.mqtt.connections == len(scene.mqtt.sessions) == 0
    assert scene.complaints == []
    peer.send(Pingreq())
    assert peer.got() == []


def test_a_connection_that_says_nothing_ends_in_time() -> None:
    scene = Scene(connect_timeout_ms=1_000, linger_timeout_ms=500)
    peer, other = Peer(scene), connected(scene)
    scene.broker.pass_ms(900)
    assert not peer.connection.ended
    scene.broker.pass_ms(200)
    assert ended(peer)
    assert peer.stream.calls == ["close"]
    scene.broker.pass_ms(600)
    assert peer.stream.calls == ["close", "abort"]
    assert not other.connection.ended
    assert scene.cell(metrics.CONNECTIONS_REFUSED) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_silence_is_counted_from_the_last_byte(version: int) -> None:
    scene = Scene()
    will = Will(b"w", b"gone")
    peer = connected(scene, version=version, keep_alive=10, will=will)
    scene.broker.pass_ms(14_900)
    peer.send_bytes(b"\x30")
    scene.broker.pass_ms(14_900)
    assert not peer.connection.ended
    scene.broker.pass_ms(200)
    assert ended(peer)
    assert peer.got() == ([Disconnect(Reason.KEEP_ALIVE_TIMEOUT)] if version == V5 else [])
    assert scene.cell(metrics.KEEPALIVE_TIMEOUTS) == 1
    assert [asked.record.value for asked in scene.broker.published] == [b"gone"]


def test_a_client_that_we_do_not_read_is_not_silent(scene: Scene) -> None:
    peer = connected(scene, keep_alive=10)
    peer.connection.intake.hold(CLAIM)
    scene.broker.pass_ms(100_000)
    assert not peer.connection.ended
    peer.connection.intake.let_go(CLAIM)
    scene.broker.pass_ms(15_100)
    assert ended(peer)


@pytest.mark.parametrize(
    ("version", "asked", "told", "most_ms"),
    [
        (V5, 10, None, 15_000), (V5, 0, 60, 90_000), (V5, 100, 60, 90_000),
        (V311, 100, None, 150_000), (V311, 0, None, 0),
    ],
)  # fmt: skip
def test_keep_alive_of_the_server(version: int, asked: int, told: int | None, most_ms: int) -> None:
    scene = Scene(max_keep_alive=60)
    peer = Peer(scene, version)
    peer.send(Connect("c", version, keep_alive=asked))
    (connack,) = peer.got()
    assert isinstance(connack, Connack)
    assert (connack.properties.server_keep_alive if connack.properties else None) == told
    scene.broker.pass_ms(max(most_ms - 100, 200_000 if not most_ms else 0))
    assert not peer.connection.ended
    scene.broker.pass_ms(200)
    assert peer.connection.ended == bool(most_ms)


def test_a_listener_has_a_keep_alive_of_its_own() -> None:
    listeners = MqttListeners(ws=MqttListener(max_keep_alive=20))
    scene = Scene(max_keep_alive=60, config=MqttRuntime(listener=listeners))
    told = {}
    for listener in ("tcp", "ws"):
        peer = Peer(scene, listener=listener)
        peer.send(Connect(listener, V5, keep_alive=100))
        (connack,) = peer.got()
        assert isinstance(connack, Connack)
        assert connack.properties is not None
        told[listener] = connack.properties.server_keep_alive
    assert told == {"tcp": 60, "ws": 20}


def test_connack_says_what_was_asked_differently() -> None:
    scene = Scene(max_session_expiry_interval=50, topic_alias_max=0, receive_max=65_535)
    peer = Peer(scene)
    peer.send(Connect("", V5, keep_alive=5, properties=Properties(session_expiry_interval=100)))
    (connack,) = peer.got()
    assert isinstance(connack, Connack)
    assert connack.properties is not None
    assert connack.properties == Properties(
        session_expiry_interval=50,
        maximum_packet_size=10_485_760,
        assigned_client_id=connack.properties.assigned_client_id,
    )
    assert str(connack.properties.assigned_client_id).startswith("auto-seed-")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_will_that_the_broker_refuses(scene: Scene, version: int) -> None:
    scene.broker.refusals[b"w"] = Refused(Refusal.NOT_AUTHORIZED, "no")
    peer = Peer(scene, version)
    peer.send(Connect("c", version, will=Will(b"w", b"x")))
    assert peer.got() == [Connack(Reason.NOT_AUTHORIZED)]
    assert ended(peer)
    assert scene.cell(metrics.CONNECTIONS_REFUSED) == 1
    assert len(scene.mqtt.sessions) == 0


@pytest.mark.parametrize("clean", [False, True])
def test_taken_over(scene: Scene, clean: bool) -> None:
    old = connected(scene, expiry=100)
    session = old.connection.session
    new = connected(scene, clean=clean, expiry=100)
    assert ended(old)
    assert old.got() == [Disconnect(Reason.SESSION_TAKEN_OVER)]
    assert (new.connection.session is session) == (not clean)
    assert scene.cell(metrics.SESSIONS_TAKEN_OVER) == 1
    old.connection.lost()
    assert not new.connection.ended
    assert scene.mqtt.connections == len(scene.mqtt.sessions) == 1


def test_a_session_that_returns_in_another_version_moves_its_routes(scene: Scene) -> None:
    peer = connected(scene, version=V311, clean=False)
    peer.send(Subscribe(1, [Subscription("a", 1)]))
    peer.connection.lost()
    connected(scene, version=V31, clean=False).connection.lost()
    connected(scene, version=V31, clean=False).connection.lost()
    assert scene.broker.moves == [b"a"]
    connected(scene, version=V5, clean=False, expiry=10)
    assert scene.broker.moves == [b"a", b"a"]


def test_disconnect_has_the_last_word_on_the_session(scene: Scene) -> None:
    connected(scene, "kept", expiry=0).send(
        Disconnect(properties=Properties(session_expiry_interval=0))
    )
    assert len(scene.mqtt.sessions) == 0
    connected(scene, "kept", expiry=5).send(
        Disconnect(properties=Properties(session_expiry_interval=0xFFFFFFFF))
    )
    assert len(scene.mqtt.sessions) == 1
    scene.broker.pass_ms(10_000)
    assert len(scene.mqtt.sessions) == 1
    peer = connected(scene, "other")
    peer.send(Disconnect(properties=Properties(session_expiry_interval=1)))
    assert peer.got() == [Disconnect(Reason.PROTOCOL_ERROR)]


@pytest.mark.parametrize(
    ("reason", "published"),
    [(Reason.NORMAL_DISCONNECTION, False), (Reason.DISCONNECT_WITH_WILL, True)],
)
def test_disconnect_decides_on_the_will(scene: Scene, reason: Reason, published: bool) -> None:
    peer = connected(scene, will=Will(b"w", b"x"))
    peer.send(Disconnect(reason))
    assert bool(scene.broker.published) is published


def test_the_server_stops(scene: Scene) -> None:
    peers = [connected(scene, "a", expiry=10), connected(scene, "b", V311, clean=False)]
    scene.mqtt.shut_down()
    assert peers[0].got() == [Disconnect(Reason.SERVER_SHUTTING_DOWN)]
    assert peers[1].got() == []
    assert all(map(ended, peers))
    assert len(scene.mqtt.sessions) == 2


UNEXPECTED: list[Packet] = [Connect("c"), Connack(), Pingresp()]


@pytest.mark.parametrize("packet", UNEXPECTED)
def test_what_is_not_for_a_client_to_send(scene: Scene, packet: Packet) -> None:
    peer = connected(scene, will=Will(b"w", b"x"))
    peer.send(packet)
    assert peer.got() == [Disconnect(Reason.PROTOCOL_ERROR)]
    assert ended(peer)
    assert scene.complaints == [Reason.PROTOCOL_ERROR]
    assert scene.cell(metrics.PROTOCOL_ERRORS) == 1
    assert len(scene.broker.published) == 1


def test_the_rest_of_the_input_is_not_looked_at(scene: Scene) -> None:
    peer = connected(scene)
    peer.send_bytes(b"\x00\x00\xc0\x00\x30\x04\x00\x01a\x00")
    assert peer.got() == [Disconnect(Reason.MALFORMED_PACKET)]
    assert scene.cell(metrics.MESSAGES_RECEIVED) == 0


def test_answers_to_messages_that_nobody_sent(scene: Scene) -> None:
    peer = connected(scene)
    peer.send(Puback(1), Pubcomp(1), Pubrec(2, Reason.QUOTA_EXCEEDED), Pubrel(4))
    peer.send(Pubrec(3))
    assert peer.got() == [
        Pubcomp(4, Reason.PACKET_IDENTIFIER_NOT_FOUND),
        Pubrel(3, Reason.PACKET_IDENTIFIER_NOT_FOUND),
    ]
    old = connected(scene, "old", V311)
    old.send(Pubrec(3), Pubrel(4))
    assert old.got() == [Pubrel(3), Pubcomp(4)]


def test_first_packets_that_are_none(scene: Scene) -> None:
    for data in (b"\x30\x04\x00\x01a\x00", b"\xc0\x00", b"\x10\x00", b"\x10\xff\xff\xff\xff\x01"):
        peer = Peer(scene)
        peer.send_bytes(data)
        assert ended(peer)
        assert peer.got() == []
    assert scene.mqtt.connections == 0


def test_a_connect_larger_than_allowed() -> None:
    scene = Scene(max_connect_size=200)
    peer = Peer(scene)
    peer.send(Connect("c", will=Will(b"w", bytes(200))))
    assert ended(peer)
    peer = connected(scene)
    peer.send(Publish(b"t", bytes(500)))
    assert not peer.connection.ended


def test_the_memory_of_a_connection_comes_back_with_its_end(scene: Scene) -> None:
    """The collector of cycles looks seldom: a storm of connections must not wait for it."""

    def alive() -> int:
        return sum(isinstance(each, Connection) for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = alive()
        for number in range(10):
            connected(scene, f"c{number}").connection.lost()
        assert alive() == before
    finally:
        gc.enable()
