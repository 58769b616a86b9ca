"""A bridge between two brokers that are played here: what each is told."""

import pytest

from robustmq.errors import ProtocolError
from robustmq.mqtt import codec
from robustmq.mqtt.bridge import PATH, Bridge, BridgeTerms
from robustmq.mqtt.framing import scan
from robustmq.mqtt.packets import (
    V5,
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
    Suback,
    Subscribe,
)
from robustmq.mqtt.reasons import Reason
from robustmq.settings.bridges import bridged, endpoint_of


def packets(data: bytes, version: int) -> list[Packet]:
    found: list[Packet] = []
    at = 0
    while (one := scan(data, at, 1 << 20)) is not None:
        first_byte, start, at = one
        found.append(codec.decode(first_byte, data[start:at], version))
    assert at == len(data)
    return found


class Scene:
    """A bridge that is open; what it says to whom."""

    def __init__(self, *topics: str, version: int = V5, receive_maximum: int | None = None) -> None:
        self.version = version
        self.woken = 0
        terms = BridgeTerms(
            name="b",
            node="here",
            topics=tuple(map(bridged, topics)),
            connect=Connect("over-there", version, False, 60, is_bridge=version < V5),
            max_hops=3,
        )
        self.bridge = Bridge(terms, self._wake)
        assert self.bridge.receive(b"") == b""
        self.begins = packets(self.bridge.outgoing(), version)
        granted = Properties(receive_maximum=receive_maximum) if version == V5 else None
        self.first = self.there(Connack(properties=granted))
        self.subscribes = packets(self.bridge.outgoing(), version)

    def _wake(self) -> None:
        self.woken += 1

    def there(self, packet: Packet) -> list[Packet]:
        """The other broker says something; return what our connection hears."""
        return packets(self.bridge.receive(codec.encode(packet, self.version)), V5)

    def here(self, packet: Packet) -> list[Packet]:
        """Our connection says something; return what the other broker hears."""
        return packets(self.bridge.send(codec.encode(packet, V5)), self.version)

    def said(self) -> list[Packet]:
        """What the bridge itself says to the other broker."""
        return packets(self.bridge.outgoing(), self.version)


def test_both_sides_are_told_who_comes_and_what_is_wanted() -> None:
    scene = Scene("a/# both 2 l/ r/", "b/+ in 0", "c out 1", receive_maximum=7)
    (connect,) = scene.begins
    assert isinstance(connect, Connect)
    assert (connect.client_id, connect.clean_start, connect.keep_alive) == ("over-there", False, 60)
    (subscribe,) = scene.subscribes
    assert isinstance(subscribe, Subscribe)
    assert [(each.filter, each.qos, each.no_local) for each in subscribe.subscriptions] == [
        ("r/a/#", 2, True),
        ("b/+", 0, True),
    ]
    own, wanted = scene.first
    assert isinstance(own, Connect)
    assert own.client_id == "$bridge/b"
    assert own.properties is not None
    assert own.properties.receive_maximum == 7
    assert isinstance(wanted, Subscribe)
    assert [each.filter for each in wanted.subscriptions] == ["l/a/#", "c"]


def test_a_broker_of_version_4_is_told_that_this_is_a_bridge() -> None:
    (connect,) = Scene("a", version=V311).begins
    assert isinstance(connect, Connect)
    assert connect.is_bridge


@pytest.mark.parametrize("version", [V311, V5])
def test_messages_and_their_acknowledgements_pass_under_other_names(version: int) -> None:
    scene = Scene("a/# both 2 l/ r/", version=version)
    (out,) = scene.here(Publish(b"l/a/x", b"1", 2, True, False, 9))
    assert isinstance(out, Publish)
    assert (out.topic, out.payload, out.qos, out.retain, out.packet_id) == (
        b"r/a/x",
        b"1",
        2,
        True,
        9,
    )
    assert scene.there(Pubrec(9)) == [Pubrec(9)]
    assert scene.here(Pubrel(9)) == [Pubrel(9)]
    assert scene.there(Pubcomp(9)) == [Pubcomp(9)]
    (come,) = scene.there(Publish(b"r/a/y", b"2", 1, False, True, 4))
    assert isinstance(come, Publish)
    assert (come.topic, come.qos, come.dup, come.packet_id) == (b"l/a/y", 1, True, 4)
    assert scene.here(Puback(4)) == [Puback(4)]


