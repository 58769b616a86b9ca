"""A page of documentation that is written by a program: written, or compared."""

import sys
from collections.abc import Sequence
from pathlib import Path


def keep(path: Path, text: str, arguments: Sequence[str]) -> int:
    """Write the page, or with `--check` say whether it is up to date; return the status."""
    if "--check" not in arguments:
        path.write_text(text, encoding="utf-8")
        return 0
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return 0
    print(f"{path.name} is stale: run scripts/conformance", file=sys.stderr)
    return 1
