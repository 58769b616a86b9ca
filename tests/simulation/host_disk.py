"""The disk of a simulated Raft host: files and databases that forget what was not synced."""

import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from robustmq.meta.database import Row
from tests.unit.storage.disk import Disk


class Killed(BaseException):
    """The process was killed between two system calls."""


class Fuse:
    """Kills the process at the n-th system call from now on."""

    def __init__(self) -> None:
        self.left: int | None = None

    def burn(self) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left < 0:
            raise Killed


class FusedDisk(Disk):
    """A disk whose process may be killed at any call."""

    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self.fuse = fuse

    def _call(self, name: str) -> None:
        self.fuse.burn()
        super()._call(name)
        self.calls.clear()


class Table:
    """The rows of a database: as they are read, and as they would be after a power cut."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.durable: dict[bytes, bytes] = {}
        self.unsynced: list[Sequence[Row]] = []

    def lose_power(self, rng: random.Random) -> None:
        for rows in self.unsynced[: rng.randint(0, len(self.unsynced))]:
            put(self.durable, rows)
        self.unsynced.clear()
        self.rows = dict(self.durable)


def put(target: dict[bytes, bytes], rows: Sequence[Row]) -> None:
    for key, value in rows:
        if value is None:
            target.pop(key, None)
        else:
            target[key] = value


class MemoryView:
    """Rows as they were."""

    def __init__(self, rows: dict[bytes, bytes]) -> None:
        self.keys = sorted(rows)
        self.rows = dict(rows)
        self.is_open = True

    def items(self, first: bytes, most: int) -> list[tuple[bytes, bytes]]:
        assert self.is_open
        at = bisect_left(self.keys, first)
        return [(key, self.rows[key]) for key in self.keys[at : at + most]]

    def close(self) -> None:
        self.is_open = False


class MemoryDatabase:
    """A `Database` in memory."""

    def __init__(self, table: Table, fuse: Fuse) -> None:
        self.table = table
        self.fuse = fuse
        self.views: list[MemoryView] = []

    def get(self, key: bytes) -> bytes | None:
        return self.table.rows.get(key)

    def items(self, first: bytes) -> Iterator[tuple[bytes, bytes]]:
        rows = self.table.rows
        return iter([(key, rows[key]) for key in sorted(rows) if key >= first])

    def write(self, rows: Sequence[Row]) -> None:
        self.fuse.burn()
        self.table.unsynced.append(list(rows))
        put(self.table.rows, rows)

    def sync(self) -> None:
        self.fuse.burn()
        for rows in self.table.unsynced:
            put(self.table.durable, rows)
        self.table.unsynced.clear()

    def view(self) -> MemoryView:
        view = MemoryView(self.table.rows)
        self.views.append(view)
        return view

    def close(self) -> None:
        assert not any(view.is_open for view in self.views)


class MemoryDatabases:
    """Databases in memory, by path."""

    def __init__(self, fuse: Fuse) -> None:
        self.tables: dict[str, Table] = {}
        self.fuse = fuse

    def open(self, path: str) -> MemoryDatabase:
        self.fuse.burn()
        return MemoryDatabase(self.tables.setdefault(path, Table()), self.fuse)

    def remove(self, path: str) -> None:
        self.fuse.burn()
        self.tables.pop(path, None)

    def lose_power(self, rng: random.Random) -> None:
        for table in self.tables.values():
            table.lose_power(rng)
