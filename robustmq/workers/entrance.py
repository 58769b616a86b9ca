"""The upper ends of a transport on its own core: first who looks, then the client's connection."""

from collections.abc import Callable
from typing import Protocol

from robustmq._kernel.outbox import Outbox
from robustmq.broker.api import Timer
from robustmq.mqtt.connection import Connection
from robustmq.net.transport import Transport


class Reception(Protocol):
    """What an entrance asks of the worker."""

    def settle(self, transport: Transport, beginning: bytes) -> bool:
        """Give a transport that begins like this to whom it belongs; False if it is not known."""

    def give_up(self, entrance: "Entrance") -> None:
        """End a peer that was silent for too long."""

    def leave(self, entrance: "Entrance") -> None:
        """Forget an entrance that has done its work."""

    def at(self, timeout_ms: int, callback: Callable[[], None]) -> Timer:
        """Call back after a time."""


class Entrance:
    """The first endpoint of a transport: it looks for whose client it is."""

    __slots__ = ("_beginning", "_reception", "_timer", "transport")

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._beginning = b""
        self._timer: Timer | None = None
        self.transport: Transport | None = None

    @property
    def paused(self) -> bool:
        """Say whether nothing should be read."""
        return False

    def wait(self, timeout_ms: int) -> None:
        """Give the peer so much time from now on."""
        self._stop()
        self._timer = self._reception.at(timeout_ms, self._expire)

    def feed(self, data: bytes) -> None:
        """Take the first bytes, until they tell the home core."""
        assert self.transport is not None
        self._beginning += data
        if self._reception.settle(self.transport, self._beginning):
            self._leave()

    def drained(self) -> None:
        """What the layers have said by themselves was sent."""

    def abort(self) -> None:
        """End at once."""
        if self.transport is not None:
            self.transport.abort()

    def lost(self) -> None:
        """The peer is gone before it was anybody."""
        self._leave()

    def _expire(self) -> None:
        self._timer = None
        self._reception.give_up(self)

    def _leave(self) -> None:
        self._stop()
        self._reception.leave(self)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Sink(Protocol):
    """What takes the bytes of a client."""

    @property
    def paused(self) -> bool:
        """Say whether it takes nothing now."""

    def feed(self, data: bytes) -> object:
        """Take bytes from the peer."""


class UpperEnd:
    """The upper end of a transport whose client is served here: its connection's stream.

    `lost()` is called once, when the peer is gone.
    """

    __slots__ = ("_lost", "_outbox", "_sink", "_transport")

    def __init__(
        self, sink: Sink, outbox: Outbox, lost: Callable[[], None], transport: Transport
    ) -> None:
        self._sink = sink
        self._outbox = outbox
        self._lost = lost
        self._transport = transport
        outbox.stream = self
        transport.endpoint = self

    @property
    def paused(self) -> bool:
        """Say whether the connection takes nothing now."""
        return self._sink.paused

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer."""
        self._sink.feed(data)

    def flush(self) -> None:
        """Send what the turn has put into the outbox, once the last has been sent."""
        outbox = self._outbox
        if not self._transport.backlog:
            if outbox.size:
                self._transport.write(outbox.take())
            elif outbox.drained is not None:
                outbox.drained()

    def drained(self) -> None:
        """All that was written has been sent."""
        self.flush()

    def resume(self) -> None:
        """Let the connection take input again."""
        self._transport.resume()

    def close(self) -> None:
        """Send what waits, then end."""
        outbox = self._outbox
        self._transport.write(outbox.take())
        outbox.close()
        self._transport.close()

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    def lost(self) -> None:
        """The peer is gone."""
        self._outbox.close()
        self._lost()


class LocalEnd(UpperEnd):
    """The upper end of a transport whose MQTT client is at home here."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection, transport: Transport) -> None:
        super().__init__(connection.intake, connection.outbox, connection.lost, transport)
        self._connection = connection
        connection.stream = self

    def join(self, transport: Transport) -> None:
        """Take a further stream of the same client."""
        stream = self._connection.mqtt.data_stream(self._connection)
        LocalEnd(stream, transport)
        if stream.ended:
            transport.abort()
        else:
            transport.resume()

    def resume(self) -> None:
        """Let the connection take input again: what it kept first, then what the peer sends."""
        intake = self._connection.intake
        intake.resume()
        if not intake.paused:
            self._transport.resume()
