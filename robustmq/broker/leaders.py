"""Who leads the partitions of explicit topics: this node, or whom records of the cluster name."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from robustmq.broker.catalog_api import Leader
from robustmq.broker.partition_api import Partition
from robustmq.broker.placement import Placement
from robustmq.message.tenancy import local, tenant_of
from robustmq.message.topic import stable_hash
from robustmq.meta.placement import ShardPlacement
from robustmq.meta.records import SHARD, Node, Record, Shard, encoded

_ALONE: Final = 0
"""The epoch of all leaders of a node that is alone."""


class Leaders:
    """A fold of the records of shards; `node` is this node's number.

    A shard's name is that of its topic's record, a slash, and the partition's number.
    """

    def __init__(self, node: int, placement: Placement) -> None:
        self.version = 0
        self.nodes: Mapping[int, Node] = {}
        """The nodes as the metadata has them, for where a new partition is placed."""
        self._node = node
        self._placement = placement
        self._shards: dict[str, Shard] = {}
        self._stale: set[str] = set()

    # ------------------------------------------------------------------ look-ups

    def of(self, partition: Partition) -> Leader | None:
        """Return who leads a partition of an explicit topic."""
        topic, number = partition
        if self._placement.node is None:
            return self.here(partition)
        shard = self._shards.get(f"{tenant_of(topic)}/{local(topic).decode()}/{number}")
        if shard is None or shard.leader is None:
            return None
        life = self._placement.nodes.get(shard.leader)
        if life is None or not life.workers:
            return None
        core = (stable_hash(topic) + number) % life.workers
        return Leader(shard.leader, core, shard.leader_epoch)

    def here(self, partition: Partition) -> Leader:
        """Return the core of this node that has a partition which the node leads."""
        return Leader(self._node, self._placement.log_core(*partition), _ALONE)

    @property
    def cores(self) -> int:
        """The cores of all live nodes, each of which has its share of what is shared."""
        if self._placement.node is None:
            return self._placement.workers
        return sum(life.workers for life in self._placement.nodes.values())

    def of_shared(self, number: int) -> Leader | None:
        """Return the core that has a partition of what is shared: they are counted node by node."""
        if self._placement.node is None:
            return Leader(self._node, number, _ALONE)
        for node, life in self._placement.nodes.items():
            if number < life.workers:
                return Leader(node, number, _ALONE)
            number -= life.workers
        return None

    # ------------------------------------------------------------------ what is to be placed

    def placed(self, topic: str, numbers: Iterable[int]) -> list[Record]:
        """Return the records of new partitions, placed where the least are; none when alone."""
        if self._placement.node is None:
            return []
        new = {f"{topic}/{number}": Shard(topic=topic, number=number) for number in numbers}
        found = ShardPlacement({**self._shards, **new}, self.nodes).changes()
        return [Record(SHARD, name, encoded(found.get(name, shard))) for name, shard in new.items()]

    def removed(self, topic: str) -> list[Record]:
        """Return what removes all partitions of a topic."""
        names = (name for name, shard in self._shards.items() if shard.topic == topic)
        return [Record(SHARD, name, None) for name in names]

    # ------------------------------------------------------------------ the fold

    def clear(self) -> None:
        """All records follow: what is not among them is gone (`settle`)."""
        self._stale = {*self._shards}

    def apply(self, name: str, value: dict[str, Any] | None, changed: int = 0) -> None:
        """Learn of a record; raises ValueError when it is no shard."""
        del changed
        self._stale.discard(name)
        self.version += 1
        if value is None:
            self._shards.pop(name, None)
        else:
            self._shards[name] = msgspec.convert(value, Shard)

    def settle(self) -> None:
        """All records of a message are folded."""
        stale, self._stale = self._stale, set()
        for name in stale:
            del self._shards[name]
            self.version += 1
