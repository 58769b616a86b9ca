"""CRC-32C (Castagnoli), the checksum of record batches and segment files: readable twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing_extensions import Buffer

POLYNOMIAL: Final = 0x82F63B78
"""The Castagnoli polynomial, bit-reversed (RFC 3720 12.1)."""


def _table() -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ POLYNOMIAL if crc & 1 else crc >> 1
        rows.append(crc)
    return tuple(rows)


_TABLE: Final = _table()


def crc32c(data: Buffer, value: int = 0) -> int:
    """Return the CRC-32C of `data` (RFC 3720 12.1).

    `value` is the checksum of the bytes that came before, so that
    `crc32c(b, crc32c(a)) == crc32c(a + b)`. Raises OverflowError when it is not a u32.
    """
    if not 0 <= value <= 0xFFFFFFFF:
        raise OverflowError("value is not an unsigned 32-bit integer")
    table = _TABLE
    crc = value ^ 0xFFFFFFFF
    for byte in memoryview(data).cast("B"):
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
