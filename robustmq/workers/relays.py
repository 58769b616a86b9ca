"""Relays: the plain bytes of a transport, between the core that has it and its client's home.

The accepting core keeps the socket; what its layers bring up crosses the ring, and the home core
has a `Connection` like any other. Frames (little-endian) are a kind, the side that sends, and the
stream's number, which the accepting core gives:

    OPEN    accepting core: length of the peer as MessagePack, the peer, the first bytes
    DATA    both: plain bytes, those of a turn together
    CREDIT  both: so many bytes were taken; a side that has `window` bytes on the way stops
    END     accepting core: the peer is gone; home: send what came, and close
    ABORT   both: end at once
    JOIN    accepting core, instead of OPEN: a further stream of the client of another one, whose
            number follows
    BRING   accepting core, instead of OPEN, on another node: an Introduction as MessagePack, of a
            client that has connected there and whose session is here

Whoever has sent ABORT, or both sent and received END, forgets the stream; what still comes for
it is passed over. A core that is replaced has ended all its streams.
"""

import enum
import struct
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from robustmq.mqtt.connection import Connection
from robustmq.mqtt.passage import Introduction, Passage
from robustmq.net.transport import Endpoint, Transport
from robustmq.policy.principal import Peer

FIRST_KIND: Final = 224
"""The frames' kinds from this on are the relays', those below the broker's."""

_HEAD: Final = struct.Struct("<BBQ")
_SIZE: Final = struct.Struct("<H")
_COUNT: Final = struct.Struct("<I")
_NUMBER: Final = struct.Struct("<Q")


class Kind(enum.IntEnum):
    """What a relay's frame says; its first byte."""

    OPEN = 224
    DATA = 225
    CREDIT = 226
    END = 227
    ABORT = 228
    JOIN = 229
    BRING = 230


class Side(enum.IntEnum):
    """Who sends a frame; its second byte."""

    ACCEPTING = 0
    HOME = 1


class Fabric(Protocol):
    """What carries frames to other cores."""

    def send(self, core: int, frame: bytes) -> None:
        """Queue a frame."""


class _End:
    """One end of a relayed stream: what it sends, and the credit that bounds both ways."""

    __slots__ = ("_core", "_number", "_on_the_way", "_owed", "_relays", "_side", "ended")

    def __init__(self, relays: "Relays", core: int, number: int, side: Side) -> None:
        self._relays = relays
        self._core = core
        self._number = number
        self._side = side
        self._on_the_way = 0
        self._owed = 0
        self.ended = False

    def is_with(self, core: int) -> bool:
        """Say whether the other end is on a core."""
        return self._core == core

    def _is_full(self) -> bool:
        return self._on_the_way >= self._relays.window

    def _send(self, kind: Kind, body: bytes = b"") -> None:
        self._relays.send(self._core, _HEAD.pack(kind, self._side, self._number) + body)

    def _send_data(self, data: bytes) -> None:
        self._on_the_way += len(data)
        self._send(Kind.DATA, data)

    def _give_credit(self) -> None:
        """What came has been taken: let as much follow, though not for every few bytes."""
        if self._owed * 2 >= self._relays.window:
            self._send(Kind.CREDIT, _COUNT.pack(self._owed))
            self._owed = 0


class Pipe(Protocol):
    """What carries the bytes of the peer: a `net.transport.Transport`, or a `Passage`."""

    endpoint: Endpoint

    def write(self, data: bytes) -> None:
        """Send bytes to the peer with the end of the turn."""

    def resume(self) -> None:
        """Read again: the endpoint is not paused any more."""

    def close(self) -> None:
        """Send what waits, then end."""

    def abort(self) -> None:
        """End at once."""


