"""What the machine must give: counts, ring sizes, open files, the lock."""

import os
import resource
from pathlib import Path

import pytest

from robustmq.config import Config, load
from robustmq.workers import limits
from robustmq.workers.limits import StartError


def configured(*overrides: str) -> Config:
    return load(None, overrides, {})


def test_auto_is_one_worker_per_core_that_we_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(3)))
    assert limits.worker_count(configured()) == 3
    assert limits.worker_count(configured("runtime.workers=5")) == 5
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(256)))
    assert limits.worker_count(configured()) == 64


@pytest.mark.parametrize(
    ("endpoints", "size"),
    [(2, 4 << 20), (3, 4 << 20), (9, 2 << 20), (17, 512 << 10), (33, 256 << 10), (65, 256 << 10)],
)
def test_rings_share_a_fixed_amount_of_memory(endpoints: int, size: int) -> None:
    assert limits.ring_bytes(configured(), endpoints) == size
    assert limits.ring_bytes(configured("runtime.ring_bytes=65536"), endpoints) == 65_536


def test_too_few_files_are_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (64, 64))
    with pytest.raises(StartError, match=r"too few file descriptors: 2 workers .* limit is 64"):
        limits.raise_open_files(configured(), 2)


def test_the_soft_limit_is_raised_to_the_hard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [(1_024, 20_000)]
    monkeypatch.setattr(resource, "getrlimit", lambda _which: given[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _which, pair: given.append(pair))
    limits.raise_open_files(configured(), 2)
    assert given[-1] == (20_000, 20_000)
    assert limits.connection_count(configured(), 2) == 20_000 - limits.files_beside_connections(2)
    with pytest.raises(StartError, match="30000 connections"):
        limits.raise_open_files(configured("cluster_limit.max_network_connection=30000"), 2)


def test_configured_connections_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (20_000, 20_000))
    config = configured("cluster_limit.max_network_connection=500")
    assert limits.connection_count(config, 2) == 500


def test_a_data_directory_has_one_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "data")
    held = limits.lock_data_directory(path)
    with pytest.raises(StartError, match=rf"in use by another server \(process {os.getpid()}\)"):
        limits.lock_data_directory(path)
    os.close(held)
    os.close(limits.lock_data_directory(path))


def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="cannot be used: File exists"):
        limits.lock_data_directory(str(tmp_path / "file"))
