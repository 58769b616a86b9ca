"""The port to what coordinators keep: pages and offsets, in the offset groups of the cluster.

A page is small (a consumer group, a transaction) and has a version that grows with every change.
Whoever writes says which version it knows: of two that take themselves for the coordinator one is
refused with CONFLICT, and reads anew. What is answered without refusal survives the loss of this
node in a cluster, and of every process alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from robustmq.errors import Refused


class Page(NamedTuple):
    """What is kept under a key; version 0: nothing yet."""

    version: int = 0
    value: bytes | None = None


class Kept(NamedTuple):
    """An offset that was committed, what the reader noted with it, and when (Unix ms)."""

    offset: int
    note: str = ""
    at_ms: int = 0
    leader_epoch: int = -1


class Ledger(Protocol):
    """The pages and offsets of all coordinators; keys hold no U+0000."""

    def read(self, key: str, reply: Callable[[Page | Refused], None]) -> None:
        """Read a page as the cluster has it now."""

    def write(
        self, key: str, value: bytes | None, version: int, reply: Callable[[int | Refused], None]
    ) -> None:
        """Write a page (None: remove it) whose last known version is `version`.

        Answers the new version, or refuses: CONFLICT when it was another one.
        """

    def keys(self, prefix: str, reply: Callable[[Sequence[str] | Refused], None]) -> None:
        """List the keys of all pages that begin with `prefix`."""

    def commit(
        self,
        key: str,
        version: int,
        offsets: Mapping[str, Kept | None],
        reply: Callable[[Refused | None], None],
    ) -> None:
        """Commit offsets by place under the key of a page, as long as that has this version.

        None removes an offset. What several ask for in a turn travels together.
        """

    def offsets(self, key: str, reply: Callable[[Mapping[str, Kept] | Refused], None]) -> None:
        """Read all offsets that are committed under a key."""

    def erase(self, key: str, version: int, reply: Callable[[Refused | None], None]) -> None:
        """Remove a page and all offsets under its key."""

    def producer_ids(self, reply: Callable[[range | Refused], None]) -> None:
        """Take some producer ids that nobody was ever given."""
