"""The shard: one ordered log with one owner core, and its high watermark."""

import struct
from typing import Final, NamedTuple

from robustmq.errors import Corrupt
from robustmq.shard.fault import Fault
from robustmq.shard.leader_epochs import LeaderEpochs
from robustmq.shard.marker import CONTROL, TRANSACTIONAL, Mark, control_batch, read_mark
from robustmq.shard.produced import NO_TIME, STAMPED, Produced
from robustmq.shard.producer_state import ProducerState, is_own
from robustmq.shard.producers import Producers, Taken
from robustmq.shard.transactions import Transactions
from robustmq.storage.log import Log, StoredBatch, Unwritable

_PRODUCER: Final = struct.Struct(">qHII")
_PRODUCER_AT: Final = 43
_FIELDS: Final = struct.Struct(">hi8xqqhi")
"""Attributes, last offset delta, latest time, producer id, its epoch, first sequence."""
_FIELDS_AT: Final = 21
_HEADER: Final = 61
_OFFSET: Final = struct.Struct(">Q")
_NOTE: Final = struct.Struct(">QqII")
"""The offset; WITH_PRODUCERS; the bytes of what the cores and the producers have done."""
_WITH_PRODUCERS: Final = -1
"""What stands where an older note has the key of a core, which is none."""
_PAGE_BYTES: Final = 1 << 20
_REFUSED: Final = 10_000
"""Refused batches that are remembered."""


class Outcome(NamedTuple):
    """What became of a batch: a Fault, or where it is; it is safe when `end` is durable."""

    fault: int = 0
    base_offset: int = -1
    timestamp_ms: int = NO_TIME
    end: int = 0
    is_new: bool = False


