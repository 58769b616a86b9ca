"""What an administrator sets on one node holds on all of them, and outlives them all."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from robustmq.mqtt.packets import V5, Connack, Connect
from robustmq.mqtt.reasons import Reason
from tests.integration.cluster import Cluster, cluster
from tests.integration.supervised import Node, until
from tests.integration.wire_client import Client, Wire


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as nodes:
        yield nodes.start()


def _reason(node: Node, client_id: str) -> int:
    with Client(node, client_id) as client:
        return client.connack.reason


def _login(node: Node, username: str, password: bytes) -> int:
    with Wire(node, V5) as wire:
        wire.send(Connect("c", V5, username=username, password=password))
        return wire.expect(Connack).reason


def _is_banned(node: Node, client_id: str) -> bool:
    return _reason(node, client_id) == Reason.BANNED


def _knows_alice(node: Node) -> bool:
    said = [_login(node, "alice", password) for password in (b"pencil", b"wrong")]
    return said == [0, Reason.BAD_USER_NAME_OR_PASSWORD]


def _keys(node: Node, prefix: str) -> dict[str, str]:
    status, text = node.get(f"/api/cluster/kv/list?prefix={prefix}")
    assert status == 200, text
    return {each["key"]: each["value"] for each in json.loads(text)["data"]["data"]}


def test_bans_users_and_keys_are_the_clusters(three: Cluster) -> None:
    nodes = [three.nodes[number] for number in three.first]
    ban = {"name": "no", "blacklist_type": "ClientId", "resource_name": "evil"}
    assert three.ask(1, "blacklist/create", ban)[0] == 200
    # On the node that was asked it holds with the answer, on others a moment later.
    assert _is_banned(nodes[0], "evil")
    for node in nodes[1:]:
        until(partial(_is_banned, node, "evil"), "banned everywhere")
    assert three.ask(2, "kv/set", {"key": "a/1", "value": "one"})[0] == 200
    assert three.ask(3, "kv/set", {"key": "a/2", "value": "two"})[0] == 200
    assert [_keys(node, "a/") for node in nodes] == [{"a/1": "one", "a/2": "two"}] * 3
    user = {"username": "alice", "password": "pencil"}
    assert three.ask(3, "user/create", user)[0] == 200
    assert three.ask(3, "user/create", user)[0] == 400
    for node in nodes:
        until(partial(_knows_alice, node), "known everywhere")
    for number in three.first:
        three.kill(number)
    three.start()
    nodes = [three.nodes[number] for number in three.first]
    assert all(_knows_alice(node) for node in nodes)
    assert [_keys(node, "a/") for node in nodes] == [{"a/1": "one", "a/2": "two"}] * 3
    status, answer = three.ask(1, "user/delete", {"username": "alice"})
    assert (status, answer["data"]) == (200, "success")
    # While there are users, who gives no name is refused as such.
    until(partial(_is_banned, nodes[2], "evil"), "still banned")
    assert three.ask(2, "blacklist/delete", {"name": "no"})[0] == 200
    until(lambda: not _is_banned(nodes[0], "evil"), "banned no more")
