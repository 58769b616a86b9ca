"""Limits of connections on a real node: reached, told in the protocol's words, and released."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from robustmq.mqtt.packets import V5, V311
from robustmq.mqtt.reasons import V3_SERVER_UNAVAILABLE, Reason
from tests.integration.homes import name_on
from tests.integration.supervised import Node, until
from tests.integration.wire_client import Client, serve

LIMITS = (
    "mqtt_runtime.limit.cluster.max_connections_per_node=3",
    "mqtt_runtime.limit.cluster.max_connections_per_address=20",
)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    yield from serve(tmp_path / "data", *LIMITS)


def _reason(node: Node, client_id: str, version: int = V5) -> int:
    with Client(node, client_id, version) as client:
        return client.connack.reason


def test_one_client_more_is_refused_until_another_leaves(node: Node) -> None:
    clients = [Client(node, name_on(number % 2, f"c{number}")) for number in range(3)]
    for core in range(2):
        with Client(node, name_on(core, "more")) as more:
            assert more.connack.reason == Reason.QUOTA_EXCEEDED
            assert "max_connections_per_node" in more.told[0]
    assert _reason(node, "old", V311) == Reason.SERVER_UNAVAILABLE
    assert V3_SERVER_UNAVAILABLE == 3
    assert node.sum("mqtt_connections_refused_limit_total") == 3
    # Who takes over takes no room.
    again = Client(node, clients[0].client_id)
    assert again.connack.reason == 0
    again.disconnect()
    until(lambda: _reason(node, name_on(1, "next")) == 0, "there is room again")


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Node]:
    yield from serve(tmp_path / "data", "mqtt_runtime.listener.tcp.max_connection_rate=2")


def test_too_many_in_a_second_are_refused(slow: Node) -> None:
    node = slow
    reasons = [_reason(node, name_on(number % 2, f"c{number}")) for number in range(25)]
    assert set(reasons) == {0, Reason.CONNECTION_RATE_EXCEEDED}
    assert node.sum("mqtt_connections_refused_rate_total") == len(reasons) - reasons.count(0)
    until(lambda: _reason(node, "later") == 0, "time gives room")
