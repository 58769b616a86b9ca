"""One bidirectional stream of a QUIC connection as a byte pipe: a `transport.Transport`."""

from typing import TYPE_CHECKING, Final

from robustmq.net.layer import Facts
from robustmq.net.transport import NOBODY, Endpoint

if TYPE_CHECKING:
    from robustmq.net.quic_link import Link

CONTROL: Final = 0
"""The first stream that a client opens; the others are data streams of the same MQTT client."""
NO_ERROR: Final = 0
"""The application error code of a stream or a connection that ended as it should."""


class QuicStream:
    """Bytes of a stream, up to `endpoint` and down to the peer.

    Bytes that a paused endpoint does not take are held here, and no credit is given for them: the
    peer sends a window's worth and no more. Of what was written, `backlog` tells nothing while
    less than a send buffer is unacknowledged, so that the line stays busy; above it, the stream
    has drained when half of that was acknowledged.
    """

    __slots__ = (
        "_full",
        "_has_ended",
        "_has_told",
        "_held",
        "_is_closing",
        "_link",
        "_owes",
        "endpoint",
        "facts",
        "stream_id",
    )

    def __init__(self, link: "Link", stream_id: int, facts: Facts) -> None:
        self._link = link
        self._held = bytearray()
        self._has_ended = False
        self._has_told = False
        self._is_closing = False
        self._full = False
        self._owes = False
        self.stream_id = stream_id
        self.facts = facts
        self.endpoint: Endpoint = NOBODY

    @property
    def control(self) -> "QuicStream | None":
        """The control stream that this data stream belongs to; None when it is one itself."""
        return self._link.control if self.stream_id != CONTROL else None

    # ------------------------------------------------------------------ from the peer

    def receive(self, data: bytes, end: bool) -> None:
        """Take bytes from the peer, and its end of the stream."""
        self._has_ended = self._has_ended or end
        if self._is_closing:
            self._link.consumed(self.stream_id, len(data))
            return
        self._held += data
        self._rise()

    def reset(self) -> None:
        """Learn that the peer gave the stream up, or wants nothing more on it."""
        self.abort()
        self.tell_lost()

    def progress(self) -> None:
        """Look what the peer has acknowledged since."""
        if self._full and self._link.unsent(self.stream_id) <= self._link.send_buffer // 2:
            self._full = False
        if self._owes and not self._full:
            self._owes = False
            if not self._is_closing:
                self.endpoint.drained()

    def tell_lost(self) -> None:
        """The stream is over: tell the endpoint, once."""
        self._is_closing = True
        self._held.clear()
        if not self._has_told:
            self._has_told = True
            endpoint, self.endpoint = self.endpoint, NOBODY
            endpoint.lost()

    def _rise(self) -> None:
        """Feed what is held for as long as the endpoint takes it."""
        while self._held and not self._is_closing and not self.endpoint.paused:
            data = bytes(self._held)
            self._held.clear()
            self._link.consumed(self.stream_id, len(data))
            self.endpoint.feed(data)
        if self._has_ended and not self._held and not self._is_closing:
            self.close()
            self.tell_lost()

    # ------------------------------------------------------------------ to the peer

    @property
    def backlog(self) -> int:
        """Return how many bytes wait to be sent, beyond what keeps the line busy."""
        return self._link.unsent(self.stream_id) if self._full else 0

    @property
    def is_closing(self) -> bool:
        """Say whether this side has ended the stream."""
        return self._is_closing

    def write(self, data: bytes) -> None:
        """Send bytes with the end of the turn."""
        if data and not self._is_closing:
            self._link.send(self.stream_id, data)
            self._owes = True
            self._full = self._link.unsent(self.stream_id) >= self._link.send_buffer

    def resume(self) -> None:
        """Read again: the endpoint is not paused any more."""
        self._rise()

    def close(self) -> None:
        """Send what waits and end; with the control stream the connection ends."""
        if not self._is_closing:
            self._is_closing = True
            self._held.clear()
            self._link.finish(self.stream_id)

    def abort(self) -> None:
        """End at once; what waits is lost."""
        self._is_closing = True
        self._held.clear()
        self._link.abandon(self.stream_id)
