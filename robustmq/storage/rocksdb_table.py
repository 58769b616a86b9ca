"""The rows of a core in RocksDB: a family of the database that its logs lie in."""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from robustmq.errors import Refused
from robustmq.storage.gate import Gate
from robustmq.storage.log_settings import Flush
from robustmq.storage.rocksdb_rows import Unreadable
from robustmq.storage.rocksdb_store import ROWS, Erase, RocksdbStore, Row
from robustmq.storage.table import Commits

COUNTED: Final = 64
"""Bytes that a gathered row is counted as beside its key and value."""


class RocksdbTable:
    """A `Table` of one engine, which writes what is gathered here with its logs' appends.

    `flush` as in LogSettings: `always` demands a sync for every commit, the others where
    `demand_sync` does. Putting appends to a list; only a turn that could not be written is counted.
    """

    def __init__(self, store: RocksdbStore, gate: Gate, flush: Flush) -> None:
        self.commits = Commits()
        self.rows: list[Row | Erase] = []
        """What is gathered, in order; the list stays the same."""
        self._append = self.rows.append
        self._sealed = 0
        self._counted = 0
        self._pending = 0
        self._store = store
        self._gate = gate
        self._always = flush == "always"

    def put(self, key: bytes, value: bytes) -> None:
        """Set a row with the turn's commit; of several to one key the last counts."""
        self._append((key, value))

    def delete(self, key: bytes) -> None:
        """Remove a row with the turn's commit; it may be missing."""
        self._append((key, None))

    def erase(self, first: bytes, stop: bytes) -> None:
        """Remove the rows from `first` on and below `stop`, in order with what is put."""
        # The database takes a range that ends before it begins for an error.
        if first < stop:
            self._append(Erase(ROWS, first, stop))

    def demand_sync(self) -> None:
        """Have what is put in this turn synced before it counts as durable."""
        self.commits.demand_sync()

    def get(self, key: bytes) -> bytes | None:
        """Return a written row's value; None when there is none. Raises Corrupt."""
        try:
            return self._store.get(ROWS, key)
        except Exception as error:
            raise Unreadable(f"a row cannot be read: {error}") from error

    def walk(self, first: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the written rows from `first` on and below `stop`, ascending. Raises Corrupt."""
        # The rows as they are now, not as they will be when the first one is asked for.
        return self._until(self._store.items(ROWS, first), first, stop)

    def last(self, first: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
        """Return the last written row from `first` on and below `stop`. Raises Corrupt."""
        walk = self._store.walk(ROWS)
        walk.seek_for_prev(stop)
        if walk.valid() and walk.key() == stop:
            walk.prev()
        if not walk.valid():
            try:
                walk.status()
            except Exception as error:
                raise Unreadable(f"rows before {stop!r} cannot be read: {error}") from error
            return None
        key = walk.key()
        return (key, walk.value()) if key >= first else None

    @property
    def next_commit(self) -> int:
        """The number of the commit that will hold what is put now."""
        return self.commits.next

    @property
    def written(self) -> int:
        """Commits up to this one are written: they can be read, and survive kill -9."""
        return self.commits.written

    @property
    def durable(self) -> int:
        """Commits up to this one are durable: written, and synced where that was demanded."""
        return self.commits.durable

    @property
    def refusal(self) -> Refused | None:
        """Why nothing should be put now; None while writing works."""
        return self._gate.refusal(0)

    @property
    def is_midway(self) -> bool:
        """Whether something is put that no commit has taken yet."""
        return len(self.rows) > self._sealed

    def seal(self, ends_turn: bool = True) -> None:
        """What is gathered is a commit."""
        has_rows = self.is_midway
        if has_rows and self._always:
            self.commits.demand_sync()
        self.commits.seal(has_rows, ends_turn)
        self._sealed = len(self.rows)

    def wrote(self) -> bool:
        """All that is gathered is written; True: a sync is owed."""
        self.rows.clear()
        self._sealed = self._counted = 0
        self._gate.pending -= self._pending
        self._pending = 0
        return self.commits.wrote()

    def held_up(self) -> None:
        """What is gathered could not be written: count it as waiting for the disk."""
        size = sum(map(_size, islice(self.rows, self._counted, None)))
        self._counted = len(self.rows)
        self._gate.pending += size
        self._pending += size

    def finish(self) -> None:
        """The oldest of the owed syncs is done."""
        self.commits.synced()

    def _until(
        self, rows: Iterator[tuple[bytes, bytes]], first: bytes, stop: bytes
    ) -> Iterator[tuple[bytes, bytes]]:
        for row in rows:
            if row[0] >= stop:
                return
            first = row[0]
            yield row
        # The end of the family and a damaged block look the same from here.
        try:
            self._store.check_end(ROWS, first)
        except Exception as error:
            raise Unreadable(f"rows behind {first!r} cannot be read: {error}") from error


def _size(row: Row | Erase) -> int:
    if isinstance(row, Erase):
        return COUNTED
    key, value = row
    return COUNTED + len(key) + len(value or b"")
