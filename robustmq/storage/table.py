"""The rows of one core: a small ordered table beside its logs, and how its commits are counted."""

from collections import deque
from collections.abc import Iterator
from typing import Protocol

from robustmq.errors import Refused


class Table(Protocol):
    """Ordered rows of one core, keys and values `bytes`.

    What is put in a turn is written as one, all or nothing, together with the turn's appends to
    logs of the same engine. What was put while the disk is failing stays gathered, in order, and
    is written when it heals. Commits that have rows are numbered from 1 on, per opening.
    """

    def put(self, key: bytes, value: bytes) -> None:
        """Set a row with the turn's commit; of several to one key the last counts."""

    def delete(self, key: bytes) -> None:
        """Remove a row with the turn's commit; it may be missing."""

    def erase(self, first: bytes, stop: bytes) -> None:
        """Remove the rows from `first` on and below `stop`, in order with what is put.

        One costs as much as ten deletions, and every walk afterwards a little more until the
        database has merged it: for a thousand rows and more at once, `delete` for fewer.
        """

    def get(self, key: bytes) -> bytes | None:
        """Return a written row's value; None when there is none. Raises Corrupt."""

    def walk(self, first: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the written rows from `first` on and below `stop`, ascending. Raises Corrupt.

        To be used up or dropped before the next commit. Begin at the first row that may live:
        a walk over removed rows costs as much as one over rows.
        """

    def last(self, first: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
        """Return the last written row from `first` on and below `stop`. Raises Corrupt."""

    def demand_sync(self) -> None:
        """Have what is put in this turn synced before it counts as durable."""

    @property
    def next_commit(self) -> int:
        """The number of the commit that will hold what is put now."""

    @property
    def written(self) -> int:
        """Commits up to this one are written: they can be read, and survive kill -9."""

    @property
    def durable(self) -> int:
        """Commits up to this one are durable: written, and synced where that was demanded.

        A commit behind one that waits for its sync waits too.
        """

    @property
    def is_midway(self) -> bool:
        """Whether something is put that no commit has taken yet."""

    @property
    def refusal(self) -> Refused | None:
        """Why nothing should be put now; None while writing works.

        QUOTA_EXCEEDED: the disk is full. UNAVAILABLE: it fails. BUSY: too much waits for it.
        """


class Commits:
    """The numbers of a table's commits: what is gathered, written, synced."""

    def __init__(self) -> None:
        self.next = 1
        self.written = 0
        self.durable = 0
        self.moved = False
        """Something was written or became durable; whoever tells it takes it back."""
        self._demanded = False
        self._first_demanded = 0
        self._waiting: deque[int] = deque()

    def demand_sync(self) -> None:
        """The commit of this turn is durable only when synced."""
        self._demanded = True

    def seal(self, has_rows: bool, ends_turn: bool = True) -> None:
        """What is gathered is a commit, unless it is nothing; the demand was for the turn."""
        if has_rows:
            if self._demanded and not self._first_demanded:
                self._first_demanded = self.next
            self.next += 1
        if ends_turn:
            self._demanded = False

    def wrote(self) -> bool:
        """All sealed commits are written; True: a sync is owed, to be told to `synced`."""
        self.written = self.next - 1
        self.moved = True
        owed = self._first_demanded > 0
        if owed:
            self._waiting.append(self._first_demanded)
            self._first_demanded = 0
        self._settle()
        return owed

    def synced(self) -> None:
        """The oldest of the owed syncs is done."""
        self._waiting.popleft()
        self._settle()

    def _settle(self) -> None:
        reached = self._waiting[0] - 1 if self._waiting else self.written
        if reached > self.durable:
            self.durable = reached
            self.moved = True
