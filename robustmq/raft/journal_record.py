"""The records of a journal: one format for all that a replica must not forget.

A journal is a folder of segments, `<sequence>.journal`, whose sequences have no gap. A segment is
a row of records and begins with an OPENING. All that is written before one sync is a *batch*; its
records have the batch's number and the place where it begins. Batches never share a sync, so only
the last one may be torn: what is damaged and has a later batch behind it was whole once.

    magic   4   b"RQJ1"
    length  4   bytes of the payload
    crc     4   CRC-32C of everything behind it
    batch   8   number of the batch, from 1 on, over all segments
    start   4   where in this file the batch begins
    kind    1   ENTRY, HARD, START or OPENING
    payload     little endian, see below

An ENTRY follows the one before it, or takes the place of an entry and of all behind it: nothing is
ever rewritten. A START says which snapshot stands for the log up to an index, and whether anything
behind it still counts. What stands before the first segment's OPENING was made good for by a START.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from robustmq._kernel.crc import crc32c
from robustmq.raft.message import Entry, EntryKind, HardState, Snapshot

MAGIC: Final = b"RQJ1"
ENTRY: Final = 1
HARD: Final = 2
START: Final = 3
OPENING: Final = 4
HEADER: Final = struct.Struct("<4sIIQIB")
CHECKED: Final = struct.Struct("<QIB")
FROM_CRC: Final = 12
"""Where the bytes begin that the checksum covers."""
_ENTRY: Final = struct.Struct("<QQQB")
_HARD: Final = struct.Struct("<QqQ")
_OPENING: Final = struct.Struct("<QQQQqQ")
_starts: Final = msgspec.msgpack.Decoder(Snapshot)
_ANEW: Final = b"\x01"
_ON: Final = b"\x00"


class Opening(NamedTuple):
    """How a segment begins: its number, and what held when it was begun."""

    sequence: int
    last: int
    last_term: int
    hard_state: HardState
    start: Snapshot


class Header(NamedTuple):
    """The head of a record; `size` is that of the whole record."""

    size: int
    crc: int
    batch: int
    start: int
    kind: int


def record(kind: int, batch: int, start: int, payload: bytes) -> bytes:
    """Return the bytes of a record."""
    checked = CHECKED.pack(batch, start, kind) + payload
    return MAGIC + struct.pack("<II", len(payload), crc32c(checked)) + checked


def entry_payload(entry: Entry, before: int) -> bytes:
    """Return what an ENTRY says; `before` is the term of the entry before it."""
    return _ENTRY.pack(entry.index, entry.term, before, entry.kind) + entry.data


def entry_of(payload: bytes) -> tuple[Entry, int]:
    """Return an entry and the term of the one before it. Raises ValueError, struct.error."""
    index, term, before, kind = _ENTRY.unpack_from(payload)
    return Entry(index, term, EntryKind(kind), payload[_ENTRY.size :]), before


def hard_payload(hard: HardState) -> bytes:
    """Return what a HARD says."""
    return _HARD.pack(hard.term, hard.vote, hard.commit)


def hard_of(payload: bytes) -> HardState:
    """Return a hard state. Raises struct.error."""
    return HardState(*_HARD.unpack(payload))


def start_payload(start: Snapshot, anew: bool) -> bytes:
    """Return what a START says; `anew`: no entry counts any more."""
    return (_ANEW if anew else _ON) + msgspec.msgpack.encode(start)


def start_of(payload: bytes) -> tuple[Snapshot, bool]:
    """Return a snapshot, and whether the log begins anew. Raises ValueError."""
    return _starts.decode(payload[1:]), payload[:1] == _ANEW


def opening_payload(opening: Opening) -> bytes:
    """Return what an OPENING says."""
    hard = opening.hard_state
    return _OPENING.pack(
        opening.sequence, opening.last, opening.last_term, hard.term, hard.vote, hard.commit
    ) + msgspec.msgpack.encode(opening.start)


def opening_of(payload: bytes) -> Opening:
    """Return the beginning of a segment. Raises ValueError, struct.error."""
    sequence, last, last_term, *hard = _OPENING.unpack_from(payload)
    start = _starts.decode(payload[_OPENING.size :])
    return Opening(sequence, last, last_term, HardState(*hard), start)


def whole_at(data: bytes, at: int) -> Header | None:
    """Return the header of the record at a place, None when there is no whole one."""
    if len(data) - at < HEADER.size:
        return None
    magic, length, crc, batch, start, kind = HEADER.unpack_from(data, at)
    end = at + HEADER.size + length
    if magic != MAGIC or end > len(data):
        return None
    if crc32c(memoryview(data)[at + FROM_CRC : end]) != crc:
        return None
    return Header(HEADER.size + length, crc, batch, start, kind)


def whole_behind(data: bytes, at: int) -> Iterator[tuple[int, Header]]:
    """Yield every whole record that begins behind a damaged place, as (where, header)."""
    at = data.find(MAGIC, at + 1)
    while at >= 0:
        header = whole_at(data, at)
        if header is not None:
            yield at, header
        at = data.find(MAGIC, at + (1 if header is None else header.size))
