"""One core that owns the partitions of a topic, as tests of its owner have it."""

from collections.abc import Mapping

import msgspec

from robustmq._kernel.batch import records
from robustmq.broker.partition_api import Appended, Partition, Wanted
from robustmq.broker.partition_owner import PartitionOwner
from robustmq.config import Storage, TopicRule
from robustmq.meta import records as meta
from robustmq.settings.kafka import KafkaRuntime
from tests.fabric import Fabric, Limits

TOPIC = b"events"
ONE = Partition(TOPIC, 0)


class World:
    """One core that owns the partitions of a topic."""

    def __init__(self, rules: tuple[TopicRule, ...] = (), storage: Storage = Storage()) -> None:  # noqa: B008
        self.fabric = Fabric(1, Limits(topic_rules=rules, storage=storage))
        self._changes = 0
        self.own()

    def own(self) -> None:
        """The owner of the core's present life."""
        self.node = self.fabric.nodes[0]
        self.catalog = self.node.parts.catalog
        logs = self.node.parts.logs
        self.owner = PartitionOwner(
            self.node.turn, logs=logs, catalog=self.catalog, settings=KafkaRuntime(), core=0
        )
        self.catalog.changed.append(self.owner.changed)

    def make(
        self, partitions: int = 2, number: int = 1, config: Mapping[str, str] | None = None
    ) -> None:
        """Have the topic, or have it otherwise."""
        value = meta.Topic(
            storage_type="segment",
            partition=partitions,
            config={**(config or {})},
            id=bytes([number] * 16),
        )
        self._changes += 1
        fields = msgspec.to_builtins(value, builtin_types=(bytes,))
        self.catalog.apply("default/events", fields, self._changes)

    def remove(self) -> None:
        self.catalog.apply("default/events", None)

    def append(self, batch: bytes, partition: Partition = ONE) -> list[Appended]:
        answers: list[Appended] = []
        self.owner.append(partition, batch, answers.append)
        return answers

    def settle(self) -> None:
        self.fabric.settle()

    def put(self, *batches: bytes) -> list[Appended]:
        """Append one by one, each safe before the next."""
        found = []
        for batch in batches:
            answers = self.append(batch)
            self.settle()
            found += answers
        return found

    def values(self, offset: int = 0, is_committed: bool = False) -> list[bytes | None]:
        read = self.owner.read(Wanted(ONE, offset, 1 << 20, is_committed))
        assert read.fault == 0
        return [value for each in read.batches for _, _, _, _, value, _ in records(each)]

    def restart(self, lost: int = 0) -> None:
        self.fabric.replace(0, lost)
        self.own()
