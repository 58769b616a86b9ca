"""A client whose session lives on another node: its packets go there as they come, and back.

The client has connected here, and has proved here who it is; its `Introduction` goes first. What
comes from there goes to the client as it is. The way ends with either node, and the client with it.
"""

from typing import TYPE_CHECKING, Protocol

import msgspec

from robustmq._kernel.intake import ADMISSION
from robustmq.broker.api import Peer, Principal
from robustmq.mqtt import wire
from robustmq.mqtt.authentication import Seal

if TYPE_CHECKING:
    from robustmq.mqtt.connection import Connection


class Introduction(msgspec.Struct, array_like=True, frozen=True):
    """Who a client is, as another node has found: its CONNECT without the password.

    `seal` is the end of its proof by AUTH, None when there was none.
    """

    peer: Peer
    principal: Principal
    connect: bytes
    seal: Seal | None


class Endpoint(Protocol):
    """What carries the client's packets to its session."""

    @property
    def paused(self) -> bool:
        """Say that enough is on the way."""

    def feed(self, data: bytes) -> object:
        """Take packets of the client."""

    def drained(self) -> None:
        """The client has been sent all that came."""

    def lost(self) -> None:
        """The client is gone."""


class Passage:
    """Our end of the way: what is fed to `endpoint`, and what a `net.transport` does for it."""

    __slots__ = ("_connection", "endpoint")

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self.endpoint: Endpoint

    def packet(self, first_byte: int, body: bytes) -> None:
        """Take a packet of the client."""
        self.endpoint.feed(bytes((first_byte,)) + wire.varint(len(body)) + body)
        if self.endpoint.paused:
            self._connection.intake.hold(ADMISSION)

    @property
    def backlog(self) -> int:
        """Return how many bytes wait to be sent to the client."""
        return self._connection.outbox.size

    def write(self, data: bytes) -> None:
        """Send packets to the client with the end of the turn."""
        self._connection.outbox.put(data)

    def resume(self) -> None:
        """Take packets again."""
        self._connection.intake.let_go(ADMISSION)

    def close(self) -> None:
        """Send what waits, then end."""
        self._connection.finish(with_will=False)

    def abort(self) -> None:
        """End at once."""
        stream = self._connection.stream
        self._connection.finish(with_will=False)
        if stream is not None:
            stream.abort()
