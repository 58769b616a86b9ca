"""Publish rates on a real node: who is over its rate is read more slowly, and nothing is lost."""

import time
from collections.abc import Iterator

import pytest

from robustmq.mqtt.packets import Publish
from tests.integration.homes import name_on
from tests.integration.supervised import Node, until
from tests.integration.wire_client import Client

COUNT = 150
MODULE = "robustmq.cli.supervisor"
LIMIT = """
[[publish_limits]]
filter = "slow/#"
max_publish_rate = 50
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    tmp_path = tmp_path_factory.mktemp("rates")
    config = tmp_path / "server.toml"
    config.write_text(LIMIT)
    limit = "mqtt_runtime.limit.client.max_publish_rate=60"
    node = Node(tmp_path / "data", "-c", str(config), module=MODULE, settings=(limit,))
    try:
        yield node.ready()
    finally:
        node.close()


@pytest.mark.parametrize(("topic", "rate"), [("fast/a", 60), ("slow/a", 50)])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_all_messages_arrive_no_faster_than_they_may(
    node: Node, topic: str, rate: int, qos: int
) -> None:
    reader = Client(node, name_on(1, "reader"))
    reader.subscribe(topic, qos)
    writer = Client(node, name_on(0, "writer"))
    wanted = [b"%d" % number for number in range(COUNT)]
    begin = time.monotonic()
    if qos == 2:
        for payload in wanted:
            writer.publish(topic, payload, qos)
    else:
        name = topic.encode()
        ids = range(1, COUNT + 1)
        writer.send(
            *(
                Publish(name, payload, qos, packet_id=packet_id if qos else 0)
                for packet_id, payload in zip(ids, wanted, strict=True)
            )
        )
    assert reader.payloads(COUNT) == wanted
    # A second's worth comes at once.
    assert time.monotonic() - begin >= (COUNT - rate) / rate - 0.2
    assert node.sum("mqtt_publishers_throttled_total") > 0
    for client in (reader, writer):
        client.close()


def test_who_keeps_to_the_rate_is_not_held_up(node: Node) -> None:
    greedy = Client(node, name_on(0, "greedy"))
    for number in range(COUNT):
        greedy.publish("fast/a", b"%d" % number, 0)
    until(lambda: node.sum("mqtt_publishers_throttled_total") > 0, "the greedy one is throttled")
    reader = Client(node, name_on(0, "reader"))
    reader.subscribe("fast/b", 1)
    modest = Client(node, name_on(0, "modest"))
    for number in range(5):
        modest.publish("fast/b", b"%d" % number, 1)
    assert reader.payloads(5) == [b"0", b"1", b"2", b"3", b"4"]
    for client in (greedy, reader, modest):
        client.close()
