"""MQTT on one core: whose a stream is, and what its connections share."""

import pytest

from robustmq import metrics
from robustmq.mqtt import codec
from robustmq.mqtt.packets import (
    V5,
    V31,
    V311,
    Connack,
    Connect,
    Pingreq,
    Properties,
    Publish,
)
from robustmq.mqtt.protocol import NOBODY, PEEK_BYTES
from robustmq.mqtt.reasons import Reason
from tests.unit.mqtt.scripted import Peer, Scene, connected


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize("version", [V31, V311, V5])
def test_a_stream_goes_home_as_soon_as_its_client_is_known(scene: Scene, version: int) -> None:
    for client_id, home in (("even", 0), ("odd", 1)):
        whole = codec.encode(Connect(client_id, version, username="u"), version)
        known = whole.index(client_id.encode()) + len(client_id)
        for length in range(1, len(whole) + 1):
            expected = home if length >= known else None
            assert scene.mqtt.home(whole[:length]) == expected


def test_what_cannot_be_known_stays(scene: Scene) -> None:
    assert scene.mqtt.home(codec.encode(Connect(""), V5)) == 0
    assert scene.mqtt.home(b"\x10\x0a\0\x04MQTX\x05\x02\0\0") == 0
    user = (("x", "y" * PEEK_BYTES),)
    far = codec.encode(Connect("odd", properties=Properties(user_properties=user)), V5)
    assert scene.mqtt.home(far[: PEEK_BYTES - 1]) is None
    assert scene.mqtt.home(far[:PEEK_BYTES]) == 0


def test_what_is_no_connect_is_nobodys(scene: Scene) -> None:
    for beginning in (codec.encode(Pingreq(), V5), codec.encode(Publish(b"t"), V5), b"GET / HTTP"):
        for length in range(1, len(beginning) + 1):
            assert scene.mqtt.home(beginning[:length]) == NOBODY
    assert scene.mqtt.home(b"\x10\xff\xff\xff\x7f") == NOBODY
    assert Scene(max_connect_size=300).mqtt.home(b"\x10\xff\x02") == NOBODY
    assert Scene(max_connect_size=300).mqtt.home(b"\x10\xff\x01") is None


@pytest.mark.parametrize("missing", range(-8, 9))
def test_whoever_cannot_be_sent_home_is_refused(scene: Scene, missing: int) -> None:
    """Around the limit: what `home` could not see is refused, what is accepted it has seen."""
    client_id = "x" * (PEEK_BYTES - 17 + missing)
    whole = codec.encode(Connect(client_id), V5)
    peer = Peer(scene)
    peer.send_bytes(whole)
    (connack,) = peer.got()
    assert isinstance(connack, Connack)
    # The same packet with a remaining length of four bytes shifts the identifier further.
    longer = b"\x10" + bytes((whole[1], whole[2], whole[3] | 0x80, 0)) + whole[4:]
    for form in (whole, longer):
        seen = scene.mqtt.home(form[:PEEK_BYTES]) == len(client_id) % 2
        hidden = form.index(b"x" * len(client_id)) + len(client_id) > PEEK_BYTES
        if hidden:
            assert connack.reason == Reason.PACKET_TOO_LARGE
        elif connack.reason == Reason.SUCCESS:
            assert seen
    assert connack.reason in {Reason.SUCCESS, Reason.PACKET_TOO_LARGE}


def test_assigned_client_ids_are_at_home_here_and_differ(scene: Scene) -> None:
    assigned = [scene.mqtt.assigned_client_id() for _ in range(100)]
    assert len(set(assigned)) == 100
    assert all(len(client_id) % 2 == 0 for client_id in assigned)


def test_connections_are_counted(scene: Scene) -> None:
    peers = [connected(scene, client_id) for client_id in ("a", "b", "c")]
    assert scene.mqtt.connections == scene.cell(metrics.CONNECTIONS) == 3
    peers[0].connection.lost()
    assert scene.mqtt.connections == scene.cell(metrics.CONNECTIONS) == 2
    scene.mqtt.shut_down()
    assert scene.mqtt.connections == scene.cell(metrics.CONNECTIONS) == 0
    assert scene.cell(metrics.CONNECTIONS_OPENED) == scene.cell(metrics.CONNECTIONS_CLOSED) == 3
