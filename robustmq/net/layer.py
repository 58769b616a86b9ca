"""Layers: the steps between a socket's bytes and a protocol's, without I/O.

    socket <-> Stream <-> Pipeline [ PROXY | TLS | WebSocket ] <-> Endpoint (MQTT here, or a relay)

A `Layer` is one step. It is given bytes from below (`receive`) and answers with the plain bytes
that they hold; it is given plain bytes from above (`send`) and answers with what goes down. What
it wants to say by itself (handshake, pong, close) it keeps until it is asked for `outgoing`. It
never waits, and knows no socket, no clock and no other layer: a `Stack` puts several over each
other (WSS is TLS below WebSocket) and is a Layer itself.

    bytes from below    receive(data) -> plain bytes; raises Broken when the peer breaks the rules
    bytes from above    send(data) -> bytes; only once `is_open`; Broken if it cannot be
    its own words       outgoing() -> bytes; asked after every `receive`, also after one that raised
    its last words      close() -> bytes; once, when the connection ends from this side
    the handshake       is_open: it is done; until then `receive` answers b"" as a rule
    the peer's end      has_ended: the peer has said that it sends no more (close_notify, Close)
    what it learnt      tell(facts), once, when all layers are open

A layer may hold only what it needs to go on, and bounds it: a record, a header, a line. What it
answers to one `receive` is bounded by what it was given. A transport that is no byte stream
below (QUIC) implements `transport.Transport` instead of a Layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Broken(Exception):
    """The peer broke a layer's rules, or is not wanted; the connection ends. Says why."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


@dataclass(slots=True)
class Facts:
    """What is known of a connection's other end; layers correct it when they are open.

    `address` is the peer's IP address, "" when it has none; `listener` the name of the listener;
    `certified` the user that its certificate names; `path` and `origin` what a WebSocket's
    request said, `origin` None without one.
    """

    address: str = ""
    listener: str = "tcp"
    certified: str | None = None
    path: str = ""
    origin: str | None = None


class Layer(Protocol):
    """One step between a socket's bytes and a protocol's; see the module."""

    @property
    def is_open(self) -> bool:
        """Say whether the handshake is done, so that `send` may be called."""

    @property
    def has_ended(self) -> bool:
        """Say whether the peer has said that it sends no more."""

    def receive(self, data: bytes) -> bytes:
        """Take bytes from below; return the plain bytes that they complete, or Broken."""

    def send(self, data: bytes) -> bytes:
        """Return what goes down for plain bytes from above, or Broken."""

    def outgoing(self) -> bytes:
        """Return what the layer has to say by itself since it was asked last."""

    def close(self) -> bytes:
        """Return the last words; nothing is received or sent afterwards."""

    def tell(self, facts: Facts) -> None:
        """Write down what was learnt of the peer."""


class Stack:
    """Layers over each other, the lowest first, as one Layer."""

    __slots__ = ("_layers", "_words", "is_open")

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = tuple(layers)
        self._words = b""
        self.is_open = all(layer.is_open for layer in self._layers)

    @property
    def has_ended(self) -> bool:
        """Say whether the peer has ended any of the layers."""
        return any(layer.has_ended for layer in self._layers)

    def receive(self, data: bytes) -> bytes:
        """Let bytes rise through the layers; return what comes out on top, or raise Broken."""
        for depth, layer in enumerate(self._layers):
            try:
                data = layer.receive(data)
            finally:
                self._collect(depth)
            # One that has just opened lets those above it speak.
            if not data and not layer.is_open:
                break
        if not self.is_open:
            self.is_open = all(layer.is_open for layer in self._layers)
        return data

    def send(self, data: bytes) -> bytes:
        """Let plain bytes sink through the layers."""
        for layer in reversed(self._layers):
            data = layer.send(data)
        return data

    def outgoing(self) -> bytes:
        """Return what the layers had to say, each through those below it."""
        words, self._words = self._words, b""
        return words

    def close(self) -> bytes:
        """Let the layers end, the highest first."""
        words = b""
        for layer in reversed(self._layers):
            if words:
                words = layer.send(words)
            words += layer.close()
        return words

    def tell(self, facts: Facts) -> None:
        """Ask every layer, the lowest first."""
        for layer in self._layers:
            layer.tell(facts)

    def _collect(self, depth: int) -> None:
        words = self._layers[depth].outgoing()
        if words:
            for layer in reversed(self._layers[:depth]):
                words = layer.send(words)
            self._words += words
