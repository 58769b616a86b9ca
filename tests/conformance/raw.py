"""MQTT as bytes: an encoder of its own, so that no error of the server's codec is repeated here."""

from typing import Final, NamedTuple

V5: Final = 5

CONNECT: Final = 1
CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
PUBREC: Final = 5
PUBREL: Final = 6
PUBCOMP: Final = 7
SUBSCRIBE: Final = 8
SUBACK: Final = 9
UNSUBSCRIBE: Final = 10
UNSUBACK: Final = 11
PINGREQ: Final = 12
PINGRESP: Final = 13
DISCONNECT: Final = 14
AUTH: Final = 15

PING: Final = b"\xc0\0"

PAYLOAD_FORMAT: Final = 0x01
MESSAGE_EXPIRY: Final = 0x02
CONTENT_TYPE: Final = 0x03
RESPONSE_TOPIC: Final = 0x08
CORRELATION_DATA: Final = 0x09
SUBSCRIPTION_IDENTIFIER: Final = 0x0B
SESSION_EXPIRY: Final = 0x11
ASSIGNED_IDENTIFIER: Final = 0x12
SERVER_KEEP_ALIVE: Final = 0x13
AUTHENTICATION_METHOD: Final = 0x15
AUTHENTICATION_DATA: Final = 0x16
REQUEST_PROBLEMS: Final = 0x17
WILL_DELAY: Final = 0x18
REQUEST_RESPONSE: Final = 0x19
RESPONSE_INFORMATION: Final = 0x1A
REASON_STRING: Final = 0x1F
RECEIVE_MAXIMUM: Final = 0x21
ALIAS_MAXIMUM: Final = 0x22
TOPIC_ALIAS: Final = 0x23
USER_PROPERTY: Final = 0x26
MAXIMUM_PACKET: Final = 0x27

_BYTES: Final = {0x01: 1, 0x17: 1, 0x19: 1, 0x24: 1, 0x25: 1, 0x28: 1, 0x29: 1, 0x2A: 1} | {
    0x13: 2, 0x21: 2, 0x22: 2, 0x23: 2, 0x02: 4, 0x11: 4, 0x18: 4, 0x27: 4,
}  # fmt: skip
"""Sizes of the properties that are integers of a fixed size."""

Value = int | str | bytes | tuple[str | bytes, str | bytes]


def varint(value: int) -> bytes:
    """Encode a variable byte integer."""
    out = b""
    while value > 127:
        out += bytes((value % 128 + 128,))
        value //= 128
    return out + bytes((value,))


def text(value: str | bytes) -> bytes:
    """Encode a string, or bytes that are to stand where one is expected."""
    data = value.encode() if isinstance(value, str) else value
    return len(data).to_bytes(2, "big") + data


def block(*properties: tuple[int, Value]) -> bytes:
    """Encode properties, without the length in front."""
    out = b""
    for identifier, value in properties:
        out += bytes((identifier,))
        if isinstance(value, tuple):
            out += text(value[0]) + text(value[1])
        elif isinstance(value, int):
            size = _BYTES.get(identifier)
            out += varint(value) if size is None else value.to_bytes(size, "big")
        else:
            out += text(value)
    return out


def packet(first_byte: int, body: bytes = b"") -> bytes:
    """Put a fixed header before a body."""
    return bytes((first_byte,)) + varint(len(body)) + body


def lengthy(properties: bytes, version: int) -> bytes:
    """Put the length before properties, where the version has any."""
    return varint(len(properties)) + properties if version == V5 else b""


class Will(NamedTuple):
    """A will as CONNECT has it."""

    topic: str | bytes
    payload: bytes = b"gone"
    qos: int = 0
    retain: bool = False
    properties: bytes = b""


def connect(
    version: int,
    client_id: str | bytes,
    *,
    clean: bool = True,
    keep_alive: int = 0,
    properties: bytes = b"",
    will: Will | None = None,
    username: str | bytes | None = None,
    password: bytes | None = None,
    flags: int | None = None,
    name: bytes | None = None,
    level: int | None = None,
    tail: bytes = b"",
) -> bytes:
    """Build CONNECT; `flags`, `name` and `level` replace the right ones, `tail` follows."""
    right = clean << 1
    fields = text(client_id)
    if will is not None:
        right |= 4 | will.qos << 3 | will.retain << 5
        fields += lengthy(will.properties, version) + text(will.topic) + text(will.payload)
    if username is not None:
        right |= 0x80
        fields += text(username)
    if password is not None:
        right |= 0x40
        fields += text(password)
    head = text(name if name is not None else b"MQIsdp" if version == 3 else b"MQTT")
    head += bytes((version if level is None else level, right if flags is None else flags))
    head += keep_alive.to_bytes(2, "big") + lengthy(properties, version)
    return packet(0x10, head + fields + tail)


def publish(
    version: int,
    topic: str | bytes,
    payload: bytes = b"",
    qos: int = 0,
    packet_id: int = 0,
    *,
    retain: bool = False,
    dup: bool = False,
    properties: bytes = b"",
) -> bytes:
    """Build PUBLISH."""
    identifier = packet_id.to_bytes(2, "big") if qos else b""
    body = text(topic) + identifier + lengthy(properties, version) + payload
    return packet(0x30 | dup << 3 | qos << 1 | retain, body)


def subscribe(
    version: int,
    packet_id: int,
    *filters: tuple[str | bytes, int],
    properties: bytes = b"",
    first_byte: int = 0x82,
) -> bytes:
    """Build SUBSCRIBE; each filter has its byte of options."""
    body = packet_id.to_bytes(2, "big") + lengthy(properties, version)
    for topic_filter, options in filters:
        body += text(topic_filter) + bytes((options,))
    return packet(first_byte, body)


def unsubscribe(
    version: int, packet_id: int, *filters: str | bytes, first_byte: int = 0xA2
) -> bytes:
    """Build UNSUBSCRIBE."""
    body = packet_id.to_bytes(2, "big") + lengthy(b"", version)
    return packet(first_byte, body + b"".join(map(text, filters)))


def answer(kind: int, packet_id: int, tail: bytes = b"", flags: int | None = None) -> bytes:
    """Build PUBACK, PUBREC, PUBREL or PUBCOMP; `tail` is a reason, and properties."""
    right = 2 if kind == PUBREL else 0
    first = kind << 4 | (right if flags is None else flags)
    return packet(first, packet_id.to_bytes(2, "big") + tail)


def disconnect(reason: int = 0, properties: bytes = b"") -> bytes:
    """Build DISCONNECT; short when the reason is 0 and there are no properties."""
    if not reason and not properties:
        return b"\xe0\0"
    return packet(0xE0, bytes((reason,)) + varint(len(properties)) + properties)
