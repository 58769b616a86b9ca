"""The one interface of the storage engines: an ordered log of record batches."""

from typing import NamedTuple, Protocol

from robustmq._kernel.batch import cut, records
from robustmq.errors import Refused
from robustmq.storage.header import HEADER, filler, rebuilt


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


def since(batch: StoredBatch, offset: int) -> StoredBatch:
    """The batch without its records below `offset`; the others keep their offsets."""
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


class Log(Protocol):
    """An ordered log with one writer. Offsets count records and start at 0.

    No method waits for the disk to take something: that is done by the engine's own writer, and
    `durable_offset` tells how far it has come. Times are milliseconds since 1970.
    """

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

    def append(self, data: bytes, count: int, timestamp_ms: int) -> int:
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
        """Say whether `read` would find its bytes in memory; if not, begin to fetch them."""

    def trim(self, offset: int) -> None:
        """Forget whole batches below `offset`; the room may be given back later."""

    def truncate(self, offset: int) -> None:
        """Forget whole batches from `offset` on."""

    def reset(self, offset: int) -> None:
        """Forget everything; the next record gets `offset`."""

    def offset_at(self, timestamp_ms: int) -> int:
        """The start of the first batch with a record of that time or later; else the end."""

    def retain(self, now_ms: int, budget: int) -> bool:
        """Apply retention and compaction to about `budget` bytes; says whether there is more."""
