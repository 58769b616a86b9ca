"""A disk in memory that forgets, tears, flips and fills up, and a writer that waits to be told."""

import errno
import os
import random
from collections.abc import Sequence

from robustmq.storage.writer import Work

SECTOR = 64
"""Bytes that are written wholly or not at all; small, so that batches are torn."""


class Inode:
    """A file: what is read now, what would survive a power cut, and what lies between."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = bytearray()
        self.changes: list[tuple[int, bytes | None]] = []

    def write(self, at: int, data: bytes) -> None:
        self.changes.append((at, data))
        put(self.data, at, data)

    def resize(self, size: int) -> None:
        self.changes.append((size, None))
        fit(self.data, size)

    def sync(self) -> None:
        for at, data in self.changes:
            if data is None:
                fit(self.durable, at)
            else:
                put(self.durable, at, data)
        self.changes.clear()

    def lose_power(self, rng: random.Random) -> None:
        """Any part of what was not synced may be missing, sector by sector."""
        for at, data in self.changes:
            fate = rng.choice(("lost", "torn", "kept"))
            if fate == "lost":
                continue
            if data is None:
                fit(self.durable, at)
            elif fate == "kept":
                put(self.durable, at, data)
            else:
                for first in range(0, len(data), SECTOR):
                    if rng.random() < 0.5:
                        put(self.durable, at + first, data[first : first + SECTOR])
        self.changes.clear()
        self.data = bytearray(self.durable)


def put(target: bytearray, at: int, data: bytes) -> None:
    if len(target) < at:
        target.extend(bytes(at - len(target)))
    target[at : at + len(data)] = data


def fit(target: bytearray, size: int) -> None:
    if size <= len(target):
        del target[size:]
    else:
        target.extend(bytes(size - len(target)))


class Disk:
    """A `Files`. Names reach the disk in the order in which they were given, per directory.

    `room` is how many bytes its files may have in all; `faults` what a call raises, by its name.
    """

    def __init__(self) -> None:
        self.names: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}
        self.renamings: list[tuple[str, Inode | None]] = []
        self.open_files: dict[int, Inode] = {}
        self.next_fd = 3
        self.is_cold = False
        self.room: int | None = None
        self.faults: dict[str, int] = {}
        self.was_faulty = False
        # After a failed sync a kernel may take the pages for clean, and never store them.
        self.forgets = False
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.faults:
            raise OSError(self.faults[name], os.strerror(self.faults[name]))

    def _name(self, path: str, inode: Inode | None) -> None:
        self.renamings.append((path, inode))
        if inode is None:
            del self.names[path]
        else:
            self.names[path] = inode

    def _grow(self, inode: Inode, size: int) -> None:
        """Raise ENOSPC when the file cannot have `size` bytes."""
        if self.room is None or size <= len(inode.data):
            return
        used = sum(len(each.data) for each in {*self.names.values()})
        if used + size - len(inode.data) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open(self, path: str, write: bool, create: bool = False) -> int:
        self._call("open")
        if path not in self.names:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "missing", path)
            self._name(path, Inode())
        self.next_fd += 1
        self.open_files[self.next_fd] = self.names[path]
        return self.next_fd

    def close(self, fd: int) -> None:
        del self.open_files[fd]

    def size(self, fd: int) -> int:
        return len(self.open_files[fd].data)

    def pread(self, fd: int, size: int, at: int) -> bytes:
        self._call("pread")
        return bytes(self.open_files[fd].data[at : at + size])

    def in_memory(self, fd: int, size: int, at: int) -> bool:
        assert 0 <= at < at + size <= len(self.open_files[fd].data)
        return not self.is_cold

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], at: int) -> None:
        self._call("pwritev")
        inode = self.open_files[fd]
        for data in map(bytes, buffers):
            try:
                self._grow(inode, at + len(data))
            except OSError:
                # As a real one: what fits is written.
                inode.write(at, data[: len(data) // 2])
                raise
            inode.write(at, data)
            at += len(data)

    def allocate(self, fd: int, at: int, size: int) -> None:
        self._call("allocate")
        inode = self.open_files[fd]
        self._grow(inode, at + size)
        if at + size > len(inode.data):
            inode.resize(at + size)

    def ftruncate(self, fd: int, size: int) -> None:
        self._call("ftruncate")
        self.open_files[fd].resize(size)

    def fdatasync(self, fd: int) -> None:
        try:
            self._call("fdatasync")
        except OSError:
            if self.forgets:
                self.open_files[fd].changes.clear()
            raise
        self.open_files[fd].sync()

    def sync_directory(self, path: str) -> None:
        self._call("sync_directory")
        kept = []
        for name, inode in self.renamings:
            if name.rpartition("/")[0] == path:
                self._settle(name, inode)
            else:
                kept.append((name, inode))
        self.renamings = kept

    def _settle(self, path: str, inode: Inode | None) -> None:
        if inode is None:
            self.durable_names.pop(path, None)
        else:
            self.durable_names[path] = inode

    def rename(self, source: str, target: str) -> None:
        self._call("rename")
        inode = self.names[source]
        self._name(source, None)
        self._name(target, inode)

    def unlink(self, path: str) -> None:
        self._call("unlink")
        if path in self.names:
            self._name(path, None)

    def mkdir(self, path: str) -> None:
        self._call("mkdir")

    def rmdir(self, path: str) -> None:
        self._call("rmdir")
        assert not self.listdir(path)

    def listdir(self, path: str) -> list[str]:
        inner = (name[len(path) + 1 :] for name in self.names if name.startswith(path + "/"))
        return sorted({name.split("/")[0] for name in inner})

    def kill(self) -> None:
        """The process dies: descriptors are gone, every write stays."""
        self.open_files.clear()

    def lose_power(self, rng: random.Random) -> None:
        """The machine dies: of what was not synced, anything may be missing or torn."""
        self.open_files.clear()
        for path, inode in self.renamings[: rng.randint(0, len(self.renamings))]:
            self._settle(path, inode)
        self.renamings.clear()
        self.names = dict(self.durable_names)
        for inode in {*self.names.values()}:
            inode.lose_power(rng)

    def flip(self, path: str, bit: int) -> None:
        """Invert a bit of a file, on the disk and in memory."""
        inode = self.names[path]
        for data in (inode.data, inode.durable):
            if bit // 8 < len(data):
                data[bit // 8] ^= 1 << bit % 8


class HandWriter:
    """A `Writer` without a thread: its work is done when `run` is called, at its own time."""

    def __init__(self) -> None:
        self.work: Work | None = None
        self.asked = False
        self.rings = 0
        self.time = 0.0

    def start(self, work: Work) -> None:
        self.work = work

    def wake(self) -> None:
        self.asked = True

    def ring(self) -> None:
        self.rings += 1

    def fileno(self) -> int:
        return -1

    def hush(self) -> None:
        self.rings = 0

    def now(self) -> float:
        return self.time

    def stop(self) -> None:
        if self.work is not None:
            self.run()

    def run(self) -> float | None:
        assert self.work is not None
        self.asked = False
        return self.work()
