"""How Kafka's messages are written down: one Struct per message, its fields with their wire types.

A field's annotation is its type on the wire, and the versions in which it is there:

- `bool`, `str`, `bytes`, `list[...]` and other messages are themselves; numbers say their size
  (`Int32`); `... | None` may be null, `nullable(n)` from version n on;
- `since(n)`, `until(n)`, `versions(n, m)`: it is only in these versions;
- `tagged(k)`: it is the tagged field k (KIP-482), left out where it has its default.

Where a version does not have a field it has its default, and is not written. `kafka.compiler` turns
a Struct and a version into functions.
"""

from collections.abc import Sequence
from typing import Annotated, Final, NamedTuple

import msgspec


class Number(NamedTuple):
    """A number of fixed size; `code` is that of the `struct` module."""

    code: str


class Plain(NamedTuple):
    """Something else that Python's type does not tell: "uuid", "records", "batches"."""

    kind: str


class Versions(NamedTuple):
    """The field is in the versions from `first` to `last`."""

    first: int
    last: int


class Nullable(NamedTuple):
    """The field may be null from version `first` on."""

    first: int


class Tagged(NamedTuple):
    """The field is the tagged field `tag`."""

    tag: int


LAST: Final = 32_767
"""Beyond all versions."""

NO_ID: Final = bytes(16)
"""The id of no topic."""

Int8 = Annotated[int, Number("b")]
Int16 = Annotated[int, Number("h")]
Uint16 = Annotated[int, Number("H")]
Int32 = Annotated[int, Number("i")]
Uint32 = Annotated[int, Number("I")]
Int64 = Annotated[int, Number("q")]
Float64 = Annotated[float, Number("d")]
Uuid = Annotated[bytes, Plain("uuid")]
"""16 bytes."""
Records = Annotated[bytes | None, Plain("records")]
"""Record batches, one behind another."""
Batches = Annotated[bytes | Sequence[bytes] | None, Plain("batches")]
"""Record batches in one piece (so they are read), or in several, which are not copied."""


def since(version: int) -> Versions:
    """Say that a field is there from a version on."""
    return Versions(version, LAST)


def until(version: int) -> Versions:
    """Say that a field is there up to and with a version."""
    return Versions(0, version)


def versions(first: int, last: int) -> Versions:
    """Say that a field is there from version `first` up to and with `last`."""
    return Versions(first, last)


def nullable(version: int) -> Nullable:
    """Say that a field may be null from a version on, and not before."""
    return Nullable(version)


def tagged(tag: int) -> Tagged:
    """Say that a field is the tagged field `tag`, in all versions that have it."""
    return Tagged(tag)


class Message(msgspec.Struct):
    """A message, or a part of one; every field has a default."""
