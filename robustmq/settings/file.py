"""Settings as an administrator writes them: a TOML file, variables and `--set`, read and explained.

A `Schema` is read off the structs of `robustmq.config`: which keys and sections there are, with
their types, defaults and descriptions. It knows nothing of what they mean.
"""

import difflib
import inspect
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Struct

from robustmq.errors import ConfigError

Key: TypeAlias = tuple[str, ...]

VARIABLE_PREFIX: Final = "ROBUST_MQ_SERVER_"
COMMENT_COLUMNS: Final = 96
_SECRETS: Final = ("password", "secret")
SHOWN_MAX: Final = 100
"""Characters of a wrong value that an error repeats."""


class Setting(NamedTuple):
    """A value that somebody gave, and where: "config/server.toml:3", a variable, or "--set"."""

    key: Key
    value: object
    place: str


class Known(NamedTuple):
    """A key that exists: its type, and its default or NODEFAULT."""

    type: object
    default: object


class Row(NamedTuple):
    """One `[[table]]` of the file: its settings, and where it begins."""

    settings: tuple[Setting, ...]
    place: str


class Schema:
    """What may be written, in the order of the file.

    `keys` and `sections` by full name; `tables` are the lists of tables (`[[name]]`), which the
    file alone can hold, and `columns` the keys of their rows; `variables` maps the names of
    environment variables to keys.
    """

    def __init__(self, root: type[Struct]) -> None:
        self.keys: dict[Key, Known] = {}
        self.sections: dict[Key, type[Struct]] = {}
        self.tables: dict[Key, type[Struct]] = {}
        self.columns: dict[Key, Known] = {}
        self._root = root
        self._walk(root, ())
        self.variables: Final = {VARIABLE_PREFIX + "_".join(key).upper(): key for key in self.keys}

    def _walk(self, struct: type[Struct], at: Key) -> None:
        inner = []
        for info in msgspec.structs.fields(struct):
            key = (*at, info.name)
            if row := _row_struct(info.type):
                self.tables[key] = row
                for column in msgspec.structs.fields(row):
                    self.columns[*key, column.name] = Known(column.type, column.default)
            elif isinstance(info.type, type) and issubclass(info.type, Struct):
                inner.append((key, info.type))
            else:
                made = info.default_factory
                default = info.default if made is NODEFAULT else made()
                self.keys[key] = Known(info.type, default)
        for key, section in inner:
            self.sections[key] = section
            self._walk(section, key)

    def from_file(self, path: Path) -> Iterator[Setting]:
        """Yield the settings of a TOML file; that of a list of tables has a tuple of `Row`."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(f"the configuration file {path} cannot be read: {reason}") from error
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
        yield from self._flatten(document, (), str(path), text)

    def _flatten(
        self, table: Mapping[str, object], at: Key, path: str, text: str
    ) -> Iterator[Setting]:
        for name, value in table.items():
            key = (*at, name)
            place = f"{path}:{_line_of(text, key)}"
            if key in self.keys:
                yield Setting(key, value, place)
            elif key in self.tables:
                yield Setting(key, tuple(self._rows(value, key, path, text)), place)
            elif key not in self.sections:
                raise self._unknown(key, place)
            elif isinstance(value, dict):
                yield from self._flatten(value, key, path, text)
            else:
                raise ConfigError(f"{place}: {'.'.join(key)} is a section, not a key")

    def _rows(self, value: object, at: Key, path: str, text: str) -> Iterator[Row]:
        name = ".".join(at)
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            place = f"{path}:{_line_of(text, at)}"
            raise ConfigError(f"{place}: {name} is a list of tables: each begins with [[{name}]]")
        for number, table in enumerate(value):
            settings = []
            for column, given in table.items():
                key = (*at, column)
                place = f"{path}:{_line_of(text, key, number)}"
                if key not in self.columns:
                    raise self._unknown(key, place)
                settings.append(Setting(key, given, place))
            place = f"{path}:{_line_of(text, at, number)}"
            for key, known in self.columns.items():
                missing = key[:-1] == at and known.default is NODEFAULT and key[-1] not in table
                if missing:
                    raise ConfigError(f"{place}: this [[{name}]] has no {key[-1]}; it needs one")
            yield Row(tuple(settings), place)

    def from_variables(self, environment: Mapping[str, str]) -> Iterator[Setting]:
        """Yield the settings of those variables that begin with VARIABLE_PREFIX."""
        for variable, text in sorted(environment.items()):
            if not variable.startswith(VARIABLE_PREFIX):
                continue
            for table in self.tables:
                if f"{variable}_".startswith(VARIABLE_PREFIX + "_".join(table).upper() + "_"):
                    raise ConfigError(f"the variable {variable}: {_only_in_the_file(table)}")
            key = self.variables.get(variable)
            if key is None:
                close = difflib.get_close_matches(variable, self.variables, n=1)
                near = f"; did you mean {close[0]}?" if close else ""
                raise ConfigError(
                    f"the variable {variable} names no key of the configuration{near}"
                )
            yield Setting(key, self._parse(text, key), variable)

    def from_overrides(self, overrides: Iterable[str]) -> Iterator[Setting]:
        """Yield the settings of `--set`, each the text "section.key=value"."""
        for override in overrides:
            name, equals, text = override.partition("=")
            key = tuple(part.strip() for part in name.split("."))
            for table in self.tables:
                if re.match(rf"\s*{re.escape('.'.join(table))}\s*(\W|$)", name):
                    raise ConfigError(f"--set {override}: {_only_in_the_file(table)}")
            if not equals:
                raise ConfigError(f"--set {override}: it must have the form section.key=value")
            if key in self.sections:
                raise ConfigError(f"--set {override}: {name} is a section; name a key in it")
            if key not in self.keys:
                raise self._unknown(key, "--set")
            yield Setting(key, self._parse(text.strip(), key), "--set")

    def _parse(self, text: str, key: Key) -> object:
        """Read a TOML value; text that is none, or any text for a string key, stands for itself."""
        try:
            document = tomllib.loads(f"value = {text}")
        except tomllib.TOMLDecodeError:
            return text
        value = document["value"] if len(document) == 1 else text
        known = self.keys[key]
        wants_text = isinstance(known.default, str) and not isinstance(value, str)
        # A key that takes a word or a number, or a word or a truth, is given what was written.
        kind = "a truth" if isinstance(value, bool) else "a number"
        return text if wants_text and kind not in _words(known.type) else value

    def checked(self, setting: Setting) -> object:
        """Convert a value to the type of its key, column or table; raises ConfigError."""
        if setting.key in self.tables:
            assert isinstance(setting.value, tuple), "tables are read as rows"
            return tuple(self._made(row, setting.key) for row in setting.value)
        known = self.keys.get(setting.key) or self.columns[setting.key]
        try:
            return msgspec.convert(setting.value, known.type)
        except msgspec.ValidationError as error:
            reason = str(error).partition(" - at")[0].replace("`", "").lower()
            if reason.startswith("invalid enum"):
                words = [word for word in _words(known.type) if isinstance(word, str)]
                reason = f"expected {' or '.join(words)}"
            raise refused(setting, f"is refused: {reason}") from error

    def _made(self, row: Row, at: Key) -> Struct:
        """Make the struct of a row, which may refuse what its values say together."""
        values = {setting.key[-1]: self.checked(setting) for setting in row.settings}
        try:
            return self.tables[at](**values)
        except ValueError as error:
            raise ConfigError(f"{row.place}: this [[{'.'.join(at)}]] is refused: {error}") from None

    def _unknown(self, key: Key, place: str) -> ConfigError:
        """Name the known key or section that is nearest by its full name or by its last part."""

        def likeness(known: Key) -> tuple[float, float]:
            full = difflib.SequenceMatcher(None, ".".join(known), ".".join(key)).ratio()
            last = difflib.SequenceMatcher(None, known[-1], key[-1]).ratio()
            return max(full, last), full + last

        if key[:-1] in self.tables:
            # What precedes the name is right, so the names alone are compared.
            known = [column for column in self.columns if column[:-1] == key[:-1]]
            close = difflib.get_close_matches(key[-1], [column[-1] for column in known], n=1)
            best = (*key[:-1], *close)
            is_near = bool(close)
        else:
            best = max((*self.keys, *self.sections, *self.tables), key=likeness)
            is_near = likeness(best)[0] >= 0.6
        near = f"; did you mean {'.'.join(best)}?" if is_near else ""
        return ConfigError(f"{place}: the configuration has no {'.'.join(key)}{near}")

    def manual(self, head: Iterable[str]) -> str:
        """Write every key with its description and default as a TOML file, `head` on top.

        Sections that are alike are described once. Tables have no default: one row of each is
        shown, commented out.
        """
        lines = [f"# {line}" for line in head]
        lines += _described(self._root, self.keys, ())
        first: dict[type[Struct], str] = {}
        for at, section in self.sections.items():
            name = ".".join(at)
            if section in first:
                described = _described(section, self.keys, at)
                lines += ["", f"# As [{first[section]}].", f"[{name}]"]
                lines += [line for line in described if line and line[0] != "#"]
            elif texts := _descriptions(section):
                first[section] = name
                lines += ["", "", *_comment(texts[""]), f"[{name}]"]
                lines += _described(section, self.keys, at)
        for at, row in self.tables.items():
            text = f"{_descriptions(row)['']} An example, with the defaults:"
            lines += ["", "", *_comment(text), f"# [[{'.'.join(at)}]]"]
            # Only what is a comment already stays as it is.
            shown = _described(row, self.columns, at)
            lines += [f"# {line}" if line and line[0] != "#" else line for line in shown]
        return "\n".join(lines) + "\n"


def refused(setting: Setting, reason: str) -> ConfigError:
    """Make the sentence that a setting with its value is wrong; `reason` begins with a verb."""
    value = toml(setting.value) if setting.key[-1] not in _SECRETS else "..."
    shown = value if len(value) <= SHOWN_MAX else f"{value[:SHOWN_MAX]}..."
    return ConfigError(f"{setting.place}: {'.'.join(setting.key)} = {shown} {reason}")


def toml(value: object) -> str:
    """Write a value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, (str, bool)):
        return msgspec.json.encode(value).decode()
    return str(value)


