"""The one interface of the storage engines: an ordered log of record batches."""

import struct
from typing import Final, NamedTuple, Protocol

from robustmq._kernel.batch import cut, records
from robustmq.errors import Refused
from robustmq.storage.header import HEADER, filler, header_at, placed, rebuilt
from robustmq.storage.log_settings import LogSettings

_HEAD: Final = struct.Struct(">q4xi")
_CODEC: Final = 0b111
"""Of a batch's attributes: how its records are compressed."""


class StoredBatch(NamedTuple):
    """A batch in a log: the offset of its first record, how many offsets it spans, its bytes.

    It has as many records as it spans offsets, fewer when compaction has removed some. Whether the
    base offset inside `data` is patched depends on the engine; whoever serves the bytes does that.
    """

    base_offset: int
    records: int
    data: bytes

    @property
    def next_offset(self) -> int:
        """The offset behind the last record."""
        return self.base_offset + self.records


def gap(base_offset: int, next_offset: int, timestamp_ms: int) -> StoredBatch:
    """A batch without records, for a log to have where one that it is made from lacks offsets."""
    data = filler(HEADER, base_offset, next_offset, timestamp_ms)
    return StoredBatch(base_offset, next_offset - base_offset, data)


def located(batch: StoredBatch, epoch: int) -> bytes:
    """The bytes of a batch of a leader's epoch as readers get them: with their place in them."""
    data = batch.data
    base, known = _HEAD.unpack_from(data)
    if (base, known) == (batch.base_offset, epoch):
        return data
    return b"".join(placed(data, batch.base_offset, epoch))


def since(batch: StoredBatch, offset: int) -> StoredBatch:
    """The batch without its records below `offset`; the others keep their offsets.

    One that is compressed stays whole.
    """
    if header_at(batch.data, 0).attributes & _CODEC:
        return batch
    shift = batch.base_offset - int.from_bytes(batch.data[:8], "big")
    found = records(batch.data)
    raws = cut(batch.data, HEADER, len(found))
    places = (record[2] + shift for record in found)
    kept = [raw for raw, place in zip(raws, places, strict=True) if place >= offset]
    return batch._replace(data=rebuilt(batch.data, kept))


class Unwritable(Exception):
    """The engine takes no appends now: disk full, I/O error, or too much is unwritten.

    `refused` is what to answer; reading goes on and writing resumes by itself.
    """

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.detail)
        self.refused = refused


class Stable(Protocol):
    """What of a log may be compacted: that in which no transaction is open."""

    @property
    def stable_offset(self) -> int:
        """The offset below which every transaction has ended."""

    def is_void(self, producer_id: int, offset: int) -> bool:
        """Say whether a transactional record was aborted."""


class Log(Protocol):
    """An ordered log with one writer. Offsets count records and start at 0.

    No method waits for the disk to take something: that is done by the engine's own writer, and
    `durable_offset` tells how far it has come. Times are milliseconds since 1970. `leader_epoch`
    is what an engine that patches batches puts into those that are appended.
    """

    leader_epoch: int

    @property
    def start_offset(self) -> int:
        """The offset from which on everything is kept; it may lie inside of a batch."""

    @property
    def end_offset(self) -> int:
        """The offset that the next record will get."""

    @property
    def durable_offset(self) -> int:
        """The offset below which everything survives what the engine promises to survive."""

    @property
    def size_bytes(self) -> int:
        """Bytes that the log takes, about."""

    @property
    def newest_ms(self) -> int:
        """The latest time of its records, -1: none; it may be that of one that is gone."""

    @property
    def is_fetching(self) -> bool:
        """Whether what `warm` has begun to fetch is not in memory yet."""

    def configure(self, settings: LogSettings) -> None:
        """Keep what is there, and what comes, by other settings from now on."""

    def append(self, data: bytes | memoryview, count: int, timestamp_ms: int) -> int:
        """Append a batch of `count` records; returns the offset of its first record.

        `timestamp_ms` is now. Raises Unwritable, and Corrupt when `data` is no record batch.
        """

    def read(self, offset: int, max_bytes: int) -> list[StoredBatch]:
        """Batches from the one that holds `offset` on, at least one while there is one.

        Their checksums are right. A damaged batch is moved aside and raises Corrupt once; the
        next call goes on behind it. What is not in memory is read from the disk here and now:
        microseconds from the page cache, as long as the disk takes otherwise (see `warm`).
        """

    def warm(self, offset: int, max_bytes: int) -> bool:
        """Say whether `read` would find its bytes in memory; if not, begin to fetch them.

        The engine's `fileno` tells when they have come, and `is_fetching`.
        """

    def trim(self, offset: int) -> None:
        """Forget whole batches below `offset`; the room may be given back later."""

    def truncate(self, offset: int) -> None:
        """Forget whole batches from `offset` on."""

    def reset(self, offset: int) -> None:
        """Forget everything; the next record gets `offset`."""

    def offset_at(self, timestamp_ms: int, since: int = 0) -> int:
        """The start of the first batch with a record of that time or later; else the end.

        With `since`, of the first that does not lie wholly below that offset.
        """

    def retain(self, now_ms: int, budget: int, stable: Stable | None = None) -> bool:
        """Apply retention and compaction to about `budget` bytes; says whether there is more.

        Retention takes nothing that is not durable, compaction nothing that is not `stable`
        (None: there are no transactions).
        """
