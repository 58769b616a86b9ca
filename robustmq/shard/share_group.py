"""A shared subscription's group: its members, what waits while nobody is ready (MQTT5 4.8.2)."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from robustmq.shard.share_strategy import RoundRobin, Shares


class Waiting(NamedTuple):
    """A record that nobody could take: the batch that it is of, and its raw bytes."""

    batch: bytes
    raw: bytes


class ShareGroup:
    """Members, of whom a strategy chooses; one that is not ready is passed over.

    At most `max_pending` records wait; beyond that the oldest goes and is counted in `dropped`.
    """

    def __init__(self, max_pending: int, strategy: RoundRobin) -> None:
        self.strategy = strategy
        self._ready: dict[int, bool] = {}
        self._pending: deque[Waiting] = deque()
        self._max_pending = max_pending
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._ready)

    def __contains__(self, member: int) -> bool:
        return member in self._ready

    @property
    def members(self) -> list[int]:
        """Every member, ready or not."""
        return list(self._ready)

    @property
    def has_ready(self) -> bool:
        """Whether somebody can take what comes."""
        return len(self.strategy) > 0

    def join(self, member: int, ready: bool, home: int = 0) -> None:
        """Add a member whose session lives on core `home`, or say whether it is ready."""
        if not self._ready.get(member, False) and ready:
            self.strategy.add(member, home)
        elif self._ready.get(member, False) and not ready:
            self.strategy.remove(member)
        self._ready[member] = ready

    def leave(self, member: int) -> None:
        """Remove a member."""
        if self._ready.pop(member, False):
            self.strategy.remove(member)
        self.strategy.forget(member)

    def share(
        self, batch: bytes, raws: list[bytes], keys: Sequence[bytes] = (), home: int = 0
    ) -> Shares:
        """Give each record to a ready member; without one they wait here.

        `keys` are what the strategy goes `by`, one for each record; `home` is the publisher's core.
        """
        if self.has_ready:
            return self.strategy.divide(raws, keys, home)
        for raw in raws:
            self._pending.append(Waiting(batch, raw))
        while len(self._pending) > self._max_pending:
            self._pending.popleft()
            self.dropped += 1
        return {}

    def take_waiting(self) -> list[Waiting]:
        """What waits, when a member is ready to take it."""
        return self.withdraw() if self.has_ready else []

    def withdraw(self) -> list[Waiting]:
        """What waits, for another to share."""
        waiting = list(self._pending)
        self._pending.clear()
        return waiting
