"""The one interface of the storage engines: an ordered log of record batches."""

from typing import NamedTuple, Protocol


class StoredBatch(NamedTuple):
    """A batch in a log: the offset of its first record, how many it has, and its bytes.

    The base offset inside `data` is not patched; whoever serves the bytes does that.
    """

    base_offset: int
    records: int
    data: bytes

    @property
    def next_offset(self) -> int:
        """The offset behind the last record."""
        return self.base_offset + self.records


class Log(Protocol):
    """An ordered log with one writer. Offsets count records and start at 0.

    No method waits: what needs the disk is done by the engine's own writer, and `durable_offset`
    tells how far it has come.
    """

    @property
    def start_offset(self) -> int:
        """The offset of the oldest record that is kept."""

    @property
    def end_offset(self) -> int:
        """The offset that the next record will get."""

    @property
    def durable_offset(self) -> int:
        """The offset below which everything survives what the engine promises to survive."""

    def append(self, data: bytes, count: int, timestamp_ms: int) -> int:
        """Append a batch of `count` records; returns the offset of its first record."""

    def read(self, offset: int, max_bytes: int) -> list[StoredBatch]:
        """Batches from the one that holds `offset` on, at least one while there is one."""

    def trim(self, offset: int) -> None:
        """Forget whole batches below `offset`."""

    def truncate(self, offset: int) -> None:
        """Forget whole batches from `offset` on."""
