"""The port to the topics that were made explicitly, and to those of rules that have a name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from robustmq.broker.partition_api import Partition
from robustmq.config import TopicRule
from robustmq.errors import Refused
from robustmq.policy.topic_settings import Configured

__all__ = ["Catalog", "Configured", "Leader", "Topic"]


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """A topic with partitions.

    `name` is that of the node (`message.tenancy.qualified`), `id` 16 bytes that no other topic
    ever has, `settings` what was set for it, in Kafka's names, `rule` how it is kept. `is_shared`:
    it stands for the shared logs of a rule, one partition for each core, whose keys are topics.
    """

    name: bytes
    id: bytes
    partitions: int
    rule: TopicRule
    settings: Mapping[str, str] = {}
    is_shared: bool = False


class Leader(NamedTuple):
    """Who serves a partition: the node, the core by its index there, and since which epoch."""

    node: int
    core: int
    epoch: int


class Catalog(Protocol):
    """The topics, as the cluster has them; a look-up here is never a question to anybody.

    `version` is another one whenever some topic or leader is. Names in calls are those that a
    client of a tenant writes; a rule may map them (`a.b` to `a/b`).
    """

    @property
    def version(self) -> int: ...  # noqa: D102

    def find(self, tenant: str, name: str) -> Topic | None:
        """Return a topic by the name that clients write."""

    def of(self, topic: bytes) -> Topic | None:
        """Return a topic by the node's name."""

    def by_id(self, topic_id: bytes) -> Topic | None:
        """Return a topic by its id."""

    def written(self, topic: Topic) -> str:
        """Return the name that clients write."""

    def walk(self, tenant: str) -> Iterator[Topic]:
        """Yield all topics of a tenant."""

    def leader(self, partition: Partition) -> Leader | None:
        """Return who leads a partition; None: nobody does now."""

    def core_of(self, partition: Partition) -> int | None:
        """Return the number of the leader's core as this core knows it; None: nobody leads."""

    def create(
        self,
        tenant: str,
        name: str,
        partitions: int,
        settings: Mapping[str, str],
        reply: Callable[[Topic | Refused], None],
    ) -> None:
        """Make a topic; answered when this node knows it. -1 partitions: as configured."""

    def grow(self, topic: Topic, partitions: int, reply: Callable[[Refused | None], None]) -> None:
        """Give a topic more partitions."""

    def configure(
        self, topic: Topic, settings: Mapping[str, str], reply: Callable[[Refused | None], None]
    ) -> None:
        """Let these settings be all that is set for a topic."""

    def delete(self, topic: Topic, reply: Callable[[Refused | None], None]) -> None:
        """Remove a topic with all that is in it."""

    def plan(
        self, tenant: str, name: str, partitions: int, settings: Mapping[str, str]
    ) -> Topic | Refused:
        """Return what `create` would make, without an id, or why it would not."""

    def judge(self, topic: Topic, settings: Mapping[str, str]) -> Refused | None:
        """Say why `configure` would refuse; None: as far as this core knows, it would not."""

    def settings(self, topic: Topic | None) -> Iterator[Configured]:
        """Yield all that can be set for a topic; None: for one for which nothing is."""

    def check(self, name: str, settings: Mapping[str, str]) -> Sequence[str]:
        """Say in sentences what is wrong with a topic's name and settings."""
