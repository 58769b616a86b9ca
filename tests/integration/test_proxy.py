"""Behind a proxy that says who its clients are, and clients that only say that they are one."""

import socket
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.messages.metadata import MetadataRequest
from robustmq.mqtt import codec
from robustmq.mqtt.packets import V5, Connect
from tests import authority
from tests.integration.homes import WORKERS, name_on
from tests.integration.kafka_wire import Ended, KafkaWire
from tests.integration.secure import context, settings
from tests.integration.supervised import Node, until
from tests.integration.websocket_client import WebSocketClient
from tests.integration.wire_client import Client, Wire, serve

V1: Final = b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 1883\r\n"
V2: Final = b"\r\n\r\n\0\r\nQUIT\n\x21\x21" + struct.pack(
    "!H16s16sHH",
    36,
    socket.inet_pton(socket.AF_INET6, "2001:db8::7"),
    socket.inet_pton(socket.AF_INET6, "::1"),
    4711,
    1883,
)
LOCAL: Final = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
HEADERS: Final = {V1: "203.0.113.7", V2: "2001:db8::7", LOCAL: "127.0.0.1"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority.made(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def node(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    yield from serve(
        tmp_path_factory.mktemp("proxy") / "data",
        *settings(directory),
        'mqtt_runtime.server.proxy_networks=["127.0.0.0/8"]',
        "mqtt_runtime.protocol.connect_timeout_ms=1000",
        "mqtt_runtime.server.refusal_log_interval_ms=0",
    )


class Proxied(Client):
    """A client whose proxy sends a header first, in pieces of a few bytes."""

    def __init__(self, node: Node, client_id: str, header: bytes, piece: int = 0) -> None:
        self._header, self._piece = header, piece
        super().__init__(node, client_id)

    def opened(self, node: Node, receive_buffer: int) -> socket.socket:
        opened = super().opened(node, receive_buffer)
        step = self._piece or len(self._header)
        for start in range(0, len(self._header), step):
            opened.sendall(self._header[start : start + step])
        return opened


class ProxiedWebSocket(WebSocketClient):
    """A client over WebSocket whose proxy sends a header first."""

    def __init__(self, node: Node, client_id: str, header: bytes) -> None:
        self._header = header
        super().__init__(node, client_id)

    def below(self, node: Node, receive_buffer: int) -> socket.socket:
        opened = super().below(node, receive_buffer)
        opened.sendall(self._header)
        return opened


def complained(node: Node) -> set[str]:
    return {event["address"] for event in node.seen("client broke the protocol")}


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("core", range(WORKERS))
@pytest.mark.parametrize("piece", [0, 1, 11])
def test_the_real_address_comes_home(node: Node, header: bytes, core: int, piece: int) -> None:
    with Proxied(node, name_on(core, "h"), header, piece) as client:
        client.ping()
        client.send_bytes(b"\xf1\x00")
        client.ending()
    until(lambda: HEADERS[header] in complained(node), "the log names the client itself")


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("core", range(WORKERS))
def test_the_header_comes_before_websocket(node: Node, header: bytes, core: int) -> None:
    with ProxiedWebSocket(node, name_on(core, "w"), header) as client:
        client.send_bytes(b"\xf1\x00")
        client.ending()

    def is_told() -> bool:
        complaints = node.seen("client broke the protocol")
        addresses = [each["address"] for each in complaints if each["client"] == client.client_id]
        return addresses == [HEADERS[header]]

    until(is_told, "the log names the client itself")


@pytest.mark.parametrize("header", HEADERS)
def test_the_header_comes_before_tls(node: Node, directory: Path, header: bytes) -> None:
    host, port = node.address("mqtt_tls")
    for core in range(WORKERS):
        plain = socket.create_connection((host, port), timeout=60)
        plain.sendall(header)
        with context(directory).wrap_socket(plain, server_hostname="localhost") as tls:
            name = name_on(core, "s").encode()
            tls.sendall(b"\x10" + bytes([12 + len(name)]) + b"\0\4MQTT\4\2\0\0")
            tls.sendall(len(name).to_bytes(2, "big") + name)
            assert tls.recv(4) == b"\x20\x02\x00\x00"


@pytest.mark.parametrize(
    "beginning", [b"\x10\x0d\x00\x04MQTT\x05\x02", b"PROXY TCP4 1 2 3 4\r\n", V2[:12] + b"\x31"]
)
def test_a_proxy_must_say_it_right(node: Node, beginning: bytes) -> None:
    with Wire(node) as wire:
        wire.send_bytes(beginning + bytes(20))
        assert wire.ending() == []


def test_half_a_header_is_not_waited_for_long(node: Node) -> None:
    with Wire(node) as wire:
        wire.send_bytes(V2[:20])
        assert wire.ending() == []


@pytest.mark.parametrize("listener", ["kafka_tcp", "kafka_tls"])
@pytest.mark.parametrize("header", HEADERS)
def test_kafka_behind_a_proxy(node: Node, directory: Path, header: bytes, listener: str) -> None:
    def sent_away() -> list[str]:
        seen = node.seen("client sent away")
        return [event["address"] for event in seen if event["listener"] == listener]

    before = len(sent_away())
    tls = context(directory) if listener == "kafka_tls" else None
    with KafkaWire(node, listener, tls, header) as wire:
        assert wire.ask(ApiKey.METADATA, 12, MetadataRequest(topics=[])).brokers
        wire.socket.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(Ended):
            wire.frame()
    until(lambda: len(sent_away()) > before, "it is logged")
    assert sent_away()[-1] == HEADERS[header]


def test_a_header_from_elsewhere_is_refused(tmp_path: Path) -> None:
    lines = ['mqtt_runtime.server.proxy_networks=["192.0.2.0/24"]']
    for node in serve(tmp_path / "data", *lines):
        for header in HEADERS:
            with Wire(node) as wire:
                wire.send_bytes(header + codec.encode(Connect("x"), V5))
                assert wire.ending() == []
        with Client(node, "x") as client:
            client.ping()
        until(partial(is_said, node, "not in proxy_networks"), "it is logged")


def is_said(node: Node, why: str) -> bool:
    return any(why in event["reason"] for event in node.seen("connection refused"))


def test_a_network_that_is_none_is_refused(tmp_path: Path) -> None:
    lines = ['mqtt_runtime.server.proxy_networks=["10.0.0.0/33"]']
    node = Node(tmp_path / "data", module="robustmq.cli.supervisor", settings=lines)
    try:
        assert node.wait() != 0
        assert "mqtt_runtime.server.proxy_networks" in node.errors()
    finally:
        node.close()
