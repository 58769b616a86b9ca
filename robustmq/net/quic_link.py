"""One QUIC connection: an engine, its streams, and how it ends."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aioquic.quic import events
from aioquic.quic.connection import NetworkAddress

from robustmq.net.layer import Facts
from robustmq.net.quic_engine import Engine
from robustmq.net.quic_stream import CONTROL, NO_ERROR, QuicStream

LISTENER: Final = "quic"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLimits:
    """What one connection may take: `send_buffer` in bytes, the others in seconds."""

    send_buffer: int
    handshake_timeout: float
    connect_timeout: float
    linger_timeout: float


class Link:
    """A connection that the server has taken.

    `touch(link)` says that it has something to send; `issued(cid)` and `retired(cid)` which ids
    lead to it; `opened(stream)` hears of every stream once, of the control stream first.
    """

    def __init__(
        self,
        engine: Engine,
        address: NetworkAddress,
        limits: LinkLimits,
        now: float,
        *,
        touch: Callable[["Link"], None],
        issued: Callable[["Link", bytes], None],
        retired: Callable[[bytes], None],
        opened: Callable[[QuicStream], None],
    ) -> None:
        self.engine = engine
        self.send_buffer = limits.send_buffer
        self.cids: set[bytes] = set(engine.first_ids)
        self.is_dirty = False
        self.due: float | None = None
        self.is_handshaken = False
        self._limits = limits
        self._address = address
        self._touch = touch
        self._issued = issued
        self._retired = retired
        self._opened = opened
        self._streams: dict[int, QuicStream] = {}
        self._early: list[QuicStream] = []
        self._deadline: float | None = now + limits.handshake_timeout
        self._is_finishing = False
        self.is_over = False

    @property
    def control(self) -> QuicStream | None:
        """The control stream; None before the client has opened it."""
        return self._streams.get(CONTROL)

    # ------------------------------------------------------------------ from the peer

    def receive(self, data: bytes, address: NetworkAddress, now: float) -> None:
        """Take a datagram."""
        self.engine.receive_datagram(data, address, now)
        self.look(now)

    def alarm(self, now: float) -> None:
        """Learn that the time `timer` has come."""
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            self.engine.close(error_code=NO_ERROR)
        timer = self.engine.get_timer()
        if timer is not None and now >= timer:
            self.engine.handle_timer(now)
        self.look(now)

    def timer(self) -> float | None:
        """Return when `alarm` is due next; None when the connection is over."""
        if self.is_over:
            return None
        timer = self.engine.get_timer()
        if self._deadline is not None and (timer is None or self._deadline < timer):
            return self._deadline
        return timer

    def datagrams(self, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """Return what is to be sent now."""
        self.is_dirty = False
        if self._is_finishing and self._deadline is None:
            self._deadline = now + self._limits.linger_timeout
        sent = self.engine.datagrams_to_send(now)
        self.look(now)
        return sent

    def look(self, now: float) -> None:
        """See what has happened in the engine."""
        while (event := self.engine.next_event()) is not None:
            self._handle(event, now)
        if self.is_handshaken:
            for stream in list(self._streams.values()):
                stream.progress()
                if stream.is_closing and self.engine.delivered(stream.stream_id):
                    self._settled(stream)
                if not self.engine.holds(stream.stream_id):
                    self._streams.pop(stream.stream_id, None)
        if self.engine.closing and self._streams:
            self._lose()

    def break_off(self) -> None:
        """Tell the streams that the connection is gone: it failed."""
        self._lose()

    def let_go(self) -> None:
        """Free the engine of a connection that is over; the collector would take its time."""
        vars(self.engine).clear()

    def _handle(self, event: events.QuicEvent, now: float) -> None:
        match event:
            case events.StreamDataReceived(data=data, end_stream=end, stream_id=stream_id):
                self._stream(stream_id).receive(data, end)
            case events.StreamReset(stream_id=stream_id):
                self._stream(stream_id).reset()
            case events.StopSendingReceived(stream_id=stream_id):
                self._stream(stream_id).reset()
            case events.HandshakeCompleted():
                self.is_handshaken = True
                self._deadline = now + self._limits.connect_timeout
            case events.ConnectionIdIssued(connection_id=cid):
                self.cids.add(cid)
                self._issued(self, cid)
            case events.ConnectionIdRetired(connection_id=cid):
                self.cids.discard(cid)
                self._retired(cid)
            case events.ConnectionTerminated():
                self.is_over = True
                self._lose()
            case _:
                pass

    def _stream(self, stream_id: int) -> QuicStream:
        stream = self._streams.get(stream_id)
        if stream is None:
            address = str(self._address[0])
            stream = QuicStream(self, stream_id, Facts(address=address, listener=LISTENER))
            self._streams[stream_id] = stream
            if stream_id == CONTROL:
                self._deadline = None
                self._opened(stream)
                for early in self._early:
                    self._opened(early)
                self._early.clear()
            elif CONTROL in self._streams:
                self._opened(stream)
            else:
                self._early.append(stream)
        return stream

    def _settled(self, stream: QuicStream) -> None:
        """The peer has all that a stream said that ended here."""
        stream.tell_lost()
        if stream.stream_id == CONTROL and not self.engine.closing:
            self.engine.close(error_code=NO_ERROR)
            self._touch(self)

    def _lose(self) -> None:
        streams = list(self._streams.values())
        self._streams.clear()
        for stream in streams:
            stream.tell_lost()

    # ------------------------------------------------------------------ the streams' questions

    @property
    def _is_open(self) -> bool:
        return not (self.is_over or self.engine.closing)

    def unsent(self, stream_id: int) -> int:
        """Bytes of a stream that the peer has not acknowledged."""
        return 0 if self.is_over else self.engine.unsent(stream_id)

    def consumed(self, stream_id: int, length: int) -> None:
        """Bytes of a stream were taken."""
        if not self.is_over and self.engine.consume(stream_id, length):
            self._touch(self)

    def send(self, stream_id: int, data: bytes) -> None:
        """Send bytes on a stream."""
        if self._is_open and self.engine.holds(stream_id):
            self.engine.send_stream_data(stream_id, data)
            self._touch(self)

    def finish(self, stream_id: int) -> None:
        """End a stream after what waits; the connection with the control stream."""
        if not self._is_open or not self.engine.holds(stream_id):
            return
        self.engine.release(stream_id)
        self.engine.send_stream_data(stream_id, b"", end_stream=True)
        self._is_finishing = self._is_finishing or stream_id == CONTROL
        self._touch(self)

    def abandon(self, stream_id: int) -> None:
        """End a stream without what waits; the connection with the control stream."""
        if not self._is_open:
            return
        if stream_id == CONTROL:
            self.engine.close(error_code=NO_ERROR)
        elif self.engine.holds(stream_id):
            self.engine.release(stream_id)
            self.engine.reset_stream(stream_id, NO_ERROR)
            self.engine.stop_stream(stream_id, NO_ERROR)
        self._touch(self)
