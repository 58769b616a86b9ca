"""Which core keeps or leads what: the same answer in every process that knows the same nodes.

Cores are numbered as `message.core_number` says: those of this node by their index.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from robustmq.message.core_number import FIRST_REMOTE, global_core
from robustmq.message.topic import is_wildcard, stable_hash

MEMBERSHIP: Final = -1
"""In the place of a core that is waited for: this node is not yet, or not any more, live."""

ADOPTION: Final = -2
"""The same: not all cores have said that they have the sessions that are their own."""


class Life(NamedTuple):
    """A node that is live: its incarnation, higher with every life and fence, and its cores."""

    incarnation: int
    workers: int


class Placement:
    """Sessions, retained topics, shared groups and exclusive filters over cores.

    Sessions, retained messages and logs are placed over the `workers` cores of this node; what
    one core of the cluster leads, over all cores of the live `nodes`. A message that is published
    is appended by the core of its publisher's session (ADR 0015). Without a `node` number this
    node is alone.
    """

    def __init__(self, workers: int, node: int | None = None) -> None:
        self.workers = workers
        self.node = node
        self.nodes: dict[int, Life] = {}
        """The live nodes, this one among them; empty while it is alone."""
        self.cores: tuple[int, ...] = tuple(range(workers))
        """All cores by number, those of this node first."""
        self.digest = 0
        """The same number for all who know the same nodes in the same lives."""
        self._remote: frozenset[int] = frozenset()

    def update(self, nodes: Mapping[int, Life]) -> None:
        """Learn which nodes are live; this one must be among them."""
        assert self.node in nodes, "a node that is not live places nothing"
        self.nodes = dict(sorted(nodes.items()))
        remote = [
            global_core(node, index)
            for node, life in self.nodes.items()
            if node != self.node
            for index in range(life.workers)
        ]
        self.cores = (*range(self.workers), *remote)
        self._remote = frozenset(remote)
        said = b"".join(b"%d %d %d;" % (node, *life) for node, life in self.nodes.items())
        self.digest = stable_hash(said)

    def number_of(self, core: int) -> int:
        """The number of a core that means the same to all nodes; alone it is the core's own."""
        if self.node is None or core >= FIRST_REMOTE:
            return core
        return global_core(self.node, core)

    @property
    def remote(self) -> tuple[int, ...]:
        """The cores of the other live nodes."""
        return self.cores[self.workers :]

    @property
    def is_known(self) -> bool:
        """Whether all that may be led elsewhere is placed; not before a cluster's nodes are."""
        return self.node is None or bool(self.nodes)

    def is_live(self, core: int) -> bool:
        """Say whether a core is of this node, or of another one that is live."""
        return core < FIRST_REMOTE or core in self._remote

    def home_of(self, client_id: bytes) -> int:
        """The core of this node on which a client's session lives, when it lives here."""
        return stable_hash(client_id) % self.workers

    def group_core(self, group_key: bytes) -> int:
        """The core that leads a shared group."""
        return self._leader(group_key)

    def exclusive_core(self, topic_filter: bytes) -> int:
        """The core that grants an exclusive subscription to a filter."""
        return self._leader(topic_filter)

    def retained_core(self, topic: bytes) -> int:
        """The core of this node that keeps a topic's retained message."""
        return stable_hash(topic) % self.workers

    def retained_cores(self, topic_filter: bytes) -> list[int]:
        """The cores of this node that keep retained messages which a filter can match."""
        if is_wildcard(topic_filter):
            return list(range(self.workers))
        return [self.retained_core(topic_filter)]

    def log_core(self, topic: bytes, partition: int = 0) -> int:
        """The core of this node that keeps the log which a partition has of its own."""
        return (stable_hash(topic) + partition) % self.workers

    def _leader(self, name: bytes) -> int:
        """A node by rendezvous, and of its cores the one that it had chosen alone.

        When a node goes, only what it led moves, and when one comes, only what it leads then.
        """
        if not self._remote:
            return stable_hash(name) % self.workers
        node = max(self.nodes, key=lambda node: stable_hash(b"%d\0" % node + name))
        index = stable_hash(name) % self.nodes[node].workers
        return index if node == self.node else global_core(node, index)
