"""The file layer of the operating system, and the segment engine on it."""

import os
import select
from pathlib import Path

import pytest

from robustmq.storage.files import IOV_MAX, SystemFiles, read_small, write_small
from robustmq.storage.log_settings import LogSettings
from robustmq.storage.segment_engine import SegmentEngine
from tests.unit.storage.batches import batch
from tests.unit.storage.bench import offsets

PATIENCE = 30


def test_gathered_writes_of_any_number_and_short_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SystemFiles()
    fd = files.open(str(tmp_path / "f"), write=True, create=True)
    parts = [b"%d," % number for number in range(IOV_MAX * 2 + 3)]
    files.pwritev(fd, parts, 5)
    assert files.pread(fd, 1 << 20, 5) == b"".join(parts)
    monkeypatch.setattr(os, "pwritev", lambda fd, part, at: os.pwrite(fd, part[0][:1], at))
    files.pwritev(fd, [b"abc", b"def"], 0)
    assert files.pread(fd, 6, 0) == b"abcdef"
    files.close(fd)


def test_allocated_room_reads_as_zeros_and_is_cut_off(tmp_path: Path) -> None:
    files = SystemFiles()
    fd = files.open(str(tmp_path / "f"), write=True, create=True)
    files.allocate(fd, 0, 10_000)
    assert files.size(fd) == 10_000
    assert files.pread(fd, 10, 9_995) == bytes(5)
    assert files.in_memory(fd, 5_000, 10) in {True, False}
    files.ftruncate(fd, 3)
    assert files.size(fd) == 3
    files.close(fd)


def test_small_files_are_replaced_whole(tmp_path: Path) -> None:
    files = SystemFiles()
    path = str(tmp_path / "small")
    assert read_small(files, path) is None
    for data in (b"a long one", b"short"):
        write_small(files, path, data)
        assert read_small(files, path) == data
    assert files.listdir(str(tmp_path)) == ["small"]
    assert files.listdir(str(tmp_path / "none")) == []
    files.rmdir(str(tmp_path / "none"))
    files.unlink(str(tmp_path / "none"))


def test_the_segment_engine_on_real_files(tmp_path: Path) -> None:
    settings = LogSettings(flush="always", segment_bytes=4_096, preallocate_bytes=1_024)
    engine = SegmentEngine(str(tmp_path / "d"))
    log = engine.open(4, settings)
    for _ in range(100):
        log.append(batch(2, b"x" * 200), 2, 1_000)
        engine.commit()
    while log.durable_offset < 200:
        assert select.select([engine.fileno()], [], [], PATIENCE)[0]
        engine.completed()
    assert log.warm(0, 1 << 20)
    assert offsets(log) == list(range(0, 200, 2))
    log.trim(50)
    engine.close()
    names = sorted(path.name for path in (tmp_path / "d" / "4").iterdir())
    assert len([name for name in names if name.endswith(".log")]) > 5
    again = SegmentEngine(str(tmp_path / "d"))
    assert again.shards() == [4]
    log = again.open(4, settings)
    assert again.recovery.batches == 0
    assert (log.start_offset, log.end_offset) == (50, 200)
    assert offsets(log) == list(range(50, 200, 2))
    again.close()


def test_a_file_takes_as_much_in_advance_as_it_has(tmp_path: Path) -> None:
    engine = SegmentEngine(str(tmp_path / "d"))
    log = engine.open(4, LogSettings(flush="always", preallocate_bytes=1 << 20))
    path = tmp_path / "d" / "4" / f"{0:020}.log"
    taken: list[tuple[int, int]] = []
    size = 0
    while size < 3 << 20:
        data = batch(1, b"x" * 20_000)
        log.append(data, 1, 1_000)
        engine.commit()
        while log.durable_offset < log.end_offset:
            assert select.select([engine.fileno()], [], [], PATIENCE)[0]
            engine.completed()
        size += len(data)
        taken.append((size, path.stat().st_size))
    engine.close()
    assert taken[0][1] == 65_536
    assert all(size <= there <= 2 * size + 65_536 for size, there in taken)
    assert max(there - size for size, there in taken) <= 1 << 20
    assert len({there for _, there in taken}) < 12
