"""paho-mqtt, MQTT 3.1, 3.1.1 and 5, against two workers: on the same core and across cores."""

import queue
import time
from collections.abc import Iterator
from typing import Any, Final

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.integration.homes import PLACES, name_on, topic_on
from tests.integration.supervised import Node

V31, V311, V5 = (
    MQTTProtocolVersion.MQTTv31,
    MQTTProtocolVersion.MQTTv311,
    MQTTProtocolVersion.MQTTv5,
)
VERSIONS = (V31, V311, V5)
PATIENCE = 60.0
MANY = 10_000
LARGE = 5 * 1024 * 1024


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("paho") / "data", module="robustmq.cli.supervisor")
    yield node.ready()
    ended = node.seen("process ended")
    node.close()
    assert not ended


PropertyBlock: Final[Any] = Properties
"""paho gives its properties neither types nor attributes that mypy could see."""


def block(packet: int, **values: object) -> Properties:
    """Return the properties of a packet."""
    properties = PropertyBlock(packet)
    for name, value in values.items():
        setattr(properties, name, value)
    return properties  # type: ignore[no-any-return]


class Client:
    """A paho client with its network thread; what it hears is in queues."""

    def __init__(
        self,
        node: Node,
        core: int,
        version: MQTTProtocolVersion,
        *,
        client_id: str = "",
        clean: bool = True,
        will: tuple[str, bytes, int] | None = None,
    ) -> None:
        self.client_id = client_id or name_on(core, "paho")
        self.version = version
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.subscribed: queue.Queue[list[int]] = queue.Queue()
        self.connected: queue.Queue[tuple[bool, str]] = queue.Queue()
        self.ended: queue.Queue[str] = queue.Queue()
        options: dict[str, Any] = {} if version == V5 else {"clean_session": clean}
        self.paho = paho.Client(
            CallbackAPIVersion.VERSION2, self.client_id, protocol=version, **options
        )
        self.paho.max_inflight_messages_set(200)
        self.paho.max_queued_messages_set(0)
        self.paho.on_message = lambda *a: self.messages.put(a[2])
        self.paho.on_subscribe = lambda *a: self.subscribed.put([code.value for code in a[3]])
        self.paho.on_connect = lambda *a: self.connected.put((a[2].session_present, str(a[3])))
        self.paho.on_disconnect = lambda *a: self.ended.put(str(a[3]))
        if will is not None:
            self.paho.will_set(*will)
        host, port = node.address()
        if version == V5:
            self.paho.connect(
                host,
                port,
                clean_start=clean,
                properties=block(PacketTypes.CONNECT, SessionExpiryInterval=0 if clean else 3_600),
            )
        else:
            self.paho.connect(host, port)
        self.paho.loop_start()
        self.present, reason = self.connected.get(timeout=PATIENCE)
        assert reason == "Success", reason

    def subscribe(self, topic_filter: str, qos: int) -> list[int]:
        """Subscribe and wait for SUBACK; return its reason codes."""
        self.paho.subscribe(topic_filter, qos)
        return self.subscribed.get(timeout=PATIENCE)

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool = False) -> None:
        """Publish and wait until it is acknowledged (at QoS 0: sent)."""
        self.paho.publish(topic, payload, qos, retain).wait_for_publish(PATIENCE)

    def heard(self, count: int) -> list[paho.MQTTMessage]:
        """Return the next messages."""
        return [self.messages.get(timeout=PATIENCE) for _ in range(count)]

    def close(self) -> None:
        """Disconnect and end the thread."""
        self.paho.disconnect()
        self.paho.loop_stop()

    def drop(self) -> None:
        """End the connection without DISCONNECT."""
        sock = self.paho.socket()
        assert sock is not None
        self.paho.on_connect = None
        self.paho.loop_stop()
        sock.close()


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", VERSIONS)
def test_messages_arrive_between_all_cores(
    node: Node, version: MQTTProtocolVersion, qos: int
) -> None:
    for publisher_core, subscriber_core in PLACES:
        subscriber = Client(node, subscriber_core, version)
        publisher = Client(node, publisher_core, version)
        topics = [topic_on(owner, "paho/{}/plain") for owner in (0, 1)]
        for topic in topics:
            assert subscriber.subscribe(topic, qos) == [qos]
            for number in range(10):
                publisher.publish(topic, b"%d" % number, qos)
        heard = subscriber.heard(20)
        for topic in topics:
            mine = [message for message in heard if message.topic == topic]
            assert [int(message.payload) for message in mine] == [*range(10)]
            assert {message.qos for message in mine} == {qos}
        publisher.close()
        subscriber.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_wildcards_and_retained_messages(node: Node, version: MQTTProtocolVersion) -> None:
    publisher = Client(node, 0, version)
    root = name_on(0, f"retained{version}-")
    kept = {f"{root}/{number}/state": b"%d" % number for number in range(12)}
    for topic, payload in kept.items():
        publisher.publish(topic, payload, 1, retain=True)
    publisher.publish(f"{root}/3/state", b"", 1, retain=True)
    del kept[f"{root}/3/state"]
    for core in (0, 1):
        for topic_filter in (f"{root}/+/state", f"{root}/#"):
            subscriber = Client(node, core, version)
            subscriber.subscribe(topic_filter, 2)
            heard = subscriber.heard(len(kept))
            assert {message.topic: message.payload for message in heard} == kept
            assert all(message.retain and message.qos == 1 for message in heard)
            publisher.publish(f"{root}/live/state", b"now", 2)
            (live,) = subscriber.heard(1)
            assert (live.payload, live.retain, live.qos) == (b"now", False, 2)
            subscriber.close()
    publisher.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_gets_what_it_missed(node: Node, version: MQTTProtocolVersion) -> None:
    for publisher_core, subscriber_core in PLACES:
        topics = [topic_on(owner, "paho/{}/offline") for owner in (0, 1)]
        subscriber = Client(node, subscriber_core, version, clean=False)
        assert not subscriber.present
        for topic in topics:
            subscriber.subscribe(topic, 1)
        subscriber.close()
        publisher = Client(node, publisher_core, version)
        for number in range(50):
            publisher.publish(topics[number % 2], b"%d" % number, 1)
        again = Client(node, subscriber_core, version, client_id=subscriber.client_id, clean=False)
        # MQTT 3.1 cannot tell: its CONNACK has no such flag.
        assert again.present == (version != V31)
        heard = again.heard(50)
        for parity, topic in enumerate(topics):
            mine = [int(message.payload) for message in heard if message.topic == topic]
            assert mine == [*range(parity, 50, 2)]
        again.close()
        fresh = Client(node, subscriber_core, version, client_id=subscriber.client_id)
        assert not fresh.present
        fresh.close()
        publisher.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_will_is_published_when_the_client_is_lost(
    node: Node, version: MQTTProtocolVersion
) -> None:
    for publisher_core in (0, 1):
        topic = topic_on(publisher_core, "paho/{}/will")
        subscriber = Client(node, 1, version)
        subscriber.subscribe(topic, 1)
        Client(node, publisher_core, version, will=(topic, b"never", 1)).close()
        Client(node, publisher_core, version, will=(topic, b"lost", 1)).drop()
        assert [message.payload for message in subscriber.heard(1)] == [b"lost"]
        subscriber.close()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_large_message_crosses_the_ring(node: Node, qos: int) -> None:
    payload = bytes(range(256)) * (LARGE // 256)
    for publisher_core, subscriber_core in PLACES:
        topic = topic_on(1 - subscriber_core, "paho/{}/large")
        subscriber = Client(node, subscriber_core, V5)
        subscriber.subscribe(topic, qos)
        publisher = Client(node, publisher_core, V5)
        publisher.publish(topic, payload, qos)
        (heard,) = subscriber.heard(1)
        assert heard.payload == payload
        publisher.close()
        subscriber.close()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_order_of_many_messages_is_kept(node: Node, qos: int) -> None:
    topics = [topic_on(owner, "paho/{}/order") for owner in (0, 1)]
    subscriber = Client(node, 0, V5)
    for topic in topics:
        subscriber.subscribe(topic, qos)
    publisher = Client(node, 1, V5)
    for number in range(MANY):
        publisher.paho.publish(topics[number % 2], b"%d" % number, qos)
    heard = subscriber.heard(MANY)
    for parity, topic in enumerate(topics):
        mine = [int(message.payload) for message in heard if message.topic == topic]
        assert mine == [*range(parity, MANY, 2)]
    assert subscriber.messages.empty()
    publisher.close()
    subscriber.close()


def test_properties_of_version_5_are_passed_on(node: Node) -> None:
    subscriber = Client(node, 0, V5)
    topic = topic_on(1, "paho/{}/properties")
    identifier = block(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=77)
    subscriber.paho.subscribe(topic, options=SubscribeOptions(qos=1), properties=identifier)
    assert subscriber.subscribed.get(timeout=PATIENCE) == [1]
    publisher = Client(node, 1, V5)
    values: dict[str, object] = {
        "ContentType": "text/plain",
        "ResponseTopic": "answer/here",
        "CorrelationData": b"\0\1\2",
        "PayloadFormatIndicator": 1,
        "UserProperty": [("a", "1"), ("a", "2")],
    }
    sent = block(PacketTypes.PUBLISH, MessageExpiryInterval=60, **values)
    publisher.paho.publish(topic, b"with", 1, properties=sent).wait_for_publish(PATIENCE)
    (heard,) = subscriber.heard(1)
    assert {name: getattr(heard.properties, name) for name in values} == values
    assert 0 < getattr(heard.properties, "MessageExpiryInterval", 0) <= 60
    assert getattr(heard.properties, "SubscriptionIdentifier", None) == [77]
    publisher.close()
    subscriber.close()


@pytest.mark.parametrize("version", [V311, V5])
def test_a_shared_subscription_divides_the_messages(
    node: Node, version: MQTTProtocolVersion
) -> None:
    topic = topic_on(0, "paho/{}/shared")
    members = [Client(node, core, version) for core in (0, 1, 1)]
    for member in members:
        assert member.subscribe(f"$share/crew/{topic}", 1) == [1]
    publisher = Client(node, 1, version)
    for number in range(300):
        publisher.publish(topic, b"%d" % number, 1)
    deadline = time.monotonic() + PATIENCE
    while sum(m.messages.qsize() for m in members) < 300 and time.monotonic() < deadline:
        time.sleep(0.01)
    shares = [[int(m.payload) for m in member.heard(member.messages.qsize())] for member in members]
    assert sorted(number for share in shares for number in share) == [*range(300)]
    assert all(len(share) == 100 for share in shares)
    for client in (*members, publisher):
        client.close()


def test_a_take_over_is_told(node: Node) -> None:
    first = Client(node, 1, V5)
    second = Client(node, 1, V5, client_id=first.client_id)
    assert first.ended.get(timeout=PATIENCE) == "Session taken over"
    first.paho.loop_stop()
    second.close()
