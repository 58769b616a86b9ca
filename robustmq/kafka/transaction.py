"""The transaction of a transactional id, as its coordinator decides it (KIP-98, KIP-360, KIP-447).

A state machine: every function takes what is known and returns what is to be known next, which
counts once its page is in the ledger, or the error code of a refusal. What follows from a page
(markers, answers) is the coordinator's (`transaction_coordinator`).
"""

import enum
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from robustmq.broker.partition_api import Marker, Opening, Partition
from robustmq.errors import Corrupt
from robustmq.kafka.errors import ErrorCode

NO_EPOCH: Final = -1
NO_PRODUCER: Final = -1
LAST_EPOCH: Final = 0x7FFF - 1
"""A producer id whose epoch is this is given up for a new one; one more is left for fencing."""


class Status(enum.IntEnum):
    """Where a transaction is, numbered as in Kafka; without its Dead: a page goes at once."""

    EMPTY = 0
    ONGOING = 1
    PREPARE_COMMIT = 2
    PREPARE_ABORT = 3
    COMPLETE_COMMIT = 4
    COMPLETE_ABORT = 5

    @property
    def is_prepared(self) -> bool:
        """Say whether its end is decided, and not all who take part have heard so."""
        return self in {Status.PREPARE_COMMIT, Status.PREPARE_ABORT}

    @property
    def title(self) -> str:
        """The name that Kafka gives it in descriptions."""
        return "".join(word.capitalize() for word in self.name.split("_"))


class Identity(NamedTuple):
    """Who a producer says it is."""

    producer_id: int
    epoch: int


