"""The rules of the house that a program can check; each returns what breaks it, one a line.

Every rule takes the root of a source tree, so that a test can show it a tree that breaks it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

FILE_LINES = 500
FUNCTION_LINES = 70
SOURCES = ("robustmq", "perf", "tests")
SUFFIXES = frozenset({".py", ".pyx", ".pxd", ".c", ".h"})
BANNED_NAMES = frozenset({"base", "common", "helpers", "manager", "misc", "utils", "util"})
PURE_PACKAGES = (
    "_kernel", "broker", "message", "meta", "mqtt", "policy", "raft", "shard", "shm", "storage",
)  # fmt: skip
GENERATED = frozenset({"build", "results", "node_modules", "__pycache__"})

_ASYNC = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)


def sources(root: Path, *tops: str) -> Iterator[Path]:
    """Yield every file that we wrote under the tops (default: all), in a stable order."""
    for top in tops or SOURCES:
        for path in sorted((root / top).rglob("*")):
            parts = path.relative_to(root).parts
            if path.suffix not in SUFFIXES or GENERATED.intersection(parts):
                continue
            # Cython's output lies beside its source.
            if path.suffix == ".c" and path.with_suffix(".pyx").exists():
                continue
            yield path


def trees(root: Path, *tops: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield (path relative to the root, syntax tree) of every Python file under the tops."""
    for path in sources(root, *tops):
        if path.suffix == ".py":
            text = path.read_text(encoding="utf-8")
            yield path.relative_to(root).as_posix(), ast.parse(text, str(path))


def long_files(root: Path) -> list[str]:
    """A file has at most FILE_LINES lines, whatever its language."""
    found = []
    for path in sources(root):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > FILE_LINES:
            found.append(f"{path.relative_to(root).as_posix()}: {lines} lines, not {FILE_LINES}")
    return found


def long_functions(root: Path) -> list[str]:
    """A function has at most FUNCTION_LINES lines from its first decorator to its end."""
    found = []
    for place, tree in trees(root):
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            lines = (node.end_lineno or first) - first + 1
            if lines > FUNCTION_LINES:
                found.append(f"{place}:{node.lineno} {node.name}: {lines} lines")
    return found


def banned_names(root: Path) -> list[str]:
    """A file or a folder is named by a noun of the field."""
    found = []
    for path in sources(root):
        inner = path.relative_to(root)
        if BANNED_NAMES.intersection([*inner.parts[:-1], inner.stem]):
            found.append(f"{inner.as_posix()}: named by no noun of the field")
    return found


def busy_inits(root: Path) -> list[str]:
    """An `__init__.py` holds a docstring and nothing else."""
    found = []
    for place, tree in trees(root):
        if not place.endswith("/__init__.py"):
            continue
        if len(tree.body) != 1 or ast.get_docstring(tree) is None:
            found.append(f"{place}: holds more or less than a docstring")
    return found


def loose_docstrings(root: Path) -> list[str]:
    """Every module of the package has a docstring; first lines end in a full stop."""
    found = []
    for place, tree in trees(root, "robustmq"):
        if ast.get_docstring(tree) is None:
            found.append(f"{place}: no docstring")
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = (ast.get_docstring(node) or ".").split("\n", 1)[0]
                if not first.endswith("."):
                    found.append(f"{place}:{getattr(node, 'lineno', 1)} no full stop: {first}")
    return found


def async_in_pure(root: Path) -> list[str]:
    """A package that decides runs to completion: no `async`, no `await`."""
    found = []
    for package in PURE_PACKAGES:
        for place, tree in trees(root, f"robustmq/{package}"):
            for node in ast.walk(tree):
                if isinstance(node, _ASYNC):
                    found.append(f"{place}:{node.lineno} is asynchronous")
    return found


def chance_in_pure(root: Path) -> list[str]:
    """A package that decides asks the system for no entropy and no clock through `os`."""
    banned = {"urandom", "getrandom", "times"}
    found = []
    for package in PURE_PACKAGES:
        for place, tree in trees(root, f"robustmq/{package}"):
            for node in ast.walk(tree):
                if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
                    continue
                if node.value.id == "os" and node.attr in banned:
                    found.append(f"{place}:{node.lineno} os.{node.attr}")
    return found


def prints(root: Path) -> list[str]:
    """Only `robustmq.cli` prints; all others log or return."""
    found = []
    for place, tree in trees(root, "robustmq"):
        if place.startswith("robustmq/cli/"):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id == "print":
                found.append(f"{place}:{node.lineno} prints")
    return found


def impure_kernels(root: Path) -> list[str]:
    """A .pyx names no module that import-linter would forbid in it (it reads only .py)."""
    banned = ("asyncio", "datetime", "random", "secrets", "threading", "time", "uuid")
    found = []
    for path in sources(root, "robustmq"):
        if path.suffix not in {".pyx", ".pxd"}:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            words = line.split()
            if words[:1] not in (["import"], ["cimport"], ["from"]) or len(words) < 2:
                continue
            if words[1].rstrip(",").split(".")[0] in banned or words[1] == "libc.time":
                found.append(f"{path.relative_to(root).as_posix()}:{number} {line.strip()}")
    return found
