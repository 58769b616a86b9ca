"""The applied state of one group: rows in a database, with the applied index in the same write.

A folder holds `CURRENT`, which names the generation that counts, and the generations: databases.
A snapshot from the leader fills the next one, which counts from the moment that `CURRENT` says so.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Struct

from robustmq._kernel.crc import crc32c
from robustmq.errors import Corrupt
from robustmq.meta.database import Database, Databases, Row, View
from robustmq.raft.message import Snapshot
from robustmq.storage.files import Files, read_small, write_small

OWN: Final = b"\0"
"""Keys that begin so are not the machine's."""
APPLIED: Final = b"\0applied"
_CURRENT: Final = "CURRENT"
_MISSING: Final = object()


class Position(Struct, frozen=True, array_like=True):
    """Up to where the log is applied: the entry's index, and how many commands there were."""

    index: int = 0
    commands: int = 0


class _Current(Struct, frozen=True, array_like=True):
    """The generation that counts, and the snapshot that it began with."""

    generation: int = 0
    snapshot: Snapshot = Snapshot()


_encode: Final = msgspec.msgpack.encode
_positions: Final = msgspec.msgpack.Decoder(Position)
_currents: Final = msgspec.msgpack.Decoder(_Current)


class Staged(Struct):
    """A generation that is being filled, and what it will be."""

    generation: int
    path: str
    database: Database
    snapshot: Snapshot


