"""The shape of the kernels: a chooser, a twin and a compiled module with the same public names.

The compiled side is read as text, so that the rule holds where nothing is compiled.
"""

import ast
import re
from pathlib import Path
from typing import NamedTuple

KERNEL = Path("robustmq/_kernel")
NOT_KERNELS = frozenset({"__init__", "choice"})
_DEFINITION = re.compile(
    r"^( *)(?:(?:async )?def|cpdef(?: [\w\[\]\*: ]+?)??) (\w+)\(", re.MULTILINE
)
_CLASS = re.compile(r"^(?:cdef )?(?:class|enum) (\w+)", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^    cdef (?:readonly|public) [^\n(]*?([\w, ]+)$", re.MULTILINE)
_CONSTANT = re.compile(r"^([A-Z][A-Z0-9_]*)\b(?:\s*:[^=\n]+)?\s*=[^=]", re.MULTILINE)
_STRINGS = re.compile(
    r'"""(?:[^"]|"(?!""))*"""|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'', re.DOTALL
)


class Shape(NamedTuple):
    """The public face of a module: `name` or `Class.name` -> parameter names, or None."""

    callables: dict[str, tuple[str, ...]]
    values: frozenset[str]


def _parameters(arguments: ast.arguments) -> tuple[str, ...]:
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    extra = [each for each in (arguments.vararg, arguments.kwarg) if each]
    return tuple(each.arg for each in [*named, *extra] if each.arg not in {"self", "cls"})


def pure_shape(text: str) -> Shape:
    """Return the public face of a twin."""
    callables: dict[str, tuple[str, ...]] = {}
    values: set[str] = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef):
                decorators = {ast.unparse(each) for each in node.decorator_list}
                if node.name == "__init__":
                    callables[prefix.rstrip(".")] = _parameters(node.args)
                elif node.name.startswith("_"):
                    continue
                elif decorators & {"property"}:
                    values.add(prefix + node.name)
                elif not any(each.endswith(".setter") for each in decorators):
                    callables[prefix + node.name] = _parameters(node.args)
            elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                callables.setdefault(node.name, ())
                visit(node.body, f"{node.name}.")

    visit(ast.parse(text).body, "")
    return Shape(callables, frozenset(values))


def _text_of_parameters(text: str, start: int) -> list[str]:
    depth, begin, parts = 1, start, []
    for at in range(start, len(text)):
        character = text[at]
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 or (depth == 1 and character == ","):
            parts.append(text[begin:at])
            begin = at + 1
        if depth == 0:
            break
    return parts


def _name_of_parameter(text: str) -> str:
    left = re.split(r"[=:]", re.sub(r"\[[^\]]*\]", "", text), maxsplit=1)[0]
    words = re.findall(r"\w+", left.replace("not None", "").replace("or None", ""))
    return words[-1] if words else ""


def fast_shape(text: str) -> Shape:
    """Return the public face of a .pyx."""
    text = _STRINGS.sub('""', re.sub(r"#[^\n]*", "", _STRINGS.sub('""', text)))
    callables: dict[str, tuple[str, ...]] = {}
    values = {match.group(1) for match in _CONSTANT.finditer(text)}
    classes = [(match.start(), match.group(1)) for match in _CLASS.finditer(text)]
    for _, name in classes:
        if not name.startswith("_"):
            callables.setdefault(name, ())

    def owner_of(position: int) -> str:
        return next((name for at, name in reversed(classes) if at < position), "")

    for match in _DEFINITION.finditer(text):
        indent, name = len(match.group(1)), match.group(2)
        if indent not in {0, 4}:
            continue
        owner = owner_of(match.start()) if indent else ""
        every = [_name_of_parameter(each) for each in _text_of_parameters(text, match.end())]
        names = tuple(each for each in every if each and each not in {"self", "cls"})
        if name in {"__init__", "__cinit__"} and owner in callables:
            callables[owner] = names
        elif not name.startswith("_") and not owner.startswith("_"):
            before = text[: match.start()].rstrip().rsplit("\n", 1)[-1].strip()
            if before == "@property":
                values.add(f"{owner}.{name}")
            elif not before.endswith(".setter"):
                callables[f"{owner}.{name}" if owner else name] = names
    for match in _ATTRIBUTE.finditer(text):
        owner = owner_of(match.start())
        for word in match.group(1).split(","):
            values.add(f"{owner}.{word.split()[-1]}")
    return Shape(callables, frozenset(values))


def chosen(text: str) -> dict[str, frozenset[str]]:
    """Return what a chooser imports from each `robustmq._kernel.*` module but `choice`."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("robustmq._kernel."):
            names = {alias.name for alias in node.names}
            found.setdefault((node.module or "").removeprefix("robustmq._kernel."), set()).update(
                names
            )
    found.pop("choice", None)
    return {module: frozenset(names) for module, names in found.items()}


def _differences(name: str, pure: Shape, fast: Shape, wanted: frozenset[str]) -> list[str]:
    """Return how the two differ in the names that the chooser hands out, members included."""
    found = []

    def is_wanted(each: str) -> bool:
        return each.split(".", maxsplit=1)[0] in wanted

    for each in sorted(filter(is_wanted, pure.callables.keys() | fast.callables.keys())):
        ours, theirs = pure.callables.get(each), fast.callables.get(each)
        if ours is None or theirs is None:
            found.append(f"{name}: {each} is missing in {'pure' if ours is None else 'fast'}")
        elif ours != theirs:
            found.append(f"{name}: {each}{ours} in pure, {each}{theirs} in fast")
    found += [
        f"{name}: {each} is missing in fast"
        for each in sorted(filter(is_wanted, pure.values - fast.values))
    ]
    return found


def unequal_twins(root: Path) -> list[str]:
    """Every kernel is a chooser, a twin and a compiled module, with equal public faces."""
    home = root / KERNEL
    found = []
    kernels = {path.stem for path in home.glob("*.py")} - NOT_KERNELS
    twins = {path.stem for path in (home / "pure").glob("*.py")} - NOT_KERNELS
    compiled = {path.stem for path in (home / "fast").glob("*.pyx")}
    for name in sorted(kernels | twins | compiled):
        places = {"chooser": kernels, "pure": twins, "fast": compiled}
        missing = [place for place, names in places.items() if name not in names]
        if missing:
            found.append(f"{name}: has no {' and no '.join(missing)}")
            continue
        imports = chosen((home / f"{name}.py").read_text(encoding="utf-8"))
        if set(imports) != {f"fast.{name}", f"pure.{name}"}:
            found.append(f"{name}: chooses from {sorted(imports)}")
            continue
        if imports[f"fast.{name}"] != imports[f"pure.{name}"]:
            found.append(f"{name}: does not choose the same names from both")
        pure = pure_shape((home / "pure" / f"{name}.py").read_text(encoding="utf-8"))
        fast = fast_shape((home / "fast" / f"{name}.pyx").read_text(encoding="utf-8"))
        found += _differences(name, pure, fast, imports[f"pure.{name}"])
    return found
