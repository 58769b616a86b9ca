"""One connection of a link: the handshake, then records, at the upper end of a transport."""

import enum
from typing import Final, Protocol

from robustmq.errors import ProtocolError
from robustmq.net.layer import Broken, Facts
from robustmq.net.peer_handshake import PREAMBLE_BYTES, Handshake, Hello, preamble, refusal, wanted
from robustmq.net.peer_link import Link
from robustmq.net.peer_records import BODY_BYTES, Fault, Reader, Record, encode
from robustmq.net.transport import Transport

NO_PEER: Final = "it does not begin as a core of a cluster does"
"""What is said of a stranger."""

_JOINED: Final = 16_384
"""Bytes of a body that are copied behind their head; what is larger is written by itself."""


class Preamble:
    """The lowest layer of a connection: it says, or reads, which core is wanted, in the clear."""

    __slots__ = ("_beginning", "_words", "has_ended", "is_open")

    def __init__(self, index: int | None = None) -> None:
        self._words = b"" if index is None else preamble(index)
        self._beginning = b""
        self.is_open = index is not None
        self.has_ended = False

    def receive(self, data: bytes) -> bytes:
        """Take bytes; return those behind the preamble."""
        if self.is_open:
            return data
        self._beginning += data
        core = wanted(self._beginning)
        if core is None:
            return b""
        if core < 0:
            raise Broken(NO_PEER)
        self.is_open = True
        return self._beginning[PREAMBLE_BYTES:]

    def send(self, data: bytes) -> bytes:
        """Return what is sent as it is."""
        return data

    def outgoing(self) -> bytes:
        """Return our own preamble, once."""
        words, self._words = self._words, b""
        return words

    def close(self) -> bytes:
        """Return nothing: there are no last words."""
        return b""

    def tell(self, facts: Facts) -> None:
        """Have learnt nothing of the peer."""


class Stage(enum.IntEnum):
    """How far a connection has come."""

    GREETING = 0
    MEETING = 1
    WELCOMING = 2
    OPEN = 3
    ENDED = 4


class Hall(Protocol):
    """What a connection tells whoever has it."""

    def greeted(self, connection: "PeerConnection", hello: Hello) -> Hello | str:
        """Return what we say to who comes, or why it may not; a dialer says nothing more."""

    def met(self, connection: "PeerConnection") -> None:
        """Learn that the other side has shown who it is: `conclude` or `refuse` it."""

    def opened(self, connection: "PeerConnection") -> None:
        """Learn that frames may be sent: `pump` sends them."""

    def arrived(self, connection: "PeerConnection", size: int, frames: list[bytes]) -> None:
        """Take what `size` bytes have completed; there may be none."""

    def ended(self, connection: "PeerConnection", why: str) -> None:
        """Learn that the connection is over; "" when nobody said why."""


class PeerConnection:
    """The endpoint of a transport that carries a link; its user sets `transport`.

    `hello` is what the other side has said, `link` what was given to `conclude`. `write_bytes`
    of records are written in advance.
    """

    paused = False

    def __init__(self, hall: Hall, secret: bytes, write_bytes: int, *, is_dialer: bool) -> None:
        self._hall = hall
        self._handshake = Handshake(secret, acceptor=not is_dialer)
        self.is_dialer = is_dialer
        self._write_bytes = write_bytes
        self._reader = Reader()
        self._received = 0
        self._why = ""
        self.stage = Stage.GREETING
        self.transport: Transport | None = None
        self.link: Link | None = None
        self.hello: Hello | None = None
        self.heard = True
        self.said = False

    # ------------------------------------------------------------------ the transport's endpoint

    def feed(self, data: bytes) -> None:
        """Take bytes of the other side."""
        self.heard = True
        frames: list[bytes] = []
        try:
            self._reader.feed(data)
            while self.stage != Stage.ENDED and (record := self._reader.next()) is not None:
                if self.stage == Stage.OPEN and self.link is not None:
                    frames += self.link.receive(record)
                else:
                    self._shake(record)
        except ProtocolError as error:
            self._tell(len(data), frames)
            self.fail(error.detail)
        else:
            self._tell(len(data), frames)

    def _tell(self, size: int, frames: list[bytes]) -> None:
        # Also before an error is told: what was taken counts as acknowledged.
        self._hall.arrived(self, size, frames)

    def drained(self) -> None:
        """All that was written has been sent."""
        self.pump()

    def lost(self) -> None:
        """The transport is gone."""
        if self.stage != Stage.ENDED:
            self.stage = Stage.ENDED
            self._hall.ended(self, self._why)

    # ------------------------------------------------------------------ the handshake

    def begin(self, hello: Hello) -> None:
        """Say who we are, as the dialer."""
        self._put(self._handshake.hello(hello))

    def _shake(self, record: Record) -> None:
        if self.stage == Stage.GREETING and self.hello is None:
            self._greet(self._handshake.read_hello(record))
        elif self.stage == Stage.GREETING:
            self._received = self._handshake.read_proof(record)
            self._meet()
        elif self.stage == Stage.WELCOMING:
            self._open(self._handshake.read_welcome(record))
        else:
            raise ProtocolError(Fault.STRANGER, f"{record.kind.name} before it was its turn")

    def _greet(self, hello: Hello) -> None:
        answer = self._hall.greeted(self, hello)
        if isinstance(answer, str):
            self.refuse(answer)
            return
        self.hello = hello
        if self.is_dialer:
            self._meet()
        else:
            self._put(self._handshake.hello(answer))

    def _meet(self) -> None:
        self.stage = Stage.MEETING
        self._hall.met(self)

    def conclude(self, link: Link) -> None:
        """Let this be the connection of a link, which the other side has shown to be at."""
        self.link = link
        if self.is_dialer:
            self.stage = Stage.WELCOMING
            self._put(self._handshake.proof(link.received))
            return
        try:
            self._open(self._received)
        except ProtocolError as error:
            self.refuse(error.detail)

    def _open(self, received: int) -> None:
        assert self.link is not None
        self.link.connected(received)
        self.stage = Stage.OPEN
        self._reader.limit = BODY_BYTES
        if not self.is_dialer:
            self._put(self._handshake.welcome(self.link.received))
        self._hall.opened(self)

    # ------------------------------------------------------------------ speaking

    def pump(self) -> None:
        """Write what the link has to say, as far as it may be written in advance."""
        link, transport = self.link, self.transport
        if self.stage != Stage.OPEN or link is None or transport is None:
            return
        while transport.backlog < self._write_bytes and (record := link.take()) is not None:
            self._put(record)

    def acknowledge(self) -> None:
        """Say what we have taken, and that we are there."""
        if self.stage == Stage.OPEN and self.link is not None:
            self._put(self.link.acknowledgement())

    def _put(self, record: Record) -> None:
        assert self.transport is not None
        self.said = True
        head, body = encode(record), record.body
        if len(body) < _JOINED:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)

    # ------------------------------------------------------------------ the end

    def refuse(self, why: str) -> None:
        """Tell the other side why it may not have a link, and end."""
        if self.stage == Stage.ENDED:
            return
        assert self.transport is not None
        self._why = self._why or why
        self._put(refusal(why))
        self.transport.close()
        self.lost()

    def broken(self, why: str) -> None:
        """Learn what a layer below has found wrong; `lost` follows."""
        self._why = self._why or why

    def fail(self, why: str) -> None:
        """End at once, since the other side broke the rules or is silent."""
        if self.stage != Stage.ENDED:
            assert self.transport is not None
            self._why = self._why or why
            self.transport.abort()
            self.lost()
