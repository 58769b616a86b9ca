"""The shape of the kernels: a chooser, a twin and a compiled module with the same public names.

The compiled side is read as text, so that the rule holds where nothing is compiled. A `cdef`
method may be a public method of the twin: there, other twins call it as other kernels do here.
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
_CLASS = re.compile(r"^(?:cdef )?(?:class|enum) (\w+)(?:\((\w+)\))?", re.MULTILINE)
_INNER = re.compile(r"^    cdef (?:[\w\[\]\*]+ )*\*?(\w+)\(", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^    cdef (?:readonly|public) [^\n(]*?([\w, ]+)$", re.MULTILINE)
_CONSTANT = re.compile(r"^([A-Z][A-Z0-9_]*)\b(?:\s*:[^=\n]+)?\s*=[^=]", re.MULTILINE)
_STRINGS = re.compile(
    r'"""(?:[^"]|"(?!""))*"""|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'', re.DOTALL
)


class Shape(NamedTuple):
    """The public face of a module: `name` or `Class.name` -> parameter names, or None."""

    callables: dict[str, tuple[str, ...]]
    values: frozenset[str]
    bases: dict[str, str]
    # Methods that only other compiled kernels see.
    inner: frozenset[str] = frozenset()


def _parameters(arguments: ast.arguments) -> tuple[str, ...]:
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    extra = [each for each in (arguments.vararg, arguments.kwarg) if each]
    return tuple(each.arg for each in [*named, *extra] if each.arg not in {"self", "cls"})


def pure_shape(text: str) -> Shape:
    """Return the public face of a twin."""
    callables: dict[str, tuple[str, ...]] = {}
    values: set[str] = set()
    bases: dict[str, str] = {}

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
                if node.bases:
                    bases[node.name] = ast.unparse(node.bases[0])
                visit(node.body, f"{node.name}.")

    visit(ast.parse(text).body, "")
    return Shape(callables, frozenset(values), bases)


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
    """Return the public face of a .pyx or a .pxd."""
    text = _STRINGS.sub('""', re.sub(r"#[^\n]*", "", _STRINGS.sub('""', text)))
    callables: dict[str, tuple[str, ...]] = {}
    values = {match.group(1) for match in _CONSTANT.finditer(text)}
    classes = [(match.start(), match.group(1)) for match in _CLASS.finditer(text)]
    bases = {match.group(1): match.group(2) for match in _CLASS.finditer(text) if match.group(2)}
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
    inner = {f"{owner_of(match.start())}.{match.group(1)}" for match in _INNER.finditer(text)}
    return Shape(callables, frozenset(values), bases, frozenset(inner))


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


def merged(shapes: list[Shape]) -> Shape:
    """Return the face of all modules of one side together; classes have what their bases have."""
    callables: dict[str, tuple[str, ...]] = {}
    values: set[str] = set()
    bases: dict[str, str] = {}
    inner: set[str] = set()
    for shape in shapes:
        # A class is named in its .pxd too, without its parameters.
        callables.update({k: v for k, v in shape.callables.items() if v or k not in callables})
        values |= shape.values
        bases |= shape.bases
        inner |= shape.inner
    for name in bases:
        base = bases.get(name)
        while base:
            for each in [each for each in callables if each.startswith(f"{base}.")]:
                callables.setdefault(name + each.removeprefix(base), callables[each])
            values |= {name + v.removeprefix(base) for v in values if v.startswith(f"{base}.")}
            base = bases.get(base)
    return Shape(callables, frozenset(values), bases, frozenset(inner))


def _differences(name: str, pure: Shape, fast: Shape, wanted: frozenset[str]) -> list[str]:
    """Return how the two differ in the names that the chooser hands out, members included."""
    found = []

    def is_wanted(each: str) -> bool:
        return each.split(".", 1)[0] in wanted

    for each in sorted(filter(is_wanted, pure.callables.keys() | fast.callables.keys())):
        ours, theirs = pure.callables.get(each), fast.callables.get(each)
        if theirs is None and each in fast.inner:
            continue
        if ours is None or theirs is None:
            found.append(f"{name}: {each} is missing in {'pure' if ours is None else 'fast'}")
        elif ours != theirs:
            found.append(f"{name}: {each}{ours} in pure, {each}{theirs} in fast")
    found += [
        f"{name}: {each} is missing in fast"
        for each in sorted(filter(is_wanted, pure.values - fast.values))
    ]
    return found


def _texts(folder: Path, *suffixes: str) -> dict[str, str]:
    """Return the text of each module of a folder, its .pxd included."""
    texts: dict[str, str] = {}
    for path in sorted(each for each in folder.glob("*") if each.suffix in suffixes):
        if path.stem not in NOT_KERNELS:
            texts[path.stem] = texts.get(path.stem, "") + "\n" + path.read_text(encoding="utf-8")
    return texts


def _unused(side: str, texts: dict[str, str], kernels: set[str]) -> list[str]:
    """Return the modules that no chooser offers and no sibling imports."""
    found = []
    for name in sorted(texts.keys() - kernels):
        importing = re.compile(
            rf"^ *from robustmq\._kernel\.{side}\.{name} c?import ", re.MULTILINE
        )
        if not any(importing.search(text) for other, text in texts.items() if other != name):
            found.append(f"{name}: is in {side}, has no chooser and serves no other kernel")
    return found


def unequal_twins(root: Path) -> list[str]:
    """Every kernel is a chooser, a twin and a compiled module, with equal public faces.

    A module without a chooser must serve a kernel of its own side.
    """
    home = root / KERNEL
    choosers = _texts(home, ".py")
    pure, fast = _texts(home / "pure", ".py"), _texts(home / "fast", ".pyx", ".pxd")
    kernels = set(choosers)
    found = _unused("pure", pure, kernels) + _unused("fast", fast, kernels)
    twin = merged([pure_shape(text) for text in pure.values()])
    compiled = merged([fast_shape(text) for text in fast.values()])
    for name, chooser in sorted(choosers.items()):
        missing = [side for side, texts in (("pure", pure), ("fast", fast)) if name not in texts]
        imports = chosen(chooser)
        if missing:
            found.append(f"{name}: has no {' and no '.join(missing)}")
        elif set(imports) != {f"fast.{name}", f"pure.{name}"}:
            found.append(f"{name}: chooses from {sorted(imports)}")
        elif imports[f"fast.{name}"] != imports[f"pure.{name}"]:
            found.append(f"{name}: does not choose the same names from both")
        else:
            found += _differences(name, twin, compiled, imports[f"pure.{name}"])
    return found
