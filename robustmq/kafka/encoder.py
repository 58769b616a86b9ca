"""Makes the function that writes a message of one version: Python source, compiled once.

Like `kafka.decoder`: neighbours of fixed size are one `pack`, nested messages are loops.
"""

import struct
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from robustmq.kafka.schema import Field, Message, Shape, fields_of
from robustmq.kafka.wire import (
    MAX_TEXT,
    put_batches,
    put_tag,
    put_uvarint,
    shortened,
)

Encode: TypeAlias = Callable[[Message, bytearray, list[bytes]], None]
"""Appends a message to `out`; large batches, and what was before them, to the pieces."""

_TOOLS: Final[dict[str, Any]] = {
    "pack": struct.pack,
    "put_batches": put_batches,
    "put_tag": put_tag,
    "put_uvarint": put_uvarint,
    "shortened": shortened,
}
_EMPTY: Final = {"str": "''", "bytes": "b''", "batches": "b''", "list": "()"}


def compile_encoder(message: type[Message], version: int, *, is_flexible: bool) -> Encode:
    """Make the function that writes `message` as it is in `version`."""
    source, names = source_of(message, version, is_flexible=is_flexible)
    exec(compile(source, f"<write {message.__name__} {version}>", "exec"), names)
    encode: Encode = names["encode"]
    return encode


def source_of(
    message: type[Message], version: int, *, is_flexible: bool
) -> tuple[str, dict[str, Any]]:
    """Return the source of the function `encode`, and the names that it uses."""
    writer = _Encoder(version, is_flexible=is_flexible)
    writer.message(message, "message")
    writer.flush()
    lines = ["def encode(message, out, pieces):", *(writer.lines or ["    pass"])]
    return "\n".join(lines), writer.names


class _Encoder:
    """Writes the lines."""

    def __init__(self, version: int, *, is_flexible: bool) -> None:
        self.lines: list[str] = []
        self.names = dict(_TOOLS)
        self._version = version
        self._is_flexible = is_flexible
        self._depth = 1
        self._count = 0
        self._out = "out"
        self._run: list[tuple[str, str]] = []
        """What of fixed size is to be written next: codes, and expressions."""

    def message(self, message: type[Message], value: str) -> None:
        fields = [field for field in fields_of(message, self._version) if field.is_present]
        for field in fields:
            if field.tag < 0:
                self._field(field, f"{value}.{field.name}")
        if not self._is_flexible:
            return
        tagged = sorted((field for field in fields if field.tag >= 0), key=lambda f: f.tag)
        if tagged:
            self._tags(tagged, value)
        else:
            self._run.append(("x", ""))

    def _field(self, field: Field, value: str) -> None:
        if field.can_be_none and not field.is_nullable:
            # Another version may say null: here the next best is nothing.
            empty = _EMPTY[field.shape.kind]
            value = self._assign(field.name, f"{empty} if {value} is None else {value}")
        if field.is_nullable and field.shape.kind != "batches":
            self._nullable(field.shape, field.name, value)
        else:
            self._value(field.shape, field.name, value)

    def _nullable(self, shape: Shape, name: str, value: str) -> None:
        self.flush()
        value = self._assign(name, value)
        if self._is_flexible:
            null = b"\xff" if shape.kind == "message" else b"\0"
        else:
            null = b"\xff" * {"message": 1, "str": 2}.get(shape.kind, 4)
        self._line(f"if {value} is None:")
        self._line(f"    {self._out} += {null!r}")
        self._line("else:")
        self._depth += 1
        if shape.kind == "message":
            self._run.append(("b", "1"))
        self._value(shape, name, value)
        self.flush()
        self._depth -= 1

    def _value(self, shape: Shape, name: str, value: str) -> None:
        """Write a value that is not null."""
        if shape.kind == "fixed":
            self._run.append((shape.code, value))
        elif shape.kind == "message":
            assert shape.message is not None
            self.message(shape.message, value)
        elif shape.kind == "batches":
            self.flush()
            self._line(f"put_batches({self._out}, pieces, {value}, {self._is_flexible})")
        elif shape.kind == "list":
            assert shape.item is not None
            self._list(shape.item, name, self._assign(name, value))
        else:
            text = shape.kind == "str"
            value = self._assign(name, f"{value}.encode()" if text else value)
            if text and not self._is_flexible:
                # What a newer version took may be longer than an older one can say.
                self._line(f"if len({value}) > {MAX_TEXT}:")
                self._line(f"    {value} = shortened({value})")
            self._length("h" if text else "i", value)
            self._line(f"{self._out} += {value}")

    def _list(self, item: Shape, name: str, value: str) -> None:
        self._length("i", value)
        if item.kind == "fixed" and len(item.code) == 1:
            self._line(f"{self._out} += pack(f'>{{len({value})}}{item.code}', *{value})")
            return
        element = self._variable(name)
        self._line(f"for {element} in {value}:")
        self._depth += 1
        self._value(item, name, element)
        self.flush()
        self._depth -= 1

    def _tags(self, fields: list[Field], value: str) -> None:
        """Write the tagged fields that are not as they are by default, in the order of tags."""
        self.flush()
        tests = [_test(field, f"{value}.{field.name}") for field in fields]
        self._line(f"if not ({' or '.join(tests)}):")
        self._line(f"    {self._out}.append(0)")
        self._line("else:")
        self._depth += 1
        self._line(f"{self._out}.append({' + '.join(f'bool({test})' for test in tests)})")
        outer = self._out
        for field, test in zip(fields, tests, strict=True):
            self._line(f"if {test}:")
            self._depth += 1
            self._out = self._assign("tag", "bytearray()")
            if field.is_nullable:
                self._nullable(field.shape, field.name, f"{value}.{field.name}")
            else:
                self._value(field.shape, field.name, f"{value}.{field.name}")
            self.flush()
            self._line(f"put_tag({outer}, {field.tag}, {self._out})")
            self._out = outer
            self._depth -= 1
        self._depth -= 1

    def _length(self, code: str, value: str) -> None:
        if not self._is_flexible:
            self._run.append((code, f"len({value})"))
            self.flush()
            return
        self.flush()
        count = self._assign("count", f"len({value}) + 1")
        self._line(f"if {count} < 128:")
        self._line(f"    {self._out}.append({count})")
        self._line("else:")
        self._line(f"    put_uvarint({self._out}, {count})")

    def flush(self) -> None:
        """Write the writing of what is of fixed size up to here."""
        if not self._run:
            return
        codes = "".join(code for code, _ in self._run)
        values = ", ".join(value for code, value in self._run if code != "x")
        self._run.clear()
        if not codes.strip("x"):
            self._line(f"{self._out} += {bytes(len(codes))!r}")
            return
        name = "pack_" + codes.replace("?", "_")
        self.names[name] = struct.Struct(f">{codes}").pack
        self._line(f"{self._out} += {name}({values})")

    def _assign(self, name: str, value: str) -> str:
        variable = self._variable(name)
        self._line(f"{variable} = {value}")
        return variable

    def _variable(self, name: str) -> str:
        self._count += 1
        return f"{name}_{self._count}"

    def _line(self, text: str) -> None:
        self.lines.append("    " * self._depth + text)


def _test(field: Field, value: str) -> str:
    """Return the expression that says that a tagged field is to be written."""
    if field.default == "None":
        return f"{value} is not None"
    return value if field.default == "[]" else f"{value} != {field.default}"
