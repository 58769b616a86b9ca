"""The port to logs by offset: what protocols whose clients read logs may ask of the broker.

Whatever a partition's owner is, this core, another one of this node or of another node, it is
asked in the same way. No call waits; every answer comes once, to the callable given.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from robustmq.message.batch import Buffer
from robustmq.shard.fault import Fault

__all__ = [
    "EARLIEST",
    "LATEST",
    "NEWEST",
    "Aborted",
    "Append",
    "Appended",
    "EpochEnd",
    "Fault",
    "Following",
    "Found",
    "Marker",
    "Opening",
    "Partition",
    "Partitions",
    "Producing",
    "Read",
    "Reading",
    "Size",
    "Sought",
    "Wanted",
]

LATEST: Final = -1
EARLIEST: Final = -2
NEWEST: Final = -3
"""In the place of a time: the end that readers see, the start, the record with the latest time."""


class Partition(NamedTuple):
    """A partition of a topic; `topic` as the node knows it (`message.tenancy.qualified`)."""

    topic: bytes
    number: int = 0


class Appended(NamedTuple):
    """What became of a batch: a `shard.fault.Fault` and why, or where it is.

    `timestamp_ms` is -1 unless the topic stamps what it takes. Of a repeat that was taken before,
    `base_offset` is that of its first time.
    """

    fault: int = 0
    base_offset: int = -1
    timestamp_ms: int = -1
    start_offset: int = -1
    detail: str = ""


Append: TypeAlias = Callable[[Buffer, Callable[[Appended], None]], None]
"""Appends a batch of one partition; the second argument gets what became of it."""


class Wanted(NamedTuple):
    """What to read: batches from the one with `offset` on, the first whatever its size.

    With `max_bytes` 0 nothing is read: only how far the partition reaches.

    `is_committed`: nothing from the first open transaction on (the last stable offset).
    `leader_epoch`: the epoch in which the reader believes the leader to be, -1: it does not care.
    """

    partition: Partition
    offset: int
    max_bytes: int
    is_committed: bool = False
    leader_epoch: int = -1


class Aborted(NamedTuple):
    """A transaction that was aborted: what of the producer lies from `first_offset` on is void."""

    producer_id: int
    first_offset: int


class Read(NamedTuple):
    """What was read: a Fault, or whole batches whose base offsets and epochs are patched in.

    `aborted` is for those who read what is committed: the aborted transactions that touch it.
    """

    fault: int = 0
    high_watermark: int = -1
    stable_offset: int = -1
    start_offset: int = -1
    batches: Sequence[bytes] = ()
    aborted: Sequence[Aborted] = ()
    leader_epoch: int = -1

    @property
    def size(self) -> int:
        """Bytes of its batches."""
        return sum(map(len, self.batches))


class Sought(NamedTuple):
    """An offset that is looked for: that of the first record of a time (ms) or later, or LATEST."""

    partition: Partition
    time_ms: int
    is_committed: bool = False
    leader_epoch: int = -1


class Found(NamedTuple):
    """An offset with its record's time; -1 and -1 when there is none."""

    fault: int = 0
    offset: int = -1
    timestamp_ms: int = -1
    leader_epoch: int = -1


class EpochEnd(NamedTuple):
    """Where an epoch of a partition's leaders ended: the highest epoch not above the asked one."""

    fault: int = 0
    leader_epoch: int = -1
    end_offset: int = -1


class Marker(NamedTuple):
    """The end of a producer's transaction in a partition.

    `coordinator_epoch` is the number of the transaction's page when its end was decided, and is
    higher with every transaction of the producer: a marker with one that the partition knows of
    this producer is a repeat, answered 0, and ends nothing that has begun since; one with a lower
    one is answered FENCED_PRODUCER.
    """

    partition: Partition
    producer_id: int
    producer_epoch: int
    is_committed: bool
    coordinator_epoch: int = 0


