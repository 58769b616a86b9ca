"""Back-pressure from a core that is behind to the connections that feed it."""

import pytest

from robustmq import metrics
from robustmq.config import Config
from robustmq.mqtt import codec
from robustmq.mqtt.connection import Connection
from robustmq.mqtt.packets import V5, Connect, Properties, Publish
from robustmq.mqtt.protocol import Mqtt
from robustmq.policy.principal import Peer
from tests.fabric import Fabric, Limits, Node
from tests.logins import ScriptedLogins


def connected(node: Node) -> Connection:
    """An MQTT 5 client of a core."""
    mqtt = Mqtt(
        node.core,
        Config().mqtt_runtime,
        core=node.index,
        home_of=lambda _: node.index,
        first_key=1 << 40,
        seed="test",
        logins=ScriptedLogins(),
        complain=lambda *_: None,
    )
    connection = mqtt.connection(Peer())
    connection.intake.feed(codec.encode(Connect("publisher", V5), V5))
    assert connection.session is not None
    return connection


def packets(topic: str, qos: int, properties: Properties | None) -> bytes:
    """A hundred PUBLISH packets of a hundred bytes and more."""
    return b"".join(
        codec.encode(
            Publish(
                topic.encode(),
                b"%03d" % number + b"x" * 100,
                qos,
                packet_id=number + 1 if qos else 0,
                properties=properties,
            ),
            V5,
        )
        for number in range(100)
    )


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("plain", [False, True], ids=["with properties", "plain"])
def test_a_publisher_pauses_while_a_core_is_behind_and_goes_on_by_itself(
    qos: int, plain: bool
) -> None:
    fabric = Fabric(2, limits=Limits(max_batch_bytes=300, pressure_bytes=2_000))
    topic = "t"
    subscriber = fabric.nodes[1].client()
    subscriber.subscribe(topic)
    fabric.settle()
    fabric.stalled = {(0, 1)}
    connection = connected(fabric.nodes[0])
    properties = None if plain else Properties(user_properties=(("a", "b"),))
    connection.intake.feed(packets(topic, qos, properties))
    fabric.settle()
    assert connection.intake.paused
    assert fabric.nodes[0].links.backlog(1) < 4_000
    assert fabric.nodes[0].turn.row[metrics.PUBLISHERS_PAUSED] >= 1
    fabric.stalled.clear()
    fabric.settle()
    assert [payload[:3] for payload in subscriber.payloads] == [f"{n:03}" for n in range(100)]
    assert not fabric.nodes[0].turn.resumes
