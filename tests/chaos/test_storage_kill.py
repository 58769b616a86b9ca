"""Engines are killed while they append, and run into a full disk: what was durable is there."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = 12
PROCESS = [sys.executable, "-m", "tests.chaos.storage_process"]
ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 200
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]

every_engine = pytest.mark.parametrize("kind", ["segment", "rocksdb", "rows"])
both_flushes = pytest.mark.parametrize("flush", ["always", "interval"])


def told(text: str) -> dict[int, int]:
    """The last whole line about each shard."""
    lines = text[: text.rfind("\n") + 1].splitlines()
    return {int(shard): int(end) for shard, end in map(str.split, lines)}


def append_until_killed(arguments: list[str], rng: random.Random) -> dict[int, int]:
    """What the process said to be durable before it was killed."""
    with subprocess.Popen(
        [*PROCESS, "append", *arguments], stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        # The clock starts when it appends: a slow start must not be killed before it.
        first = process.stdout.readline()
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        return told((first + process.stdout.read()).decode())


def check(arguments: list[str]) -> dict[int, int]:
    run = subprocess.run(
        [*PROCESS, "check", *arguments],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        check=True,
        timeout=TIMEOUT,
        text=True,
    )
    return told(run.stdout)


@pytest.mark.slow
@every_engine
@both_flushes
def test_what_was_durable_survives_kill_9(tmp_path: Path, kind: str, flush: str) -> None:
    rng = random.Random(f"{kind} {flush}")
    arguments = [kind, flush, str(tmp_path / "data")]
    promised: dict[int, int] = {}
    for kill in range(KILLS):
        promised |= append_until_killed(arguments, rng)
        assert promised
        # Sometimes the next process has to deal with what two dead ones have left.
        if kill % 3 != 1:
            found = check(arguments)
            lost = {shard: end for shard, end in promised.items() if found[shard] < end}
            assert lost == {}


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = [*UNSHARE, "mount", "-t", "tmpfs", "-o", "size=1m", "none", "/mnt"]
    return subprocess.run(probe, check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="no tmpfs may be mounted; unit tests fill a fake disk")
@every_engine
@both_flushes
def test_a_full_disk_is_survived(tmp_path: Path, kind: str, flush: str) -> None:
    script = (
        'mount -t tmpfs -o size=24m none "$1" && shift && '
        '"$1" -m tests.chaos.storage_process fill "$2" "$3" "$4" && '
        '"$1" -m tests.chaos.storage_process check "$2" "$3" "$4"'
    )
    arguments = [str(tmp_path), sys.executable, kind, flush, str(tmp_path / "data")]
    run = subprocess.run(
        [*UNSHARE, "sh", "-c", script, "sh", *arguments],
        capture_output=True,
        cwd=ROOT,
        check=False,
        timeout=TIMEOUT,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert len(told(run.stdout)) == (4 if kind == "rows" else 3)