class Opening(NamedTuple):
    """A partition that becomes part of a producer's transaction.

    `coordinator_epoch` is that of the marker that will end it (`Marker`).
    """

    partition: Partition
    producer_id: int
    producer_epoch: int
    coordinator_epoch: int = 0


class Producing(NamedTuple):
    """An idempotent producer that a partition knows; `open_offset` -1: no transaction is open."""

    producer_id: int
    producer_epoch: int
    last_sequence: int
    last_timestamp_ms: int
    open_offset: int = -1
    coordinator_epoch: int = -1


class Size(NamedTuple):
    """How large a partition's log is."""

    partition: Partition
    bytes: int


class Reading(Protocol):
    """A read that may wait."""

    def cancel(self) -> None:
        """Nobody waits any more: its answer does not come."""


class Following(Protocol):
    """What somebody reads again and again; only what is new is looked at, and told."""

    def want(self, place: int, wanted: Wanted | None) -> None:
        """Want something else at a place from now on, or with None nothing any more."""

    def read(
        self,
        min_bytes: int,
        max_bytes: int,
        until_ms: int,
        reply: Callable[[Mapping[int, Read]], None],
    ) -> Reading:
        """As `Partitions.read`: told by place is what may be new since the read before.

        Batches and faults are told each time, until something else is wanted there. There is
        one read at a time.
        """

    def close(self) -> None:
        """Read no more."""


class Partitions(Protocol):
    """The partitions of all topics."""

    def append(
        self, partition: Partition, batch: Buffer, reply: Callable[[Appended], None] | None
    ) -> None:
        """Append a record batch as its producer made it; answered when it may be acknowledged."""

    def appender(self, partition: Partition) -> Append:
        """Return what appends to one partition, for as long as the catalog's version stays."""

    def read(
        self,
        wanted: Sequence[Wanted],
        min_bytes: int,
        max_bytes: int,
        until_ms: int,
        reply: Callable[[Sequence[Read]], None],
    ) -> Reading:
        """Read of several partitions, at most about `max_bytes` in all.

        Answered, in the order of what is wanted, when there are `min_bytes`, or a fault, or it is
        `until_ms` of the turn's clock: whatever there is by then. It may be answered at once.
        """

    def follow(self) -> Following:
        """Begin to read partitions again and again."""

    def find(self, sought: Sequence[Sought], reply: Callable[[Sequence[Found]], None]) -> None:
        """Look for offsets."""

    def epoch_ends(
        self,
        asked: Sequence[tuple[Partition, int, int]],
        reply: Callable[[Sequence[EpochEnd]], None],
    ) -> None:
        """Say of (partition, epoch of the asker's metadata or -1, epoch) where that epoch ended."""

    def trim(
        self, asked: Sequence[tuple[Partition, int]], reply: Callable[[Sequence[Found]], None]
    ) -> None:
        """Forget what lies below an offset (-1: the high watermark); says the new start."""

    def begin(self, openings: Sequence[Opening], reply: Callable[[Sequence[int]], None]) -> None:
        """Take transactional batches of these producers; a Fault or 0 for each.

        A partition refuses a transactional batch with INVALID_TRANSACTION unless the producer's
        transaction is open there, or was begun with just this epoch since the last marker. Which
        have begun is known in memory only: after the loss of its core the coordinator says it
        anew when whoever produces is refused. Begun again it is the same. FENCED_PRODUCER: the
        partition knows a newer epoch of the producer, or has the marker that ends this transaction
        (its `coordinator_epoch` or a higher one): the question came late, and opens nothing.
        """

    def end(self, markers: Sequence[Marker], reply: Callable[[Sequence[int]], None]) -> None:
        """End transactions; a Fault or 0 for each."""

    def producers(
        self, partition: Partition, reply: Callable[[int, Sequence[Producing]], None]
    ) -> None:
        """Say who produces to a partition, or the Fault."""

    def sizes(self, reply: Callable[[Sequence[Size]], None]) -> None:
        """Say how large the logs of this node are."""
