"""The port to what administrators say of clients: what they may do, and how much of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

from robustmq.errors import Refused
from robustmq.meta.records import ClientQuota, Grant

__all__ = ["ClientQuota", "Done", "Grant", "Rights"]

Done: TypeAlias = Callable[[Refused | None], None]


class Rights(Protocol):
    """The grants and quotas of the cluster; a change is answered when this core knows it."""

    def grants(self, tenant: str) -> Iterator[Grant]:
        """Yield the grants of a tenant."""

    def grant(self, grants: Sequence[Grant], reply: Done) -> None:
        """Make these grants, all or none; one that exists is no fault."""

    def revoke(self, grants: Sequence[Grant], reply: Done) -> None:
        """Remove these grants, all or none; one that does not exist is no fault."""

    def quotas(self) -> Iterator[ClientQuota]:
        """Yield all quotas."""

    @property
    def quota_keys(self) -> Sequence[str]:
        """What can be limited, in Kafka's names."""

    def limit(self, quotas: Sequence[ClientQuota], reply: Done) -> None:
        """Let these quotas be all of whom they are for, all or none; empty ones are removed."""

    def limits_of(self, quota: ClientQuota) -> Mapping[str, float]:
        """Return the quotas of whom `quota` is for."""
