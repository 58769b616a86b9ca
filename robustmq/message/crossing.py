"""One message on both sides of a log: as MQTT has it, and as clients that read logs see it.

To a log its user properties are headers of the same name, its other properties are called
`mqtt.*` and are text where they are numbers. The user property `key` is the record's key; without
one that is the topic, as its clients write it. Back from a log everything is put as it was; what
has no place in MQTT is left out: headers without a value, names and values that are not text.
"""

from typing import Final, NamedTuple

from robustmq.errors import ProtocolError
from robustmq.message.record import (
    CLIENT,
    EXPIRES_AT,
    NO_HEADERS,
    PUBLISHER,
    header_block,
    read_headers,
)
from robustmq.message.topic import validate_name

PAYLOAD_FORMAT: Final = b"mqtt.payload-format"
CONTENT_TYPE: Final = b"mqtt.content-type"
RESPONSE_TOPIC: Final = b"mqtt.response-topic"
CORRELATION_DATA: Final = b"mqtt.correlation-data"
EXPIRY: Final = b"mqtt.message-expiry-interval"
"""In a log: the seconds for which the message is worth something, in decimal digits."""
USER: Final = b"mqtt.user."
"""What is put before a user property's name that begins as those of the properties do."""
RESERVED: Final = (b"mqtt.", b"robustmq.")
KEY: Final = b"key"
"""The user property that is a record's key."""

_MOST_TEXT: Final = 65_535
_MOST_SECONDS: Final = 0xFFFF_FFFF
_MOST_DIGITS: Final = 10
_INNER: Final = (PUBLISHER, CLIENT)
_FORMATS: Final = {b"0": b"\0", b"1": b"\1", b"\0": b"\0", b"\1": b"\1"}
_UNIQUE: Final = frozenset((PAYLOAD_FORMAT, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA, EXPIRY))

_SEED: Final = 0x9747B28C
_FACTOR: Final = 0x5BD1E995
_U32: Final = 0xFFFF_FFFF


class Logged(NamedTuple):
    """What a log keeps of a message: its key and header block; `is_keyed`: who sent it chose it."""

    key: bytes
    headers: bytes
    is_keyed: bool


class Arrived(NamedTuple):
    """What MQTT has of a record: its header block, and when it expires (Unix ms, 0: never)."""

    headers: bytes
    deadline: int


def to_log(topic: bytes, headers: bytes, timestamp: int, *, keyed: bool = True) -> Logged:
    """Return what a log keeps of a message to a topic, as clients write it, sent at `timestamp`.

    Not `keyed`: the key is the topic whatever the message says, and the property stays.
    """
    if headers == NO_HEADERS:
        return Logged(topic, headers, False)
    kept: list[tuple[bytes, bytes | None]] = []
    key = None
    is_keyed = False
    for name, value in read_headers(headers):
        if name in _INNER:
            continue
        if name == EXPIRES_AT and value is not None:
            left = max(int.from_bytes(value, "big") - timestamp, 0)
            kept.append((EXPIRY, b"%d" % min(-(-left // 1_000), _MOST_SECONDS)))
        elif name == PAYLOAD_FORMAT and value is not None:
            kept.append((name, b"%d" % int.from_bytes(value, "big")))
        elif name == KEY and keyed and not is_keyed and value is not None:
            is_keyed = True
            key = value
            if value == topic:
                # It would not come back otherwise.
                kept.append((name, value))
        else:
            kept.append((name, value))
    return Logged(topic if key is None else key, header_block(kept), is_keyed)


def from_log(
    topic: bytes, key: bytes | None, value: bytes, headers: bytes, timestamp: int
) -> Arrived:
    """Return what MQTT has of a record for a topic, as clients write it; undoes `to_log`.

    Its expiry counts from its `timestamp`. Raises Corrupt when the header block is damaged.
    """
    if headers == NO_HEADERS and (key is None or key == topic):
        return Arrived(NO_HEADERS, 0)
    found: list[tuple[bytes, bytes | None]] = []
    if key is not None and key != topic and _is_text(key):
        found.append((KEY, key))
    deadline = 0
    seen: set[bytes] = set()
    for name, said in read_headers(headers):
        if said is None or name in seen:
            continue
        if name not in _UNIQUE:
            if _is_text(name.removeprefix(USER)) and _is_text(said):
                found.append((USER + name if name.startswith(RESERVED[1]) else name, said))
            continue
        seen.add(name)
        if name == EXPIRY:
            seconds = _seconds(said)
            if seconds is not None:
                deadline = timestamp + seconds * 1_000
                found.insert(0, (EXPIRES_AT, deadline.to_bytes(8, "big")))
        else:
            fit = _fit(name, said, value)
            if fit is not None:
                found.append((name, fit))
    return Arrived(header_block(found), deadline)


def _fit(name: bytes, said: bytes, payload: bytes) -> bytes | None:
    """Return a property as MQTT has it; None when no PUBLISH may carry it (MQTT5 3.3.2.3)."""
    if name == PAYLOAD_FORMAT:
        fit = _FORMATS.get(said)
        return None if fit == b"\1" and not _is_utf8(payload) else fit
    if name == CORRELATION_DATA:
        return said if len(said) <= _MOST_TEXT else None
    if name == CONTENT_TYPE:
        return said if _is_text(said) else None
    try:
        validate_name(said)
    except ProtocolError:
        return None
    return said


def _seconds(said: bytes) -> int | None:
    if not 1 <= len(said) <= _MOST_DIGITS or not said.isdigit():
        return None
    return min(int(said), _MOST_SECONDS)


def _is_text(value: bytes) -> bool:
    """Whether it may be a UTF-8 encoded string of MQTT (MQTT5 1.5.4)."""
    return len(value) <= _MOST_TEXT and b"\0" not in value and _is_utf8(value)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition that Kafka's own producers choose for a key (murmur2)."""
    return (murmur2(key) & 0x7FFF_FFFF) % partitions


def murmur2(data: bytes) -> int:
    """Return the hash MurmurHash2 (32 bits) of `data` with the seed of Kafka's producers."""
    length = len(data)
    value = _SEED ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _FACTOR & _U32
        word = (word ^ word >> 24) * _FACTOR & _U32
        value = value * _FACTOR & _U32 ^ word
    if length > whole:
        value = (value ^ int.from_bytes(data[whole:], "little")) * _FACTOR & _U32
    value = (value ^ value >> 13) * _FACTOR & _U32
    return value ^ value >> 15
