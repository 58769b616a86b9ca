"""Bans on a real node: by configuration, by API, by flapping, and over restarts of everything."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.messages.metadata import MetadataRequest
from robustmq.mqtt.packets import V5, V311, Disconnect
from robustmq.mqtt.reasons import Reason
from tests.integration.homes import name_on
from tests.integration.kafka_wire import Ended, KafkaWire
from tests.integration.supervised import Node, until
from tests.integration.wire_client import Client

PATH = "/api/cluster/blacklist"
MODULE = "robustmq.cli.supervisor"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    config = tmp_path / "server.toml"
    config.write_text('[[blacklist]]\nblacklist_type = "ClientIdMatch"\nresource_name = "evil-*"\n')
    node = Node(tmp_path / "data", "-c", str(config), module=MODULE)
    try:
        yield node.ready()
    finally:
        node.close()


def _ban(node: Node, name: str, kind: str, resource: str) -> None:
    ban = {"name": name, "blacklist_type": kind, "resource_name": resource, "desc": "enough"}
    status, text = node.post(f"{PATH}/create", ban)
    assert (status, json.loads(text)) == (200, {"code": 0, "data": "success", "error": None})


def _reason(node: Node, client_id: str, version: int = V5) -> int:
    with Client(node, client_id, version) as client:
        return client.connack.reason


def test_a_ban_holds_as_soon_as_it_is_answered(node: Node) -> None:
    names = [name_on(core, "client") for core in range(2)]
    assert [_reason(node, name) for name in names] == [0, 0]
    assert _reason(node, "evil-1") == Reason.BANNED
    for name in names:
        _ban(node, f"no {name}", "ClientId", name)
        assert _reason(node, name) == Reason.BANNED
        assert _reason(node, name, V311) == Reason.NOT_AUTHORIZED
    assert node.sum("mqtt_blacklist_blocked_total") == 5
    status, _ = node.post(f"{PATH}/delete", {"name": f"no {names[0]}"})
    assert status == 200
    assert [_reason(node, name) for name in names] == [0, Reason.BANNED]


def test_who_is_connected_is_disconnected(node: Node) -> None:
    names = [name_on(core, "guest") for core in range(2)]
    others = [Client(node, name_on(core, "other")) for core in range(2)]
    clients = [Client(node, name) for name in names]
    _ban(node, "guests", "ClientIdMatch", "guest*")
    for client in clients:
        (packet,) = client.ending()
        assert packet == Disconnect(Reason.ADMINISTRATIVE_ACTION)
        assert "enough" in client.told[0]
    old = Client(node, "last", V311)
    _ban(node, "last", "ClientId", "last")
    assert old.ending() == []
    for client in others:
        client.ping()
    assert node.sum("mqtt_connections_expelled_total") == 3
    _ban(node, "all", "IPCIDR", "127.0.0.0/8")
    for client in others:
        assert client.ending() == [Disconnect(Reason.ADMINISTRATIVE_ACTION)]


def test_bans_hold_for_kafka(node: Node) -> None:
    metadata = MetadataRequest(topics=[])
    with KafkaWire(node) as wire:
        assert wire.ask(ApiKey.METADATA, 12, metadata).brokers
        _ban(node, "wires", "ClientId", "wire")
        with pytest.raises(Ended):
            wire.frame()
    with KafkaWire(node) as wire:
        wire.send(ApiKey.METADATA, 12, metadata)
        with pytest.raises(Ended):
            wire.frame()
    assert node.sum("mqtt_connections_expelled_total") == 1
    assert "enough" in node.seen("client sent away")[-1]["reason"]


def test_bans_outlive_a_worker_and_the_server_process(node: Node) -> None:
    names = [name_on(core, "client") for core in range(2)]
    _ban(node, "clients", "ClientIdMatch", "client*")
    children = node.children()
    for process in ("worker 0", "worker 1", "server"):
        psutil.Process(children[process]).send_signal(signal.SIGKILL)
    until(lambda: len(node.seen("process is back")) == 3, "everything is back")
    assert [_reason(node, name) for name in names] == [Reason.BANNED] * 2
    status, text = node.get(f"{PATH}/list")
    assert (status, json.loads(text)["data"]["total_count"]) == (200, 1)
    assert node.post(f"{PATH}/delete", {"name": "clients"})[0] == 200
    assert [_reason(node, name) for name in names] == [0, 0]


def test_bans_outlive_the_node(tmp_path: Path) -> None:
    for name in ("first", "second"):
        node = Node(tmp_path / "data", module=MODULE)
        try:
            node.ready()
            if name == "first":
                _ban(node, "one", "ClientId", "client")
            assert _reason(node, "client") == Reason.BANNED
            node.send(signal.SIGTERM)
            assert node.wait() == 0
        finally:
            node.close()


def test_bans_of_an_earlier_version_are_taken_over(tmp_path: Path) -> None:
    ban = {"blacklist_type": "ClientId", "resource_name": "client"}
    content = {"format": 1, "version": 3, "records": {"blacklist": {"old": ban}}}
    file = tmp_path / "data" / "records.json"
    file.parent.mkdir()
    file.write_text(json.dumps(content))
    for _ in range(2):
        node = Node(tmp_path / "data", module=MODULE)
        try:
            node.ready()
            assert _reason(node, "client") == Reason.BANNED
            assert not file.exists()
        finally:
            node.close()


def test_a_client_that_flaps_is_banned_everywhere_and_for_the_time_told(tmp_path: Path) -> None:
    settings = ("enable=true", "max_client_connections=4", "ban_time=1000")
    node = Node(
        tmp_path / "data",
        module=MODULE,
        settings=[f"mqtt_runtime.flapping_detect.{each}" for each in settings],
    )
    try:
        node.ready()
        assert [_reason(node, "flapper") for _ in range(5)] == [0, 0, 0, 0x8A, 0x8A]
        assert _reason(node, "other") == 0
        until(lambda: json.loads(node.get(f"{PATH}/list")[1])["data"]["total_count"] == 1, "kept")
        (ban,) = json.loads(node.get(f"{PATH}/list")[1])["data"]["data"]
        assert (ban["name"], ban["resource_name"]) == ("flapping:flapper", "flapper")
        assert node.sum("mqtt_flapping_banned_total") == 1
        for process in ("worker 0", "worker 1"):
            psutil.Process(node.children()[process]).send_signal(signal.SIGKILL)
        until(lambda: len(node.seen("process is back")) == 2, "the workers are back")
        assert _reason(node, "flapper") == Reason.BANNED
    finally:
        node.close()
