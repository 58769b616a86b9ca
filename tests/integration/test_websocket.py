"""MQTT over WebSocket on a real node: frames, handshakes, ends, limits, clients."""

import queue
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from robustmq.mqtt import codec
from robustmq.mqtt.packets import V5, Connack, Disconnect, Pingreq, Pingresp, Publish, Will
from tests import authority
from tests.integration.homes import PLACES, name_on, topic_on
from tests.integration.secure import VERSIONS, context, settings
from tests.integration.supervised import PATIENCE_SECONDS, Node
from tests.integration.websocket_client import Framed, SecureWebSocketClient, WebSocketClient
from tests.integration.wire_client import Client, serve
from tests.websocket import BINARY, CLOSE, CONTINUATION, PING, TEXT, masked, request, split_head

ORIGIN = "https://console.example"
LARGE = 1024 * 1024


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority.made(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def node(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    server = "mqtt_runtime.server"
    yield from serve(
        tmp_path_factory.mktemp("websocket") / "data",
        f'{server}.websocket_origins=["{ORIGIN}"]',
        f"{server}.handshake_timeout_ms=1000",
        f"{server}.websocket_max_message_size={LARGE + 1_024}",
        "mqtt_runtime.protocol.max_packet_size=8388608",
        *settings(directory),
    )


def answer(node: Node, data: bytes) -> tuple[int, str]:
    """Return status and text of what the server says before it ends the connection."""
    with node.connect("mqtt_ws") as client:
        client.sendall(data)
        said = rest(client)
    if not said:
        return 0, ""
    status, _, text = split_head(said)
    return status, text.decode()


def rest(client: socket.socket) -> bytes:
    said = b""
    client.settimeout(PATIENCE_SECONDS)
    try:
        while data := client.recv(65_536):
            said += data
    except ConnectionResetError:
        pass
    return said


@pytest.mark.parametrize(("publishing", "listening"), PLACES)
def test_a_message_goes_from_core_to_core(node: Node, publishing: int, listening: int) -> None:
    topic = topic_on(0, "ws/{}")
    with (
        WebSocketClient(node, name_on(listening, "ws")) as subscriber,
        WebSocketClient(node, name_on(publishing, "ws")) as publisher,
        Client(node, name_on(publishing, "tcp")) as plain,
    ):
        assert subscriber.subscribe(topic, 2) == [2]
        for each in (publisher, plain):
            each.send(Publish(topic.encode(), b"x" * 200_000, 1, packet_id=1))
            message = subscriber.expect(Publish)
            assert (len(message.payload), message.qos) == (200_000, 1)


def test_packets_and_messages_need_not_begin_and_end_together(node: Node) -> None:
    topic = topic_on(1, "ws/{}")
    with WebSocketClient(node, name_on(0, "ws")) as client:
        client.subscribe(topic)
        packets = [Publish(topic.encode(), b"%d" % number * 40) for number in range(300)]
        stream = b"".join(codec.encode(packet, V5) for packet in packets)
        client.send_raw(masked(stream[:5_000]))
        client.send_raw(masked(stream[5_000:5_001], BINARY, fin=False) + masked(b"beat", PING))
        client.send_raw(masked(b"", CONTINUATION, fin=False))
        client.send_raw(masked(stream[5_001:], CONTINUATION))
        before = client.message_count
        heard = [client.expect(Publish).payload for _ in packets]
        assert heard == [packet.payload for packet in packets]
        assert client.message_count - before < len(packets), "a turn's bytes are one message"
        client.send(Pingreq())
        client.expect(Pingresp)
        assert client.pongs == [b"beat"]


def test_a_frame_need_not_be_whole_to_be_read(node: Node) -> None:
    topic = topic_on(0, "ws/{}")
    with WebSocketClient(node, name_on(1, "ws")) as client:
        client.subscribe(topic)
        packets = Publish(topic.encode(), b"first"), Publish(b"elsewhere", bytes(9_000))
        frame = masked(b"".join(codec.encode(packet, V5) for packet in packets))
        client.send_raw(frame[: len(frame) // 2])
        assert client.expect(Publish).payload == b"first"


@pytest.mark.parametrize(
    ("data", "status", "sentence"),
    [
        (request("/"), 404, "MQTT over WebSocket is at /mqtt."),
        (request(Upgrade=None, Connection=None), 426, "WebSocket client"),
        (request(Sec_WebSocket_Protocol=None), 400, "missing subprotocol"),
        (request(Sec_WebSocket_Protocol="chat"), 400, "mqtt, mqttv3.1"),
        (request(Origin="https://elsewhere.example"), 403, "https://elsewhere.example"),
        (request(Cookie="x" * 9_000), 431, "8192 bytes"),
        (b"NONSENSE\r\n\r\n", 400, "HTTP/1.1"),
        (b"\x10\x10\0\x04MQTT\x05\x02\0\0\0\0\x03abc", 0, ""),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", 0, ""),
    ],
)
def test_who_is_not_wanted_is_told_why(node: Node, data: bytes, status: int, sentence: str) -> None:
    found, text = answer(node, data)
    assert found == status
    assert sentence in text


def test_a_page_of_a_known_origin_may_connect(node: Node) -> None:
    with node.connect("mqtt_ws") as client:
        client.sendall(request(Origin=ORIGIN))
        assert client.recv(65_536).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("beginning", [b"", request()[:40], b"G" * 4_000])
def test_a_slow_handshake_is_ended(node: Node, beginning: bytes) -> None:
    begin = time.monotonic()
    assert answer(node, beginning) == (0, "")
    assert time.monotonic() - begin > 0.9


def test_disconnect_is_answered_with_a_close_frame(node: Node) -> None:
    with WebSocketClient(node, name_on(1, "ws")) as client:
        client.send(Disconnect())
        assert (client.ending(), client.code) == ([], 1000)


def test_a_refused_connect_is_read_before_the_end(node: Node) -> None:
    with Framed(node) as client:
        client.send_bytes(b"\x10\x0c\0\x04MQTT\x09\x02\0\0\0\0\0")
        (packet,) = client.ending()
        assert isinstance(packet, Connack)
        assert (packet.reason, client.code) == (0x84, 1000)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (masked((3_456).to_bytes(2, "big"), CLOSE), 3456),
        (masked(b"text", TEXT), 1003),
        (b"\x82\x02\xc0\0", 1002),
        (masked(b"x", 0xB), 1002),
        (masked(b"", CONTINUATION), 1002),
        (masked(bytes(LARGE + 2_000))[:100], 1009),
        (masked(b"\0\0", BINARY), 1000),
    ],
)
@pytest.mark.parametrize("core", [0, 1])
def test_every_end_has_its_code_and_a_lost_client_its_will(
    node: Node, data: bytes, code: int, core: int
) -> None:
    topic = topic_on(1 - core, "ws/will/{}")
    with Client(node, name_on(0, "hears")) as hears:
        hears.subscribe(topic)
        with WebSocketClient(node, name_on(core, "ws"), will=Will(topic.encode(), b"w")) as client:
            client.send_raw(data)
            client.ending()
            assert client.code == code
        assert hears.expect(Publish).payload == b"w"


def test_large_messages_and_a_slow_reader_beside_others(node: Node) -> None:
    topic = topic_on(0, "ws/{}")
    with (
        WebSocketClient(node, name_on(0, "slow"), receive_buffer=4_096) as slow,
        WebSocketClient(node, name_on(1, "quick")) as quick,
        WebSocketClient(node, name_on(0, "publisher")) as publisher,
    ):
        for each in (slow, quick):
            each.subscribe(topic, 1)
        for number in range(3):
            payload = b"%d" % number * LARGE
            publisher.send(Publish(topic.encode(), payload, 1, packet_id=number + 1))
            assert quick.expect(Publish).payload == payload
        for number in range(3):
            assert slow.expect(Publish).payload == b"%d" % number * LARGE


@pytest.mark.parametrize(("publishing", "listening"), PLACES)
@pytest.mark.parametrize("version", VERSIONS)
def test_wss_is_websocket_within_tls(
    node: Node, directory: Path, version: ssl.TLSVersion, publishing: int, listening: int
) -> None:
    topic = topic_on(0, "ws/{}")
    tls = context(directory, version=version)
    with (
        SecureWebSocketClient(node, tls, name_on(listening, "wss")) as subscriber,
        SecureWebSocketClient(node, tls, name_on(publishing, "wss")) as publisher,
    ):
        assert subscriber.subscribe(topic, 2) == [2]
        publisher.send(Publish(topic.encode(), bytes(LARGE), 1, packet_id=1))
        assert len(subscriber.expect(Publish).payload) == LARGE
        subscriber.send_raw(masked(b"beat", PING) + masked(b"text", TEXT))
        subscriber.ending()
        assert (subscriber.pongs, subscriber.code) == ([b"beat"], 1003)


class Paho:
    """paho-mqtt over WebSocket; what it hears is in a queue."""

    def __init__(
        self,
        node: Node,
        core: int,
        version: MQTTProtocolVersion,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            name_on(core, "paho"),
            protocol=version,
            transport="websockets",
        )
        self.heard: queue.Queue[bytes] = queue.Queue()
        self.subscribed: queue.Queue[object] = queue.Queue()
        self.client.on_message = lambda *a: self.heard.put(a[2].payload)
        self.client.on_subscribe = lambda *a: self.subscribed.put(a[3])
        self.client.max_inflight_messages_set(200)
        # paho names an origin though it is no browser.
        self.client.ws_set_options("/mqtt", {"Origin": ORIGIN})
        if tls is not None:
            self.client.tls_set_context(tls)
        self.client.connect(*node.address("mqtt_ws" if tls is None else "mqtt_wss"))
        self.client.loop_start()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.mark.parametrize("version", [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5])
@pytest.mark.parametrize("name", ["ws", "wss"])
def test_paho_over_websocket(
    node: Node, directory: Path, version: MQTTProtocolVersion, name: str
) -> None:
    topic = topic_on(0, "ws/{}")
    tls = None if name == "ws" else context(directory)
    subscriber, publisher = Paho(node, 0, version, tls), Paho(node, 1, version, tls)
    subscriber.client.subscribe(topic, 2)
    subscriber.subscribed.get(timeout=PATIENCE_SECONDS)
    payloads = [b"%d" % number for number in range(1_000)] + [bytes(LARGE)]
    for payload in payloads:
        publisher.client.publish(topic, payload, 2)
    assert [subscriber.heard.get(timeout=PATIENCE_SECONDS) for _ in payloads] == payloads
    for each in (publisher, subscriber):
        each.close()
