"""How all who take part in a transaction hear of its end: partitions, and consumer groups."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from robustmq.broker.partition_api import Fault, Marker
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.transaction import Transaction

_HEARD: Final = frozenset({0, int(Fault.FENCED_PRODUCER)})
"""Fenced: the partition has heard of a later end, so that another coordinator has gone on."""


class Settlement(NamedTuple):
    """What a consumer group is told: the offsets that a producer sent count, or are forgotten.

    `serial` is as `Marker.coordinator_epoch`: it is higher with every transaction of the producer.
    """

    tenant: str
    group_id: str
    producer_id: int
    producer_epoch: int
    is_committed: bool
    serial: int


Settle: TypeAlias = Callable[[Settlement, Callable[[bool], None]], None]
"""Tell the coordinator of a group, wherever it is; answered whether it has kept it."""


class Ending:
    """Tells everybody, and those again who have not answered, until all have heard; then `done`.

    A topic that is removed meanwhile needs no marker. Whoever is told again what it knows does
    nothing (`Marker`), so a coordinator that starts anew tells all.
    """

    def __init__(
        self,
        kafka: Kafka,
        settle: Settle,
        tenant: str,
        transaction: Transaction,
        done: Callable[[], None],
    ) -> None:
        self._kafka = kafka
        self._settle = settle
        self._tenant = tenant
        self._transaction = transaction
        self._markers = transaction.markers()
        self._groups = set(transaction.groups)
        self._done: Callable[[], None] | None = done
        self._awaited = 0
        self._wait_ms = kafka.settings.transactions.retry_ms

    def send(self) -> None:
        """Tell all who have not heard."""
        if self._done is None:
            return
        markers = self._markers
        groups = sorted(self._groups)
        self._awaited = 1 + len(groups)
        for group_id in groups:
            self._settle(self._settlement(group_id), partial(self._settled, group_id))
        if markers:
            self._kafka.partitions.end(markers, partial(self._marked, markers))
        else:
            self._heard()

    def cancel(self) -> None:
        """Somebody else tells them."""
        self._done = None

    def _settlement(self, group_id: str) -> Settlement:
        known = self._transaction
        return Settlement(self._tenant, group_id, *known.identity, known.is_committed, known.serial)

    def _settled(self, group_id: str, is_kept: bool) -> None:
        if is_kept:
            self._groups.discard(group_id)
        self._heard()

    def _marked(self, markers: Sequence[Marker], faults: Sequence[int]) -> None:
        self._markers = [
            marker
            for marker, fault in zip(markers, faults, strict=True)
            if fault not in _HEARD and not self._is_gone(marker, fault)
        ]
        self._heard()

    def _is_gone(self, marker: Marker, fault: int) -> bool:
        topic = self._kafka.catalog.of(marker.partition.topic)
        return fault == Fault.UNKNOWN and (
            topic is None or marker.partition.number >= topic.partitions
        )

    def _heard(self) -> None:
        self._awaited -= 1
        if self._awaited or self._done is None:
            return
        if not self._markers and not self._groups:
            done, self._done = self._done, None
            done()
            return
        self._kafka.at(self._kafka.now_ms + self._wait_ms, self.send)
        self._wait_ms = min(2 * self._wait_ms, self._kafka.settings.transactions.max_retry_ms)