class AcceptedStream(_End):
    """The accepting core's end: the endpoint of a transport."""

    __slots__ = ("_pieces", "_transport")

    def __init__(self, relays: "Relays", core: int, number: int, transport: Pipe) -> None:
        super().__init__(relays, core, number, Side.ACCEPTING)
        self._pieces: list[bytes] = []
        self._transport = transport
        transport.endpoint = self

    @property
    def paused(self) -> bool:
        """Say that the home core has not taken enough yet."""
        return self._is_full()

    def open(self, peer: Peer, beginning: bytes) -> None:
        """Tell the home core who has come, and what was read."""
        packed = msgspec.msgpack.encode(peer)
        self._on_the_way += len(beginning)
        self._send(Kind.OPEN, _SIZE.pack(len(packed)) + packed + beginning)

    def bring(self, introduction: Introduction) -> None:
        """Tell the home core who has come, and has been let in."""
        self._send(Kind.BRING, msgspec.msgpack.encode(introduction))

    def join(self, transport: Transport) -> None:
        """Relay a further stream of the same client to its home."""
        self._relays.join(self._core, self._number, transport)

    def begin_beside(self, control: int) -> None:
        """Tell the home core whose further stream this is."""
        self._send(Kind.JOIN, _NUMBER.pack(control))

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer; they leave at the end of the turn."""
        if not self._pieces:
            self._relays.fed.append(self)
        self._pieces.append(data)
        self._on_the_way += len(data)

    def flush(self) -> None:
        """Send what the turn has brought."""
        pieces, self._pieces = self._pieces, []
        if pieces and not self.ended:
            self._send(Kind.DATA, pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def drained(self) -> None:
        """The peer has been sent all that came from home."""
        self._give_credit()

    def lost(self) -> None:
        """The peer is gone."""
        if not self.ended:
            self.flush()
            self._send(Kind.END)
            self._forget()

    def receive(self, kind: Kind, body: bytes) -> None:
        """Take what the home core says."""
        match kind:
            case Kind.DATA:
                self._owed += len(body)
                self._transport.write(body)
            case Kind.CREDIT:
                was_full = self._is_full()
                self._on_the_way -= _COUNT.unpack(body)[0]
                if was_full and not self._is_full():
                    self._transport.resume()
            case Kind.END:
                # The home core hears of the peer's end, and may abort until then.
                self._transport.close()
            case _:
                self.abort()

    def abort(self) -> None:
        """The home core is gone, or has no more to do with the peer."""
        self._forget()
        self._transport.abort()

    def fail(self) -> None:
        """End at once; the home core hears that the peer is gone."""
        self._transport.abort()

    def _forget(self) -> None:
        self.ended = True
        self._relays.accepted.pop(self._number, None)


class HomeStream(_End):
    """The home core's end: the stream of a connection and its outbox."""

    __slots__ = ("_connection", "_is_closing", "_outbox")

    def __init__(self, relays: "Relays", core: int, number: int, connection: Connection) -> None:
        super().__init__(relays, core, number, Side.HOME)
        self._connection = connection
        self._is_closing = False
        self._outbox = connection.outbox
        connection.stream = self
        connection.outbox.stream = self

    def flush(self) -> None:
        """Send what the turn has put into the outbox, unless too much is on its way."""
        if self.ended or self._is_closing or self._is_full():
            return
        if self._outbox.size:
            self._send_data(self._outbox.take())
        if not self._is_full() and self._outbox.drained is not None:
            self._outbox.drained()

    def resume(self) -> None:
        """Let the connection take input again."""
        self._connection.intake.resume()
        self._take()

    def close(self) -> None:
        """Send what waits, and let the accepting core end."""
        if not self.ended and not self._is_closing:
            self._is_closing = True
            if self._outbox.size:
                self._send_data(self._outbox.take())
            self._send(Kind.END)
            self._outbox.close()

    def abort(self) -> None:
        """End at once."""
        if not self.ended:
            self._send(Kind.ABORT)
            self.lost()

    def fail(self) -> None:
        """End at once, on both cores."""
        self.abort()

    def introduce(self, introduction: Introduction) -> None:
        """Let the client in that another node has let in."""
        self._connection.introduce(introduction)

    def beside(self, number: int) -> "HomeStream":
        """Make the home end of a further stream of the same client."""
        stream = self._connection.mqtt.data_stream(self._connection)
        return HomeStream(self._relays, self._core, number, stream)

    @property
    def has_client(self) -> bool:
        """Say whether its client is still connected."""
        return not self._connection.ended

    def receive(self, kind: Kind, body: bytes) -> None:
        """Take what the accepting core says."""
        match kind:
            case Kind.DATA:
                self._owed += len(body)
                self._connection.intake.feed(body)
                self._take()
            case Kind.CREDIT:
                self._on_the_way -= _COUNT.unpack(body)[0]
                self.flush()
            case _:
                self.lost()

    def lost(self) -> None:
        """The peer is gone, or the core that has its socket."""
        self.ended = True
        self._relays.homes.pop((self._core, self._number), None)
        self._outbox.close()
        self._connection.lost()

    def _take(self) -> None:
        if not self.ended and not self._connection.intake.paused:
            self._give_credit()


