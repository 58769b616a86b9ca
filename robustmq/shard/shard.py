"""The shard: one ordered log with one owner core, and its high watermark."""

import struct
from typing import Final

from robustmq.errors import Corrupt
from robustmq.shard.producer_state import ProducerState
from robustmq.storage.log import Log

_PRODUCER: Final = struct.Struct(">qHII")
_PRODUCER_AT: Final = 43
_HEADER: Final = 61


class Shard:
    """Appends batches once, and says what has passed the high watermark.

    `leader_epoch` is kept in the interface for replication; with one replica the high watermark
    follows the log's durable offset.
    """

    def __init__(self, number: int, log: Log, leader_epoch: int = 0) -> None:
        self.number = number
        self.leader_epoch = leader_epoch
        self._log = log
        self._producers = ProducerState()

    @property
    def high_watermark(self) -> int:
        """The offset below which records may be acknowledged and delivered."""
        return self._log.durable_offset

    @property
    def end_offset(self) -> int:
        """The offset that the next record will get."""
        return self._log.end_offset

    def append(self, batch: bytes, now_ms: int) -> int:
        """Append a batch; returns its records, 0 when it is a repeat that was taken before."""
        if len(batch) < _HEADER:
            raise Corrupt("record batch: shorter than its header")
        producer, epoch, first, count = _PRODUCER.unpack_from(batch, _PRODUCER_AT)
        if self._producers.is_repeat(producer, epoch, first, count):
            return 0
        self._log.append(batch, count, now_ms)
        return int(count)

    def release(self, offset: int) -> None:
        """No cursor needs anything below `offset` any more."""
        self._log.trim(offset)
