"""How Kafka's messages are written down: one Struct per message, its fields with their wire types.

A field's annotation is its type on the wire, and the versions in which it is there:

- `bool`, `str`, `bytes`, `list[...]` and other messages are themselves; numbers say their size
  (`Int32`); `... | None` may be null, `nullable(n)` from version n on;
- `since(n)`, `until(n)`, `versions(n, m)`: it is only in these versions;
- `tagged(k)`: it is the tagged field k (KIP-482), left out where it has its default; that of a
  message is None.

Where a version does not have a field it has its default, and is not written. `kafka.decoder` and
`kafka.encoder` turn a Struct and a version into functions, by way of its `Field`s.
"""

import types
from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec


class Shape(NamedTuple):
    """What a value looks like on the wire.

    `kind` is "fixed" (its size is that of `code` in the `struct` module), "str", "bytes",
    "batches" (bytes in pieces), "list" (of `item`), or "message".
    """

    kind: str
    code: str = ""
    item: "Shape | None" = None
    message: "type[Message] | None" = None


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

Int8 = Annotated[int, Shape("fixed", "b")]
Int16 = Annotated[int, Shape("fixed", "h")]
Uint16 = Annotated[int, Shape("fixed", "H")]
Int32 = Annotated[int, Shape("fixed", "i")]
Uint32 = Annotated[int, Shape("fixed", "I")]
Int64 = Annotated[int, Shape("fixed", "q")]
Float64 = Annotated[float, Shape("fixed", "d")]
Uuid = Annotated[bytes, Shape("fixed", "16s")]
"""16 bytes."""
Records = Annotated[bytes | None, Shape("bytes")]
"""Record batches, one behind another."""
Batches = Annotated[bytes | Sequence[bytes] | None, Shape("batches")]
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


class Field(NamedTuple):
    """A field of a message in one version.

    `is_present`: this version has it. `is_nullable`: it may be null in this version;
    `can_be_none`: in some version. `tag`: -1, or that of a tagged field. `default` is its source.
    """

    name: str
    shape: Shape
    is_present: bool
    is_nullable: bool
    can_be_none: bool
    tag: int
    default: str


def fields_of(message: type[Message], version: int) -> list[Field]:
    """Return all fields of a message in their order on the wire, as they are in a version."""
    hints = get_type_hints(message, include_extras=True)
    return [
        _field(info.name, hints[info.name], _default(info), version)
        for info in msgspec.structs.fields(message)
    ]


def _field(name: str, hint: Any, default: str, version: int) -> Field:  # noqa: ANN401
    shape, can_be_none, marks = _parse(hint)
    is_present, nullable_from, tag = True, 0, -1
    for mark in marks:
        if isinstance(mark, Versions):
            is_present = mark.first <= version <= mark.last
        elif isinstance(mark, Nullable):
            nullable_from = mark.first
        elif isinstance(mark, Tagged):
            tag = mark.tag
    is_message = tag >= 0 and shape.kind == "message"
    is_nullable = can_be_none and version >= nullable_from and not is_message
    return Field(name, shape, is_present, is_nullable, can_be_none, tag, default)


def _default(info: msgspec.structs.FieldInfo) -> str:
    if info.default is not msgspec.NODEFAULT:
        return repr(info.default)
    assert info.default_factory is not msgspec.NODEFAULT, f"{info.name} has no default"
    return "[]" if info.default_factory is list else f"{info.default_factory.__name__}()"


_SHAPES: Final = {bool: Shape("fixed", "?"), str: Shape("str"), bytes: Shape("bytes")}


def _parse(hint: Any) -> tuple[Shape, bool, list[object]]:  # noqa: ANN401
    """Return the shape of an annotation, whether it may be None, and what marks it has."""
    marks: list[object] = []
    if get_origin(hint) is Annotated:
        hint, *marks = get_args(hint)
    shape = next((mark for mark in marks if isinstance(mark, Shape)), None)
    can_be_none = False
    if get_origin(hint) in {Union, types.UnionType}:
        can_be_none = True
        inner = [arg for arg in get_args(hint) if arg is not types.NoneType]
        if shape is None:
            shape = _parse(inner[0])[0]
    elif get_origin(hint) is list:
        shape = Shape("list", item=_parse(get_args(hint)[0])[0])
    elif shape is None:
        shape = _SHAPES.get(hint) or Shape("message", message=hint)
    return shape, can_be_none, marks