class Shard:
    """Appends batches once, and says what has passed the high watermark.

    With one replica the high watermark follows the log's durable offset. Who appended what, and
    which transactions are open, is known again after a restart by a note of it, and by the
    batches from there on (`note`, `recover`). `strict_until_ms`: see `producers.Producers`.
    """

    def __init__(self, number: int, log: Log, strict_until_ms: int = 0) -> None:
        self.number = number
        self.log = log
        self.epochs = LeaderEpochs()
        self.producers = Producers(strict_until_ms=strict_until_ms)
        self.transactions = Transactions()
        self._cores = ProducerState()
        self.forget = self._cores.forget
        # Batches that the log refused: they are no repeats when they come again, after others.
        self._refused: dict[tuple[int, int, int], None] = {}

    @property
    def high_watermark(self) -> int:
        """The offset below which records may be acknowledged and delivered."""
        return self.log.durable_offset

    @property
    def stable_offset(self) -> int:
        """The offset below which no transaction is open (the last stable offset of KIP-98)."""
        return self.transactions.stable_offset(self.log.durable_offset)

    @property
    def start_offset(self) -> int:
        """The offset from which on everything is kept."""
        return self.log.start_offset

    @property
    def end_offset(self) -> int:
        """The offset that the next record will get."""
        return self.log.end_offset

    def append(self, batch: bytes, now_ms: int) -> int:
        """Append a batch of a core; returns its records, 0 when it is a repeat.

        Raises Unwritable; the same batch may come again then.
        """
        if len(batch) < _HEADER:
            raise Corrupt("record batch: shorter than its header")
        producer, epoch, first, count = _PRODUCER.unpack_from(batch, _PRODUCER_AT)
        number = producer, epoch, first
        if number not in self._refused and self._cores.is_repeat(*number):
            return 0
        try:
            self.log.append(batch, count, now_ms)
        except Unwritable:
            self._refused[number] = None
            if len(self._refused) > _REFUSED:
                del self._refused[next(iter(self._refused))]
            raise
        # What was refused may come after what was not: how far the producer is stays so.
        if number not in self._refused or not self._cores.is_repeat(*number):
            self._cores.take(*number)
        self._refused.pop(number, None)
        return int(count)

    def produce(self, batch: Produced, now_ms: int) -> Outcome:
        """Append what a producer of Kafka sends, unless it is a repeat. Raises Unwritable."""
        producer_id, epoch, first, count = (
            batch.producer_id,
            batch.epoch,
            batch.first,
            batch.records,
        )
        if producer_id < 0:
            base = self.log.append(batch.data, count, now_ms)
            return Outcome(0, base, batch.timestamp_ms, base + count, True)
        known = self.producers.judge(producer_id, epoch, first, count, now_ms)
        if isinstance(known, Fault):
            return Outcome(known)
        if known is not None:
            end = known.base_offset + known.records
            return Outcome(0, known.base_offset, known.timestamp_ms, end)
        transactions = self.transactions
        if batch.is_transactional:
            is_allowed = transactions.lets_in(producer_id, epoch)
        else:
            is_allowed = not transactions.is_open(producer_id)
        if not is_allowed:
            if batch.is_transactional:
                # It comes again when the coordinator has been asked, maybe after what follows it.
                self.producers.refused(producer_id, epoch, first)
            return Outcome(Fault.INVALID_TRANSACTION)
        try:
            base = self.log.append(batch.data, count, now_ms)
        except Unwritable:
            self.producers.refused(producer_id, epoch, first)
            raise
        taken = Taken(first, count, base, batch.timestamp_ms)
        self.producers.take(producer_id, epoch, taken, now_ms)
        if batch.is_transactional:
            transactions.begin(producer_id, base)
        return Outcome(0, base, batch.timestamp_ms, base + count, True)

    def begin(self, producer_id: int, epoch: int, coordinator_epoch: int) -> int:
        """Let transactional batches in of a producer; the Fault when that is over, or 0."""
        if self.producers.has_ended(producer_id, epoch, coordinator_epoch):
            return Fault.FENCED_PRODUCER
        self.transactions.expect(producer_id, epoch)
        return 0

    def end(self, producer_id: int, epoch: int, mark: Mark, now_ms: int) -> Outcome:
        """Append the marker of a transaction, unless it is there already. Raises Unwritable."""
        verdict = self.producers.judge_marker(producer_id, epoch, mark.coordinator_epoch)
        if isinstance(verdict, Fault):
            return Outcome(verdict)
        if verdict:
            # The marker, wherever it is, is safe when all is.
            return Outcome(end=self.log.end_offset)
        base = self.log.append(control_batch(producer_id, epoch, mark, now_ms), 1, now_ms)
        self.producers.take_marker(producer_id, epoch, mark.coordinator_epoch, now_ms)
        self.transactions.end(producer_id, base, mark.is_committed)
        return Outcome(0, base, NO_TIME, base + 1, True)

    def read(self, offset: int, max_bytes: int, below: int | None = None) -> list[StoredBatch]:
        """As `Log.read`, what has passed the high watermark, or wholly lies below an offset."""
        reached = self.log.durable_offset if below is None else below
        found = self.log.read(offset, max_bytes)
        while found and found[-1].next_offset > reached:
            found.pop()
        return found

    def release(self, offset: int) -> None:
        """No cursor needs anything below `offset` any more."""
        self.log.trim(offset)
        self.transactions.trim(self.log.start_offset)

    def retain(self, now_ms: int, budget: int) -> bool:
        """As `Log.retain`; what transactions are open in stays as it is."""
        more = self.log.retain(now_ms, budget, self)
        self.transactions.trim(self.log.start_offset)
        return more

    def is_void(self, producer_id: int, offset: int) -> bool:
        """Say whether a transactional record was aborted."""
        return self.transactions.is_void(producer_id, offset)

    def begin_epoch(self, epoch: int) -> bool:
        """The leader of the partition is in `epoch` from now on; says whether that is news."""
        is_news = self.epochs.begin(epoch, self.log.end_offset)
        self.log.leader_epoch = self.epochs.current
        return is_news

    def expire(self, before_ms: int, most: int) -> None:
        """Forget producers that have done nothing since then, and more of them than `most`."""
        self.producers.most = most
        self.producers.expire(before_ms, self.transactions.is_open)

    def note(self) -> bytes:
        """Who has appended what, to be kept once all of it is durable."""
        cores, producers = self._cores.encode(), self.producers.encode()
        head = _NOTE.pack(self.log.end_offset, _WITH_PRODUCERS, len(cores), len(producers))
        return b"".join((head, cores, producers, self.transactions.encode()))

    def adopt(self, other: "Shard") -> None:
        """Know also which cores have appended what to another one, whose batches come here."""
        self._cores.merge(other._cores)

    def recover(self, note: bytes | None, now_ms: int) -> None:
        """After a restart: know again who has appended what. Raises Corrupt for a wrong note."""
        at = self.log.start_offset
        if note is not None:
            at = max(at, self._read_note(note, now_ms))
        end = self.log.end_offset
        while at < end:
            try:
                batches = self.log.read(at, _PAGE_BYTES)
            except Corrupt:
                # It has been moved aside and counted; the next read goes on behind it.
                continue
            if not batches:
                break
            for batch in batches:
                if batch.base_offset >= at:
                    self._learn(batch, now_ms)
                at = batch.next_offset
        self.transactions.trim(self.log.start_offset)

    def _read_note(self, note: bytes, now_ms: int) -> int:
        """Know what is noted; returns the offset from which on it is to be learnt."""
        if len(note) < _OFFSET.size:
            raise Corrupt(f"shard {self.number}: its note is cut")
        offset = int(_OFFSET.unpack_from(note)[0])
        if len(note) < _NOTE.size or _NOTE.unpack_from(note)[1] != _WITH_PRODUCERS:
            self._cores.decode(note[_OFFSET.size :])
            return offset
        _, _, cores, producers = _NOTE.unpack_from(note)
        behind = _NOTE.size + cores
        self._cores.decode(note[_NOTE.size : behind])
        self.producers.decode(note[behind : behind + producers], now_ms)
        self.transactions.decode(note[behind + producers :])
        return offset

    def _learn(self, batch: StoredBatch, now_ms: int) -> None:
        """Know who has appended a batch that is there."""
        data = batch.data
        attributes, delta, newest_ms, producer_id, epoch, first = _FIELDS.unpack_from(
            data, _FIELDS_AT
        )
        if producer_id < 0:
            return
        if is_own(producer_id):
            self._cores.take(producer_id, epoch & 0xFFFF, first & 0xFFFFFFFF)
        elif attributes & CONTROL:
            mark = read_mark(data)
            if mark is not None:
                self.producers.take_marker(producer_id, epoch, mark.coordinator_epoch, now_ms)
                self.transactions.end(producer_id, batch.base_offset, mark.is_committed)
        else:
            stamp = newest_ms if attributes & STAMPED else NO_TIME
            taken = Taken(first, delta + 1, batch.base_offset, stamp)
            self.producers.take(producer_id, epoch, taken, now_ms)
            if attributes & TRANSACTIONAL:
                self.transactions.begin(producer_id, batch.base_offset)
