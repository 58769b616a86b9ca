"""A TCP connection of the simulation: bytes that are under way, and how either side ends it."""

from collections.abc import Callable
from random import Random

from robustmq._kernel.intake import Intake
from robustmq._kernel.outbox import Outbox

BUFFER = 4_096
"""Bytes that the client's side takes before the server's is blocked."""


class Wire:
    """One connection. The server's half behaves as `_kernel.poller.Stream` does."""

    def __init__(self, client_id: str, number: int) -> None:
        self.number = number
        self.client_id = client_id
        self.to_server = bytearray()
        self.to_client = bytearray()
        self.client_gone = False
        self.server_gone = False
        self.accepted = False
        self._intake: Intake
        self._outbox: Outbox
        self._on_lost: Callable[[], None] | None = None
        self._closing = False
        self._finished = False
        self._blocked = False

    # ------------------------------------------------------------------ the client's half

    def drop(self, rng: Random) -> None:
        """The client is gone; what it has sent last may never arrive."""
        if not self.client_gone:
            self.client_gone = True
            if rng.random() < 0.5:
                del self.to_server[rng.randint(0, len(self.to_server)) :]
            self.to_client.clear()

    def close(self) -> None:
        """The client ends: all that it has sent arrives."""
        self.client_gone = True
        self.to_client.clear()

    @property
    def dead(self) -> bool:
        """Whether the client will never hear anything more."""
        return self.client_gone or (self.ended and not self.to_client)

    # ------------------------------------------------------------------ the server's half

    def accept(self, intake: Intake, outbox: Outbox, on_lost: Callable[[], None]) -> None:
        """A core takes the connection."""
        self.accepted = True
        self._intake, self._outbox, self._on_lost = intake, outbox, on_lost
        outbox.stream = self

    def turn(self, most: int) -> bool:
        """The server's core looks at the connection; says whether anything happened."""
        active = False
        if self._blocked and len(self.to_client) <= BUFFER // 2:
            self._blocked = False
            active = True
            self.flush()
        if self.server_gone or (not self._finished and self._intake.paused):
            return active
        data = bytes(self.to_server[:most])
        if data:
            active = True
            del self.to_server[:most]
            if not self._finished:
                self._intake.feed(data)
        if self.client_gone and not self.to_server and not self.server_gone:
            active = True
            if self._finished or not self._intake.paused:
                self._release()
        return active

    def flush(self) -> None:
        """Send what the outbox holds, as far as the client takes it."""
        if self.server_gone or self._blocked or self._finished:
            return
        if len(self.to_client) > BUFFER:
            self._blocked = True
            return
        data = self._outbox.take()
        if not self.client_gone:
            self.to_client += data
        if self._closing:
            self._finished = True
            self._outbox.close()
        elif self._outbox.drained is not None:
            self._outbox.drained()

    def resume(self) -> None:
        """Let the connection take input again; the next turn reads on."""
        self._intake.resume()

    # What the connection asks of its stream; `close` has the client's name above.

    def abort(self) -> None:
        """End at once; what waits is lost."""
        if not self.server_gone:
            self._release()

    def finish(self) -> None:
        """Send what waits, then end our side."""
        if not self.server_gone and not self._closing:
            self._closing = True
            self.flush()

    def die(self) -> None:
        """The server's process is gone."""
        self.server_gone = True
        self._on_lost = None

    @property
    def ended(self) -> bool:
        """Whether the server has ended its side."""
        return self._finished or self.server_gone

    def _release(self) -> None:
        self.server_gone = self._closing = True
        self._outbox.close()
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            on_lost()


class ServerStream:
    """The transport as a connection of the server knows it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def close(self) -> None:
        """Send what waits, then end."""
        self._wire.finish()

    def abort(self) -> None:
        """End at once."""
        self._wire.abort()
