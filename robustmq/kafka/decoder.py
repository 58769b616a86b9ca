"""Makes the function that reads a message of one version: Python source, compiled once.

What it makes is straight code: neighbours of fixed size are one `unpack_from`, nested messages are
written out in loops, and nothing is looked up at run time. Print `source_of(...)` to read it.
"""

import struct
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from robustmq.kafka.schema import Field, Message, Shape, fields_of
from robustmq.kafka.wire import excess, malformed, missing, read_uvarint, skip_tags

Decode: TypeAlias = Callable[[bytes, int, int], Message]
"""Reads a message from `data` at `at`, whose arrays have `room` elements at most in all."""

_TOOLS: Final[dict[str, Any]] = {
    "excess": excess,
    "malformed": malformed,
    "missing": missing,
    "read_uvarint": read_uvarint,
    "skip_tags": skip_tags,
    "unpack_from": struct.unpack_from,
}


def compile_decoder(message: type[Message], version: int, *, is_flexible: bool) -> Decode:
    """Make the function that reads `message` as it is in `version`.

    It raises ProtocolError, or what tells that the data ends too early (IndexError, struct.error)
    or has no text where some should be (UnicodeDecodeError).
    """
    source, names = source_of(message, version, is_flexible=is_flexible)
    exec(compile(source, f"<read {message.__name__} {version}>", "exec"), names)
    decode: Decode = names["decode"]
    return decode


def source_of(
    message: type[Message], version: int, *, is_flexible: bool
) -> tuple[str, dict[str, Any]]:
    """Return the source of the function `decode`, and the names that it uses."""
    writer = _Decoder(version, is_flexible=is_flexible)
    result = writer.message(message)
    lines = [
        "def decode(data, at, room):",
        "    end = len(data)",
        *writer.lines,
        "    if at > end:",
        "        raise malformed('It ends too early.')",
        f"    return {result}",
    ]
    return "\n".join(lines), writer.names


