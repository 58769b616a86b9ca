"""The data directory: what it was written with, and what is refused."""

import errno
import random
from pathlib import Path

import pytest

from robustmq.errors import ConfigError
from robustmq.storage.layout import open_layout
from tests.unit.storage.disk import Disk


def test_a_fresh_directory_has_no_workers_until_they_are_recorded(tmp_path: Path) -> None:
    place = str(tmp_path / "deep" / "data")
    layout = open_layout(place)
    assert (layout.workers, layout.cores()) == (None, [])
    layout.record(3)
    assert layout.workers == 3
    assert (tmp_path / "deep" / "data" / "format.json").read_text() == (
        '{"format":1,"workers":3,"generation":1}\n'
    )
    again = open_layout(place)
    assert again.workers == 3
    again.record(2)
    assert open_layout(place).workers == 2


def test_cores_have_directories(tmp_path: Path) -> None:
    layout = open_layout(str(tmp_path))
    for core in (10, 0, 2, 0):
        assert layout.core_path(core) == f"{tmp_path}/g1/core-{core}"
    (tmp_path / "g1" / "core-x").mkdir()
    assert layout.cores() == [0, 2, 10]
    assert (tmp_path / "g1" / "core-10").is_dir()


def test_the_next_generation_counts_when_it_is_recorded(tmp_path: Path) -> None:
    old = open_layout(str(tmp_path))
    old.record(2)
    old.core_path(1)
    new = old.successor()
    assert (new.workers, new.generation, new.cores()) == (None, 2, [])
    assert new.core_path(2) == f"{tmp_path}/g2/core-2"
    found = open_layout(str(tmp_path))
    assert (found.workers, found.generation, found.cores()) == (2, 1, [1])
    assert found.strays() == [f"{tmp_path}/g2"]
    new.record(2)
    found = open_layout(str(tmp_path))
    assert (found.workers, found.generation, found.cores()) == (2, 2, [2])
    assert found.strays() == [f"{tmp_path}/g1"]
    (tmp_path / "gx").mkdir()
    assert found.strays() == [f"{tmp_path}/g1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format": 2, "workers": 3, "regions": []}', "newer robustmq .format 2, this one knows"),
        ('{"format": 2}', "newer"),
        ('{"format": 1}', "cannot be read .*workers.*restore it"),
        ('{"format": 1, "workers": 0, "generation": 1}', "cannot be read"),
        ('{"format": 1, "workers": 2}', "cannot be read .*generation"),
        ('{"format": 0, "workers": 1}', "cannot be read"),
        ("", "cannot be read"),
        ("nonsense", "cannot be read"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "format.json").write_text(text)
    with pytest.raises(ConfigError, match=said):
        open_layout(str(tmp_path))


def test_a_place_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used: File exists"):
        open_layout(str(tmp_path / "file"))


def test_the_number_of_workers_is_the_old_or_the_new_one_after_a_power_cut() -> None:
    found = set()
    for seed in range(60):
        disk = Disk()
        open_layout("/d", disk).record(2)
        layout = open_layout("/d", disk)
        call = ("pwritev", "fdatasync", "rename", "sync_directory", "")[seed % 5]
        disk.faults = {call: errno.EIO} if call else {}
        try:
            layout.record(4)
        except OSError:
            assert layout.workers == 2
        else:
            assert not call
        disk.faults = {}
        disk.lose_power(random.Random(seed))
        workers = open_layout("/d", disk).workers
        assert workers == 4 or call
        found.add(workers)
    assert found == {2, 4}
