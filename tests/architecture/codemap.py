"""The code map of ARCHITECTURE.md: every module with the first line of its docstring.

python -m tests.architecture.codemap [--check]
"""

import ast
import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BEGIN = "<!-- code map: written by scripts/codemap -->"
END = "<!-- end of the code map -->"
# From the processes down to the errors: the order in which imports may point.
ORDER = (
    "cli", "workers", "mqtt", "admin", "broker", "policy", "shard", "meta", "raft", "storage",
    "shm", "net", "rpc", "message", "_kernel",
)  # fmt: skip
_PYX_DOCSTRING = re.compile(r'\A(?:\s*#[^\n]*\n|\s*\n)*"""(.+?)"""', re.DOTALL)


def summary(path: Path) -> str:
    """Return the first line of the module's docstring, or "" when there is none."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".pyx":
        found = _PYX_DOCSTRING.match(text)
        docstring = found.group(1) if found else ""
    else:
        docstring = ast.get_docstring(ast.parse(text)) or ""
    return docstring.strip().split("\n", 1)[0]


def modules(package: Path) -> list[Path]:
    """Return the package's own sources, its `__init__` left out, in the order of their names."""
    found = [*package.glob("*.py"), *package.glob("*.pyx")]
    return sorted(path for path in found if path.name != "__init__.py")


def packages(root: Path) -> list[Path]:
    """Return every package under `robustmq`, itself last, layers in the order of imports."""
    every = [path.parent for path in (root / "robustmq").rglob("__init__.py")]

    def rank(package: Path) -> tuple[int, str]:
        parts = package.relative_to(root / "robustmq").parts
        first = parts[0] if parts else "~"
        return (ORDER.index(first) if first in ORDER else len(ORDER), "/".join(parts) or "~")

    return sorted(every, key=rank)


def code_map(root: Path) -> str:
    """Return the block between the markers, both included."""
    lines = [BEGIN, ""]
    for package in packages(root):
        place = package.relative_to(root).as_posix()
        lines += [f"**`{place}/`** — {summary(package / '__init__.py')}", ""]
        listed = [f"- `{path.name}` — {summary(path)}" for path in modules(package)]
        lines += [*listed, ""] if listed else []
    return "\n".join([*lines, END])


def replaced(document: str, block: str) -> str:
    """Return `document` with its code map replaced; raise ValueError when it has no markers."""
    begin, end = document.find(BEGIN), document.find(END)
    if begin < 0 or end < begin:
        raise ValueError(f"no markers of the code map: {BEGIN} … {END}")
    return document[:begin] + block + document[end + len(END) :]


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Write the code map, or with `--check` say whether it is up to date; return the status."""
    path = root / "ARCHITECTURE.md"
    document = path.read_text(encoding="utf-8")
    current = replaced(document, code_map(root))
    if "--check" not in arguments:
        path.write_text(current, encoding="utf-8")
        return 0
    if current == document:
        return 0
    print("the code map of ARCHITECTURE.md is stale: run scripts/codemap", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
