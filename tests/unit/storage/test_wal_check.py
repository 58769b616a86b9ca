"""The check of RocksDB's logs, on files that RocksDB has written and somebody has damaged."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq._kernel.crc import crc32c
from robustmq.storage.rocksdb_engine import RocksdbEngine
from robustmq.storage.rocksdb_store import ROWS, RocksdbStore
from robustmq.storage.wal_check import BLOCK, Damage, check, quarantine

COMMITS = 300
BIG = 100_000
"""Bytes of a row that takes several blocks."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as a killed process leaves it: rows in its log only, two of them over blocks."""
    place = tmp_path_factory.mktemp("wal")
    store = RocksdbStore(f"{place}/live", 1 << 26, 1 << 28)
    for number in range(COMMITS):
        size = BIG if number in {100, COMMITS - 1} else 200 + number
        store.write([], False, [(b"r%06d" % number, bytes([number & 255]) * size)])
    shutil.copytree(f"{place}/live", place / "db")
    store.close()
    return place / "db"


@pytest.fixture
def database(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "db"))


def log_of(database: Path) -> Path:
    (log,) = (path for path in database.glob("*.log") if path.stat().st_size)
    return log


def change(log: Path, edit: Callable[[bytearray], object]) -> bytes:
    data = bytearray(log.read_bytes())
    edit(data)
    log.write_bytes(data)
    return bytes(data)


def rows_of(database: Path) -> set[int]:
    """What RocksDB makes of it."""
    store = RocksdbStore(str(database), 1 << 26, 1 << 28)
    found = {int(key[1:]) for key, _ in store.items(ROWS, b"r")}
    store.close()
    return found


def test_a_whole_log_has_all_records_and_no_damage(database: Path) -> None:
    seen: list[int] = []
    report = check(str(database), seen.append)
    size = log_of(database).stat().st_size
    assert (report.files, report.records, report.bytes, report.damage) == (1, COMMITS, size, [])
    assert seen[-1] == size
    assert rows_of(database) == {*range(COMMITS)}


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    report = check(str(tmp_path / "missing"))
    assert (report.files, report.damage) == (0, [])


@pytest.mark.parametrize("missing", [1, 5, 4_000, 40_000, 99_990])
def test_a_cut_log_has_a_torn_tail(database: Path, missing: int) -> None:
    log = log_of(database)
    size = log.stat().st_size - missing
    with log.open("r+b") as file:
        file.truncate(size)
    report = check(str(database))
    (damage,) = report.damage
    assert damage.is_torn
    assert (damage.file, damage.stop) == (log.name, size)
    assert damage.start < size
    assert report.records == COMMITS - 1
    assert rows_of(database) == {*range(COMMITS - 1)}


def test_zeros_behind_the_end_are_room_that_was_taken_in_advance(database: Path) -> None:
    with log_of(database).open("ab") as file:
        file.write(bytes(100_000))
    assert check(str(database)).damage == []


def test_a_flipped_bit_is_damage_in_the_middle(database: Path) -> None:
    log = log_of(database)
    at = 4 * BLOCK + 5_000
    change(log, lambda data: data.__setitem__(at, data[at] ^ 4))
    report = check(str(database))
    (damage,) = report.damage
    assert not damage.is_torn
    assert damage.start <= at < damage.stop < 5 * BLOCK + 1_000
    assert damage.reason == "has a wrong checksum"
    lost = {*range(COMMITS)} - rows_of(database)
    assert len(lost) == COMMITS - report.records > 0


def test_a_flipped_bit_near_the_end_is_no_torn_tail(tmp_path: Path) -> None:
    store = RocksdbStore(f"{tmp_path}/live", 1 << 26, 1 << 28)
    for number in range(5):
        store.write([], False, [(b"r%06d" % number, b"x" * 100)])
    database = Path(shutil.copytree(f"{tmp_path}/live", tmp_path / "db"))
    store.close()
    log = log_of(database)
    data = log.read_bytes()
    second, last = data.index(b"r000001"), data.index(b"r000004")
    change(log, lambda data: data.__setitem__(second, 0))
    (damage,) = check(str(database)).damage
    assert not damage.is_torn
    change(log, lambda data: (data.__setitem__(second, ord("r")), data.__setitem__(last, 0)))
    (damage,) = check(str(database)).damage
    assert damage.is_torn


def test_zeros_in_the_middle_are_damage(database: Path) -> None:
    change(log_of(database), lambda data: data.__setitem__(slice(BLOCK, 2 * BLOCK), bytes(BLOCK)))
    (damage,) = check(str(database)).damage
    assert not damage.is_torn
    assert damage.start <= BLOCK
    assert damage.stop >= 2 * BLOCK


def test_a_wrong_length_costs_the_rest_of_its_block(database: Path) -> None:
    log = log_of(database)
    first_of_third = 2 * BLOCK
    change(log, lambda data: data.__setitem__(slice(2 * BLOCK + 4, 2 * BLOCK + 6), b"\xff\xff"))
    (damage,) = check(str(database)).damage
    assert damage.start <= first_of_third
    assert damage.stop >= 3 * BLOCK
    assert damage.reason in {"goes beyond its block", "has no last fragment"}


