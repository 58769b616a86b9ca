"""Records: what a link between two cores of different nodes sends, one or more in a turn.

A record is a head of 28 bytes (little-endian) and a body:

    kind u8, 3 bytes of 0, length of the body u32, number u64, acknowledged u64, CRC-32C u32

The checksum is that of the head's first 24 bytes and the body. `number` counts the records that
carry frames (FRAMES, MORE, LAST) from 1 for two lives of two cores, over all connections that
these make one after the other; `acknowledged` is the last such number that the sender has taken.
"""

import enum
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from robustmq._kernel.crc import crc32c
from robustmq.errors import ProtocolError

_HEAD: Final = struct.Struct("<BxxxIQQI")
_COVERED: Final = struct.Struct("<BxxxIQQ")
_COUNT: Final = struct.Struct("<I")

HEAD_BYTES: Final = _HEAD.size
STRANGER_BYTES: Final = 4_096
"""Bytes of a record's body at most, from somebody who has not shown who it is."""
BODY_BYTES: Final = 34 << 20
"""Bytes of a record's body at most; two records as large as may be configured, and their table."""
COUNT_MAX: Final = 65_536
"""Frames in one record at most."""


class Fault(enum.IntEnum):
    """What a peer did wrong; the `reason` of a ProtocolError."""

    RECORD = 1
    CHECKSUM = 2
    ORDER = 3
    TOO_LARGE = 4
    STRANGER = 5
    REFUSED = 6


class Kind(enum.IntEnum):
    """What a record is; its first byte."""

    HELLO = 1
    PROOF = 2
    WELCOME = 3
    REFUSED = 4
    FRAMES = 5
    MORE = 6
    LAST = 7
    ACK = 8


KINDS: Final[dict[int, Kind]] = {int(kind): kind for kind in Kind}


class Record(NamedTuple):
    """A record as it was read, or as it is kept until it is acknowledged."""

    kind: Kind
    number: int
    acknowledged: int
    body: bytes


def encode(record: Record) -> bytes:
    """Return the head that stands before the body."""
    kind, number, acknowledged, body = record
    covered = _COVERED.pack(kind, len(body), number, acknowledged)
    return covered + _COUNT.pack(crc32c(body, crc32c(covered)))


def pack(frames: Sequence[bytes]) -> bytes:
    """Return the body of a FRAMES record: their count, their lengths, and the frames."""
    count = len(frames)
    return b"".join((struct.pack(f"<{count + 1}I", count, *map(len, frames)), *frames))


def unpack(body: bytes) -> list[bytes]:
    """Return the frames of a FRAMES record; raises ProtocolError when its table is wrong."""
    size = len(body)
    count = _COUNT.unpack_from(body)[0] if size >= _COUNT.size else 0
    at = (count + 1) * _COUNT.size
    if not 0 < count <= COUNT_MAX or at > size:
        raise ProtocolError(Fault.RECORD, f"a record of {size} bytes holds no {count} frames")
    lengths = struct.unpack_from(f"<{count}I", body, _COUNT.size)
    if at + sum(lengths) != size:
        raise ProtocolError(Fault.RECORD, "the frames of a record do not fill it")
    frames = []
    for length in lengths:
        frames.append(body[at : at + length])
        at += length
    return frames


class Reader:
    """Bytes of a stream to records, however they are cut.

    `limit` is how large a body may be; no more than that and one read is kept.
    """

    __slots__ = ("_at", "_data", "_more", "_size", "_wanted", "limit")

    def __init__(self, limit: int = STRANGER_BYTES) -> None:
        self.limit = limit
        self._data = b""
        self._at = 0
        self._more: list[bytes] = []
        self._size = 0
        self._wanted = HEAD_BYTES

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        self._more.append(data)
        self._size += len(data)

    def next(self) -> Record | None:
        """Return the next record that is complete; raises ProtocolError for what is none."""
        if self._size < self._wanted:
            return None
        if self._more:
            self._data = b"".join((self._data[self._at :], *self._more))
            self._more.clear()
            self._at = 0
        data, start = self._data, self._at
        kind, length, number, acknowledged, checksum = _HEAD.unpack_from(data, start)
        if kind not in KINDS:
            raise ProtocolError(Fault.RECORD, f"a record of the unknown kind {kind}")
        if length > self.limit:
            raise ProtocolError(
                Fault.TOO_LARGE, f"a record of {length} bytes, more than {self.limit}"
            )
        if self._size < HEAD_BYTES + length:
            self._wanted = HEAD_BYTES + length
            return None
        self._wanted = HEAD_BYTES
        self._at += HEAD_BYTES + length
        self._size -= HEAD_BYTES + length
        body = data[start + HEAD_BYTES : self._at]
        if crc32c(body, crc32c(data[start : start + _COVERED.size])) != checksum:
            raise ProtocolError(Fault.CHECKSUM, "the checksum of a record is wrong")
        return Record(KINDS[kind], number, acknowledged, body)
