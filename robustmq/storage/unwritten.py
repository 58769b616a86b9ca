"""A batch that the writer of segment files has been given, and may not have written yet."""

from typing import NamedTuple

from robustmq.storage.log import StoredBatch
from robustmq.storage.segment import Segment


class Unwritten(NamedTuple):
    """A batch, as it came, that is not surely in its file yet, and the position behind it there."""

    base_offset: int
    records: int
    data: bytes | memoryview
    segment: Segment
    stop: int

    @property
    def next_offset(self) -> int:
        """The offset behind the last record."""
        return self.base_offset + self.records

    @property
    def batch(self) -> StoredBatch:
        """The batch as readers get it."""
        return StoredBatch(self.base_offset, self.records, bytes(self.data))
