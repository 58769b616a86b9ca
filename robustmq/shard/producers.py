"""The idempotent producers of a shard: what of them comes again, too late or too early (KIP-98)."""

import struct
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, NamedTuple

from robustmq.errors import Corrupt
from robustmq.shard.fault import Fault

SEQUENCES: Final = 1 << 31
"""Behind the last of so many sequence numbers comes 0."""
_REMEMBERED: Final = 5
"""Batches of a producer, as many as are in flight, whose repeats get their first answer."""
_REFUSED: Final = 10_000
"""Unknown producers whose first batch was refused, and that are waited for."""
_HEAD: Final = struct.Struct(">qhiqIiB")
_TAKEN: Final = struct.Struct(">IIQq")


class Taken(NamedTuple):
    """A batch that was appended: its sequences, its offset, the time that it was stamped with."""

    first: int
    records: int
    base_offset: int
    timestamp_ms: int


class _Known:
    """A producer. `next`: its next sequence; `run`: so many before that one were taken."""

    __slots__ = ("batches", "coordinator_epoch", "epoch", "last_ms", "next", "run")

    def __init__(self, epoch: int, coordinator_epoch: int = -1) -> None:
        self.epoch = epoch
        self.coordinator_epoch = coordinator_epoch
        self.next = 0
        self.run = 0
        self.last_ms = 0
        self.batches: deque[Taken] = deque(maxlen=_REMEMBERED)


class Standing(NamedTuple):
    """How far a producer has come; `last_sequence` -1: nothing of its epoch was taken."""

    producer_id: int
    epoch: int
    last_sequence: int
    last_ms: int
    coordinator_epoch: int


class Producers:
    """Up to about `most` producers: beyond that `expire` forgets who was idle longest.

    Somebody unknown may begin with any sequence, since his first ones may have been forgotten.
    Not so until `strict_until_ms`: then they are rather on their way a second time, lost with the
    core that led the partition before, while their connection has stayed.
    """

    def __init__(self, most: int = 10_000, strict_until_ms: int = 0) -> None:
        self.most = most
        self.strict_until_ms = strict_until_ms
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._awaited: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self._known)

    def standings(self) -> list[Standing]:
        """All producers, those that were idle longest first."""
        return [
            Standing(
                producer_id,
                known.epoch,
                (known.next - 1) % SEQUENCES if known.run else -1,
                known.last_ms,
                known.coordinator_epoch,
            )
            for producer_id, known in self._known.items()
        ]

    def judge(
        self, producer_id: int, epoch: int, first: int, count: int, now_ms: int
    ) -> Taken | Fault | None:
        """Say what to do with a batch: None: append it; Taken: it is there already."""
        known = self._known.get(producer_id)
        if known is None:
            otherwise = 0 if now_ms < self.strict_until_ms else first
            awaited = self._awaited.get((producer_id, epoch), otherwise)
            return None if first == awaited else Fault.OUT_OF_SEQUENCE
        if epoch < known.epoch:
            return Fault.FENCED_PRODUCER
        if epoch > known.epoch:
            return None if first == 0 else Fault.OUT_OF_SEQUENCE
        if first == known.next:
            return None
        for taken in known.batches:
            if taken.first == first and taken.records == count:
                return taken
        behind = (known.next - first) % SEQUENCES
        return Fault.DUPLICATE_SEQUENCE if count <= behind <= known.run else Fault.OUT_OF_SEQUENCE

    def take(self, producer_id: int, epoch: int, taken: Taken, now_ms: int) -> None:
        """Remember a batch that was appended."""
        known = self._known.get(producer_id)
        if known is None or known.epoch != epoch:
            known = self._begin(producer_id, epoch, known)
        known.batches.append(taken)
        known.next = (taken.first + taken.records) % SEQUENCES
        known.run = min(known.run + taken.records, SEQUENCES - 1)
        known.last_ms = now_ms
        self._known.move_to_end(producer_id)
        if self._awaited:
            self._awaited.pop((producer_id, epoch), None)

    def refused(self, producer_id: int, epoch: int, first: int) -> None:
        """The log has refused a batch: of an unknown producer what follows is not taken before."""
        if producer_id in self._known:
            return
        self._awaited.setdefault((producer_id, epoch), first)
        if len(self._awaited) > _REFUSED:
            del self._awaited[next(iter(self._awaited))]

    def has_ended(self, producer_id: int, epoch: int, coordinator_epoch: int) -> bool:
        """Say whether a transaction is over here: by a newer epoch, or by its own marker."""
        known = self._known.get(producer_id)
        if known is None:
            return False
        return epoch < known.epoch or coordinator_epoch <= known.coordinator_epoch

    def judge_marker(self, producer_id: int, epoch: int, coordinator_epoch: int) -> Fault | bool:
        """Say whether a marker is a repeat, or its fault; every transaction's number is higher."""
        known = self._known.get(producer_id)
        if known is None:
            return False
        if epoch < known.epoch or coordinator_epoch < known.coordinator_epoch:
            return Fault.FENCED_PRODUCER
        return coordinator_epoch == known.coordinator_epoch

    def take_marker(
        self, producer_id: int, epoch: int, coordinator_epoch: int, now_ms: int
    ) -> None:
        """Remember a marker that was appended: it fences what has a lower epoch."""
        known = self._known.get(producer_id)
        if known is None or epoch > known.epoch:
            known = self._begin(producer_id, epoch, known)
        known.coordinator_epoch = coordinator_epoch
        known.last_ms = now_ms
        self._known.move_to_end(producer_id)

    def expire(self, before_ms: int, is_held: Callable[[int], bool]) -> None:
        """Forget who has appended nothing since then, unless it is held."""
        gone: list[int] = []
        for producer_id, known in self._known.items():
            if known.last_ms >= before_ms and len(self._known) - len(gone) <= self.most:
                break
            if not is_held(producer_id):
                gone.append(producer_id)
        for producer_id in gone:
            del self._known[producer_id]

    def encode(self) -> bytes:
        """All that `decode` needs to know it again."""
        parts = []
        for producer_id, known in self._known.items():
            parts.append(
                _HEAD.pack(
                    producer_id,
                    known.epoch,
                    known.coordinator_epoch,
                    known.last_ms,
                    known.run,
                    known.next,
                    len(known.batches),
                )
            )
            parts += [_TAKEN.pack(*taken) for taken in known.batches]
        return b"".join(parts)

    def decode(self, data: bytes, now_ms: int) -> None:
        """Know what was encoded; who has no time was there just now. Raises Corrupt."""
        at = 0
        try:
            while at < len(data):
                producer_id, epoch, coordinator_epoch, last_ms, run, following, count = (
                    _HEAD.unpack_from(data, at)
                )
                at += _HEAD.size
                known = _Known(epoch, coordinator_epoch)
                known.last_ms, known.run, known.next = last_ms or now_ms, run, following
                for _ in range(count):
                    known.batches.append(Taken(*_TAKEN.unpack_from(data, at)))
                    at += _TAKEN.size
                self._known[producer_id] = known
        except struct.error as error:
            raise Corrupt("a shard's producers: cut") from error

    def _begin(self, producer_id: int, epoch: int, before: _Known | None) -> _Known:
        known = _Known(epoch, -1 if before is None else before.coordinator_epoch)
        self._known[producer_id] = known
        return known