def test_the_tail_of_a_log_with_another_behind_it_is_not_torn(database: Path) -> None:
    log = log_of(database)
    shutil.copy(log, database / "999999.log")
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size - 3)
    (damage,) = check(str(database)).damage
    assert (damage.file, damage.is_torn) == (log.name, False)


def fragment(kind: int, body: bytes, number: int | None = None) -> bytes:
    """A fragment as RocksDB writes it; with the log's number where logs are written over."""
    covered = bytes([kind]) + (b"" if number is None else number.to_bytes(4, "little")) + body
    crc = crc32c(covered)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return masked.to_bytes(4, "little") + len(body).to_bytes(2, "little") + covered


@pytest.mark.parametrize(
    ("parts", "records", "found"),
    [
        ([(5, b"a", 7), (6, b"b", 7), (8, b"c", 7)], 2, []),
        ([(5, b"a", 7), (5, b"old", 6), (5, b"old", 6)], 1, []),
        ([(10, b"x", None), (1, b"a", None), (130, b"y", None)], 1, []),
        ([(1, b"a", None), (4, b"b", None), (1, b"c", None)], 2, ["has no first fragment"]),
        ([(2, b"a", None), (1, b"b", None)], 1, ["has no last fragment"]),
        ([(1, b"a", None), (77, b"b", None)], 1, ["has the unknown type 77"]),
    ],
)
def test_fragments(
    parts: list[tuple[int, bytes, int | None]], records: int, found: list[str], tmp_path: Path
) -> None:
    (tmp_path / "000007.log").write_bytes(b"".join(fragment(*part) for part in parts))
    report = check(str(tmp_path))
    assert report.records == records
    assert [damage.reason for damage in report.damage] == found
    assert not any(damage.is_torn for damage in report.damage)


@given(
    place=st.floats(0, 1, exclude_max=True),
    edit=st.sampled_from(["cut", "flip", "zero", "noise"]),
    length=st.integers(1, 3 * BLOCK),
)
def test_what_rocksdb_would_miss_is_always_reported(
    written: Path, tmp_path_factory: pytest.TempPathFactory, place: float, edit: str, length: int
) -> None:
    database = Path(shutil.copytree(written, tmp_path_factory.mktemp("any") / "db"))
    log = log_of(database)
    at = int(log.stat().st_size * place)

    def damage(data: bytearray) -> None:
        if edit == "cut":
            del data[at:]
        elif edit == "flip":
            data[at] ^= 1
        else:
            size = len(data[at : at + length])
            data[at : at + length] = bytes(size) if edit == "zero" else b"\xa5" * size

    change(log, damage)
    report = check(str(database))
    missed = COMMITS - len(rows_of(database))
    # A file that ends where a record ends looks whole.
    assert report.damage or not missed or edit in {"cut", "zero"}
    assert report.records <= COMMITS
    if edit == "cut":
        assert all(each.is_torn for each in report.damage)
    shutil.rmtree(database.parent)


def test_an_engine_says_what_was_cut_and_what_was_damaged(written: Path, tmp_path: Path) -> None:
    core = tmp_path / "core"
    shutil.copytree(written, core / "db")
    log = log_of(core / "db")
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size - 3)
    damaged = change(log, lambda data: data.__setitem__(5_000, data[5_000] ^ 1))
    engine = RocksdbEngine(str(core))
    recovery = engine.recovery
    assert recovery.wal_bytes == len(damaged)
    assert recovery.cut_bytes > BIG // 2
    (place,) = recovery.damaged
    kept = core / "quarantine" / log.name
    assert str(kept) in place
    assert kept.read_bytes() == damaged
    engine.close()
    assert kept.read_bytes() == damaged
    again = RocksdbEngine(str(core))
    assert again.recovery.damaged == []
    assert (again.recovery.wal_bytes, again.recovery.cut_bytes) == (0, 0)
    again.close()


def test_damage_is_told_although_the_file_cannot_be_kept(written: Path, tmp_path: Path) -> None:
    core = tmp_path / "core"
    shutil.copytree(written, core / "db")
    (core / "quarantine").write_text("no directory")
    log = log_of(core / "db")
    change(log, lambda data: data.__setitem__(5_000, data[5_000] ^ 1))
    engine = RocksdbEngine(str(core))
    (place,) = engine.recovery.damaged
    assert f"{log.name}, which could not be kept" in place
    engine.close()


def test_a_damaged_log_is_kept_once(tmp_path: Path) -> None:
    (tmp_path / "000003.log").write_bytes(b"first")
    damage = Damage("000003.log", 0, 5, "has no end")
    kept = quarantine(str(tmp_path), damage, str(tmp_path / "aside"))
    (tmp_path / "000003.log").unlink()
    (tmp_path / "000003.log").write_bytes(b"second")
    assert quarantine(str(tmp_path), damage, str(tmp_path / "aside")) == kept
    assert Path(kept).read_bytes() == b"first"
