"""What two nodes say to each other on `grpc_port`, and its bytes.

A connection carries one gRPC stream, `/robustmq.Peer/Link`. It begins with a handshake: a
`Greeting` of either side, the caller's `Hello`, the callee's. Then come batches of frames in both
directions. With a secret every message behind the greetings has a code in front (HMAC-SHA-256 over
direction, number and content, cut to `CODE_BYTES`), so that nobody on the way can forge, repeat
or leave out one; only TLS keeps it from being read.
"""

import hashlib
import hmac
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from robustmq.errors import ProtocolError

VERSION: Final = 1
"""The version of this protocol; nodes that differ refuse each other."""

METHOD: Final = "/robustmq.Peer/Link"
PING: Final = "ping"
"""The call that only asks whether the node is there."""

NONCE_BYTES: Final = 32
CODE_BYTES: Final = 16
HANDSHAKE_BYTES: Final = 16_384
"""Bytes that a message of the handshake has at most."""

CALLER: Final = b"caller"
CALLEE: Final = b"callee"


class Greeting(Struct, array_like=True, frozen=True):
    """The version that a side speaks, and `NONCE_BYTES` that were never said before."""

    version: int
    nonce: bytes


class Hello(Struct, tag="hello", array_like=True, frozen=True):
    """Who a side is: `cluster` is "" before it has one, `address` where it can be called.

    `to` is the node that the caller means; -1: whoever is there.
    """

    name: str
    cluster: str
    node: int
    store: str
    address: str
    to: int = -1


class Refusal(Struct, tag="refusal", array_like=True, frozen=True):
    """The other side is not spoken with; the sentence says why and what to do."""

    detail: str


class Raft(Struct, tag="raft", array_like=True, frozen=True):
    """A frame of Raft messages."""

    frame: bytes


class Call(Struct, tag="call", array_like=True, frozen=True):
    """A question that is answered by a `Reply` with its number; number 0: it is not answered."""

    number: int
    kind: str
    body: bytes


class Reply(Struct, tag="reply", array_like=True, frozen=True):
    """The answer to a call; or `refused`, a sentence."""

    number: int
    body: bytes = b""
    refused: str = ""


class Unreachable(Exception):
    """A call was not answered: the node is not connected, went away, or took too long."""


Frame: TypeAlias = Raft | Call | Reply | Refusal

_encoder: Final = msgspec.msgpack.Encoder()
_greetings: Final = msgspec.msgpack.Decoder(Greeting)
_hellos: Final[msgspec.msgpack.Decoder[Hello | Refusal]] = msgspec.msgpack.Decoder(Hello | Refusal)
_batches: Final = msgspec.msgpack.Decoder(list[Frame])


def encode(message: Greeting | Hello | Refusal | list[Frame]) -> bytes:
    """Return the bytes of a message."""
    return _encoder.encode(message)


def greeting(data: bytes) -> Greeting:
    """Read a greeting; raises ProtocolError when it is none, or of another version."""
    try:
        found = _greetings.decode(data)
    except msgspec.DecodeError as error:
        raise ProtocolError(0, f"no greeting of a node: {error}") from None
    if found.version != VERSION:
        raise ProtocolError(
            0, f"it speaks version {found.version} of the protocol between nodes, not {VERSION}"
        )
    if len(found.nonce) != NONCE_BYTES:
        raise ProtocolError(0, f"a greeting with {len(found.nonce)} bytes for {NONCE_BYTES}")
    return found


def hello(data: bytes) -> Hello:
    """Read who the other side is; raises ProtocolError, with its sentence when it refuses us."""
    try:
        found = _hellos.decode(data)
    except msgspec.DecodeError as error:
        raise ProtocolError(0, f"no hello of a node: {error}") from None
    if isinstance(found, Refusal):
        raise ProtocolError(0, f"it refuses us: {found.detail}")
    return found


def frames(data: bytes) -> list[Frame]:
    """Read a batch; raises ProtocolError."""
    try:
        return _batches.decode(data)
    except msgspec.DecodeError as error:
        raise ProtocolError(0, f"a batch that cannot be read: {error}") from None


class Seal:
    """The codes of one direction of a connection; with no key there are none."""

    def __init__(self, key: bytes, side: bytes) -> None:
        self._key = hmac.digest(key, b"robustmq seal " + side, hashlib.sha256) if key else b""
        self._number = 0

    def close(self, data: bytes) -> bytes:
        """Put the next code in front of a message."""
        return self._code(data) + data if self._key else data

    def open(self, data: bytes) -> bytes:
        """Take the next code off; raises ProtocolError when it is not the right one."""
        if not self._key:
            return data
        content = data[CODE_BYTES:]
        if not hmac.compare_digest(data[:CODE_BYTES], self._code(content)):
            raise ProtocolError(0, WRONG_SECRET if self._number == 1 else "a code that is wrong")
        return content

    def _code(self, data: bytes) -> bytes:
        self._number += 1
        head = self._number.to_bytes(8, "big")
        return hmac.digest(self._key, head + data, hashlib.sha256)[:CODE_BYTES]


WRONG_SECRET: Final = (
    "it has another cluster.secret, or one of the two has none: give all nodes the same"
)


def key_of(secret: bytes, caller: Greeting, callee: Greeting) -> bytes:
    """Return the key of a connection; b"" without a secret."""
    if not secret:
        return b""
    return hmac.digest(secret, encode(caller) + encode(callee), hashlib.sha256)
