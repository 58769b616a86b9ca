"""What the application may ask of the node and tell it; given to it by the server process."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from robustmq.broker.catalog_api import Catalog, Topic
from robustmq.errors import Refused


class Replies(NamedTuple):
    """What workers have answered, by their numbers, and those who have not in time."""

    values: dict[int, Any]
    missing: list[int]


class Key(NamedTuple):
    """A key of the cluster's key-value store, and its value."""

    key: str
    value: bytes


class Keys(NamedTuple):
    """Keys in their order; `after`: where to go on, None when there are no more."""

    keys: list[Key]
    after: str | None


class Topics(Protocol):
    """The topics of the cluster; a change is answered when this process knows it."""

    @property
    def catalog(self) -> Catalog:
        """Return them as they are known here."""
        ...

    async def create(
        self, tenant: str, name: str, partitions: int, settings: Mapping[str, str]
    ) -> Topic | Refused:
        """Make a topic; see `Catalog.create`."""
        ...

    async def delete(self, topic: Topic) -> Refused | None:
        """Remove a topic with all that is in it."""
        ...


class Node(Protocol):
    """The workers of the node, and the records that every one of them knows."""

    @property
    def workers(self) -> int:
        """Return the number of workers."""
        ...

    async def ask(
        self, kind: str, arguments: Mapping[str, Any], cores: Iterable[int] | None = None
    ) -> Replies:
        """Ask all workers, or some; raises ValueError with a sentence when one refuses."""
        ...

    async def ask_cluster(self, kind: str, arguments: dict[str, Any]) -> object:
        """Ask the meta process of this node; raises ValueError with a sentence, or TimeoutError."""
        ...

    def records(self, kind: str) -> Mapping[str, dict[str, Any]]:
        """Return the cluster's records of a kind by their names."""
        ...

    @property
    def topics(self) -> Topics:
        """Return the topics of the cluster."""
        ...

    async def settled(self) -> list[int]:
        """Wait until the workers know what this process knows; the numbers of who does not yet."""
        ...

    async def change(
        self, changes: Iterable[tuple[str, str, dict[str, Any] | None]], *, create: bool = False
    ) -> list[int] | Refused:
        """Set records, or with None remove them: (kind, name, value), all of them or none.

        With `create` it is refused when one that is set exists. Returns when they are committed,
        and every worker of this node that serves clients has applied them; the numbers of those
        that have not in time.
        """
        ...

    async def set_key(self, key: str, value: bytes | None) -> list[int] | Refused:
        """Set a key of the cluster's key-value store, or with None remove it."""
        ...

    async def keys(self, prefix: str, start: str, limit: int) -> Keys | Refused:
        """Return keys that begin with `prefix`, from `start` on, as they are committed now."""
        ...
