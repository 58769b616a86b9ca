"""Reads at a leader: those that came together are confirmed by one round of heartbeats."""

from collections import deque
from collections.abc import Iterable

Reader = tuple[int, int]
"""The replica that asks, and its token."""


class Rounds:
    """The reads that wait at a leader (dissertation 6.4).

    A round begins after its reads have come; when a majority has said since that this replica
    leads, nothing that was answered before they came is behind the round's index.
    """

    __slots__ = ("_begun", "_count", "_most", "latest", "waiting")

    def __init__(self, most: int) -> None:
        self.latest = 0
        self.waiting: list[Reader] = []
        self._begun: deque[tuple[int, int, list[Reader]]] = deque()
        self._count = 0
        self._most = most

    def add(self, reader: Reader) -> bool:
        """Let a read wait for the next round; no: there are too many."""
        if self._count >= self._most:
            return False
        self._count += 1
        self.waiting.append(reader)
        return True

    def begin(self, index: int) -> None:
        """Begin a round for all that wait, with what is committed."""
        self.latest += 1
        self._begun.append((self.latest, index, self.waiting))
        self.waiting = []

    def confirmed(self, number: int) -> Iterable[tuple[int, int, int]]:
        """Take (replica, token, index) of all reads up to a round that is confirmed."""
        found = []
        begun = self._begun
        while begun and begun[0][0] <= number:
            _, index, readers = begun.popleft()
            self._count -= len(readers)
            found += [(replica, token, index) for replica, token in readers]
        return found

    def dropped(self) -> list[Reader]:
        """Take all reads: nobody will confirm them."""
        found = [reader for _, _, readers in self._begun for reader in readers] + self.waiting
        self._begun.clear()
        self.waiting = []
        self._count = 0
        return found