def _row_struct(annotation: object) -> type[Struct] | None:
    """Return the struct of `tuple[Struct, ...]`, None for every other type."""
    inner = get_args(annotation)[0] if get_origin(annotation) is tuple else None
    return inner if isinstance(inner, type) and issubclass(inner, Struct) else None


def _only_in_the_file(table: Key) -> str:
    name = ".".join(table)
    return f"{name} cannot be set here; write them as [[{name}]] in the configuration file"


def _line_of(text: str, key: Key, row: int | None = None) -> int:
    """Find the line that sets the key or opens the section; 1 when it is written unusually.

    `row` is the number of the `[[table]]` to look in, from 0.
    """
    section, name, header = "", ".".join(key), -1
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"\s*(\[\[?)\s*([^\]]+?)\s*\]", line):
            section = found[2]
            if found[1] == "[[":
                header = counts[section] = counts.get(section, -1) + 1
        assignment = re.match(r"\s*([\w.\-]+)\s*=", line)
        here = f"{section}.{assignment[1]}".lstrip(".") if assignment else section
        if (here == name or here.startswith(f"{name}.")) and row in {None, header}:
            return number
    # A row may be written in one line, as an inline table.
    return 1 if row is None else _line_of(text, key[:1])


def _words(annotation: object) -> Iterator[object]:
    """Yield the literals that a type allows, and "a number" or "a truth" when it takes one."""
    if annotation is int:
        yield "a number"
    elif annotation is bool:
        yield "a truth"
    elif get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for inner in get_args(annotation):
            yield from _words(inner)


