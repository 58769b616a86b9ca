"""What a crash or a bad disk has left of RocksDB's write-ahead logs, read before RocksDB does.

RocksDB leaves out what it cannot read of them and says nothing. The format is that of LevelDB:
blocks of 32 KiB; in them fragments of a masked CRC-32C (4 bytes), a length (2), a type (1), in a
log that is written over an older one the low half of its number (4), and the bytes. A record is
one fragment (FULL), or FIRST, some MIDDLE, LAST. The CRC is over everything from the type on.
"""

import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import Struct, field

from robustmq._kernel.crc import crc32c

BLOCK: Final = 32_768
QUARANTINE: Final = "quarantine"
"""The directory, beside that of the database, to which damaged logs are copied."""
_HEADER: Final = struct.Struct("<IHB")
_NUMBER: Final = struct.Struct("<I")
_MASK: Final = 0xFFFFFFFF
_MASK_DELTA: Final = 0xA282EAD8
_FULL: Final = 1
_FIRST: Final = 2
_MIDDLE: Final = 3
_LAST: Final = 4
_RECYCLED: Final = frozenset({5, 6, 7, 8, 11, 131})
"""Types whose header has the log's number: the four, time stamp sizes, the log before."""
_OLDER: Final = frozenset({5, 6, 7, 8})
_OTHER: Final = frozenset({9, 10, 130})
"""Types that say something about the log: compression, time stamp sizes, the log before."""
_IGNORABLE: Final = 0x80
_BLOCKS_AT_ONCE: Final = 32


class Damage(NamedTuple):
    """Bytes `start` to `stop` of a file that hold no record, and why.

    `is_torn`: nothing was written behind it, so it was being written when the end came.
    """

    file: str
    start: int
    stop: int
    reason: str
    is_torn: bool = False


class WalReport(Struct):
    """What was read: files, whole records and bytes, and what is wrong with them."""

    files: int = 0
    records: int = 0
    bytes: int = 0
    damage: list[Damage] = field(default_factory=list)


class _LogFile:
    """One log, read block by block."""

    def __init__(self, path: Path) -> None:
        self.damage: list[Damage] = []
        self.records = 0
        self.passed = 0
        """How much of the damage has something intact behind it in this file."""
        self._name = path.name
        self._number = int(path.stem) & _MASK
        self._begun: int | None = None
        self._zeros: int | None = None

    def read(self, block: memoryview, at: int) -> bool:
        """Read a block at an offset; False when the rest of the file is from an older log."""
        place, end = 0, len(block)
        unpack, checksum, size = _HEADER.unpack_from, crc32c, _HEADER.size
        while end - place >= size:
            masked, length, kind = unpack(block, place)
            if not (kind or length):
                self._zeros = at + place if self._zeros is None else self._zeros
                return True
            stop = place + size + length + (_NUMBER.size if kind in _RECYCLED else 0)
            if stop > end:
                reason = "goes beyond its block" if end == BLOCK else "has no end"
                self._damaged(at + place, at + end, reason)
                return True
            if masked != _masked(checksum(block[place + 6 : stop])):
                self._damaged(at + place, at + end, "has a wrong checksum")
                # Of such a block RocksDB reads no more; what else is in it shows what it was.
                if _is_intact(block[stop:]):
                    self.passed = len(self.damage)
                return True
            if kind in _RECYCLED and _NUMBER.unpack_from(block, place + size)[0] != self._number:
                return False
            self._take(kind - 4 if kind in _OLDER else kind, at + place, at + stop)
            place = stop
        if place < end < BLOCK:
            self._damaged(at + place, at + end, "has no whole header")
        return True

    def end(self, size: int) -> None:
        """The file is at its end."""
        if self._begun is not None:
            self._damaged(self._begun, size, "has no last fragment")

    @property
    def is_empty(self) -> bool:
        """Whether there is no record, nor the beginning of one."""
        return not self.records

    def _take(self, kind: int, start: int, stop: int) -> None:
        """Follow how fragments make records."""
        if kind == _FULL and self._begun is None and self._zeros is None:
            self.records += 1
            self.passed = len(self.damage)
            return
        if self._zeros is not None:
            self._damaged(self._zeros, start, "is nothing but zeros")
            self._zeros = None
        if kind in {_FULL, _FIRST} and self._begun is not None:
            self._damaged(self._begun, start, "has no last fragment")
        if kind in {_MIDDLE, _LAST} and self._begun is None:
            self._damaged(start, stop, "has no first fragment")
        elif kind in {_FULL, _LAST}:
            self.records += 1
        elif not (kind in {_FIRST, _MIDDLE} or kind in _RECYCLED | _OTHER or kind & _IGNORABLE):
            self._damaged(start, stop, f"has the unknown type {kind}")
        if kind == _FIRST:
            self._begun = start
        elif kind in {_FULL, _LAST}:
            self._begun = None
        self.passed = len(self.damage)

    def _damaged(self, start: int, stop: int, reason: str) -> None:
        if self._begun is not None:
            start, self._begun = self._begun, None
        known = self.damage[-1] if self.damage else None
        if known is not None and start <= known.stop:
            # The other fragments of a record that is lost already.
            self.damage[-1] = known._replace(stop=stop)
        else:
            self.damage.append(Damage(self._name, start, stop, reason))


def check(directory: str, progress: Callable[[int], None] | None = None) -> WalReport:
    """Read all logs of the database in `directory`, which nobody has open. Raises OSError.

    `progress(bytes so far)` is called every MiB.
    """
    report = WalReport()
    logs: list[_LogFile] = []
    for path in _logs(directory):
        log = _LogFile(path)
        logs.append(log)
        at = 0
        for chunk in _chunks(path):
            view = memoryview(chunk)
            blocks = range(0, len(chunk), BLOCK)
            is_ours = all(log.read(view[place : place + BLOCK], at + place) for place in blocks)
            at += len(chunk)
            report.bytes += len(chunk)
            if progress is not None:
                progress(report.bytes)
            if not is_ours:
                break
        log.end(at)
        report.files += 1
        report.records += log.records
    last = max((place for place, log in enumerate(logs) if not log.is_empty), default=0)
    for place, log in enumerate(logs):
        for number, damage in enumerate(log.damage):
            is_torn = place >= last and number >= log.passed
            report.damage.append(damage._replace(is_torn=is_torn))
    return report


def quarantine(directory: str, damage: Damage, target: str) -> str:
    """Keep a damaged log of the database in `directory` for whoever looks; returns where.

    It costs no room where links can be made: RocksDB never writes to an old log. Raises OSError.
    """
    kept = Path(target) / damage.file
    kept.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    if not kept.exists():
        source = Path(directory) / damage.file
        try:
            os.link(source, kept)
        except OSError:
            shutil.copyfile(source, kept)
    return str(kept)


def _logs(directory: str) -> list[Path]:
    found = [path for path in Path(directory).glob("*.log") if path.stem.isdecimal()]
    return sorted(found, key=lambda path: int(path.stem))


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(BLOCK * _BLOCKS_AT_ONCE):
            yield chunk


def _masked(crc: int) -> int:
    """The checksum as it is written: data that holds checksums is covered better so."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & _MASK


def _is_intact(rest: memoryview) -> bool:
    """Say whether a fragment begins here."""
    if len(rest) < _HEADER.size:
        return False
    masked, length, kind = _HEADER.unpack_from(rest)
    stop = _HEADER.size + (_NUMBER.size if kind in _RECYCLED else 0) + length
    return bool(kind) and stop <= len(rest) and masked == _masked(crc32c(rest[6:stop]))
