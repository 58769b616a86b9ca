"""A shared subscription's group: who is next, what waits while nobody is ready (MQTT5 4.8.2)."""

from collections import deque
from typing import NamedTuple


class Waiting(NamedTuple):
    """A record that nobody could take: the batch that it is of, and its raw bytes."""

    batch: bytes
    raw: bytes


class ShareGroup:
    """Members in round robin; a member that is not ready is passed over.

    At most `max_pending` records wait; beyond that the oldest goes and is counted in `dropped`.
    """

    def __init__(self, max_pending: int) -> None:
        self._ready: dict[int, bool] = {}
        self._turn: deque[int] = deque()
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
        return bool(self._turn)

    def join(self, member: int, ready: bool) -> None:
        """Add a member, or say whether it is ready."""
        if not self._ready.get(member, False) and ready:
            self._turn.append(member)
        elif self._ready.get(member, False) and not ready:
            self._turn.remove(member)
        self._ready[member] = ready

    def leave(self, member: int) -> None:
        """Remove a member."""
        if self._ready.pop(member, False):
            self._turn.remove(member)

    def share(self, batch: bytes, raws: list[bytes]) -> dict[int, list[bytes]]:
        """Give each record to the next ready member; without one they wait here."""
        if not self._turn:
            for raw in raws:
                self._pending.append(Waiting(batch, raw))
            while len(self._pending) > self._max_pending:
                self._pending.popleft()
                self.dropped += 1
            return {}
        shares: dict[int, list[bytes]] = {}
        for raw in raws:
            member = self._turn[0]
            self._turn.rotate(-1)
            shares.setdefault(member, []).append(raw)
        return shares

    def take_waiting(self) -> list[Waiting]:
        """What waits, when a member is ready to take it."""
        if not self._turn:
            return []
        waiting = list(self._pending)
        self._pending.clear()
        return waiting
