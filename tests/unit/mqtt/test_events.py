"""Events: what happens to clients, as it is told below $SYS."""

from typing import Any

import msgspec
import pytest

from robustmq.message.tenancy import qualified
from robustmq.mqtt.announcements import Announcements
from robustmq.mqtt.events import Events
from robustmq.mqtt.packets import (
    V5,
    Connect,
    Disconnect,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from robustmq.mqtt.reasons import Reason
from robustmq.policy.principal import Principal
from tests.unit.mqtt.scripted import START_MS, Peer, Scene, connected


def _watched() -> Scene:
    scene = Scene()
    scene.mqtt.events = Events(Announcements(scene.broker), 7, "10.0.0.1")
    return scene


def _told(scene: Scene) -> list[dict[str, Any]]:
    """Return what was told to all since the last call."""
    published = [each.record for each in scene.broker.published]
    scene.broker.published.clear()
    assert all((record.qos, record.retain) == (0, False) for record in published)
    return [msgspec.json.decode(each.value) for each in published if each.key == b"$SYS/events"]


def _said(scene: Scene, name: str) -> list[tuple[str, object]]:
    return [(each["value"]["event"], each["value"].get(name)) for each in _told(scene)]


def test_a_client_that_comes_and_goes() -> None:
    scene = _watched()
    peer = connected(scene, "c", keep_alive=30)
    assert [each.record.key for each in scene.broker.published] == [
        b"$SYS/events",
        b"$SYS/brokers/7/clients/c/connected",
    ]
    own = msgspec.json.decode(scene.broker.published[1].record.value)
    (event,) = _told(scene)
    assert event == {"node_id": 7, "node_ip": "10.0.0.1", "ts": START_MS // 1_000, "value": own}
    assert own == {
        "event": "connected",
        "tenant": "default",
        "client_id": "c",
        "username": None,
        "source_ip": "peer",
        "listener": "tcp",
        "protocol": "mqtt5",
        "keep_alive": 30,
        "timestamp": START_MS,
    }
    peer.send(Disconnect())
    assert _said(scene, "reason") == [("disconnected", "normal_disconnection")]


def test_the_reason_of_an_end_is_told() -> None:
    scene = _watched()
    lost = connected(scene, "c1")
    silent = connected(scene, "c2", keep_alive=1)
    wrong = connected(scene, "c3")
    willing = connected(scene, "c4")
    first = connected(scene, "c5")
    _told(scene)
    lost.connection.lost()
    assert _said(scene, "reason") == [("disconnected", "connection_lost")]
    scene.broker.pass_ms(5_000)
    assert _said(scene, "reason") == [("disconnected", "keep_alive_timeout")]
    wrong.send(Connect("c3", V5, True, 0))
    assert _said(scene, "reason") == [("disconnected", "protocol_error")]
    willing.send(Disconnect(Reason.DISCONNECT_WITH_WILL))
    assert _said(scene, "reason") == [("disconnected", "disconnect_with_will")]
    connected(scene, "c5")
    assert _said(scene, "reason") == [("disconnected", "session_taken_over"), ("connected", None)]
    assert first.connection.ended
    assert silent.connection.ended


def test_who_was_never_told_that_it_is_connected_does_not_disconnect() -> None:
    scene = _watched()
    peer = Peer(scene)
    peer.connection.lost()
    assert peer.connection.ended
    assert _told(scene) == []


def test_subscriptions_are_told_as_they_were_written() -> None:
    scene = _watched()
    peer = connected(scene)
    _told(scene)
    peer.send(Subscribe(1, [Subscription("a/+", 1), Subscription("$share/g/b", 2)]))
    assert _said(scene, "path") == [("subscribed", "a/+"), ("subscribed", "$share/g/b")]
    peer.send(Unsubscribe(2, ["a/+", "unknown"]))
    assert _said(scene, "path") == [("unsubscribed", "a/+")]


@pytest.mark.parametrize("client_id", ["a/b", "+", "x#"])
def test_a_client_id_that_is_no_level_of_a_topic_is_told_to_all_only(client_id: str) -> None:
    scene = _watched()
    connected(scene, client_id)
    assert [each.record.key for each in scene.broker.published] == [b"$SYS/events"]


def test_clients_of_a_tenant_see_their_own() -> None:
    scene = _watched()
    assert scene.mqtt.events is not None
    scene.mqtt.events.unsubscribed(Principal("c", tenant="acme"), "a", START_MS)
    keys = [each.record.key for each in scene.broker.published]
    topic = b"$SYS/brokers/7/clients/c/unsubscribed"
    assert keys == [b"$SYS/events", qualified("acme", topic)]


def test_without_being_wanted_nothing_is_told() -> None:
    scene = Scene()
    peer = connected(scene)
    peer.send(Subscribe(1, [Subscription("a", 1)]), Disconnect())
    assert scene.broker.published == []
