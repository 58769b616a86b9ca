"""The record: one message, as every protocol hands it to the broker."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from robustmq.errors import Corrupt

NO_HEADERS: Final = b"\0"
"""An empty header block: a count of 0 (Kafka message format v2)."""

QOS_BITS: Final = 0b011
RETAIN_BIT: Final = 0b100
"""How the per-record attribute byte, which Kafka leaves unused, carries MQTT's QoS and retain."""


class Record(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One message on its way into a shard.

    `key` is the topic for shared shards, `headers` an encoded header block (`header_block`),
    `timestamp` milliseconds since 1970.
    """

    key: bytes
    value: bytes
    headers: bytes = NO_HEADERS
    qos: int = 0
    retain: bool = False
    timestamp: int

    @property
    def attributes(self) -> int:
        """The attribute byte of the record in a batch."""
        return self.qos | (RETAIN_BIT if self.retain else 0)


def zigzag(value: int) -> bytes:
    """Encode a signed integer as a zigzag varint, as the v2 layout does."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest >= 0x80:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def header_block(headers: Sequence[tuple[bytes, bytes | None]]) -> bytes:
    """Encode record headers: the count, then length and bytes of each name and value."""
    parts = [zigzag(len(headers))]
    for name, value in headers:
        parts += (zigzag(len(name)), name)
        parts += (zigzag(-1),) if value is None else (zigzag(len(value)), value)
    return b"".join(parts)


def read_headers(block: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield the headers of a block in order; Corrupt when it is damaged."""
    count, at = _read_zigzag(block, 0)
    if count < 0:
        raise Corrupt("record headers: a negative count")
    for _ in range(count):
        length, at = _read_zigzag(block, at)
        if length < 0:
            raise Corrupt("record headers: a name of negative length")
        name = block[at : at + length]
        at += length
        length, at = _read_zigzag(block, at)
        if length < 0:
            yield name, None
            continue
        value = block[at : at + length]
        at += length
        if at > len(block):
            raise Corrupt("record headers: a value is cut")
        yield name, value


def _read_zigzag(block: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(block) and shift < 64:
        byte = block[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
    raise Corrupt("record headers: a length is cut")


EXPIRES_AT: Final = b"robustmq.expires-at-ms"
"""The header that says when a record expires: milliseconds since 1970, 8 bytes, big-endian."""

PUBLISHER: Final = b"robustmq.publisher"
"""The header that names the session that published, for no local: its key, 8 bytes, big-endian."""


CLIENT: Final = b"robustmq.client-id"
"""The header that names the client that published, where somebody chooses by it."""


def expires_at(headers: bytes) -> int:
    """When the record with this header block expires, in ms since 1970; 0: never."""
    if EXPIRES_AT in headers:
        for name, value in read_headers(headers):
            if name == EXPIRES_AT and value is not None:
                return int.from_bytes(value, "big")
    return 0


def client_of(headers: bytes) -> bytes:
    """The client id of who published the record with this header block; empty: it is not said."""
    if CLIENT in headers:
        for name, value in read_headers(headers):
            if name == CLIENT and value is not None:
                return value
    return b""