class _Decoder:
    """Writes the lines; every method that reads something returns the expression that has it."""

    def __init__(self, version: int, *, is_flexible: bool) -> None:
        self.lines: list[str] = []
        self.names = dict(_TOOLS)
        self._version = version
        self._is_flexible = is_flexible
        self._depth = 1
        self._count = 0
        self._run: list[tuple[str, str]] = []
        """What of fixed size is to be read next: codes, and variables."""

    def message(self, message: type[Message]) -> str:
        self.names[message.__name__] = message
        fields = fields_of(message, self._version)
        values = {
            field.name: self._value(field.shape, field.name, is_nullable=field.is_nullable)
            for field in fields
            if field.is_present and field.tag < 0
        }
        if self._is_flexible:
            tagged = [field for field in fields if field.is_present and field.tag >= 0]
            values.update(self._tags(tagged))
        self._flush()
        while fields and fields[-1].name not in values:
            fields.pop()
        arguments = (values.get(field.name, field.default) for field in fields)
        return f"{message.__name__}({', '.join(arguments)})"

    def _value(self, shape: Shape, name: str, *, is_nullable: bool) -> str:
        if shape.kind == "fixed":
            return self._fixed(shape.code, name)
        if shape.kind == "message":
            assert shape.message is not None
            return self._nested(shape.message, name, is_nullable=is_nullable)
        count = self._length("h" if shape.kind == "str" else "i")
        result = self._variable(name)
        self._line(f"if {count} < 0:")
        if is_nullable:
            self._line(f"    {result} = None")
        else:
            self._line(f"    raise missing({name!r})")
        self._line("else:")
        self._depth += 1
        if shape.kind == "list":
            assert shape.item is not None
            self._list(shape.item, name, count, result)
        else:
            decode = ".decode()" if shape.kind == "str" else ""
            self._line(f"{result} = data[at:at + {count}]{decode}")
            self._line(f"at += {count}")
        self._depth -= 1
        return result

    def _list(self, item: Shape, name: str, count: str, result: str) -> None:
        least = _least(item, self._version, is_flexible=self._is_flexible)
        self._line(f"if {count} > room or {count} * {least} > end - at:")
        self._line(f"    raise excess({name!r}, {count})")
        self._line(f"room -= {count}")
        if item.kind == "fixed" and len(item.code) == 1:
            self._line(f"{result} = list(unpack_from(f'>{{{count}}}{item.code}', data, at))")
            self._line(f"at += {count} * {least}")
            return
        self._line(f"{result} = []")
        self._line(f"for _ in range({count}):")
        self._depth += 1
        element = self._value(item, name, is_nullable=False)
        self._flush()
        self._line(f"{result}.append({element})")
        self._depth -= 1

    def _nested(self, message: type[Message], name: str, *, is_nullable: bool) -> str:
        if not is_nullable:
            return self.message(message)
        mark = self._fixed("b", "mark")
        self._flush()
        result = self._variable(name)
        self._line(f"{result} = None")
        self._line(f"if {mark} >= 0:")
        self._depth += 1
        self._line(f"{result} = {self.message(message)}")
        self._depth -= 1
        return result

    def _tags(self, fields: list[Field]) -> dict[str, str]:
        """Read the tagged fields; those that nobody knows are skipped (KIP-482)."""
        count = self._fixed("B", "tags")
        self._flush()
        if not fields:
            self._line(f"if {count}:")
            self._line("    at = skip_tags(data, at - 1)")
            return {}
        values = {field.name: self._variable(field.name) for field in fields}
        for field in fields:
            self._line(f"{values[field.name]} = {field.default}")
        tag, stop, last = self._variable("tag"), self._variable("stop"), self._variable("last")
        self._line(f"if {count}:")
        self._depth += 1
        self._line(f"{count}, at = read_uvarint(data, at - 1)")
        self._line(f"{last} = -1")
        self._line(f"for _ in range({count}):")
        self._depth += 1
        self._line(f"{tag}, at = read_uvarint(data, at)")
        self._line(f"{stop}, at = read_uvarint(data, at)")
        self._line(f"{stop} += at")
        self._line(f"if {tag} <= {last}:")
        self._line("    raise malformed('Its tagged fields are not in order.')")
        self._line(f"{last} = {tag}")
        for field in fields:
            self._tag(field, tag, stop, values[field.name])
        self._line(f"at = {stop}")
        self._depth -= 2
        return values

    def _tag(self, field: Field, tag: str, stop: str, result: str) -> None:
        self._line(f"if {tag} == {field.tag}:")
        self._depth += 1
        value = self._value(field.shape, field.name, is_nullable=field.is_nullable)
        self._flush()
        self._line(f"{result} = {value}")
        self._line(f"if at > {stop}:")
        self._line(f"    raise malformed('The tagged field {field.name} ends too early.')")
        self._depth -= 1

    def _fixed(self, code: str, name: str) -> str:
        variable = self._variable(name)
        self._run.append((code, variable))
        return variable

    def _length(self, code: str) -> str:
        """Read a length, null is -1: of `code`, or in flexible versions a varint of one more."""
        if not self._is_flexible:
            count = self._fixed(code, "count")
            self._flush()
            return count
        count = self._fixed("B", "count")
        self._flush()
        self._line(f"if {count} > 127:")
        self._line(f"    {count}, at = read_uvarint(data, at - 1)")
        self._line(f"{count} -= 1")
        return count

    def _flush(self) -> None:
        """Write the reading of what is of fixed size up to here."""
        if not self._run:
            return
        codes = "".join(code for code, _ in self._run)
        variables = ", ".join(variable for _, variable in self._run)
        self._run.clear()
        if codes == "B":
            self._line(f"{variables} = data[at]")
            self._line("at += 1")
            return
        run = struct.Struct(f">{codes}")
        name = "unpack_" + codes.replace("?", "_")
        self.names[name] = run.unpack_from
        self._line(f"{variables}, = {name}(data, at)")
        self._line(f"at += {run.size}")

    def _variable(self, name: str) -> str:
        self._count += 1
        return f"{name}_{self._count}"

    def _line(self, text: str) -> None:
        self.lines.append("    " * self._depth + text)


def _least(shape: Shape, version: int, *, is_flexible: bool) -> int:
    """Return how many bytes a value has at least."""
    if shape.kind == "fixed":
        return struct.calcsize(">" + shape.code)
    if shape.kind != "message":
        return 1 if is_flexible else (2 if shape.kind == "str" else 4)
    assert shape.message is not None
    sizes = [
        1 if field.is_nullable and field.shape.kind == "message"
        else _least(field.shape, version, is_flexible=is_flexible)
        for field in fields_of(shape.message, version)
        if field.is_present and field.tag < 0
    ]  # fmt: skip
    return sum(sizes) + is_flexible