class Relays:
    """All relayed streams of one core, those that it accepted and those that are at home here.

    `arrived(peer)` makes a connection for a stream from another core, None when no more may
    come in. `window` bounds the bytes of a stream that are on their way, each way, but for
    what one turn adds. `report` hears of an error of ours: its stream is aborted.
    """

    def __init__(
        self,
        fabric: Fabric,
        window: int,
        arrived: Callable[[Peer], Connection | None],
        report: Callable[[Exception], None],
    ) -> None:
        self._fabric = fabric
        self._arrived = arrived
        self._report = report
        self._last = 0
        self.window = window
        self.accepted: dict[int, AcceptedStream] = {}
        self.homes: dict[tuple[int, int], HomeStream] = {}
        self.fed: list[AcceptedStream] = []
        self.has_sent = False

    def open(self, core: int, transport: Transport, peer: Peer, beginning: bytes) -> None:
        """Relay a transport to its home core from now on."""
        self._last += 1
        stream = self.accepted[self._last] = AcceptedStream(self, core, self._last, transport)
        stream.open(peer, beginning)

    def bring(self, core: int, passage: Passage, introduction: Introduction) -> None:
        """Relay a client that has connected here to the core of another node that it belongs to."""
        self._last += 1
        stream = self.accepted[self._last] = AcceptedStream(self, core, self._last, passage)
        stream.bring(introduction)

    def join(self, core: int, control: int, transport: Transport) -> None:
        """Relay a further stream of the client whose stream is `control` to the same core."""
        self._last += 1
        stream = self.accepted[self._last] = AcceptedStream(self, core, self._last, transport)
        stream.begin_beside(control)
        transport.resume()

    def send(self, core: int, frame: bytes) -> None:
        """Queue a frame; whoever ends the turn looks at `has_sent`."""
        self.has_sent = True
        self._fabric.send(core, frame)

    def flush(self) -> None:
        """Queue what the turn has brought from the peers, one frame each."""
        if self.fed:
            fed, self.fed = self.fed, []
            for stream in fed:
                stream.flush()

    def receive(self, source: int, frame: bytes) -> None:
        """Take a frame of another core's relays."""
        kind, side, number = _HEAD.unpack_from(frame)
        body = frame[_HEAD.size :]
        stream: AcceptedStream | HomeStream | None
        if kind == Kind.OPEN:
            stream = self._begin(source, number, body)
            kind, body = Kind.DATA, body[_SIZE.size + _SIZE.unpack_from(body)[0] :]
        elif kind == Kind.JOIN:
            self._join(source, number, *_NUMBER.unpack(body))
            return
        elif kind == Kind.BRING:
            self._welcome(source, number, body)
            return
        elif side == Side.HOME:
            stream = self.accepted.get(number)
        else:
            stream = self.homes.get((source, number))
        if stream is None:
            return
        try:
            stream.receive(Kind(kind), body)
        except Exception as error:
            stream.fail()
            self._report(error)

    def _begin(self, source: int, number: int, body: bytes) -> HomeStream | None:
        (size,) = _SIZE.unpack_from(body)
        peer = msgspec.msgpack.decode(body[_SIZE.size : _SIZE.size + size], type=Peer)
        return self._home(source, number, peer)

    def _home(self, source: int, number: int, peer: Peer) -> HomeStream | None:
        connection = self._arrived(peer)
        if connection is None:
            self.send(source, _HEAD.pack(Kind.ABORT, Side.HOME, number))
            return None
        stream = self.homes[source, number] = HomeStream(self, source, number, connection)
        return stream

    def _welcome(self, source: int, number: int, body: bytes) -> None:
        introduction = msgspec.msgpack.decode(body, type=Introduction)
        stream = self._home(source, number, introduction.peer)
        if stream is None:
            return
        try:
            stream.introduce(introduction)
        except Exception as error:
            stream.fail()
            self._report(error)

    def _join(self, source: int, number: int, control: int) -> None:
        stream = self.homes.get((source, control))
        if stream is None or not stream.has_client:
            self.send(source, _HEAD.pack(Kind.ABORT, Side.HOME, number))
        else:
            self.homes[source, number] = stream.beside(number)

    def replaced(self, core: int) -> None:
        """A core has a new life: what the earlier one had to do with is over."""
        for accepted in [each for each in self.accepted.values() if each.is_with(core)]:
            accepted.abort()
        for home in [each for each in self.homes.values() if each.is_with(core)]:
            home.lost()
