"""The publisher's side of topic logs: which core keeps which log, and batches to be appended."""

from array import array
from typing import Final, NamedTuple

from robustmq import metrics
from robustmq._kernel.batch import BatchBuilder, records
from robustmq._kernel.turn import Turn
from robustmq.broker.placement import Placement
from robustmq.policy.topic_rules import TopicRules, keeps_log, log_name
from robustmq.shard.producer_state import own_producer

_ANY_SIZE: Final = 0xFFFFFFFF
_SPARE_BUILDERS: Final = 16


class LogPart(NamedTuple):
    """The records of a batch that go to one log, as a batch that can be kept as it is."""

    name: bytes
    batch: bytes


class LogParts:
    """What core `core` has published and some core keeps in logs.

    A log of its own is kept by the core that a topic's hash names, a shared one by the core that
    publishes: each core has one for every rule.
    """

    def __init__(self, rules: TopicRules, placement: Placement, core: int) -> None:
        self._rules = rules
        self._placement = placement
        self._core = core
        self._scratch = Turn(array("Q", bytes(8 * metrics.CELLS)))
        self._spare: list[BatchBuilder] = []

    def core_of(self, topic: bytes) -> int | None:
        """The core that keeps the log of a topic; None when its rule wants none."""
        if not self._rules.keep_logs:
            return None
        rule = self._rules.of(topic)
        if not keeps_log(rule):
            return None
        return self._placement.log_core(topic) if rule.own_shard else self._core

    def parts(self, batch: bytes, stream: int, call: int) -> list[LogPart]:
        """Sort records by their logs: for each a batch, whole with checksum, of `call`'s number.

        `batch` has only records of topics that have a log.
        """
        builders: dict[bytes, BatchBuilder] = {}
        for attributes, timestamp, _, topic, value, headers in records(batch):
            assert topic is not None
            name = log_name(self._rules.of(topic), topic)
            builder = builders.get(name)
            if builder is None:
                builder = builders[name] = self._builder()
            builder.append(topic, value or b"", headers, attributes, timestamp)
        found = []
        producer = own_producer(self._core, stream, call)
        for name, builder in builders.items():
            builder.producer_id, builder.producer_epoch, builder.sequence = producer
            found.append(LogPart(name, builder.take()[0]))
            if len(self._spare) < _SPARE_BUILDERS:
                self._spare.append(builder)
        self._scratch.builders.clear()
        return found

    def _builder(self) -> BatchBuilder:
        if self._spare:
            return self._spare.pop()
        return BatchBuilder(self._scratch, 0, _ANY_SIZE, None)
