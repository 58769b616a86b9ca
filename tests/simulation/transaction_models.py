"""What a transaction is kept by, as simple as can be: a partition's log, and a consumer group."""

from typing import NamedTuple

from robustmq.broker.partition_api import Fault, Marker, Opening
from robustmq.kafka.transaction import Identity
from robustmq.kafka.transaction_end import Settlement


class Entry(NamedTuple):
    """A record of a partition, or a marker: `value` None, and how the transaction ended."""

    producer_id: int
    epoch: int
    value: str | None
    is_committed: bool = False


class Log:
    """A partition, as the port promises it; what has begun is forgotten when its core dies."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.open: dict[int, int] = {}
        self.life = 0
        self._begun: dict[int, int] = {}
        self._epochs: dict[int, int] = {}
        self._serials: dict[int, int] = {}
        self._sequences: dict[tuple[int, int], int] = {}

    def die(self) -> None:
        """Forget what is not in the log."""
        self.life += 1
        self._begun.clear()

    def begin(self, opening: Opening) -> int:
        """See `Partitions.begin`."""
        _, producer, epoch, serial = opening
        if epoch < self._epochs.get(producer, -1) or serial <= self._serials.get(producer, -1):
            return Fault.FENCED_PRODUCER
        self._begun[producer] = epoch
        return 0

    def append(self, identity: Identity, sequence: int, value: str) -> int:
        """Take a record of a transaction."""
        producer, epoch = identity
        if epoch < self._epochs.get(producer, -1):
            return Fault.FENCED_PRODUCER
        if sequence < self._sequences.get(identity, 0):
            return 0
        if producer not in self.open and self._begun.get(producer) != epoch:
            return Fault.INVALID_TRANSACTION
        self._epochs[producer] = epoch
        self._sequences[identity] = sequence + 1
        self.open.setdefault(producer, len(self.entries))
        self.entries.append(Entry(producer, epoch, value))
        return 0

    def end(self, marker: Marker) -> int:
        """See `Partitions.end`."""
        known = self._serials.get(marker.producer_id, -1)
        if marker.coordinator_epoch <= known:
            return 0 if marker.coordinator_epoch == known else Fault.FENCED_PRODUCER
        if marker.producer_epoch < self._epochs.get(marker.producer_id, -1):
            return Fault.FENCED_PRODUCER
        self._epochs[marker.producer_id] = marker.producer_epoch
        self._serials[marker.producer_id] = marker.coordinator_epoch
        self._begun.pop(marker.producer_id, None)
        self.open.pop(marker.producer_id, None)
        self.entries.append(
            Entry(marker.producer_id, marker.producer_epoch, None, marker.is_committed)
        )
        return 0

    def committed(self) -> list[str]:
        """What those read who read what is committed."""
        ends: dict[int, bool] = {}
        values: list[str] = []
        for entry in reversed(self.entries):
            if entry.value is None:
                ends[entry.producer_id] = entry.is_committed
            elif ends.get(entry.producer_id, False):
                values.append(entry.value)
        return values[::-1]


class Group:
    """A consumer group: what is pending, of which transaction of a producer, and committed."""

    def __init__(self) -> None:
        self.pending: dict[int, tuple[int, list[str]]] = {}
        self.committed: list[str] = []
        self._settled: dict[int, int] = {}

    def pend(self, producer_id: int, serial: int, value: str) -> bool:
        """Keep what counts when that transaction is committed; False: it is over."""
        if serial <= self._settled.get(producer_id, -1):
            return False
        known, values = self.pending.get(producer_id, (serial, []))
        assert known == serial, "one transaction of a producer at a time"
        self.pending[producer_id] = serial, [*values, value]
        return True

    def settle(self, settlement: Settlement) -> None:
        """The end of a transaction."""
        producer_id, serial = settlement.producer_id, settlement.serial
        if serial <= self._settled.get(producer_id, -1):
            return
        self._settled[producer_id] = serial
        known, values = self.pending.pop(producer_id, (serial, []))
        assert known == serial, "one transaction of a producer at a time"
        if settlement.is_committed:
            self.committed += values
