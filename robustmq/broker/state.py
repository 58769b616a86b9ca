"""The durable rows of a core, and what waits for them to be safe.

Hosted on the core's own database for now. What is put here is a pure fold of decisions, so that
the host can become a replicated group without a change to those who decide.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from robustmq.errors import Refusal, Refused
from robustmq.storage.table import Table

_NUMBERS: Final = 1 << 16
"""Numbers that are reserved at a time (`Numbers`)."""


class Committer(Protocol):
    """Whatever writes what the turn has put into the state."""

    def commit(self) -> bool:
        """Write; True: call `completed`."""

    def completed(self) -> object:
        """Take notice of what has become durable."""


class _Waiting(NamedTuple):
    commit: int
    callback: Callable[[], None]
    refused: Callable[[int], None] | None


class State:
    """Rows by key, written once a turn; `then` tells when what was put so far is durable.

    The first byte of a key says what the row is; whoever has rows names them in his module.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._waiting: deque[_Waiting] = deque()
        self._numbers: dict[bytes, Numbers] = {}
        self.put: Callable[[bytes, bytes], None] = table.put
        self.delete: Callable[[bytes], None] = table.delete
        self.erase: Callable[[bytes, bytes], None] = table.erase
        self.get: Callable[[bytes], bytes | None] = table.get
        self.walk: Callable[[bytes, bytes], Iterator[tuple[bytes, bytes]]] = table.walk
        self.last: Callable[[bytes, bytes], tuple[bytes, bytes] | None] = table.last
        self.demand_sync: Callable[[], None] = table.demand_sync

    @property
    def refusal(self) -> Refused | None:
        """Why nothing can be kept now; None while writing works."""
        return self._table.refusal

    @property
    def next_commit(self) -> int:
        """The number of the commit that will hold what is put now."""
        return self._table.next_commit

    @property
    def durable(self) -> int:
        """Commits up to this one are durable."""
        return self._table.durable

    @property
    def is_pending(self) -> bool:
        """Whether something that was put in an earlier turn is not written yet."""
        return self._table.written < self._table.next_commit - 1

    @property
    def is_active(self) -> bool:
        """Whether something is put, or waits for what was put."""
        return bool(self._waiting) or self._table.is_midway

    @property
    def is_midway(self) -> bool:
        """Whether something is put that no commit has taken yet."""
        return self._table.is_midway

    def then(
        self, callback: Callable[[], None], refused: Callable[[int], None] | None = None
    ) -> None:
        """Call back when everything that was put so far is durable, after the turn's commit.

        With `refused`, that is called instead, with the Refusal, when writing fails before it is
        written: what was put is written when the disk heals, which may be never.
        """
        self._waiting.append(_Waiting(self._table.next_commit, callback, refused))

    def settle(self) -> bool:
        """After a commit: call back for what has become durable; says whether there was anything.

        What is put by those who are called back waits for the next commit.
        """
        reached = self._table.durable
        if reached == self._table.next_commit - 1:
            # Nothing is on its way: who waits without having put anything need not wait on.
            reached += 1
        found = False
        for _ in range(len(self._waiting)):
            if self._waiting[0].commit > reached:
                break
            found = True
            self._waiting.popleft().callback()
        if self._waiting:
            refusal = self._table.refusal
            if refusal is not None and refusal.code is not Refusal.BUSY:
                found |= self._give_up(refusal.code)
        return found

    def _give_up(self, code: int) -> bool:
        """Tell those who can be told that writing fails; says whether there was anybody.

        What is written and waits for its sync is there after a crash: it is not given up.
        """
        written = self._table.written
        told: list[Callable[[int], None]] = []
        waiting: deque[_Waiting] = deque()
        for each in self._waiting:
            if each.refused is None or each.commit <= written:
                waiting.append(each)
            else:
                told.append(each.refused)
        self._waiting = waiting
        for refused in told:
            refused(code)
        return bool(told)

    def next_number(self, name: bytes, reserve: int = _NUMBERS) -> int:
        """A number that was never given before under this name, also before a restart."""
        numbers = self._numbers.get(name)
        if numbers is None:
            numbers = self._numbers[name] = self.numbers(name, reserve)
        return numbers.take()

    def numbers(self, name: bytes, reserve: int) -> "Numbers":
        """All numbers of a name, for one who takes many at a time."""
        return Numbers(self._table, name, reserve)


class Numbers:
    """Ascending numbers from 1 on, none of which is given twice, also after a restart.

    `reserve` of them are set aside at a time in row `N` name: a restart skips what is left.
    """

    __slots__ = ("_key", "_reserve", "_reserved", "_table", "next")

    def __init__(self, table: Table, name: bytes, reserve: int) -> None:
        self._table = table
        self._key = b"N" + name
        self._reserve = reserve
        known = table.get(self._key)
        self._reserved = int.from_bytes(known, "big") if known else 1
        self.next = self._reserved
        """The number that is taken next."""

    def take(self, count: int = 1) -> int:
        """Take so many numbers; returns the first."""
        first = self.next
        self.next = first + count
        if self.next > self._reserved:
            self._reserved = self.next - 1 + self._reserve
            self._table.put(self._key, self._reserved.to_bytes(8, "big"))
        return first
