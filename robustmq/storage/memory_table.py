"""The rows of a core in memory, on a disk that can be held up, refuse, and lose what it may."""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping

from robustmq.errors import Refused
from robustmq.storage.log import Log
from robustmq.storage.log_settings import Flush
from robustmq.storage.table import Commits

_Operation = tuple[bytes, bytes | None] | tuple[bytes, bytes, None]
"""A key and its value, or None to remove it; first and stop of an erasure, and None."""


class MemoryTable:
    """A `Table` in memory, with `commit` and `completed` as an engine has them.

    The table that starts empty is one for what need not survive; beyond that it stands for a disk:
    `hold`, `settle`, `refuse` and `crash` are what disks do. A commit is written at once, and
    synced at once where that is demanded, unless `hold` or `refuse` say otherwise.
    """

    def __init__(self, rows: Mapping[bytes, bytes] | None = None, flush: Flush = "os") -> None:
        self.hold = False
        """While true no commit becomes durable, until `settle` is called or `hold` taken back."""
        self._rows = dict(rows or {})
        self._keys = sorted(self._rows)
        self._flush = flush
        self._commits = Commits()
        self._gathered: list[_Operation] = []
        self._sealed = 0
        self._owed = 0
        self._durable = 0
        self._refused: Refused | None = None
        self._changes = 0
        # What the disk has of the rows that were written since the last sync.
        self._unsynced: dict[bytes, bytes | None] = {}

    def put(self, key: bytes, value: bytes) -> None:
        """Set a row with the turn's commit; of several to one key the last counts."""
        self._gathered.append((key, value))

    def delete(self, key: bytes) -> None:
        """Remove a row with the turn's commit; it may be missing."""
        self._gathered.append((key, None))

    def erase(self, first: bytes, stop: bytes) -> None:
        """Remove the rows from `first` on and below `stop`, in order with what is put."""
        if first < stop:
            self._gathered.append((first, stop, None))

    def demand_sync(self) -> None:
        """Have what is put in this turn synced before it counts as durable."""
        self._commits.demand_sync()

    def get(self, key: bytes) -> bytes | None:
        """Return a written row's value; None when there is none."""
        return self._rows.get(key)

    def walk(self, first: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the written rows from `first` on and below `stop`, ascending.

        Raises RuntimeError when it is used after another write: no walk may be kept that long.
        """
        begin = bisect_left(self._keys, first)
        return self._between(begin, bisect_left(self._keys, stop, begin), self._changes)

    def last(self, first: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
        """Return the last written row from `first` on and below `stop`."""
        end = bisect_left(self._keys, stop)
        if not end or self._keys[end - 1] < first:
            return None
        key = self._keys[end - 1]
        return key, self._rows[key]

    @property
    def next_commit(self) -> int:
        """The number of the commit that will hold what is put now."""
        return self._commits.next

    @property
    def written(self) -> int:
        """Commits up to this one are written: they can be read, and survive `crash()`."""
        return self._commits.written

    @property
    def durable(self) -> int:
        """Commits up to this one are durable: written, and synced where that was demanded."""
        return self._durable

    @property
    def is_midway(self) -> bool:
        """Whether something is put that no commit has taken yet."""
        return len(self._gathered) > self._sealed

    @property
    def refusal(self) -> Refused | None:
        """What `refuse` has said."""
        return self._refused

    def commit(self) -> bool:
        """Write what the turn has gathered; True: call `completed`."""
        has_rows = len(self._gathered) > self._sealed
        if has_rows and self._flush == "always":
            self._commits.demand_sync()
        self._commits.seal(has_rows)
        self._sealed = len(self._gathered)
        self._write()
        return self._commits.moved

    def completed(self) -> list[Log]:
        """Take what was completed; there are no logs here."""
        if len(self._gathered) == self._sealed:
            self._write()
        self._commits.moved = False
        return []

    def settle(self) -> None:
        """The disk syncs all that is written; `completed` is to be called."""
        self._sync()
        self._commits.moved |= self._durable < self._commits.durable
        self._durable = self._commits.durable

    def refuse(self, refused: Refused | None) -> None:
        """Write nothing from now on and say why; None: as before, `completed` is to be called."""
        self._refused = refused

    def crash(self, power: bool = False) -> "MemoryTable":
        """Return what is found afterwards: what was written, without `power` what was synced."""
        rows = dict(self._rows)
        if power:
            for key, value in self._unsynced.items():
                if value is None:
                    rows.pop(key, None)
                else:
                    rows[key] = value
        return MemoryTable(rows, self._flush)

    def _write(self) -> None:
        if self._gathered and self._refused is None:
            for operation in self._gathered:
                self._apply(operation)
            self._gathered.clear()
            self._sealed = 0
            self._changes += 1
            self._owed += self._commits.wrote()
        if not self.hold:
            if self._owed:
                self._sync()
            self._durable = self._commits.durable

    def _sync(self) -> None:
        self._unsynced.clear()
        while self._owed:
            self._owed -= 1
            self._commits.synced()

    def _apply(self, operation: _Operation) -> None:
        if len(operation) == 3:
            begin = bisect_left(self._keys, operation[0])
            end = bisect_left(self._keys, operation[1], begin)
            for key in self._keys[begin:end]:
                self._remove(key)
            del self._keys[begin:end]
            return
        key, value = operation
        if value is not None:
            self._unsynced.setdefault(key, self._rows.get(key))
            if key not in self._rows:
                insort(self._keys, key)
            self._rows[key] = value
        elif key in self._rows:
            self._remove(key)
            del self._keys[bisect_left(self._keys, key)]

    def _remove(self, key: bytes) -> None:
        value = self._rows.pop(key)
        # What came and went between two syncs is nothing to the disk, and must not add up.
        if self._unsynced.setdefault(key, value) is None:
            del self._unsynced[key]

    def _between(self, begin: int, end: int, changes: int) -> Iterator[tuple[bytes, bytes]]:
        for index in range(begin, end):
            if changes != self._changes:
                raise RuntimeError("a walk over rows was kept while others were written")
            key = self._keys[index]
            yield key, self._rows[key]
