"""The database below a group's store: ordered rows, written all or none, synced by the writer.

RocksDB by default; tests hand in one that forgets what was not synced.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from rocksdict import DBRecoveryMode, RdictIter

from robustmq.errors import Corrupt
from robustmq.storage.rocksdb_store import DATA, RocksdbStore

Row: TypeAlias = tuple[bytes, bytes | None]
"""A key and its value, None to delete it."""


class View(Protocol):
    """The rows as they were at one moment, whatever is written since."""

    def items(self, first: bytes, most: int) -> list[tuple[bytes, bytes]]:
        """Return up to `most` rows from the key `first` on, ascending. Raises Corrupt."""

    def close(self) -> None:
        """Let go; before the database is closed."""


class Database(Protocol):
    """Ordered rows."""

    def get(self, key: bytes) -> bytes | None:
        """Return a row's value; None when there is none. Raises Corrupt."""

    def items(self, first: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows from the key `first` on, ascending. Raises Corrupt."""

    def write(self, rows: Sequence[Row]) -> None:
        """Apply all or none, in order, without a sync. Raises OSError."""

    def sync(self) -> None:
        """Wait until all that is written is on the disk; any thread may. Raises OSError."""

    def view(self) -> View:
        """Return the rows as they are now."""

    def close(self) -> None:
        """Let go."""


class Databases(Protocol):
    """Makes databases, each in a folder of its own."""

    def open(self, path: str) -> Database:
        """Open a database, made when missing. Raises OSError, Corrupt.

        After a crash it holds the first of what was written, up to some write, without a gap.
        """

    def remove(self, path: str) -> None:
        """Remove a database that is not open; it may be missing."""


class RocksdbDatabases:
    """Databases of RocksDB."""

    def __init__(self, memory_bytes: int, wal_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._wal_bytes = wal_bytes

    def open(self, path: str) -> "RocksdbDatabase":
        """Open one, made when missing."""
        Path(path).mkdir(mode=0o750, parents=True, exist_ok=True)
        # A hole in the log would leave this replica's rows other than its peers'; what is cut off
        # the end is applied again from the journal.
        recovery = DBRecoveryMode.point_in_time()
        store = RocksdbStore(path, self._memory_bytes, self._wal_bytes, (DATA,), recovery)
        return RocksdbDatabase(store, path)

    def remove(self, path: str) -> None:
        """Remove one."""
        shutil.rmtree(path, ignore_errors=True)


class RocksdbDatabase:
    """A database of RocksDB, with one family."""

    def __init__(self, store: RocksdbStore, path: str) -> None:
        self._store = store
        self._path = path

    def get(self, key: bytes) -> bytes | None:
        """Return a row's value."""
        try:
            return self._store.get(DATA, key)
        except Exception as error:
            raise _damaged(self._path, error) from error

    def items(self, first: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows from a key on."""
        return self._until_end(self._store.items(DATA, first), first)

    def write(self, rows: Sequence[Row]) -> None:
        """Apply all or none."""
        self._store.write([(DATA, key, value) for key, value in rows], wait=True)

    def sync(self) -> None:
        """Wait until all is on the disk."""
        self._store.sync()

    def view(self) -> "RocksdbView":
        """Return the rows as they are now."""
        return RocksdbView(self._store.walk(DATA), self._path)

    def close(self) -> None:
        """Let go."""
        self._store.close()

    def _until_end(
        self, rows: Iterator[tuple[bytes, bytes]], first: bytes
    ) -> Iterator[tuple[bytes, bytes]]:
        for row in rows:
            first = row[0]
            yield row
        # The end and a damaged block look the same from here.
        try:
            self._store.check_end(DATA, first)
        except Exception as error:
            raise _damaged(self._path, error) from error


class RocksdbView:
    """The rows of a database of RocksDB as they were when the iterator was made.

    Not a snapshot of rocksdict: only its `get` reads that, its iterators read what is there now.
    """

    def __init__(self, walk: RdictIter, path: str) -> None:
        self._walk: RdictIter | None = walk
        self._path = path

    def items(self, first: bytes, most: int) -> list[tuple[bytes, bytes]]:
        """Return up to `most` rows from a key on."""
        walk = self._walk
        assert walk is not None
        walk.seek(first)
        found: list[tuple[bytes, bytes]] = []
        while walk.valid() and len(found) < most:
            found.append((walk.key(), walk.value()))
            walk.next()
        if not walk.valid():
            try:
                walk.status()
            except Exception as error:
                raise _damaged(self._path, error) from error
        return found

    def close(self) -> None:
        """Let go: the database cannot be opened again while this is held."""
        self._walk = None


def _damaged(path: str, error: Exception) -> Corrupt:
    return Corrupt(
        f"{path} cannot be read: {error}; replace the node, with an empty data directory"
    )
