"""The database below the RocksDB engine: rocksdict, and all that has to be known about it.

One database per core, opened after the fork. Nothing here syncs on the loop's thread: `write` and
every read hold the interpreter's lock, only `sync` releases it. Iterators get no bounds, which
rocksdict keeps no hold of; whoever walks compares keys. No iterator or handle may outlive `close`.
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias, cast

from rocksdict import (
    BlockBasedOptions,
    Cache,
    ColumnFamily,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    RdictIter,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from robustmq.errors import Corrupt

Operation: TypeAlias = tuple[str, bytes, bytes | None]
"""A family, a key, and its value, or None to delete it."""
Row: TypeAlias = tuple[bytes, bytes | None]
"""The same in the family of the rows."""

DATA: Final = "default"
META: Final = "meta"
INDEX: Final = "index"
QUARANTINE: Final = "quarantine"
ROWS: Final = "rows"
FAMILIES: Final = (DATA, META, INDEX, QUARANTINE, ROWS)
_SPARE_BYTES: Final = 1 << 20
"""Room that must be left when a database is opened again on a disk that was full."""


class Stalled(Exception):
    """The database wants to write its tables out before it takes more."""


class Erase:
    """The deletion of a family's keys from `first` on and below `stop`."""

    __slots__ = ("family", "first", "stop")

    def __init__(self, family: str, first: bytes, stop: bytes) -> None:
        self.family = family
        self.first = first
        self.stop = stop


def as_os_error(error: Exception) -> OSError:
    """Return what RocksDB says as the error of the operating system that it stands for."""
    text = str(error)
    number = errno.EIO
    for each in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        if os.strerror(each) in text:
            number = each
    return OSError(number, text)


class RocksdbStore:
    """A database with the families of the engine. Keys and values are bytes."""

    def __init__(
        self,
        path: str,
        memory_bytes: int,
        wal_bytes: int,
        families: Sequence[str] = FAMILIES,
        recovery: DBRecoveryMode | None = None,
    ) -> None:
        self._path = path
        self._names = families
        # What a damaged part of the log held is missed and reported by the engine, the rest kept.
        self._recovery = recovery or DBRecoveryMode.skip_any_corrupted_record()
        self._memory_bytes = memory_bytes
        self._wal_bytes = wal_bytes
        self._cache = Cache(memory_bytes // 2)
        self._buffers = WriteBufferManager(memory_bytes // 2, allow_stall=False)
        self._patient, self._impatient = WriteOptions(), WriteOptions()
        self._impatient.no_slowdown = True
        self._database: Rdict | None = None
        self._families: dict[str, Rdict] = {}
        self._handles: dict[str, ColumnFamily] = {}
        self._open()

    def _options(self) -> Options:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.create_missing_column_families(True)
        options.set_write_buffer_manager(self._buffers)
        options.set_write_buffer_size(max(self._memory_bytes // 4, 1 << 20))
        options.set_max_total_wal_size(self._wal_bytes)
        options.set_compression_type(DBCompressionType.lz4())
        options.set_wal_recovery_mode(self._recovery)
        options.set_keep_log_file_num(4)
        options.set_max_log_file_size(1 << 20)
        table = BlockBasedOptions()
        table.set_block_cache(self._cache)
        options.set_block_based_table_factory(table)
        return options

    def _open(self) -> None:
        families = {name: self._options() for name in self._names if name != DATA}
        try:
            self._database = Rdict(self._path, self._options(), column_families=families)
        except Exception as error:
            raise as_os_error(error) from error
        for name in self._names:
            self._handles[name] = self._database.get_column_family_handle(name)
            self._families[name] = self._database.get_column_family(name)

    def reopen(self) -> None:
        """Close and open again, which is how RocksDB gets over a write that failed.

        What was written is read from its log again. Raises OSError; until it succeeds nothing
        can be read.
        """
        self.close()
        self._open()

    def close(self) -> None:
        """Let go, also after errors, which say again what a write has said before."""
        self._families.clear()
        self._handles.clear()
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(Exception):
                database.close()

    def has_room(self, size: int) -> bool:
        """Say whether the disk has room for `size` bytes and for what opening writes."""
        probe = Path(self._path) / "probe"
        try:
            # The database may be removing a log meanwhile; a full disk may not even take a name.
            logs = sum(each.stat().st_size for each in Path(self._path).glob("*.log"))
            fd = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError:
            return False
        try:
            os.posix_fallocate(fd, 0, logs + size + _SPARE_BYTES)
        except OSError as error:
            return error.errno in {errno.EOPNOTSUPP, errno.EINVAL}
        else:
            return True
        finally:
            os.close(fd)
            with contextlib.suppress(OSError):
                probe.unlink()

    def write(
        self,
        operations: list[Operation | Erase],
        wait: bool = False,
        rows: Sequence[Row | Erase] = (),
    ) -> None:
        """Apply all or none, in order, without a sync. Raises Stalled unless `wait`; OSError."""
        database = self._live()
        batch = WriteBatch(raw_mode=True)
        handles = self._handles
        for operation in operations:
            if isinstance(operation, Erase):
                batch.delete_range(operation.first, operation.stop, handles[operation.family])
                continue
            family, key, value = operation
            if value is None:
                batch.delete(key, handles[family])
            else:
                batch.put(key, value, handles[family])
        if rows:
            _add_rows(batch, rows, handles[ROWS])
        try:
            database.write(batch, self._patient if wait else self._impatient)
        except Exception as error:
            if "stall" in str(error).lower():
                raise Stalled from error
            raise as_os_error(error) from error

    def sync(self) -> None:
        """Wait until everything written is on the disk. For a thread that may wait."""
        try:
            self._live().flush_wal(True)
        except Exception as error:
            raise as_os_error(error) from error

    def get(self, family: str, key: bytes) -> bytes | None:
        """Return a value; None when there is none."""
        value: bytes | None = self._family(family).get(key)
        return value

    def walk(self, family: str) -> RdictIter:
        """Return an iterator; it must not be kept."""
        return self._family(family).iter()

    def items(self, family: str, first: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Return the rows from `first` on, at half the cost of `walk`; it must not be kept.

        It ends at the end of the family, or at damage: see `check_end`.
        """
        return cast("Iterator[tuple[bytes, bytes]]", self._family(family).items(from_key=first))

    def check_end(self, family: str, last: bytes) -> None:
        """Raise when what ends `items` behind the key `last` is damage."""
        walk = self.walk(family)
        walk.seek(last)
        if walk.valid() and walk.key() == last:
            walk.next()
        if not walk.valid():
            walk.status()

    def _family(self, name: str) -> Rdict:
        family = self._families.get(name)
        if family is None:
            raise Corrupt(f"{self._path} could not be opened again")
        return family

    def _live(self) -> Rdict:
        if self._database is None:
            raise OSError(errno.EIO, "the database is not open")
        return self._database


def _add_rows(batch: WriteBatch, rows: Sequence[Row | Erase], family: ColumnFamily) -> None:
    """Put, delete and erase in order: the cost of a turn's rows beside the database's own."""
    put, delete = batch.put, batch.delete
    for row in rows:
        if isinstance(row, Erase):
            batch.delete_range(row.first, row.stop, family)
            continue
        key, value = row
        if value is None:
            delete(key, family)
        else:
            put(key, value, family)