class GroupStore:
    """The store of one group, as its machine sees it (`machine.Store`) and as its owner does.

    What a command puts is a draft until it is accepted or dropped; what was accepted is seen at
    once and written with the turn, all or none. Raises Corrupt and OSError, which end the process.
    """

    def __init__(self, files: Files, databases: Databases, folder: str) -> None:
        self._files = files
        self._databases = databases
        self._folder = folder
        is_new = not files.listdir(folder)
        files.mkdir(folder)
        self._current = self._read_current()
        self._staged: Staged | None = None
        self._remove_others()
        self._database = databases.open(self._path(self._current.generation))
        if is_new:
            above = folder.rpartition("/")[0]
            for path in (folder, above, above.rpartition("/")[0]):
                files.sync_directory(path)
        self._draft: dict[bytes, bytes | None] = {}
        self._rows: dict[bytes, bytes | None] = {}
        self._sorted: list[bytes] = []
        self._unsorted: list[bytes] = []
        data = self._database.get(APPLIED)
        self.position = Position() if data is None else _positions.decode(data)

    @property
    def installed(self) -> Snapshot:
        """The snapshot that this state began with; index 0: it began empty."""
        return self._current.snapshot

    # ------------------------------------------------------------------ rows

    def get(self, key: bytes) -> bytes | None:
        """Return a row's value; None when there is none."""
        for rows in (self._draft, self._rows):
            value = rows.get(key, _MISSING)
            if value is not _MISSING:
                assert value is None or isinstance(value, bytes)
                return value
        return self._database.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set a row."""
        self._draft[key] = value

    def delete(self, key: bytes) -> None:
        """Remove a row."""
        self._draft[key] = None

    def walk(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows whose keys begin with a prefix, from the key `start` on, ascending."""
        first = max(prefix, start)
        fresh = self._fresh(prefix, first)
        at = 0
        for key, value in self._database.items(first):
            if not key.startswith(prefix):
                break
            while at < len(fresh) and fresh[at][0] < key:
                yield from _present(fresh[at])
                at += 1
            if at < len(fresh) and fresh[at][0] == key:
                yield from _present(fresh[at])
                at += 1
            else:
                yield key, value
        for row in fresh[at:]:
            yield from _present(row)

    # ------------------------------------------------------------------ commands

    def accept(self) -> None:
        """What is in the draft counts."""
        if not self._draft:
            return
        rows, unsorted = self._rows, self._unsorted
        for key, value in self._draft.items():
            if key not in rows:
                unsorted.append(key)
            rows[key] = value
        self._draft.clear()

    def drop(self) -> None:
        """What is in the draft was never put."""
        self._draft.clear()

    def write(self, position: Position) -> None:
        """Write what was accepted, and up to where it is applied, at once."""
        assert not self._draft
        rows: list[Row] = [*self._rows.items(), (APPLIED, _encode(position))]
        self._database.write(rows)
        self.position = position
        self._rows.clear()
        self._sorted.clear()
        self._unsorted.clear()

    @property
    def database(self) -> Database:
        """The database that counts: to be synced by the writer before a log is cut short."""
        return self._database

    def view(self) -> View:
        """Return all rows as they are now; everything accepted has been written."""
        assert not self._rows
        return self._database.view()

    # ------------------------------------------------------------------ generations

    def stage(self, snapshot: Snapshot) -> Staged:
        """Begin to fill the next generation; one that was begun before is given up."""
        self.abandon()
        generation = self._current.generation + 1
        path = self._path(generation)
        self._databases.remove(path)
        self._staged = Staged(generation, path, self._databases.open(path), snapshot)
        return self._staged

    @property
    def staged(self) -> Staged | None:
        """The generation that is being filled."""
        return self._staged

    def abandon(self) -> None:
        """Give up the generation that is being filled, if there is one."""
        staged, self._staged = self._staged, None
        if staged is not None:
            staged.database.close()
            self._databases.remove(staged.path)

    def is_whole(self, staged: Staged) -> bool:
        """Say whether what was filled says of itself that it is that snapshot."""
        data = staged.database.get(APPLIED)
        return data is not None and _positions.decode(data).index == staged.snapshot.index

    def make_current(self, staged: Staged) -> None:
        """By the writer: from now on the staged generation counts, even after a crash."""
        staged.database.sync()
        data = _encode(_Current(staged.generation, staged.snapshot))
        write_small(self._files, f"{self._folder}/{_CURRENT}", _checked(data))
        self._files.sync_directory(self._folder)

    def switch(self, staged: Staged) -> None:
        """Serve the generation that counts now, and remove the old one."""
        self._staged = None
        old, self._database = self._database, staged.database
        old.close()
        self._databases.remove(self._path(self._current.generation))
        self._current = _Current(staged.generation, staged.snapshot)
        for rows in (self._draft, self._rows):
            rows.clear()
        self._sorted.clear()
        self._unsorted.clear()
        data = self._database.get(APPLIED)
        assert data is not None
        self.position = _positions.decode(data)

    def close(self) -> None:
        """Let go; views have been closed."""
        if self._staged is not None:
            # It may be the one that counts already: who opens the store next will know.
            self._staged.database.close()
            self._staged = None
        self._database.close()

    def _path(self, generation: int) -> str:
        return f"{self._folder}/{generation}"

    def _read_current(self) -> _Current:
        data = read_small(self._files, f"{self._folder}/{_CURRENT}")
        if data is None:
            return _Current()
        crc, rest = data[:4], data[4:]
        try:
            if crc == crc32c(rest).to_bytes(4, "little"):
                return _currents.decode(rest)
        except msgspec.DecodeError:
            pass
        raise Corrupt(
            f"{self._folder}/{_CURRENT} is damaged: which state counts is not known; replace the "
            f"node, with an empty data directory"
        )

    def _remove_others(self) -> None:
        """Remove generations that were not finished, or not removed yet."""
        for name in self._files.listdir(self._folder):
            if name.isdecimal() and int(name) != self._current.generation:
                self._databases.remove(f"{self._folder}/{name}")

    def _fresh(self, prefix: bytes, first: bytes) -> list[Row]:
        """Return the rows of this turn in a range, ascending."""
        for key in self._unsorted:
            insort(self._sorted, key)
        self._unsorted.clear()
        found: dict[bytes, bytes | None] = {}
        for place in range(bisect_left(self._sorted, first), len(self._sorted)):
            key = self._sorted[place]
            if not key.startswith(prefix):
                break
            found[key] = self._rows[key]
        drafted = {
            key: value
            for key, value in self._draft.items()
            if key >= first and key.startswith(prefix)
        }
        if not drafted:
            return [*found.items()]
        return sorted((found | drafted).items(), key=lambda row: row[0])


def _present(row: Row) -> Iterator[tuple[bytes, bytes]]:
    """Yield a row unless it says that there is none."""
    key, value = row
    if value is not None:
        yield key, value


def _checked(data: bytes) -> bytes:
    return crc32c(data).to_bytes(4, "little") + data