def test_what_has_been_here_goes_no_further_and_its_sender_is_answered() -> None:
    scene = Scene("a both 2")
    around = Properties(user_properties=((PATH, "here,there"),))
    assert scene.there(Publish(b"a", b"", 1, False, False, 1, around)) == []
    assert scene.said() == [Puback(1)]
    assert scene.there(Publish(b"a", b"", 2, False, False, 2, around)) == []
    assert scene.said() == [Pubrec(2)]
    assert scene.there(Pubrel(2)) == []
    assert scene.said() == [Pubcomp(2)]
    assert scene.here(Publish(b"a", b"", 2, False, False, 3, around)) == []
    assert scene.woken == 1
    assert scene.there(Pingresp()) == [Pubrec(3), Pingreq()]
    assert scene.here(Pubrel(3)) == []
    assert packets(scene.bridge.receive(b""), V5) == [Pubcomp(3)]
    assert scene.bridge.dropped == 3
    far = Properties(user_properties=((PATH, "x,y,z"),))
    assert scene.there(Publish(b"a", b"", 0, properties=far)) == []


def test_a_message_names_the_nodes_that_it_has_passed() -> None:
    scene = Scene("a both 0")
    known = Properties(user_properties=(("k", "v"), (PATH, "there")))
    (come,) = scene.there(Publish(b"a", properties=known))
    assert isinstance(come, Publish)
    assert come.properties is not None
    assert come.properties.user_properties == (("k", "v"), (PATH, "there,here"))
    (on,) = scene.here(come)
    assert isinstance(on, Publish)
    assert on.properties is not None
    assert on.properties.user_properties == (("k", "v"), (PATH, "there,here"))


def test_what_cannot_be_kept_now_is_not_acknowledged() -> None:
    scene = Scene("a in 1")
    scene.there(Publish(b"a", b"", 1, False, False, 5))
    assert scene.here(Puback(5, Reason.QUOTA_EXCEEDED)) == []
    assert scene.bridge.has_ended
    assert scene.woken == 1
    scene = Scene("a in 1")
    assert scene.here(Puback(5, Reason.NOT_AUTHORIZED)) == [Puback(5, Reason.NOT_AUTHORIZED)]


@pytest.mark.parametrize(
    "packet",
    [
        Suback(1, [Reason.NOT_AUTHORIZED]),
        Disconnect(Reason.SERVER_SHUTTING_DOWN),
        Connack(),
    ],
)
def test_the_other_broker_refuses_or_leaves(packet: Packet) -> None:
    scene = Scene("a both 1")
    with pytest.raises(ProtocolError):
        scene.there(packet)


def test_a_connection_is_probed() -> None:
    scene = Scene("a")
    assert scene.bridge.ping()
    assert scene.said() == [Pingreq()]
    assert scene.there(Pingresp()) == [Pingreq()]
    assert scene.bridge.ping()
    assert not scene.bridge.ping()
    assert packets(scene.bridge.close(), V5) == [Disconnect()]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not: pattern direction"),
        ("a out 1 l/ r/ x", "is not: pattern direction"),
        ("a away", "is not out, in or both"),
        ("a out 3", "is not 0, 1 or 2"),
        ("a/#/b out", "is no topic filter"),
        ("a out 0 +/", "a prefix of"),
    ],
)
def test_topics_that_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        bridged(text)


def test_addresses() -> None:
    assert endpoint_of("mqtts://a.example") == ("a.example", 8883, True)
    assert endpoint_of("mqtt://[::1]:1884") == ("::1", 1884, False)
    for wrong in ("http://a", "mqtt://", "mqtt://a:0", "mqtt://a:x"):
        with pytest.raises(ValueError, match="its address"):
            endpoint_of(wrong)
