"""How two cores of different nodes find out that they may have a link, before any frame.

The core with the lower (node, index) dials. A preamble in the clear names the core that is
wanted, so that whoever accepts can hand the socket over, and TLS begins behind it. Then:

    dialer      HELLO     who it is, whom it wants, a nonce
    acceptor    HELLO     likewise, after its proof; or REFUSED and a sentence
    dialer      PROOF     its proof, and the last record that it has taken from this life
    acceptor    WELCOME   the last record that it has taken; frames follow in both directions

A proof is the HMAC-SHA-256 (RFC 2104) under the secret of the cluster of the side's own label,
both hellos as they were sent and, for the dialer, the record that it names. Each side's nonce is
in the other's proof, so nothing that was heard earlier proves anything.
"""

import hmac
import struct
from typing import Final, NamedTuple

import msgspec

from robustmq.errors import ProtocolError
from robustmq.net.peer_records import Fault, Kind, Record

VERSION: Final = 1
NONCE_BYTES: Final = 16
STREAM_BYTES: Final = 8
REASON_MAX: Final = 200
"""Characters that are taken of a refusal's sentence."""

_PREAMBLE: Final = struct.Struct(">4sBxH")
_MAGIC: Final = b"RMQL"
_NUMBER: Final = struct.Struct("<Q")
_PROOF_BYTES: Final = 32
_ACCEPTS: Final = b"robustmq core accepts\0"
_DIALS: Final = b"robustmq core dials\0"

PREAMBLE_BYTES: Final = _PREAMBLE.size


class Life(NamedTuple):
    """One life of a core, and of what it keeps for a link.

    `boot` is the same for all cores of a node until that is started again, `epoch` the core's own
    among them; `stream` is new whenever what was kept for the link has been forgotten.
    """

    boot: bytes
    epoch: int
    stream: bytes


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """Who speaks to whom. An incarnation is that of the node, as the cluster has agreed on it."""

    version: int
    cluster: str
    node: int
    index: int
    incarnation: int
    life: Life
    to_node: int
    to_index: int
    to_incarnation: int
    nonce: bytes


def preamble(index: int) -> bytes:
    """Return what a dialer sends before all else: which core of the node it wants."""
    return _PREAMBLE.pack(_MAGIC, VERSION, index)


def wanted(beginning: bytes) -> int | None:
    """Return the core that a stream wants; None for too little, -1 for what is no preamble."""
    if not _MAGIC.startswith(beginning[: len(_MAGIC)]):
        return -1
    if len(beginning) < PREAMBLE_BYTES:
        return None
    _, version, index = _PREAMBLE.unpack_from(beginning)
    return int(index) if version == VERSION else -1


class Handshake:
    """One side of a handshake; `acceptor` says which. Every call raises ProtocolError."""

    __slots__ = ("_acceptor", "_key", "_mine", "_theirs")

    def __init__(self, secret: bytes, *, acceptor: bool) -> None:
        self._key = secret
        self._acceptor = acceptor
        self._mine = b""
        self._theirs = b""

    def hello(self, hello: Hello) -> Record:
        """Say who we are; the acceptor proves it with that, to the hello that it has read."""
        self._mine = msgspec.msgpack.encode(hello)
        proof = self._proof(_ACCEPTS) if self._acceptor else b""
        return Record(Kind.HELLO, 0, 0, proof + self._mine)

    def read_hello(self, record: Record) -> Hello:
        """Return what the other side says; what an acceptor says has been proved with it."""
        self._expect(record, Kind.HELLO)
        proof = b"" if self._acceptor else record.body[:_PROOF_BYTES]
        self._theirs = record.body[len(proof) :]
        if not self._acceptor:
            self._check(proof, self._proof(_ACCEPTS))
        try:
            hello = msgspec.msgpack.decode(self._theirs, type=Hello)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(Fault.RECORD, "a hello cannot be read") from error
        if hello.version != VERSION:
            raise ProtocolError(
                Fault.STRANGER, f"it speaks version {hello.version} of links, not {VERSION}"
            )
        sizes = len(hello.nonce), len(hello.life.stream)
        if sizes != (NONCE_BYTES, STREAM_BYTES):
            raise ProtocolError(Fault.RECORD, "a hello's nonce or stream has the wrong length")
        return hello

    def proof(self, received: int) -> Record:
        """Prove to the acceptor who we are, and say what we have taken."""
        return Record(Kind.PROOF, 0, received, self._proof(_DIALS, received))

    def read_proof(self, record: Record) -> int:
        """Return what the dialer has taken, when it has proved who it is."""
        self._expect(record, Kind.PROOF)
        self._check(record.body, self._proof(_DIALS, record.acknowledged))
        return record.acknowledged

    def welcome(self, received: int) -> Record:
        """Let the dialer in, and say what we have taken."""
        return Record(Kind.WELCOME, 0, received, b"")

    def read_welcome(self, record: Record) -> int:
        """Return what the acceptor has taken."""
        self._expect(record, Kind.WELCOME)
        return record.acknowledged

    def _expect(self, record: Record, kind: Kind) -> None:
        if record.kind == Kind.REFUSED:
            reason = record.body.decode("utf-8", "replace")[:REASON_MAX]
            raise ProtocolError(Fault.REFUSED, "".join(filter(str.isprintable, reason)))
        if record.kind != kind:
            raise ProtocolError(Fault.STRANGER, f"{record.kind.name} where {kind.name} was due")

    def _proof(self, label: bytes, received: int = 0) -> bytes:
        dialer, acceptor = self._mine, self._theirs
        if self._acceptor:
            dialer, acceptor = acceptor, dialer
        words = (label, _NUMBER.pack(len(dialer)), dialer, acceptor, _NUMBER.pack(received))
        return hmac.digest(self._key, b"".join(words), "sha256")

    def _check(self, given: bytes, expected: bytes) -> None:
        if not hmac.compare_digest(given, expected):
            raise ProtocolError(Fault.STRANGER, "it does not know the secret of the cluster")


def refusal(reason: str) -> Record:
    """Return what somebody is told who may not have a link."""
    return Record(Kind.REFUSED, 0, 0, reason.encode())
