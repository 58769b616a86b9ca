"""The closing line of several pytest runs, summed from their JUnit reports.

python -m tests.architecture.closing_line REPORT.xml...
"""

import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Outcome(NamedTuple):
    """Counts of tests by outcome, and the seconds that they took."""

    passed: int = 0
    failed: int = 0
    errors: int = 0
    skipped: int = 0
    seconds: float = 0.0


def outcome(report: str) -> Outcome:
    """Return the counts of one JUnit report; raise ET.ParseError when it is not one."""
    total = Outcome()
    for suite in ET.fromstring(report).iter("testsuite"):
        failed, errors = int(suite.get("failures", 0)), int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        passed = max(0, int(suite.get("tests", 0)) - failed - errors - skipped)
        one = Outcome(passed, failed, errors, skipped, float(suite.get("time", 0)))
        total = add(total, one)
    return total


def add(left: Outcome, right: Outcome) -> Outcome:
    """Return the sum of two outcomes."""
    return Outcome(
        left.passed + right.passed,
        left.failed + right.failed,
        left.errors + right.errors,
        left.skipped + right.skipped,
        left.seconds + right.seconds,
    )


def line(total: Outcome) -> str:
    """Return the line in pytest's own form: `2 failed, 40 passed in 3.21s`."""
    named = [
        (total.failed, "failed"),
        (total.passed, "passed"),
        (total.skipped, "skipped"),
        (total.errors, "error" if total.errors == 1 else "errors"),
    ]
    counts = ", ".join(f"{count} {name}" for count, name in named if count) or "no tests ran"
    return f"{counts} in {total.seconds:.2f}s"


def read(path: Path) -> Outcome:
    """Return the counts of a report; a run that left none, or ran nothing, is one error."""
    found = outcome(path.read_text(encoding="utf-8")) if path.exists() else Outcome()
    ran = found.passed + found.failed + found.errors + found.skipped
    return found if ran else found._replace(errors=1)


def main(paths: Sequence[str]) -> int:
    """Print the summed line; return 0 only when every run ran and nothing failed."""
    total = Outcome()
    for path in paths:
        total = add(total, read(Path(path)))
    print(f" {line(total)} ".center(100, "="))
    return 1 if total.failed or total.errors or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
