"""Writes docs/mqtt-conformance.md: what becomes of every normative statement of MQTT."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.conformance.page import keep
from tests.conformance.statements import V5, V31, V311, Statement, kept, read

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENT: Final = Path("docs/mqtt-conformance.md")

_HEAD: Final = """\
# Conformance to MQTT

Every numbered normative statement of MQTT 3.1.1 and 5.0 (OASIS), in our words: the number is the
specification's, the sentence is not. *kept* names the tests in `tests/conformance` that show it,
over raw sockets and against a running node. Statements that bind the client only, and those that
do not apply, say so. Where the text leaves a choice, the choice is told behind the sentence.

This page is written by `scripts/conformance`; a test fails when it is stale or a statement is
without a test.
"""
_TITLES: Final = {
    V31: "MQTT 3.1, where it differs from 3.1.1",
    V311: "MQTT 3.1.1",
    V5: "MQTT 5.0",
}


def document() -> str:
    """Return the whole page."""
    tests = kept()
    parts = [_HEAD]
    for version in (V311, V5, V31):
        statements = read(version)
        shown = sum(statement.testable for statement in statements.values())
        parts += [
            f"\n## {_TITLES[version]}\n",
            f"\n{len(statements)} statements, {shown} of them shown by tests.\n\n",
            "| statement | binds | what it demands, and what is done | verdict |\n",
            "|---|---|---|---|\n",
        ]
        parts += [
            _row(number, statement, tests.get((version, number), ()))
            for number, statement in statements.items()
        ]
    return "".join(parts)


def _row(number: str, statement: Statement, tests: Sequence[str]) -> str:
    text = statement.says + (f" *Here:* {statement.does}" if statement.does else "")
    if statement.testable:
        verdict = "kept: " + ", ".join(f"`{test}`" for test in tests)
    elif statement.na:
        verdict = f"not applicable: {statement.na}"
    else:
        verdict = "not applicable: it binds the client only"
    return f"| MQTT-{number} | {statement.binds} | {text} | {verdict} |\n"


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Write the page, or with `--check` say whether it is up to date; return the status."""
    return keep(root / DOCUMENT, document(), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
