"""The import contracts hold, and each of them notices the import that it forbids."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
PACKAGES = (
    "_kernel", "admin", "broker", "cli", "kafka", "message", "meta", "mqtt", "net", "policy",
    "raft", "rpc", "settings", "shard", "shm", "storage", "workers",
)  # fmt: skip
TOP_MODULES = tuple(path.stem for path in (ROOT / "robustmq").glob("[!_]*.py"))
MODULES = (
    *TOP_MODULES, "broker/api", "broker/core", "mqtt/codec", "mqtt/packets", "mqtt/properties",
    "mqtt/reasons", "mqtt/wire", "mqtt/framing", "mqtt/session", "shm/ring", "net/tcp",
    "storage/log", "storage/memory_log", "workers/worker", "message/record", "shard/shard",
    "admin/app", "settings/file", "raft/node", "meta/machine", "rpc/server",
    "broker/partition_api", "kafka/connection", "kafka/api_keys", "kafka/schema",
    "kafka/messages/__init__", "kafka/messages/fetch", "kafka/codec", "kafka/decoder",
    "kafka/encoder", "kafka/wire",
)  # fmt: skip

# contract, the module that imports, what it imports.
FORBIDDEN = [
    ("layers", "broker/core", "robustmq.mqtt.session"),
    ("layers", "errors", "robustmq.config"),
    ("layers", "settings/file", "robustmq.config"),
    ("layers", "mqtt/session", "robustmq.admin.app"),
    ("layers", "message/record", "robustmq.storage.log"),
    ("layers", "telemetry/__init__", "robustmq.errors"),
    ("codec", "mqtt/codec", "robustmq.mqtt.session"),
    ("codec", "mqtt/properties", "robustmq.broker.api"),
    ("codec", "mqtt/packets", "robustmq.config"),
    ("codec", "kafka/codec", "robustmq.kafka.connection"),
    ("codec", "kafka/messages/fetch", "robustmq.broker.partition_api"),
    ("port", "mqtt/session", "robustmq.broker.core"),
    ("port", "mqtt/session", "robustmq.shard.shard"),
    ("port", "mqtt/session", "robustmq.storage.log"),
    ("pure", "mqtt/session", "time"),
    ("pure", "broker/core", "asyncio"),
    ("pure", "shard/shard", "random"),
    ("pure", "storage/log", "socket"),
    ("pure", "shm/ring", "threading"),
    ("layers", "raft/node", "robustmq.meta.machine"),
    ("layers", "meta/machine", "robustmq.broker.core"),
    ("port", "mqtt/session", "robustmq.meta.machine"),
    ("pure", "raft/node", "random"),
    ("pure", "meta/machine", "time"),
    ("layers", "kafka/connection", "robustmq.mqtt.session"),
    ("layers", "mqtt/session", "robustmq.kafka.connection"),
    ("port", "kafka/connection", "robustmq.broker.core"),
    ("port", "kafka/connection", "robustmq.shard.shard"),
    ("pure", "kafka/connection", "time"),
    ("concrete", "meta/machine", "robustmq.rpc.server"),
    ("concrete", "broker/core", "robustmq.storage.memory_log"),
    ("concrete", "admin/app", "robustmq.shm.ring"),
    ("concrete", "cli/supervisor", "robustmq.net.tcp"),
]
ALLOWED = [
    ("mqtt/session", "robustmq.broker.api"),
    ("kafka/connection", "robustmq.broker.api"),
    ("kafka/connection", "robustmq.broker.partition_api"),
    ("kafka/codec", "robustmq.kafka.messages.fetch"),
    ("kafka/connection", "robustmq.kafka.api_keys"),
    ("mqtt/codec", "robustmq.mqtt.packets"),
    ("mqtt/codec", "robustmq._kernel"),
    ("shard/shard", "robustmq.storage.log"),
    ("meta/machine", "robustmq.raft.node"),
    ("raft/node", "robustmq.storage.log"),
    ("workers/worker", "robustmq.storage.memory_log"),
    ("workers/worker", "asyncio"),
]


def plant(root: Path, imports: list[tuple[str, str]]) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    start = text.index("[tool.importlinter]")
    (root / "pyproject.toml").write_text(text[start:], encoding="utf-8")
    names = [*(f"{package}/__init__" for package in PACKAGES), "__init__", *MODULES]
    for name in names:
        path = root / "robustmq" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"""A module."""\n', encoding="utf-8")
    for importer, imported in imports:
        path = root / "robustmq" / f"{importer}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"import {imported}\n")


def lint(root: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [*LINT, *arguments], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_our_imports_keep_the_contracts() -> None:
    status, output = lint(ROOT)
    assert status == 0, output
    assert " 0 broken" in output


@pytest.mark.parametrize(("contract", "importer", "imported"), FORBIDDEN)
def test_a_contract_notices_the_import_that_it_forbids(
    tmp_path: Path, contract: str, importer: str, imported: str
) -> None:
    plant(tmp_path, [(importer, imported)])
    status, output = lint(tmp_path, "--contract", contract)
    assert status != 0, output
    # The package is undeclared where the layers are exhaustive: its name is in the message too.
    wanted = f"robustmq.{importer.removesuffix('/__init__').replace('/', '.')}"
    assert wanted in output or wanted.rsplit(".", 1)[-1] in output, output


def test_what_the_design_allows_is_allowed(tmp_path: Path) -> None:
    plant(tmp_path, ALLOWED)
    status, output = lint(tmp_path)
    assert status == 0, output


def test_every_contract_is_shown_an_import_that_breaks_it() -> None:
    parsed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {each["id"] for each in parsed["tool"]["importlinter"]["contracts"]}
    assert {contract for contract, _, _ in FORBIDDEN} == contracts
