"""The shard: one ordered log with one owner core, and its high watermark."""

import struct
from typing import Final

from robustmq.errors import Corrupt
from robustmq.shard.producer_state import ProducerState
from robustmq.storage.log import Log, StoredBatch, Unwritable

_PRODUCER: Final = struct.Struct(">qHII")
_PRODUCER_AT: Final = 43
_HEADER: Final = 61
_OFFSET: Final = struct.Struct(">Q")
_PAGE_BYTES: Final = 1 << 20
_REFUSED: Final = 10_000
"""Refused batches that are remembered."""


class Shard:
    """Appends batches once, and says what has passed the high watermark.

    `leader_epoch` is kept in the interface for replication; with one replica the high watermark
    follows the log's durable offset. Who appended what is known again after a restart by a note
    of it, and by the batches from there on (`note`, `recover`).
    """

    def __init__(self, number: int, log: Log, leader_epoch: int = 0) -> None:
        self.number = number
        self.leader_epoch = leader_epoch
        self.log = log
        self._producers = ProducerState()
        # Batches that the log refused: they are no repeats when they come again, after others.
        self._refused: dict[tuple[int, int, int], None] = {}

    @property
    def high_watermark(self) -> int:
        """The offset below which records may be acknowledged and delivered."""
        return self.log.durable_offset

    @property
    def start_offset(self) -> int:
        """The offset from which on everything is kept."""
        return self.log.start_offset

    @property
    def end_offset(self) -> int:
        """The offset that the next record will get."""
        return self.log.end_offset

    def append(self, batch: bytes, now_ms: int) -> int:
        """Append a batch; returns its records, 0 when it is a repeat that was taken before.

        Raises Unwritable; the same batch may come again then.
        """
        if len(batch) < _HEADER:
            raise Corrupt("record batch: shorter than its header")
        producer, epoch, first, count = _PRODUCER.unpack_from(batch, _PRODUCER_AT)
        number = producer, epoch, first
        if number not in self._refused and self._producers.is_repeat(*number):
            return 0
        try:
            self.log.append(batch, count, now_ms)
        except Unwritable:
            self._refused[number] = None
            if len(self._refused) > _REFUSED:
                del self._refused[next(iter(self._refused))]
            raise
        # What was refused may come after what was not: how far the producer is stays so.
        if number not in self._refused or not self._producers.is_repeat(*number):
            self._producers.take(producer, epoch, first, count)
        self._refused.pop(number, None)
        return int(count)

    def read(self, offset: int, max_bytes: int) -> list[StoredBatch]:
        """As `Log.read`, what has passed the high watermark."""
        reached = self.log.durable_offset
        return [each for each in self.log.read(offset, max_bytes) if each.next_offset <= reached]

    def release(self, offset: int) -> None:
        """No cursor needs anything below `offset` any more."""
        self.log.trim(offset)

    def note(self) -> bytes:
        """Who has appended what, to be kept once all of it is durable."""
        return _OFFSET.pack(self.log.end_offset) + self._producers.encode()

    def adopt(self, other: "Shard") -> None:
        """Know also who has appended what to another shard, whose batches come into this one."""
        self._producers.merge(other._producers)

    def recover(self, note: bytes | None) -> None:
        """After a restart: know again who has appended what. Raises Corrupt for a wrong note."""
        at = self.log.start_offset
        if note is not None:
            if len(note) < _OFFSET.size:
                raise Corrupt(f"shard {self.number}: its note is cut")
            at = max(at, _OFFSET.unpack_from(note)[0])
            self._producers.decode(note[_OFFSET.size :])
        end = self.log.end_offset
        while at < end:
            try:
                batches = self.log.read(at, _PAGE_BYTES)
            except Corrupt:
                # It has been moved aside and counted; the next read goes on behind it.
                continue
            if not batches:
                break
            for base, records, data in batches:
                if base >= at:
                    self._producers.take(*_PRODUCER.unpack_from(data, _PRODUCER_AT))
                at = base + records
