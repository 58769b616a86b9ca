"""The file layer of the segment engine: the system calls that it makes, and no others.

Tests hand in a layer of their own that tears, forgets and fails.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

IOV_MAX: Final = 1_024
"""Buffers of one gathered write (Linux UIO_MAXIOV)."""
_NO_ALLOCATION: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


class Files(Protocol):
    """Files and directories by path and descriptor; every call may raise OSError."""

    def open(self, path: str, write: bool, create: bool = False) -> int:
        """Open a file for reading, or for reading and writing."""

    def close(self, fd: int) -> None:
        """Close a descriptor."""

    def size(self, fd: int) -> int:
        """Bytes of the file."""

    def pread(self, fd: int, size: int, at: int) -> bytes:
        """Read up to `size` bytes at `at`; fewer only at the end of the file."""

    def in_memory(self, fd: int, size: int, at: int) -> bool:
        """Say whether reading would not wait for the disk; if it would, begin to fetch."""

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], at: int) -> None:
        """Write all the buffers at `at`."""

    def allocate(self, fd: int, at: int, size: int) -> None:
        """Take disk for `size` bytes at `at`, which read as zeros; nothing where impossible."""

    def ftruncate(self, fd: int, size: int) -> None:
        """Set the size of the file."""

    def fdatasync(self, fd: int) -> None:
        """Wait until what was written is on the disk."""

    def sync_directory(self, path: str) -> None:
        """Wait until the entries of a directory are on the disk."""

    def rename(self, source: str, target: str) -> None:
        """Give a file a new name, which replaces what had it."""

    def unlink(self, path: str) -> None:
        """Remove a file; it may be missing."""

    def mkdir(self, path: str) -> None:
        """Make a directory; it may exist."""

    def rmdir(self, path: str) -> None:
        """Remove an empty directory; it may be missing."""

    def listdir(self, path: str) -> list[str]:
        """Names in a directory; none when it is missing."""


class SystemFiles:
    """The files of the operating system."""

    def open(self, path: str, write: bool, create: bool = False) -> int:
        """Open a file for reading, or for reading and writing."""
        flags = os.O_RDWR if write else os.O_RDONLY
        return os.open(path, flags | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o640)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def size(self, fd: int) -> int:
        """Bytes of the file."""
        return os.fstat(fd).st_size

    def pread(self, fd: int, size: int, at: int) -> bytes:
        """Read up to `size` bytes at `at`; fewer only at the end of the file."""
        data = os.pread(fd, size, at)
        while len(data) < size:
            more = os.pread(fd, size - len(data), at + len(data))
            if not more:
                break
            data += more
        return data

    def in_memory(self, fd: int, size: int, at: int) -> bool:
        """Say whether reading would not wait for the disk; if it would, begin to fetch."""
        try:
            # The last byte stands for all: read-ahead fills the page cache in order.
            os.preadv(fd, [bytearray(1)], at + size - 1, os.RWF_NOWAIT)
            os.preadv(fd, [bytearray(1)], at, os.RWF_NOWAIT)
        except BlockingIOError:
            os.posix_fadvise(fd, at, size, os.POSIX_FADV_WILLNEED)
            return False
        except OSError as error:
            if error.errno not in _NO_ALLOCATION:
                raise
        return True

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], at: int) -> None:
        """Write all the buffers at `at`."""
        for first in range(0, len(buffers), IOV_MAX):
            part = buffers[first : first + IOV_MAX]
            size = sum(map(len, part))
            written = os.pwritev(fd, part, at)
            if written < size:
                rest = memoryview(b"".join(part))
                while written < size:
                    written += os.pwrite(fd, rest[written:], at + written)
            at += size

    def allocate(self, fd: int, at: int, size: int) -> None:
        """Take disk for `size` bytes at `at`, which read as zeros; nothing where impossible."""
        try:
            os.posix_fallocate(fd, at, size)
        except OSError as error:
            if error.errno not in _NO_ALLOCATION:
                raise

    def ftruncate(self, fd: int, size: int) -> None:
        """Set the size of the file."""
        os.ftruncate(fd, size)

    def fdatasync(self, fd: int) -> None:
        """Wait until what was written is on the disk."""
        os.fdatasync(fd)

    def sync_directory(self, path: str) -> None:
        """Wait until the entries of a directory are on the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, source: str, target: str) -> None:
        """Give a file a new name, which replaces what had it."""
        Path(source).replace(target)

    def unlink(self, path: str) -> None:
        """Remove a file; it may be missing."""
        Path(path).unlink(missing_ok=True)

    def mkdir(self, path: str) -> None:
        """Make a directory; it may exist."""
        Path(path).mkdir(mode=0o750, parents=True, exist_ok=True)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory; it may be missing."""
        try:
            Path(path).rmdir()
        except FileNotFoundError:
            return

    def listdir(self, path: str) -> list[str]:
        """Names in a directory; none when it is missing."""
        try:
            return [entry.name for entry in Path(path).iterdir()]
        except FileNotFoundError:
            return []


def write_small(files: Files, path: str, data: bytes) -> None:
    """Replace a small file so that a crash leaves the old one or the new one."""
    draft = path + ".new"
    fd = files.open(draft, write=True, create=True)
    try:
        files.ftruncate(fd, 0)
        files.pwritev(fd, [data], 0)
        files.fdatasync(fd)
    finally:
        files.close(fd)
    files.rename(draft, path)


def read_small(files: Files, path: str) -> bytes | None:
    """Return the bytes of a file, None when it is missing."""
    try:
        fd = files.open(path, write=False)
    except FileNotFoundError:
        return None
    try:
        return files.pread(fd, files.size(fd), 0)
    finally:
        files.close(fd)