def _described(struct: type[Struct], keys: Mapping[Key, Known], at: Key) -> Iterator[str]:
    """Yield what the manual says of a struct's own keys; a key without default has its example."""
    texts = _descriptions(struct)
    for info in msgspec.structs.fields(struct):
        known = keys.get((*at, info.name))
        if known is None:
            continue
        yield from ["", *_comment(texts[info.name] + _bounds(known.type))]
        given = _example(known.type) if known.default is NODEFAULT else known.default
        yield f"{info.name} = {toml(given)}"


def _descriptions(struct: type[Struct]) -> dict[str, str]:
    """Read a struct's docstring: its title at "" and the text of each key; {} without keys."""
    text = inspect.cleandoc(struct.__doc__ or "")
    found = list(re.finditer(r"^(\w+): (.*(?:\n +.*)*)", text, re.MULTILINE))
    if not found:
        return {}
    title = " ".join(text[: found[0].start()].split()).partition(": ")[2]
    return {"": title, **{each[1]: " ".join(each[2].split()) for each in found}}


def _bounds(annotation: object) -> str:
    metas = [m for m in getattr(annotation, "__metadata__", ()) if m.ge is not None]
    return f" ({toml(metas[0].ge)} to {toml(metas[0].le)})" if metas else ""


def _example(annotation: object) -> object:
    metas = [m for m in getattr(annotation, "__metadata__", ()) if m.examples]
    return metas[0].examples[0]


def _comment(text: str) -> Iterator[str]:
    line = "#"
    for word in text.split():
        if len(line) + 1 + len(word) > COMMENT_COLUMNS:
            yield line
            line = "#"
        line += " " + word
    yield line
