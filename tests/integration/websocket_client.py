"""An MQTT client over WebSocket without opinions: a test sees every frame, and may write any."""

import socket
import ssl

from tests.integration.secure import connect
from tests.integration.supervised import Node
from tests.integration.wire_client import Client, Wire
from tests.websocket import CLOSE, PONG, accept_of, masked, next_frame, request, split_head

_READ = 65_536


class Framed(Wire):
    """A Wire whose bytes travel in binary messages: what is sent with one call is one message.

    `message_count` counts those that have come, `pongs` are their payloads, and `code` is what the
    server's Close frame says.
    """

    listener = "mqtt_ws"

    def opened(self, node: Node, receive_buffer: int) -> socket.socket:
        """Return a socket on which the handshake is done."""
        self.message_count = 0
        self.pongs: list[bytes] = []
        self.code = 0
        self._frames = b""
        opened = self.below(node, receive_buffer)
        opened.sendall(request())
        while b"\r\n\r\n" not in self._frames:
            self._frames += opened.recv(_READ)
        status, headers, self._frames = split_head(self._frames)
        assert (status, headers["sec-websocket-accept"]) == (101, accept_of())
        return opened

    def below(self, node: Node, receive_buffer: int) -> socket.socket:
        """Return the socket that carries the frames."""
        return super().opened(node, receive_buffer)

    def send_bytes(self, data: bytes) -> None:
        """Send one binary message."""
        self.send_raw(masked(data))

    def send_raw(self, data: bytes) -> None:
        """Send what may be no frame."""
        self.socket.sendall(data)

    def read(self) -> bytes:
        """Return the payload of the next message; b"" when the connection has ended."""
        while True:
            while (found := next_frame(self._frames)) is None:
                data = self.socket.recv(_READ)
                if not data:
                    return b""
                self._frames += data
            first, payload, self._frames = found
            if first == 0x80 | PONG:
                self.pongs.append(payload)
            elif first == 0x80 | CLOSE:
                self.code = int.from_bytes(payload[:2], "big")
            else:
                assert first == 0x82
                self.message_count += 1
                return payload


class WebSocketClient(Framed, Client):
    """A client that is connected over WebSocket."""


class SecureWebSocketClient(WebSocketClient):
    """A client that is connected over WebSocket over TLS."""

    def __init__(self, node: Node, tls: ssl.SSLContext, client_id: str) -> None:
        self._tls = tls
        super().__init__(node, client_id)

    def below(self, node: Node, receive_buffer: int) -> socket.socket:
        """Return a socket that speaks TLS."""
        return connect(node, self._tls, receive_buffer=receive_buffer, listener="mqtt_wss")
