"""The header of a record batch as storage sees it (Kafka message format v2)."""

import struct
from typing import Final, NamedTuple

from robustmq._kernel.crc import crc32c
from robustmq.errors import Corrupt

HEADER: Final = 61
"""Bytes of a batch before its first record."""
_LENGTH_SKIPS: Final = 12
_CRC_FROM: Final = 21
_MAGIC: Final = 2
_MAGIC_AT: Final = 16
_FIELDS: Final = struct.Struct(">qi4xbIhi8xq14xi")
_HEAD: Final = struct.Struct(">q4sI")
_EMPTY: Final = struct.Struct(">hiqqqhii")
SMALLEST_RECORD: Final = 7
"""Bytes of a record with nothing in it."""


class Header(NamedTuple):
    """The fields that place a batch: bytes `size`, offsets `base_offset` to `next_offset`.

    `newest_ms` is the greatest timestamp of its records; `records` how many it has.
    """

    base_offset: int
    size: int
    magic: int
    crc: int
    attributes: int
    next_offset: int
    newest_ms: int
    records: int


def header_at(buffer: bytes | memoryview, at: int) -> Header:
    """Return the header at `at`, of which `buffer` holds at least HEADER bytes."""
    base, length, magic, crc, attributes, delta, newest, count = _FIELDS.unpack_from(buffer, at)
    size = length + _LENGTH_SKIPS
    return Header(base, size, magic, crc, attributes, base + delta + 1, newest, count)


def fault_of(header: Header, expected: int, dense: bool) -> str | None:
    """Say what is wrong with a header whose batch should begin at `expected`, if anything.

    Only a log with holes (not `dense`) may go on at a later offset. The checksum does not cover
    the base offset, so this is how damage to it is noticed.
    """
    if header.magic != _MAGIC:
        return f"magic byte {header.magic}"
    if header.size < HEADER:
        return f"a batch of {header.size} bytes"
    if header.base_offset < expected or (dense and header.base_offset > expected):
        return f"offset {header.base_offset} after {expected}"
    span = header.next_offset - header.base_offset
    if span < 1 or not 0 <= header.records <= span:
        return f"{header.records} records in {span} offsets"
    return None


def is_whole(buffer: bytes, at: int, header: Header) -> bool:
    """Say whether the checksum of the batch at `at`, wholly in `buffer`, is right."""
    view = memoryview(buffer)[at + _CRC_FROM : at + header.size]
    return crc32c(view) == header.crc


def check(data: bytes | memoryview, count: int) -> int:
    """Return the newest time in a batch that is to be appended; Corrupt when it is none."""
    if len(data) < HEADER:
        raise Corrupt("record batch: shorter than its header")
    _, length, magic, _, _, delta, newest_ms, records = _FIELDS.unpack_from(data)
    is_whole = length + _LENGTH_SKIPS == len(data) and magic == _MAGIC
    if not (is_whole and count == delta + 1 > 0 and 0 <= records <= count):
        raise Corrupt("record batch: its header does not describe it")
    return int(newest_ms)


def placed(
    data: bytes | memoryview, base_offset: int, leader_epoch: int
) -> tuple[bytes, memoryview]:
    """Return the batch in two pieces, the first with its place patched in; nothing is copied.

    The checksum does not cover these fields.
    """
    return _HEAD.pack(base_offset, bytes(data[8:12]), leader_epoch), memoryview(data)[_HEAD.size :]


def rebuilt(data: bytes, raw: list[bytes]) -> bytes:
    """Return the batch with the records `raw` only, which keep their offsets, and its checksum."""
    rest = b"".join((data[_CRC_FROM:57], len(raw).to_bytes(4, "big"), *raw))
    size = _CRC_FROM + len(rest)
    length = (size - _LENGTH_SKIPS).to_bytes(4, "big")
    return b"".join((data[:8], length, data[12:17], crc32c(rest).to_bytes(4, "big"), rest))


def filler(size: int, base_offset: int, next_offset: int, newest_ms: int) -> bytes:
    """Return a batch of `size` bytes without records that stands for damaged ones."""
    fields = _EMPTY.pack(0, next_offset - base_offset - 1, 0, newest_ms, -1, -1, -1, 0)
    rest = fields + bytes(size - HEADER)
    head = struct.pack(">qiibI", base_offset, size - _LENGTH_SKIPS, 0, _MAGIC, crc32c(rest))
    return head + rest


def next_whole(buffer: bytes, at: int, expected: int, below: int, dense: bool) -> int:
    """Return where behind `at` a good batch with a base offset from `expected` on begins, or -1.

    Offsets have to be below `below` and, in a log without holes (`dense`), no greater than so few
    bytes can have led to: a batch inside of a message is not to be taken for one of ours.
    """
    search = at
    while True:
        search = buffer.find(b"\x02", search + 1 + _MAGIC_AT) - _MAGIC_AT
        if search <= at or search + HEADER > len(buffer):
            return -1
        header = header_at(buffer, search)
        most = min(below, expected + (search - at) // SMALLEST_RECORD + 1) if dense else below
        if header.base_offset >= most or search + header.size > len(buffer):
            continue
        if fault_of(header, expected, False) is None and is_whole(buffer, search, header):
            return search
