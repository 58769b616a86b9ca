"""MQTT over WebSocket (part 6)."""

from tests import websocket
from tests.conformance import raw
from tests.conformance.peer import Peer, Site
from tests.conformance.statements import keeps
from tests.integration.supervised import Node


class WebPeer(Peer):
    """A connection whose bytes travel in WebSocket messages."""

    def open(self, offered: str) -> "WebPeer":
        """Shake hands; `protocol` is what the server has selected of those offered."""
        self.socket.sendall(websocket.request(Sec_WebSocket_Protocol=offered))
        while b"\r\n\r\n" not in self._input:
            self._input += self.socket.recv(4096)
        status, told, rest = websocket.split_head(bytes(self._input))
        assert status == 101
        self.protocol = told["sec-websocket-protocol"]
        self._frames = bytearray(rest)
        self._input.clear()
        return self

    def frame(self, payload: bytes, opcode: int = websocket.BINARY, fin: bool = True) -> None:
        """Send one frame."""
        self.socket.sendall(websocket.masked(payload, opcode, fin))

    def send(self, *packets: bytes) -> "WebPeer":
        """Send bytes as one message."""
        self.frame(b"".join(packets))
        return self

    def _receive(self) -> bytes:
        """Return the payload of the next frame of data; nothing at the end."""
        while True:
            opcode, payload = self._frame()
            if opcode in {websocket.BINARY, websocket.CONTINUATION} and payload:
                return payload
            if opcode == websocket.CLOSE:
                return b""
            assert opcode in {websocket.PING, websocket.PONG, websocket.BINARY}

    def _frame(self) -> tuple[int, bytes]:
        if not self._fill(2):
            return websocket.CLOSE, b""
        size, start = self._frames[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            assert self._fill(start)
            size = int.from_bytes(self._frames[2:start], "big")
        assert self._fill(start + size)
        opcode, payload = self._frames[0] & 15, bytes(self._frames[start : start + size])
        del self._frames[: start + size]
        return opcode, payload

    def _fill(self, size: int) -> bool:
        while len(self._frames) < size:
            try:
                data = self.socket.recv(65_536)
            except ConnectionError:
                data = b""
            if not data:
                return False
            self._frames += data
        return True


def _web(site: Site, node: Node, offered: str = "mqtt") -> WebPeer:
    return WebPeer(node.address("mqtt_ws"), site.version, site.name("w")).open(offered)


@keeps(v311="6.0.0-1", v5="6.0.0-1")
def test_packets_travel_in_binary_messages(site: Site, node: Node) -> None:
    client = _web(site, node)
    client.hello()
    client.subscribe(site.topic, 2)
    for qos in (0, 1, 2):
        client.publish(site.topic, b"over the web", qos)
        assert client.message().payload == b"over the web"


@keeps(v311="6.0.0-1", v5="6.0.0-1")
def test_a_text_message_ends_the_connection(site: Site, node: Node) -> None:
    client = _web(site, node)
    client.hello()
    client.frame(raw.PING, websocket.TEXT)
    assert all(one.kind == raw.DISCONNECT for one in client.rest())


@keeps(v311="6.0.0-2", v5="6.0.0-2")
def test_packets_and_messages_need_not_be_aligned(site: Site, node: Node) -> None:
    client = _web(site, node)
    talk = raw.connect(site.version, client.client_id) + raw.subscribe(
        site.version, 1, (site.topic, 0)
    )
    for at in range(0, len(talk), 3):
        client.frame(talk[at : at + 3])
    assert client.next(raw.CONNACK).code == 0
    assert client.next(raw.SUBACK).code == 0
    many = b"".join(raw.publish(site.version, site.topic, b"%d" % n) for n in range(5))
    client.frame(many[:7], fin=False)
    client.frame(many[7:20], websocket.CONTINUATION, fin=False)
    client.frame(many[20:], websocket.CONTINUATION)
    assert [one.payload for one in client.messages(5)] == [b"%d" % n for n in range(5)]


@keeps(v311="6.0.0-4", v5="6.0.0-4")
def test_the_server_selects_mqtt(site: Site, node: Node) -> None:
    assert _web(site, node).protocol == "mqtt"
    assert _web(site, node, "chat, mqtt").protocol == "mqtt"
