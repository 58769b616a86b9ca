"""A connection to Kafka on which nothing is said by itself."""

import socket
import ssl
from types import TracebackType
from typing import Any, Self

from robustmq.kafka import codec
from robustmq.kafka.schema import Message
from tests.integration.supervised import PATIENCE_SECONDS, Node


class Ended(Exception):
    """The server has closed the connection."""


class KafkaWire:
    """A socket; requests are numbered from 1, and answered in this order.

    `header` is sent before all else, as a proxy does.
    """

    def __init__(
        self,
        node: Node,
        listener: str = "kafka_tcp",
        tls: ssl.SSLContext | None = None,
        header: bytes = b"",
    ) -> None:
        plain = socket.create_connection(node.address(listener), timeout=PATIENCE_SECONDS)
        plain.sendall(header)
        self.socket = plain if tls is None else tls.wrap_socket(plain, server_hostname="localhost")
        self._last = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def bytes_of(self, api: int, version: int, request: Message) -> bytes:
        """Return a request as it travels."""
        self._last += 1
        data = b"".join(codec.encode_request(api, version, self._last, "wire", request))
        return len(data).to_bytes(4, "big") + data

    def send(self, api: int, version: int, request: Message) -> None:
        """Send a request."""
        self.socket.sendall(self.bytes_of(api, version, request))

    def frame(self) -> bytes:
        """Return the next answer without its size; raises Ended."""
        return self._exactly(int.from_bytes(self._exactly(4), "big"))

    def receive(self, api: int, version: int) -> tuple[int, Any]:
        """Return the number of the request that is answered next, and its answer."""
        return codec.decode_response(api, version, self.frame())

    def ask(self, api: int, version: int, request: Message) -> Any:  # noqa: ANN401
        """Send a request and return its answer."""
        self.send(api, version, request)
        number, answer = self.receive(api, version)
        assert number == self._last
        return answer

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            try:
                data = self.socket.recv(size - len(found))
            except ConnectionError:
                data = b""
            if not data:
                raise Ended
            found += data
        return found
