"""A protocol is one folder, lines in the table of listeners, and one struct of settings."""

import ast
from pathlib import Path
from typing import Final

import msgspec
import pytest

from robustmq.config import Config
from robustmq.workers.listeners import LISTENERS

PACKAGE: Final = Path(__file__).resolve().parents[2] / "robustmq"
PROTOCOLS: Final = sorted({listener.protocol for listener in LISTENERS})


def _imports(path: Path) -> set[str]:
    """Name the modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _outsiders(protocol: str) -> list[str]:
    """Name the files outside of a protocol's folder that import something of it."""
    prefix = f"robustmq.{protocol}."
    return sorted(
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if not path.is_relative_to(PACKAGE / protocol)
        and any(name.startswith(prefix) for name in _imports(path))
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_has_a_folder_and_a_struct_of_settings(protocol: str) -> None:
    assert (PACKAGE / protocol / "__init__.py").is_file()
    settings = getattr(Config(), f"{protocol}_runtime")
    assert isinstance(settings, msgspec.Struct)


def test_of_kafka_only_its_door_and_the_worker_know() -> None:
    assert _outsiders("kafka") == [
        "workers/kafka_brokers.py",
        "workers/kafka_door.py",
        "workers/worker.py",
    ]


def test_a_file_that_reaches_into_a_protocol_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "stranger.py"
    path.write_text("from robustmq.kafka.front import Front\nimport os.path\n", encoding="utf-8")
    assert _imports(path) == {"robustmq.kafka.front.Front", "os.path"}
