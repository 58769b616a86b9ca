import pytest

from robustmq.mqtt.data_stream import DataStream
from robustmq.mqtt.packets import (
    V311,
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
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
)
from robustmq.mqtt.reasons import Reason
from tests.unit.mqtt.scripted import Peer, Scene, ScriptedStream, connected


class Side(Peer):
    """A client's end of a data stream."""

    def __init__(self, client: Peer) -> None:
        self.scene = client.scene
        self.version = client.version
        self.told = []
        self.stream = ScriptedStream()
        self.connection = self.scene.mqtt.data_stream(client.connection)
        self.connection.stream = self.stream
        self.scene.broker.end_turn()

    @property
    def has_ended(self) -> bool:
        return self.connection.ended


def _publish(packet_id: int, qos: int = 1, **others: object) -> Publish:
    return Publish(b"t", b"x", qos=qos, packet_id=packet_id, **others)  # type: ignore[arg-type]


def _subscribe(packet_id: int, no_local: bool = False) -> Subscribe:
    return Subscribe(packet_id, [Subscription("a/#", 1, no_local=no_local)])


def test_answers_go_out_on_the_stream_of_the_request() -> None:
    client = connected(Scene())
    first, second = Side(client), Side(client)
    broker = client.scene.broker
    retain = {"retain": True}
    second.send(_publish(1, **retain))
    first.send(_subscribe(2))
    broker.answer()
    broker.settle()
    assert first.got() == [Suback(2, [Reason.GRANTED_QOS_1])]
    assert second.got() == [Puback(1)]
    first.send(Unsubscribe(3, ["a/#"]))
    assert first.got() == [Unsuback(3, [Reason.SUCCESS])]
    first.send(Pingreq())
    assert first.got() == [Pingresp()]
    assert client.got() == []


def test_qos_2_is_completed_on_its_stream_once() -> None:
    client = connected(Scene())
    side = Side(client)
    side.send(_publish(7, 2))
    client.scene.broker.answer()
    assert side.got() == [Pubrec(7)]
    side.send(_publish(7, 2, dup=True))
    assert side.got() == [Pubrec(7)]
    assert not client.scene.broker.published
    side.send(Pubrel(7))
    assert side.got() == [Pubcomp(7)]


def test_what_comes_before_the_client_is_connected_waits() -> None:
    scene = Scene()
    client = Peer(scene)
    side = Side(client)
    side.send(_publish(1, retain=True))
    assert not scene.broker.published
    client.send(Connect("c", 5, True, 0))
    assert len(client.got()) == 1
    scene.broker.end_turn()
    scene.broker.answer()
    assert side.got() == [Puback(1)]


def test_a_stream_ends_alone() -> None:
    client = connected(Scene())
    side = Side(client)
    side.send(_publish(1, retain=True))
    side.connection.lost()
    assert side.has_ended
    assert client.connection.data_streams == []
    client.scene.broker.answer()
    assert side.got() == []
    client.send(Pingreq())
    assert client.got() == [Pingresp()]


@pytest.mark.parametrize("way", ["disconnect", "lost", "error"])
def test_streams_end_with_the_connection(way: str) -> None:
    client = connected(Scene())
    side = Side(client)
    if way == "disconnect":
        client.send(Disconnect())
    elif way == "lost":
        client.connection.lost()
    else:
        client.send(Connect("c", 5, True, 0))
    assert side.has_ended
    assert side.stream.calls == ["close"]
    assert client.scene.mqtt.connections == 0
    late = Side(client)
    assert late.has_ended
    late.send(_publish(1))
    assert not client.scene.broker.published


@pytest.mark.parametrize(
    "packet",
    [Connect("c", 5, True, 0), Disconnect(), Puback(0)],
)
def test_an_error_on_a_stream_ends_the_connection(packet: Packet) -> None:
    client = connected(Scene())
    side = Side(client)
    side.send(packet)
    (answer,) = client.got()
    assert isinstance(answer, Disconnect)
    assert answer.reason in {Reason.PROTOCOL_ERROR, Reason.MALFORMED_PACKET}
    assert side.has_ended
    assert client.stream.calls == ["close"]


def test_a_topic_alias_is_of_one_stream() -> None:
    client = connected(Scene())
    first, second = Side(client), Side(client)
    first.send(_publish(1, properties=Properties(topic_alias=1)))
    client.scene.broker.answer()
    second.send(Publish(b"", b"x", 1, packet_id=2, properties=Properties(topic_alias=1)))
    (answer,) = client.got()
    assert isinstance(answer, Disconnect)
    assert answer.reason == Reason.PROTOCOL_ERROR


def test_packets_on_a_stream_keep_the_client_alive() -> None:
    client = connected(Scene(), keep_alive=10)
    side = Side(client)
    for _ in range(5):
        client.scene.broker.pass_ms(9_000)
        side.send(Pingreq())
    assert not client.connection.ended
    client.scene.broker.pass_ms(16_000)
    assert client.connection.ended


def test_a_subscription_without_own_messages_reaches_the_routes_of_every_stream() -> None:
    client = connected(Scene())
    first, second = Side(client), Side(client)
    for side in (client, first, second):
        side.send(Publish(b"a/b", b"x", 0))
    assert not client.scene.broker.published
    first.send(_subscribe(2, no_local=True))
    for side in (client, first, second):
        side.send(Publish(b"a/b", b"x", 0))
    # A client that must not hear itself has no plain route: each message is looked at.
    assert len(client.scene.broker.published) == 3


def test_mqtt_3_clients_may_have_streams() -> None:
    client = connected(Scene(), version=V311)
    side = Side(client)
    side.send(_publish(1, retain=True))
    client.scene.broker.answer(matched=False)
    assert side.got() == [Puback(1)]
    assert isinstance(side.connection, DataStream)
