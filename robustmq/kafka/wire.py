"""The data types of Kafka's wire format that need more than `struct`: varints, tags, batches.

Reading is of `data` from `at` on. That a value ends within the data is checked once, at the end of
a message, and before anything is made whose size the data says.
"""

from collections.abc import Sequence
from typing import Final

from robustmq.errors import ProtocolError

MALFORMED: Final = 42
"""INVALID_REQUEST, the reason of every ProtocolError of this codec."""

PIECE_MIN: Final = 1_024
"""Batches from this size on stay the piece that they are; smaller ones are copied."""

MAX_TEXT: Final = 32_767
"""Bytes of the longest text, before versions were flexible."""


def malformed(detail: str) -> ProtocolError:
    """Return the error for bytes that are no message."""
    return ProtocolError(MALFORMED, detail)


def excess(name: str, count: int) -> ProtocolError:
    """Return the error for an array that is longer than the bytes left, or than is allowed."""
    return malformed(f"The array {name} has {count} elements, more than there is room for.")


def missing(name: str) -> ProtocolError:
    """Return the error for a null where there must be something."""
    return malformed(f"The field {name} is null, which it may not be.")


def read_uvarint(data: bytes, at: int) -> tuple[int, int]:
    """Return the unsigned varint at `at`, at most 5 bytes, and where it ends.

    Raises ProtocolError when it is longer, IndexError when the data ends.
    """
    value = shift = 0
    while (byte := data[at]) > 127:
        value |= (byte & 127) << shift
        at += 1
        shift += 7
        if shift > 28:
            raise malformed("A varint is longer than 5 bytes.")
    return value | byte << shift, at + 1


def put_uvarint(out: bytearray, value: int) -> None:
    """Append an unsigned varint."""
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def skip_tags(data: bytes, at: int) -> int:
    """Return where the tagged fields end whose number is at `at` (KIP-482)."""
    count, at = read_uvarint(data, at)
    for _ in range(count):
        _, at = read_uvarint(data, at)
        size, at = read_uvarint(data, at)
        at += size
    return at


def shortened(text: bytes) -> bytes:
    """Return as much of a text as there is room for, in whole characters."""
    return text[:MAX_TEXT].decode(errors="ignore").encode()


def put_tag(out: bytearray, tag: int, value: bytearray) -> None:
    """Append a tagged field."""
    put_uvarint(out, tag)
    put_uvarint(out, len(value))
    out += value


def put_batches(
    out: bytearray, pieces: list[bytes], batches: bytes | Sequence[bytes] | None, is_compact: bool
) -> None:
    """Append batches with their length, compact or as int32; large ones are pieces behind `out`."""
    if batches is None:
        out += b"\0" if is_compact else b"\xff\xff\xff\xff"
        return
    each = (batches,) if isinstance(batches, bytes) else batches
    size = sum(map(len, each))
    if is_compact:
        put_uvarint(out, size + 1)
    else:
        out += size.to_bytes(4, "big")
    if size < PIECE_MIN:
        out += b"".join(each)
        return
    pieces.append(bytes(out))
    out.clear()
    pieces += each
