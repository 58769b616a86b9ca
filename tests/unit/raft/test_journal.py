import errno
import random

import pytest

from robustmq.errors import Corrupt
from robustmq.raft.journal import Fatal, Journal, Journals
from robustmq.raft.message import Entry, EntryKind, HardState, Membership, Snapshot
from tests.unit.storage.disk import Disk, HandWriter

SEGMENT = 400
START = Snapshot(0, 0, Membership((1, 2, 3)))


def entry(index: int, term: int = 1, data: bytes = b"x" * 40) -> Entry:
    return Entry(index, term, EntryKind.COMMAND, data)


class Bench:
    """Journals on a disk in memory, opened again and again."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.open()
        self.journal.begin(START, anew=True)
        self.sync()

    def open(self) -> None:
        self.writer = HandWriter()
        self.journals = Journals(self.disk, self.writer, "/raft", SEGMENT)
        self.journal: Journal = self.journals.open("metadata")

    def sync(self) -> None:
        self.journals.commit()
        self.writer.run()
        self.journals.collect()

    def append(self, first: int, last: int, term: int = 1) -> None:
        self.journal.append([entry(each, term) for each in range(first, last + 1)], None)

    def reopen(self) -> None:
        self.journals.close()
        self.open()

    def kept(self) -> list[tuple[int, int]]:
        journal = self.journal
        first, last = journal.start.index + 1, journal.last_index
        if first > last:
            return []
        return [(each.index, each.term) for each in journal.read(first, last, 1 << 30)]

    def paths(self) -> list[str]:
        return sorted(path for path in self.disk.names if path.endswith(".journal"))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_is_read_before_and_after_it_is_written_and_after_a_restart(bench: Bench) -> None:
    bench.append(1, 3)
    expected = [(1, 1), (2, 1), (3, 1)]
    assert bench.kept() == expected
    bench.journals.commit()
    assert bench.kept() == expected
    bench.writer.run()
    bench.journals.collect()
    assert bench.kept() == expected
    bench.reopen()
    assert bench.kept() == expected
    assert bench.journal.start == START
    assert [bench.journal.term(each) for each in range(5)] == [0, 1, 1, 1, None]


def test_reads_are_bounded_by_bytes(bench: Bench) -> None:
    bench.append(1, 20)
    bench.sync()
    assert [each.index for each in bench.journal.read(3, 20, 1)] == [3]
    assert [each.index for each in bench.journal.read(3, 20, 150)] == [3, 4, 5]
    assert [each.index for each in bench.journal.read(3, 5, 1 << 20)] == [3, 4, 5]


def test_a_turn_is_one_sync_and_the_next_waits_for_it(bench: Bench) -> None:
    other = bench.journals.open("data_0")
    before = bench.journals.syncs
    bench.append(1, 2)
    bench.journal.append([], HardState(3, 2, 0))
    other.append([entry(1)], None)
    number = bench.journals.next
    bench.journals.commit()
    bench.append(3, 3)
    bench.journals.commit()
    assert bench.journals.durable == number - 1
    bench.writer.run()
    bench.journals.collect()
    assert bench.journals.durable == number
    assert bench.journals.syncs == before + 2
    bench.writer.run()
    bench.journals.collect()
    assert bench.journals.durable == number + 1
    assert bench.journals.syncs == before + 3


def test_the_vote_is_kept_with_its_term(bench: Bench) -> None:
    bench.journal.append([], HardState(7, 3, 0))
    bench.sync()
    bench.disk.lose_power(random.Random(1))
    bench.open()
    assert bench.journal.hard_state == HardState(7, 3, 0)


def test_what_is_committed_is_worth_no_write_of_its_own(bench: Bench) -> None:
    bench.append(1, 2)
    bench.sync()
    durable = bench.journals.durable
    bench.journal.append([], HardState(0, -1, 2))
    bench.sync()
    assert bench.journals.durable == durable
    bench.journal.append([entry(3)], None)
    bench.journal.append([], HardState(1, 2, 2))
    bench.sync()
    bench.reopen()
    assert bench.journal.hard_state == HardState(1, 2, 2)


def test_another_leaders_entries_take_the_place_of_a_tail(bench: Bench) -> None:
    bench.append(1, 9)
    bench.sync()
    bench.append(4, 5, term=2)
    assert bench.kept() == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)]
    bench.sync()
    bench.reopen()
    assert bench.kept() == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)]


def test_defect_b_compaction_deletes_whole_segments_and_rewrites_nothing(bench: Bench) -> None:
    for index in range(1, 41):
        bench.append(index, index)
        bench.sync()
    segments = bench.journal.segments
    bench.disk.calls.clear()
    bench.journal.begin(Snapshot(30, 1, START.membership), anew=False)
    bench.sync()
    assert "rename" not in bench.disk.calls
    assert "ftruncate" not in bench.disk.calls
    assert bench.journal.segments < segments
    bench.reopen()
    assert bench.journal.start.index == 30
    assert bench.kept() == [(each, 1) for each in range(31, 41)]


@pytest.mark.parametrize("seed", range(40))
def test_defect_b_a_kill_at_any_system_call_of_a_compaction_loses_nothing(seed: int) -> None:
    bench = Bench()
    for index in range(1, 41):
        bench.append(index, index)
        bench.sync()
    bench.journal.begin(Snapshot(30, 1, START.membership), anew=False)
    bench.journals.commit()
    fault = ("pwritev", "fdatasync", "unlink", "sync_directory")[seed % 4]
    bench.disk.faults[fault] = 5
    bench.writer.run()
    bench.disk.faults.clear()
    bench.disk.lose_power(random.Random(seed))
    bench.open()
    assert bench.journal.start.index in {0, 30}
    assert bench.kept()[-10:] == [(each, 1) for each in range(31, 41)]


def test_a_snapshot_that_is_ahead_starts_the_log_anew(bench: Bench) -> None:
    bench.append(1, 9)
    bench.sync()
    snapshot = Snapshot(100, 4, Membership((1, 2)))
    bench.journal.begin(snapshot, anew=True)
    bench.journal.append([entry(101, 5)], None)
    bench.sync()
    bench.reopen()
    assert bench.journal.start == snapshot
    assert bench.kept() == [(101, 5)]
    assert bench.journal.term(100) == 4


def test_a_torn_end_is_cut_and_said(bench: Bench) -> None:
    bench.append(1, 2)
    bench.sync()
    bench.append(3, 4)
    bench.sync()
    inode = bench.disk.names[bench.paths()[-1]]
    inode.resize(len(inode.data) - 5)
    inode.sync()
    bench.open()
    assert bench.kept() == [(1, 1), (2, 1), (3, 1)]
    assert bench.journal.recovered.cut > 0
    assert "the last record is" in bench.journal.recovered.reason
    bench.append(4, 4, term=2)
    bench.sync()
    bench.reopen()
    assert bench.kept() == [(1, 1), (2, 1), (3, 1), (4, 2)]


def test_damage_that_a_later_batch_follows_is_refused_in_a_sentence(bench: Bench) -> None:
    bench.append(1, 1)
    bench.sync()
    bench.append(2, 2)
    bench.sync()
    at = bytes(bench.disk.names[bench.paths()[-1]].data).find(b"x" * 40)
    bench.disk.flip(bench.paths()[-1], at * 8)
    with pytest.raises(Corrupt, match="replace the node"):
        bench.open()


def test_damage_in_an_earlier_segment_is_refused(bench: Bench) -> None:
    for index in range(1, 41):
        bench.append(index, index)
        bench.sync()
    path = bench.paths()[2]
    bench.disk.flip(path, (len(bench.disk.names[path].data) - 3) * 8)
    with pytest.raises(Corrupt, match="segments follow"):
        bench.open()


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_missing_segment_is_refused(bench: Bench, which: int) -> None:
    for index in range(1, 41):
        bench.append(index, index)
        bench.sync()
    bench.disk.unlink(bench.paths()[which])
    with pytest.raises(Corrupt, match="missing"):
        bench.open()


def test_defect_n_what_is_committed_is_never_beyond_the_end(bench: Bench) -> None:
    bench.append(1, 3)
    bench.journal.append([], HardState(1, 2, 9))
    bench.sync()
    with pytest.raises(Corrupt, match="9 is committed"):
        bench.open()


def test_a_failed_sync_is_final(bench: Bench) -> None:
    bench.append(1, 1)
    bench.journals.commit()
    bench.disk.faults["fdatasync"] = 5
    bench.writer.run()
    bench.disk.faults.clear()
    with pytest.raises(Fatal, match="this process ends"):
        bench.journals.collect()
    bench.writer.run()
    with pytest.raises(Fatal):
        bench.journals.collect()
    assert bench.disk.calls.count("fdatasync") == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_waited_for(bench: Bench, code: int) -> None:
    chores: list[int] = []
    number = bench.journals.chore(lambda: chores.append(1))
    bench.append(1, 3)
    bench.journals.commit()
    bench.disk.faults["pwritev"] = code
    assert bench.writer.run() == 0.5
    bench.journals.collect()
    assert (bench.journals.is_full, bench.journals.durable) == (True, number - 1)
    bench.disk.faults.clear()
    assert bench.writer.run() is None
    bench.journals.collect()
    assert (bench.journals.is_full, bench.journals.durable) == (False, number)
    assert chores == [1]
    bench.reopen()
    assert bench.kept() == [(1, 1), (2, 1), (3, 1)]


def test_an_end_while_the_disk_is_full_loses_what_nobody_was_told_of(bench: Bench) -> None:
    bench.append(1, 1)
    bench.sync()
    bench.append(2, 9)
    bench.disk.room = sum(len(each.data) for each in bench.disk.names.values()) + 150
    bench.journals.commit()
    bench.writer.run()
    bench.journals.collect()
    assert bench.journals.is_full
    bench.journals.close()
    bench.disk.room = None
    bench.open()
    assert bench.kept()[0] == (1, 1)
    assert len(bench.kept()) < 9


def test_a_chore_is_done_with_the_batch(bench: Bench) -> None:
    done: list[int] = []
    number = bench.journals.chore(lambda: done.append(1))
    bench.journals.commit()
    assert not done
    bench.writer.run()
    bench.journals.collect()
    assert done
    assert bench.journals.durable >= number


def test_what_is_gathered_at_the_end_is_kept(bench: Bench) -> None:
    bench.append(1, 1)
    bench.journals.commit()
    bench.append(2, 2)
    bench.journals.close()
    assert not bench.disk.open_files
    bench.open()
    assert bench.kept() == [(1, 1), (2, 1)]