class Transaction(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a transactional id: its producer, and the transaction, if there is one.

    `last_producer_id` and `last_epoch` are those before the last change that the producer itself
    asked for, so that it may ask again when it has not heard the answer. `serial` counts decided
    ends: it is the coordinator's epoch in markers. Times are Unix milliseconds.
    """

    producer_id: int
    epoch: int = NO_EPOCH
    status: Status = Status.EMPTY
    timeout_ms: int = 0
    partitions: frozenset[Partition] = frozenset()
    groups: frozenset[str] = frozenset()
    started_ms: int = -1
    updated_ms: int = 0
    last_producer_id: int = NO_PRODUCER
    last_epoch: int = NO_EPOCH
    serial: int = 0

    @property
    def identity(self) -> Identity:
        """Whose it is."""
        return Identity(self.producer_id, self.epoch)

    @property
    def is_committed(self) -> bool:
        """How it ends, once that is decided."""
        return self.status in {Status.PREPARE_COMMIT, Status.COMPLETE_COMMIT}

    @property
    def is_spent(self) -> bool:
        """Say whether its producer id has no epochs left."""
        return self.epoch >= LAST_EPOCH

    def markers(self) -> list[Marker]:
        """What its partitions are told of its end."""
        return [
            Marker(partition, self.producer_id, self.epoch, self.is_committed, self.serial)
            for partition in sorted(self.partitions)
        ]

    def openings(self, partitions: Iterable[Partition]) -> list[Opening]:
        """What partitions are told that become part of it."""
        serial = self.serial + 1
        return [Opening(each, *self.identity, serial) for each in sorted(partitions)]

    def deadline_ms(self, expiration_ms: int) -> int | None:
        """When something is to be done though nobody asks: abort it, or forget the id."""
        if self.status is Status.ONGOING:
            return self.started_ms + self.timeout_ms
        return None if self.status.is_prepared else self.updated_ms + expiration_ms

    def encode(self) -> bytes:
        """The page."""
        return _encoder.encode(self)


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Transaction)


def decode(page: bytes) -> Transaction:
    """Read a page. Raises Corrupt."""
    try:
        return _decoder.decode(page)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"the page of a transaction: {error}") from error


def needs_id(known: Transaction | None, expected: Identity | None) -> bool:
    """Say whether `initialized` has to be given a new producer id."""
    if known is None:
        return True
    if known.status in {Status.ONGOING, Status.PREPARE_COMMIT, Status.PREPARE_ABORT}:
        return False
    return known.is_spent and (expected is None or expected.epoch == known.epoch)


def initialized(
    known: Transaction | None,
    expected: Identity | None,
    timeout_ms: int,
    now_ms: int,
    fresh: int = NO_PRODUCER,
) -> Transaction | ErrorCode:
    """A producer begins, or (`expected`, KIP-360) goes on after an error: it gets its epoch.

    `fresh` is a new producer id where one is needed. What is returned may be an open transaction's
    abortion, by which the producer so far is fenced: then this one has to ask again.
    """
    if known is None:
        known = Transaction(producer_id=fresh)
    elif expected is not None and not _is_known(known, expected):
        return ErrorCode.PRODUCER_FENCED
    if known.status.is_prepared:
        return ErrorCode.CONCURRENT_TRANSACTIONS
    if known.status is Status.ONGOING:
        return fenced(known, now_ms)
    begun = msgspec.structs.replace(
        known, status=Status.EMPTY, timeout_ms=timeout_ms, updated_ms=now_ms, started_ms=-1
    )
    change = msgspec.structs.replace
    if known.is_spent and (expected is None or expected.epoch == known.epoch):
        last = NO_EPOCH if expected is None else known.epoch
        return change(
            begun,
            producer_id=fresh,
            epoch=0,
            last_producer_id=known.producer_id,
            last_epoch=last,
        )
    if expected is None:
        return change(begun, epoch=known.epoch + 1, last_epoch=NO_EPOCH)
    if known.epoch in {NO_EPOCH, expected.epoch}:
        return change(begun, epoch=known.epoch + 1, last_epoch=known.epoch)
    if expected.epoch == known.last_epoch:
        return begun
    return ErrorCode.PRODUCER_FENCED


def _is_known(known: Transaction, expected: Identity) -> bool:
    """Say whether who asks may have the id: its epoch is compared when it gets the next.

    What was spent may be asked for again by who has not heard that it got a new one.
    """
    if known.epoch == NO_EPOCH or expected.producer_id == known.producer_id:
        return True
    return expected.producer_id == known.last_producer_id and expected.epoch >= LAST_EPOCH


def joined(
    known: Transaction | None,
    identity: Identity,
    partitions: frozenset[Partition],
    groups: frozenset[str],
    now_ms: int,
) -> Transaction | ErrorCode:
    """Partitions and consumer groups become part of the transaction, which may begin with it.

    Returns the very one that is known when nothing changes.
    """
    found = _of(known, identity)
    if isinstance(found, ErrorCode):
        return found
    if found.status.is_prepared:
        return ErrorCode.CONCURRENT_TRANSACTIONS
    if found.status is not Status.ONGOING:
        return msgspec.structs.replace(
            found,
            status=Status.ONGOING,
            partitions=partitions,
            groups=groups,
            started_ms=now_ms,
            updated_ms=now_ms,
        )
    if partitions <= found.partitions and groups <= found.groups:
        return found
    return msgspec.structs.replace(
        found,
        partitions=found.partitions | partitions,
        groups=found.groups | groups,
        updated_ms=now_ms,
    )


def checked(
    known: Transaction | None,
    identity: Identity,
    partitions: frozenset[Partition],
    groups: frozenset[str],
) -> Transaction | ErrorCode:
    """Say whether all these are part of this producer's open transaction (KIP-890)."""
    found = _of(known, identity)
    if isinstance(found, ErrorCode):
        return found
    is_part = partitions <= found.partitions and groups <= found.groups
    return found if found.status is Status.ONGOING and is_part else ErrorCode.INVALID_TXN_STATE


def ended(
    known: Transaction | None, identity: Identity, is_committed: bool, now_ms: int
) -> Transaction | ErrorCode:
    """Its producer ends it. Returns the very one that is known when it has ended so before."""
    found = _of(known, identity)
    if isinstance(found, ErrorCode):
        return found
    if found.status is Status.ONGOING:
        return _prepared(found, is_committed, now_ms)
    if found.status is Status.EMPTY or found.is_committed != is_committed:
        return ErrorCode.INVALID_TXN_STATE
    return ErrorCode.CONCURRENT_TRANSACTIONS if found.status.is_prepared else found


def fenced(known: Transaction, now_ms: int) -> Transaction:
    """It is aborted against its producer, which can do nothing more: the epoch is another one."""
    bumped = msgspec.structs.replace(known, epoch=known.epoch + 1, last_epoch=NO_EPOCH)
    return _prepared(bumped, False, now_ms)


def completed(known: Transaction, now_ms: int) -> Transaction:
    """All who take part have heard how it ended."""
    status = Status.COMPLETE_COMMIT if known.is_committed else Status.COMPLETE_ABORT
    return msgspec.structs.replace(
        known,
        status=status,
        partitions=frozenset(),
        groups=frozenset(),
        started_ms=-1,
        updated_ms=now_ms,
    )


def _prepared(known: Transaction, is_committed: bool, now_ms: int) -> Transaction:
    status = Status.PREPARE_COMMIT if is_committed else Status.PREPARE_ABORT
    return msgspec.structs.replace(known, status=status, updated_ms=now_ms, serial=known.serial + 1)


def _of(known: Transaction | None, identity: Identity) -> Transaction | ErrorCode:
    if known is None or known.producer_id != identity.producer_id:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    return known if known.epoch == identity.epoch else ErrorCode.PRODUCER_FENCED
