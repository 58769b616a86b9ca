"""Where packets begin and end in a stream, and whose stream it is, before any is decoded."""

import enum
from typing import Final

from robustmq.errors import ProtocolError
from robustmq.mqtt.packets import BRIDGE_BIT, PROTOCOL_NAMES, V5, V311, level_of
from robustmq.mqtt.reasons import Reason
from robustmq.mqtt.wire import Reader, Truncated, malformed, text_of

_CONNECT: Final = 0x10


class Peek(enum.Enum):
    """Why the first bytes of a stream do not tell the client identifier."""

    INCOMPLETE = enum.auto()
    """All is well so far, and the identifier lies further on."""
    NOT_CONNECT = enum.auto()
    """Not a CONNECT that this server takes: whoever has the stream answers it."""


def scan(buffer: bytes, offset: int, max_packet_size: int) -> tuple[int, int, int] | None:
    """Find the packet that begins at `offset` (MQTT5 2.1): its first byte, body and end.

    Returns `(first_byte, body_start, end)` as positions in `buffer`, or None when it is not
    complete. `max_packet_size` counts the whole packet in bytes. Raises ProtocolError as soon
    as it can: 0x81 for a remaining length of more than four bytes, 0x95 for a packet that is
    too large.
    """
    if offset >= len(buffer):
        return None
    reader = Reader(buffer, offset + 1, len(buffer))
    try:
        length = reader.varint("remaining length", shortest=False)
    except Truncated:
        return None
    start = reader.at
    end = start + length
    if end - offset > max_packet_size:
        raise ProtocolError(
            Reason.PACKET_TOO_LARGE,
            f"A packet of {end - offset} bytes is larger than {max_packet_size}.",
        )
    return (buffer[offset], start, end) if end <= len(buffer) else None


def connect_client_id(data: bytes) -> bytes | Peek:
    """Return the client identifier of a stream that begins with CONNECT (MQTT5 3.1.3.1).

    `data` is the beginning of the stream, as MSG_PEEK gives it. Reads no further than the
    identifier, which is b"" when the client wants one assigned. What comes after it may still
    be wrong; what comes before it has been looked at only as far as needed to find it.
    """
    if not data:
        return Peek.INCOMPLETE
    if data[0] != _CONNECT:
        return Peek.NOT_CONNECT
    try:
        return _client_id(data)
    except Truncated:
        return Peek.INCOMPLETE
    except ProtocolError:
        return Peek.NOT_CONNECT


def _client_id(data: bytes) -> bytes:
    reader = Reader(data, 1, len(data))
    length = reader.varint("remaining length", shortest=False)
    packet_end = reader.at + length
    reader.end = min(packet_end, len(data))
    try:
        version = _version(reader)
        if version == 0:
            raise malformed("The protocol is not a version of MQTT that is spoken here.")
        reader.take(3, "connect flags and keep alive")
        if version == V5:
            reader.take(reader.varint("property length"), "property block")
        client_id = reader.binary("client identifier")
    except Truncated:
        if packet_end <= len(data):
            raise malformed("The CONNECT ends too early.") from None
        raise
    text_of(client_id, "client identifier")
    return client_id


def _version(reader: Reader) -> int:
    """Return 3, 4 or 5, or 0 for a protocol or level that is not served (MQTT5 3.1.2.1)."""
    # The name's length comes first: a wrong one would let garbage pass for `incomplete`.
    size = reader.two("protocol name")
    if size not in {4, 6}:
        return 0
    levels = PROTOCOL_NAMES.get(reader.take(size, "protocol name"))
    if levels is None:
        return 0
    level = level_of(reader.byte("protocol version"))
    return level if level in levels else 0


def answer_version(body: bytes) -> int:
    """Return the protocol level in which to answer a CONNECT that could not be decoded.

    `body` is the CONNECT without its fixed header. 0 means to close without an answer: it is
    not MQTT at all. A level from the future is answered as MQTT 5, any other that is unknown
    (bridges set the bit 0x80) as 3.1.1 (MQTT5 3.1.2.2, MQTT311 3.1.2.2).
    """
    reader = Reader(body, 0, len(body))
    try:
        levels = PROTOCOL_NAMES.get(reader.binary("protocol name"))
        level = reader.byte("protocol version")
    except Truncated:
        return 0
    if levels is None:
        return 0
    if level_of(level) in levels:
        return level_of(level)
    return V5 if V5 < level < BRIDGE_BIT else V311
