"""An MQTT client over QUIC: aioquic without its event loop, moved along while somebody waits."""

import select
import socket
import ssl
import time
from collections import defaultdict
from collections.abc import Callable

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import NetworkAddress, QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    HandshakeCompleted,
    QuicEvent,
    StreamDataReceived,
    StreamReset,
)

from robustmq.mqtt.packets import V5
from tests.integration.supervised import PATIENCE_SECONDS, Node
from tests.integration.wire_client import Client

_UNSENT = 65_536


class Line:
    """A QUIC connection on a UDP socket of its own."""

    def __init__(
        self, address: NetworkAddress, alpn: str = "mqtt", receive_buffer: int = 0
    ) -> None:
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=[alpn], verify_mode=ssl.CERT_NONE
        )
        if receive_buffer:
            configuration.max_data = configuration.max_stream_data = receive_buffer
        self.quic = QuicConnection(configuration=configuration)
        self.address = address
        self.socket = self._bound()
        self.received: dict[int, bytearray] = defaultdict(bytearray)
        self.ended: set[int] = set()
        self.is_connected = False
        self.termination: ConnectionTerminated | None = None
        self.quic.connect(address, time.monotonic())

    def _bound(self) -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind(("127.0.0.1", 0))
        opened.setblocking(False)
        return opened

    def move(self) -> None:
        """Go on from another address."""
        self.socket.close()
        self.socket = self._bound()

    def connect(self) -> "Line":
        """Finish the handshake, or see it refused."""
        self.until(lambda: self.is_connected or self.termination is not None)
        return self

    def until(self, condition: Callable[[], object]) -> None:
        """Move along until a condition holds; TimeoutError when it does not."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError
            self.move_along(0.1)

    def move_along(self, seconds: float) -> None:
        """Send what is to be sent, and take what comes within a time."""
        self.flush()
        timer = self.quic.get_timer()
        if timer is not None:
            seconds = min(seconds, max(timer - time.monotonic(), 0.0))
        if select.select([self.socket], [], [], seconds)[0]:
            self._take()
        timer = self.quic.get_timer()
        if timer is not None and timer <= time.monotonic():
            self.quic.handle_timer(time.monotonic())
            self._look()
        self.flush()

    def flush(self) -> None:
        """Send what is to be sent now."""
        for data, address in self.quic.datagrams_to_send(time.monotonic()):
            self.socket.sendto(data, address)

    def hear_reset(self) -> None:
        """Wait for a stateless reset, which aioquic itself does not know (RFC 9000 10.3.1)."""
        self.socket.settimeout(PATIENCE_SECONDS)
        token = self.quic._peer_cid.stateless_reset_token
        while not self.socket.recv(65_536).endswith(token):
            continue

    def _take(self) -> None:
        for _ in range(64):
            try:
                data, address = self.socket.recvfrom(65_536)
            except OSError:
                return
            self.quic.receive_datagram(data, address, time.monotonic())
            self._look()

    def _look(self) -> None:
        while (event := self.quic.next_event()) is not None:
            self._handle(event)

    def _handle(self, event: QuicEvent) -> None:
        match event:
            case StreamDataReceived(data=data, end_stream=end, stream_id=stream_id):
                self.received[stream_id] += data
                if end:
                    self.ended.add(stream_id)
            case StreamReset(stream_id=stream_id):
                self.ended.add(stream_id)
            case HandshakeCompleted():
                self.is_connected = True
            case ConnectionTerminated():
                self.termination = event
            case _:
                pass

    def terminated(self) -> int:
        """Wait for the end of the connection; return its code."""
        self.until(lambda: self.termination)
        assert self.termination is not None
        return self.termination.error_code

    def unsent(self, stream_id: int) -> int:
        """Bytes that the server has not acknowledged."""
        stream = self.quic._streams.get(stream_id)
        if stream is None:
            return 0
        return stream.sender._buffer_stop - stream.sender._buffer_start

    def close(self) -> None:
        """Vanish without a word."""
        self.socket.close()


class Pipe:
    """A stream of a line, as far as a socket is needed."""

    def __init__(self, line: Line, stream_id: int) -> None:
        self.line = line
        self.stream_id = stream_id

    def sendall(self, data: bytes) -> None:
        """Send, and wait until nearly all has arrived."""
        self.line.quic.send_stream_data(self.stream_id, data)
        self.line.move_along(0)
        self.line.until(lambda: self.line.unsent(self.stream_id) <= _UNSENT or self.has_ended)

    def recv(self, most: int) -> bytes:
        """Return what has come, at least a byte; b"" at the end."""
        received = self.line.received[self.stream_id]
        self.line.until(lambda: received or self.has_ended)
        data = bytes(received[:most])
        del received[:most]
        return data

    @property
    def has_ended(self) -> bool:
        """Whether the server has ended the stream or the connection."""
        return self.stream_id in self.line.ended or self.line.termination is not None

    def close(self) -> None:
        """End the whole connection with a word: nobody else would notice the end of a socket."""
        if self.line.socket.fileno() >= 0:
            self.line.quic.close()
            self.line.flush()
            self.line.close()

    def shutdown(self, how: int) -> None:
        """End this side of the stream."""
        assert how == socket.SHUT_WR
        self.line.quic.send_stream_data(self.stream_id, b"", end_stream=True)

    def settimeout(self, seconds: float) -> None:
        """Everything here waits for as long as tests do."""


class QuicClient(Client):
    """A client whose control stream is read and written as a TCP connection is elsewhere."""

    socket: Pipe  # type: ignore[assignment]

    def opened(self, node: Node, receive_buffer: int) -> Pipe:  # type: ignore[override]
        """Return the control stream of a new connection."""
        line = Line(node.address("mqtt_quic"), receive_buffer=receive_buffer).connect()
        assert line.is_connected, line.termination
        return Pipe(line, line.quic.get_next_available_stream_id())

    @property
    def line(self) -> Line:
        """The connection."""
        return self.socket.line

    @property
    def accepted_by(self) -> int:
        """The worker of a node with two that has the connection."""
        return int.from_bytes(self.line.quic._peer_cid.cid[:2], "big") % 2

    def side(self) -> "Side":
        """Return another stream."""
        return Side(self.line, self.version)


class Side(Client):
    """A data stream of a client that is connected."""

    socket: Pipe  # type: ignore[assignment]

    def __init__(self, line: Line, version: int = V5) -> None:
        self.version = version
        self.told = []
        self.socket = Pipe(line, line.quic.get_next_available_stream_id())
        line.quic.send_stream_data(self.socket.stream_id, b"")
        self._input = b""
        self.line = line
        # Packet identifiers are the session's: those of two streams must not be the same.
        self._packet_id = 1_000 * self.socket.stream_id
        self._heard = []
        self._exchanges = set()

    def drop_stream(self) -> None:
        """End the stream; the server has ended it too when this returns."""
        self.socket.shutdown(socket.SHUT_WR)
        assert self.ending() == []
