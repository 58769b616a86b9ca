"""The publisher's side of topic logs: which core keeps which log, and batches to be appended.

Readers of logs see messages as `message.crossing` says.
"""

from array import array
from typing import Final, NamedTuple, Protocol

from robustmq import metrics
from robustmq._kernel.batch import BatchBuilder, records
from robustmq._kernel.turn import Turn
from robustmq.broker.catalog_api import Topic
from robustmq.broker.partition_api import Partition
from robustmq.broker.placement import Placement
from robustmq.config import TopicRule
from robustmq.message.core_number import global_core
from robustmq.message.crossing import partition_of, to_log
from robustmq.message.record import NO_HEADERS
from robustmq.message.tenancy import local
from robustmq.policy.topic_rules import TopicRules, keeps_log, log_name, own_log
from robustmq.shard.producer_state import own_producer

_ANY_SIZE: Final = 0xFFFFFFFF
_SPARE_BUILDERS: Final = 16


class Leaders(Protocol):
    """What is asked of a `catalog_api.Catalog`."""

    def of(self, topic: bytes) -> Topic | None:
        """Return a topic by the node's name."""

    def core_of(self, partition: Partition) -> int | None:
        """Return the number of the leader's core; None: nobody leads."""


class LogPart(NamedTuple):
    """The records of a batch that go to one log, as a batch that can be kept as it is.

    `core` keeps the log; None: nobody does now.
    """

    core: int | None
    name: bytes
    batch: bytes


class _Log(NamedTuple):
    core: int | None
    name: bytes


class _Keeping(NamedTuple):
    """How a topic is kept; `partitions` 0: in a log that topics share. `log` is without a key."""

    written: bytes
    rule: TopicRule
    partitions: int
    log: _Log


class LogParts:
    """What core `core` has published and some core keeps in logs.

    A log of its own is kept by the core that the `catalog` names, or without one the topic's hash;
    a shared one by the core that publishes: each core has one for every rule. Of a topic with
    partitions a message goes to that which its key names, or without a key to the one that all
    messages of this core go to: those of one publisher keep their order. `node` is this node's
    number, so that logs can tell the cores of several nodes apart.
    """

    def __init__(
        self,
        rules: TopicRules,
        placement: Placement,
        core: int,
        catalog: Leaders | None = None,
        node: int = 1,
    ) -> None:
        self._rules = rules
        self._placement = placement
        self._core = core
        self._number = global_core(node, core)
        self.catalog = catalog
        self._scratch = Turn(array("Q", bytes(8 * metrics.CELLS)))
        self._spare: list[BatchBuilder] = []

    def core_of(self, topic: bytes) -> int | None:
        """The core that sorts what is kept of a topic: this one; None: its rule wants no log."""
        if not self._rules.keep_logs or not keeps_log(self._rules.of(topic)):
            return None
        return self._core

    def is_led(self, topic: bytes, headers: bytes) -> bool:
        """Whether somebody keeps now the log of a message to a topic, if it has one."""
        if not self._rules.keep_logs or not keeps_log(self._rules.of(topic)):
            return True
        keeping = self._keeping(topic)
        return self._log_of(topic, keeping, headers, 0)[0].core is not None

    def core_of_log(self, part: LogPart) -> int | None:
        """The core that keeps the log of a part now."""
        own = own_log(part.name)
        return self._core if own is None else self._leader(*own)

    def parts(self, batch: bytes, stream: int, call: int) -> list[LogPart]:
        """Sort records by their logs: for each a batch, whole with checksum, of `call`'s number.

        `batch` has only records of topics that have a log.
        """
        builders: dict[_Log, BatchBuilder] = {}
        keepings: dict[bytes, _Keeping] = {}
        for attributes, timestamp, _, topic, value, headers in records(batch):
            assert topic is not None
            keeping = keepings.get(topic)
            if keeping is None:
                keeping = keepings[topic] = self._keeping(topic)
            log, key, kept = keeping.log, keeping.written, headers
            if headers != NO_HEADERS:
                log, key, kept = self._log_of(topic, keeping, headers, timestamp)
            builder = builders.get(log)
            if builder is None:
                builder = builders[log] = self._builder()
            builder.append(key, value or b"", kept, attributes, timestamp)
        return self._taken(builders, stream, call)

    def _taken(self, builders: dict[_Log, BatchBuilder], stream: int, call: int) -> list[LogPart]:
        found = []
        producer = own_producer(self._number, stream, call)
        for log, builder in builders.items():
            builder.producer_id, builder.producer_epoch, builder.sequence = producer
            found.append(LogPart(log.core, log.name, builder.take()[0]))
            if len(self._spare) < _SPARE_BUILDERS:
                self._spare.append(builder)
        self._scratch.builders.clear()
        return found

    def _keeping(self, topic: bytes) -> _Keeping:
        rule = self._rules.of(topic)
        if not rule.own_shard:
            return _Keeping(local(topic), rule, 0, _Log(self._core, log_name(rule, topic)))
        known = self.catalog.of(topic) if self.catalog is not None else None
        partitions = 1 if known is None else known.partitions
        number = (self._core + (self._placement.node or 0)) % partitions
        return _Keeping(local(topic), rule, partitions, self._own_log(rule, topic, number))

    def _log_of(
        self, topic: bytes, keeping: _Keeping, headers: bytes, timestamp: int
    ) -> tuple[_Log, bytes, bytes]:
        """The log of a message, its key and its headers there."""
        is_own = keeping.partitions > 0
        key, kept, is_keyed = to_log(keeping.written, headers, timestamp, keyed=is_own)
        if not is_keyed or keeping.partitions == 1:
            return keeping.log, key, kept
        number = partition_of(key, keeping.partitions)
        return self._own_log(keeping.rule, topic, number), key, kept

    def _own_log(self, rule: TopicRule, topic: bytes, number: int) -> _Log:
        return _Log(self._leader(topic, number), log_name(rule, topic, number))

    def _leader(self, topic: bytes, number: int) -> int | None:
        if self.catalog is not None and self.catalog.of(topic) is not None:
            return self.catalog.core_of(Partition(topic, number))
        return self._placement.log_core(topic, number)

    def _builder(self) -> BatchBuilder:
        if self._spare:
            return self._spare.pop()
        return BatchBuilder(self._scratch, 0, _ANY_SIZE, None)
