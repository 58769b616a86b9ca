"""The normative statements of MQTT, and the mark that says which of them a test shows.

A version's statements are in `v31.toml`, `v311.toml` and `v5.toml`. A test that carries
`@keeps(v5="3.1.2-4")` runs with that version, and its name holds [MQTT-3.1.2-4].
"""

import importlib
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec
import pytest

V31: Final = 3
V311: Final = 4
V5: Final = 5
NAMES: Final = {V31: "v31", V311: "v311", V5: "v5"}

_HERE: Final = Path(__file__).resolve().parent
_ATTRIBUTE: Final = "kept_statements"

Test = TypeVar("Test", bound=Callable[..., None])


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is demanded, in our words, of whom, and what becomes of it here.

    `does` is what we do where the text leaves a choice; `na` why no test of a server shows it.
    """

    binds: Literal["client", "server", "both"]
    says: str
    does: str = ""
    na: str = ""

    @property
    def testable(self) -> bool:
        """Say whether a server can violate it."""
        return self.binds != "client" and not self.na


def read(version: int) -> dict[str, Statement]:
    """Return the statements of a version by their numbers, in the specification's order."""
    text = (_HERE / f"{NAMES[version]}.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Statement])


def keeps(v31: str = "", v311: str = "", v5: str = "") -> Callable[[Test], Test]:
    """Mark a test as showing statements, written with blanks between: one run per version."""
    shown = {
        version: numbers.split()
        for version, numbers in ((V31, v31), (V311, v311), (V5, v5))
        if numbers
    }
    identifiers = [
        f"{NAMES[version]}-" + "-".join(f"[MQTT-{number}]" for number in numbers)
        for version, numbers in shown.items()
    ]

    def mark(test: Test) -> Test:
        setattr(test, _ATTRIBUTE, shown)
        marked: Test = pytest.mark.parametrize("version", list(shown), ids=identifiers)(test)
        return marked

    return mark


def kept() -> dict[tuple[int, str], list[str]]:
    """Return the tests that show each (version, number), as `module::test`, in order."""
    found: dict[tuple[int, str], list[str]] = {}
    for path in sorted(_HERE.glob("test_*.py")):
        module: Any = importlib.import_module(f"tests.conformance.{path.stem}")
        for name, test in vars(module).items():
            for version, numbers in getattr(test, _ATTRIBUTE, {}).items():
                for number in numbers:
                    found.setdefault((version, number), []).append(f"{path.stem}::{name}")
    return found
