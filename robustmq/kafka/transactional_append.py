"""Batches of transactions: what a partition does not know to be part of one is asked about.

The coordinator tells a partition when it becomes part of a transaction, and the partition refuses
what belongs to none (KIP-890). It has forgotten that when its core has begun anew: then whoever
takes the batch asks the coordinator, which tells the partition again, and the batch is appended.
So a batch costs no question, and one that comes too late for its transaction leaves nothing open.
"""

import struct
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from robustmq.broker.partition_api import Appended, Fault, Partition
from robustmq.kafka import transaction_link
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.transaction import Identity

_PRODUCER: Final = struct.Struct(">qh")
_PRODUCER_AT: Final = 43
_REFUSED: Final = {
    ErrorCode.INVALID_TXN_STATE: Fault.INVALID_TRANSACTION,
    ErrorCode.INVALID_PRODUCER_ID_MAPPING: Fault.INVALID_TRANSACTION,
    ErrorCode.PRODUCER_FENCED: Fault.FENCED_PRODUCER,
}
"""What is so for ever; anything else may pass, and the producer tries again."""


class _Way(NamedTuple):
    """What of one producer goes into one partition."""

    tenant: str
    transactional_id: str
    partition: Partition
    identity: Identity


class _Held(NamedTuple):
    """A batch that waits for the coordinator; `number` says in which order they came."""

    number: int
    batch: bytes
    reply: Callable[[Appended], None]


class TransactionalAppends:
    """Appends batches of transactional producers, those of one to a partition in their order."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._count = 0
        self._held: dict[_Way, list[_Held]] = {}

    def append(
        self,
        tenant: str,
        transactional_id: str,
        partition: Partition,
        batch: bytes,
        reply: Callable[[Appended], None],
    ) -> None:
        """As `Partitions.append`."""
        if len(batch) < _PRODUCER_AT + _PRODUCER.size:
            self._kafka.partitions.append(partition, batch, reply)
            return
        identity = Identity(*_PRODUCER.unpack_from(batch, _PRODUCER_AT))
        way = _Way(tenant, transactional_id, partition, identity)
        self._count += 1
        held = _Held(self._count, batch, reply)
        if way in self._held:
            self._held[way].append(held)
        else:
            self._kafka.partitions.append(partition, batch, partial(self._appended, way, held))

    def _appended(self, way: _Way, held: _Held, outcome: Appended) -> None:
        if outcome.fault != Fault.INVALID_TRANSACTION:
            held.reply(outcome)
        elif way in self._held:
            self._held[way].append(held)
        else:
            self._held[way] = [held]
            transaction_link.check(
                self._kafka,
                way.tenant,
                way.transactional_id,
                way.identity,
                [way.partition],
                [],
                partial(self._checked, way),
            )

    def _checked(self, way: _Way, code: ErrorCode, _serial: int) -> None:
        for held in sorted(self._held.pop(way)):
            if code is ErrorCode.NONE:
                self._kafka.partitions.append(
                    way.partition, held.batch, partial(_again, held.reply)
                )
            else:
                fault = _REFUSED.get(code, Fault.UNAVAILABLE)
                held.reply(Appended(fault, detail=_DETAILS.get(fault, "")))


_DETAILS: Final = {
    Fault.INVALID_TRANSACTION: "the batch belongs to no open transaction that has this partition",
    Fault.FENCED_PRODUCER: "another producer has begun with the same transactional id",
}


def _again(reply: Callable[[Appended], None], outcome: Appended) -> None:
    """It was part of the transaction a moment ago: the partition's core has begun anew again."""
    if outcome.fault == Fault.INVALID_TRANSACTION:
        outcome = Appended(Fault.UNAVAILABLE)
    reply(outcome)
