"""Transports: what carries the plain bytes of one connection, and what stands at its upper end.

A plain TCP connection needs none of this: the poller's Stream feeds MQTT's intake directly. All
that has layers is carried by a `Transport` whose `endpoint` is, one after the other, the entrance
(which looks for the client id in the first bytes) and then either the connection on this core or
the relay to its home core. `Pipeline` is the Transport over a socket; QUIC has its own.
"""

from collections.abc import Callable
from typing import Final, Protocol

from robustmq._kernel.outbox import Outbox
from robustmq._kernel.poller import Poller, Stream
from robustmq._kernel.turn import Turn
from robustmq.metrics import BYTES_RECEIVED
from robustmq.net.layer import Broken, Facts, Layer

UNHEARD_BYTES: Final = 65_536
"""Bytes that layers say by themselves (handshake, pongs) to a peer that does not read, at most."""


class Endpoint(Protocol):
    """The upper end of a transport."""

    @property
    def paused(self) -> bool:
        """Say that nothing should be read from the peer now; `Transport.resume` ends it."""

    def feed(self, data: bytes) -> object:
        """Take plain bytes."""

    def drained(self) -> None:
        """All that was written has been sent."""

    def lost(self) -> None:
        """The peer is gone, or `close` has done its work; called once."""


class Nobody:
    """The upper end of a stream that nobody has taken yet, or that has ended: it waits."""

    paused = True

    def feed(self, data: bytes) -> None:
        """Nothing is fed to somebody who is paused."""

    def drained(self) -> None:
        """Nobody has written."""

    def lost(self) -> None:
        """Nobody minds."""


NOBODY: Final = Nobody()


class Transport(Protocol):
    """What carries the plain bytes of one connection; `endpoint` may be changed at any time.

    `facts` is what is known of the peer. `backlog` counts bytes that were written and not sent:
    whoever writes waits for `endpoint.drained` while there are any. After `close` or `abort`
    nothing is fed any more.
    """

    endpoint: Endpoint
    facts: Facts

    @property
    def backlog(self) -> int:
        """Return how many bytes wait to be sent."""

    def write(self, data: bytes) -> None:
        """Send plain bytes with the end of the turn."""

    def resume(self) -> None:
        """Read again: the endpoint is not paused any more."""

    def close(self) -> None:
        """Send what waits and the layers' last words, then end; `lost` follows."""

    def abort(self) -> None:
        """End at once; what waits is lost."""


class Pipeline:
    """A Transport over a connected socket: a Layer between the poller's Stream and the endpoint.

    `opened(self)` is called when the handshake is done, `broken(self, why)` when the peer broke
    a layer's rules; it is closed then, with the layer's last words. `closing(self)` is called
    once when this side begins to end, for a timer that aborts a peer who does not end as well.
    """

    __slots__ = (
        "_broken",
        "_closing",
        "_has_told",
        "_is_closing",
        "_layer",
        "_opened",
        "_outbox",
        "_overhead",
        "_stream",
        "_turn",
        "_unheard",
        "endpoint",
        "facts",
        "is_open",
    )

    def __init__(
        self,
        turn: Turn,
        layer: Layer,
        facts: Facts,
        endpoint: Endpoint,
        *,
        opened: Callable[["Pipeline"], None],
        broken: Callable[["Pipeline", str], None],
        closing: Callable[["Pipeline"], None],
    ) -> None:
        self._turn = turn
        self._layer = layer
        self._outbox = Outbox(turn)
        self._stream: Stream | None = None
        self._opened = opened
        self._broken = broken
        self._closing = closing
        self._is_closing = False
        self._has_told = False
        self._overhead = 0
        # What the layer has said by itself since everything was last sent.
        self._unheard = 0
        self.is_open = False
        self.facts = facts
        self.endpoint = endpoint

    def adopt(self, poller: Poller, fd: int) -> None:
        """Begin with the connected socket `fd`; OSError when it stays the caller's."""
        self._outbox.drained = self._drained
        self._stream = poller.adopt(fd, self, self._outbox, self._lost)

    # ------------------------------------------------------------------ below

    @property
    def paused(self) -> bool:
        """Say whether the stream should read no more."""
        return self.endpoint.paused

    def feed(self, data: bytes) -> None:
        """Take what the socket gave."""
        if self._is_closing:
            return
        try:
            plain = self._layer.receive(data)
        except Broken as error:
            self._fail(error)
            return
        if not self._put_words(self._layer.outgoing()):
            return
        self._count(len(data) - len(plain))
        if not self.is_open and self._layer.is_open:
            self.is_open = True
            self._layer.tell(self.facts)
            self._opened(self)
        if plain and not self._is_closing:
            self.endpoint.feed(plain)
        if self._layer.has_ended and not self._is_closing:
            self.close()
            self._tell_lost()

    def _put_words(self, words: bytes) -> bool:
        """Send what the layer says by itself; False when the peer asks and never listens."""
        self._put(words)
        self._unheard += len(words)
        if self._unheard <= UNHEARD_BYTES:
            return True
        self._broken(self, f"{self._unheard} bytes of answers are not taken")
        self.abort()
        return False

    def _fail(self, error: Broken) -> None:
        self._put(self._layer.outgoing())
        self._broken(self, error.detail)
        self._end()
        self._tell_lost()

    def _count(self, overhead: int) -> None:
        """Whoever takes the plain bytes counts them; the layers' share is counted here."""
        self._overhead += overhead
        if self._overhead > 0:
            self._turn.row[BYTES_RECEIVED] += self._overhead
            self._overhead = 0

    def _drained(self) -> None:
        self._unheard = 0
        if not self._is_closing:
            self.endpoint.drained()

    def _lost(self) -> None:
        self._stream = None
        self._is_closing = True
        self._tell_lost()
        # It holds this in return: a circle would stay until the collector comes by.
        self.endpoint = NOBODY

    def _tell_lost(self) -> None:
        if not self._has_told:
            self._has_told = True
            self.endpoint.lost()

    # ------------------------------------------------------------------ above

    @property
    def backlog(self) -> int:
        """Return how many bytes wait to be sent."""
        return self._outbox.size

    def write(self, data: bytes) -> None:
        """Send plain bytes with the end of the turn."""
        if data and not self._is_closing:
            try:
                self._put(self._layer.send(data))
            except Broken as error:
                self._fail(error)

    def resume(self) -> None:
        """Read again."""
        if self._stream is not None:
            self._stream.resume()

    def close(self) -> None:
        """Send what waits and the layers' last words, then end."""
        if not self._is_closing:
            self._put(self._layer.close())
            self._end()

    def abort(self) -> None:
        """End at once; what waits is lost."""
        if self._stream is not None:
            self._stream.abort()

    def _end(self) -> None:
        self._is_closing = True
        if self._stream is not None:
            self._closing(self)
            self._stream.close()

    def _put(self, data: bytes) -> None:
        if data:
            self._outbox.put(data)
