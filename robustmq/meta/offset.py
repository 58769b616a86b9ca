"""The machine of an `offset` group: what coordinators keep, and how far groups have read.

Rows: `p` key -> Page. `o` key NUL place -> Offset. `n` -> the next producer id.

The version of a page is the index at which it was written, so no version ever comes again, and of
two writers who know the same version the second one's is wrong.
"""

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from robustmq.meta import commands
from robustmq.meta.machine import Store

_PAGE: Final = b"p"
_OFFSET: Final = b"o"
_NEXT_ID: Final = b"n"

CONFLICT: Final = -1
"""In the place of a version: the page has another one than was expected."""

PRODUCER_IDS: Final = 1 << 61
"""Ids that producers are given lie below; what the cores themselves append has others."""


class Offset(Struct, array_like=True, frozen=True, gc=False):
    """How far a group has read: the next offset, what it noted, when (Unix ms), in which epoch."""

    offset: int
    note: str = ""
    at_ms: int = 0
    leader_epoch: int = -1


class Page(Struct, array_like=True, frozen=True, gc=False):
    """What a coordinator keeps under a key, as of a version; 0: there is nothing."""

    version: int = 0
    value: bytes = b""


class Write(Struct, tag="write", array_like=True, frozen=True):
    """Write a page (None: remove it) that has a version; done: its new version."""

    key: str
    version: int
    value: bytes | None


class Commit(Struct, tag="commit", array_like=True, frozen=True):
    """Set offsets by place (None: remove one) while the page of a key has a version; done: it."""

    key: str
    version: int
    offsets: dict[str, Offset | None]


class Erase(Struct, tag="erase", array_like=True, frozen=True):
    """Remove a page that has a version, and all offsets under its key; done: 0."""

    key: str
    version: int


Deed: TypeAlias = Write | Commit | Erase


class Deeds(Struct, tag="deeds", array_like=True, frozen=True):
    """All that was collected, in order; the outcome says of each the version, or CONFLICT."""

    deeds: list[Deed]


class Draw(Struct, tag="draw", array_like=True, frozen=True):
    """Take `count` producer ids that nobody was ever given; the outcome is the first."""

    count: int


Command: TypeAlias = Deeds | Draw

_encoder: Final = msgspec.msgpack.Encoder()
_commands: Final = msgspec.msgpack.Decoder(Command)
_offsets: Final = msgspec.msgpack.Decoder(Offset)
_pages: Final = msgspec.msgpack.Decoder(Page)
_outcomes: Final = msgspec.msgpack.Decoder(list[int])


def encode(command: Command) -> bytes:
    """Return a command as bytes."""
    return _encoder.encode(command)


def outcomes(value: bytes) -> list[int]:
    """Read the value of an outcome: of deeds one number each, of a draw the first id."""
    return _outcomes.decode(value)


class Offsets:
    """Folds deeds; of several on one page in a command each sees what those before it did."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def reload(self) -> None:
        """See `Machine`: nothing is kept beside the store."""

    def apply(self, index: int, command: bytes) -> bytes:
        """See `Machine`."""
        try:
            wanted: Command = _commands.decode(command)
        except msgspec.MsgspecError:
            return commands.not_understood()
        if isinstance(wanted, Draw):
            found = [self._draw(wanted.count)]
        else:
            found = [self._do(index, each) for each in wanted.deeds]
        return commands.done(_encoder.encode(found))

    def page(self, key: str) -> Page:
        """Return the page of a key; version 0 when there is none."""
        data = self._store.get(_PAGE + key.encode())
        return Page() if data is None else _pages.decode(data)

    def keys(self, prefix: str, start: str) -> Iterator[str]:
        """Yield the keys of pages that begin with `prefix`, from `start` on, ascending."""
        first = _PAGE + start.encode() if start else b""
        for key, _ in self._store.walk(_PAGE + prefix.encode(), first):
            yield key[len(_PAGE) :].decode()

    def offsets(self, key: str, start: str = "") -> Iterator[tuple[str, Offset]]:
        """Yield the offsets under a key by place, from the place `start` on, ascending."""
        prefix = _under(key)
        for row, data in self._store.walk(prefix, prefix + start.encode()):
            yield row[len(prefix) :].decode(), _offsets.decode(data)

    def _draw(self, count: int) -> int:
        data = self._store.get(_NEXT_ID)
        first = 0 if data is None else int.from_bytes(data, "big")
        following = min(first + max(count, 0), PRODUCER_IDS)
        self._store.put(_NEXT_ID, following.to_bytes(8, "big"))
        return first

    def _do(self, index: int, deed: Deed) -> int:
        if deed.version != self.page(deed.key).version:
            return CONFLICT
        key = _PAGE + deed.key.encode()
        match deed:
            case Write(value=None):
                self._store.delete(key)
                return 0
            case Write(value=bytes() as value):
                self._store.put(key, _encoder.encode(Page(index, value)))
                return index
            case Commit():
                self._commit(deed.key, deed.offsets)
                return deed.version
        self._store.delete(key)
        for row in [row for row, _ in self._store.walk(_under(deed.key))]:
            self._store.delete(row)
        return 0

    def _commit(self, key: str, offsets: Mapping[str, Offset | None]) -> None:
        prefix = _under(key)
        for place, offset in offsets.items():
            if offset is None:
                self._store.delete(prefix + place.encode())
            else:
                self._store.put(prefix + place.encode(), _encoder.encode(offset))


def _under(key: str) -> bytes:
    return b"%c%b\0" % (_OFFSET, key.encode())
