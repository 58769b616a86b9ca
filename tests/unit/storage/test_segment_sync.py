"""Segments are synced beside the writer: nothing is lost by it, and nothing waits for ever."""

import errno
from collections.abc import Callable

import pytest

from robustmq.storage.log_settings import LogSettings
from robustmq.storage.segment import Segment
from robustmq.storage.segment_engine import SegmentEngine
from robustmq.storage.segment_sync import SegmentSyncs
from robustmq.storage.writer import WriterThread
from tests.unit.storage.batches import batch
from tests.unit.storage.bench import SIZE, Bench, offsets
from tests.unit.storage.disk import Disk, HandWriter

LATER = LogSettings(flush="interval", interval_ms=200, segment_bytes=1_024, preallocate_bytes=0)
HELD = 1_024 // SIZE
"""Batches of one segment."""


class Pair(Bench):
    """A bench whose engine has a syncer beside its writer."""

    def open(self) -> None:
        self.writer = HandWriter()
        self.syncer = HandWriter()
        self.engine = SegmentEngine(
            "/d", self.engine_settings, files=self.disk, writer=self.writer, syncer=self.syncer
        )
        self.log = self.engine.open(7, self.settings)

    def begin(self, count: int = 1) -> None:
        """Append, and have the sync of it under way."""
        self.append(*[100] * count)
        self.settle()
        self.late()
        assert self.is_begun()

    def is_begun(self) -> bool:
        """Whether the syncer has something to do."""
        return self.syncer.asked

    def late(self) -> float | None:
        """Let an interval pass."""
        self.writer.time += 0.2
        return self.writer.run()

    def synced(self, *, works: bool = True) -> None:
        """Let the syncer do what was begun, and the writer hear of it."""
        if not works:
            self.disk.faults["fdatasync"] = errno.EIO
            self.disk.forgets = True
        self.writer.asked = False
        self.syncer.run()
        self.disk.faults.clear()
        assert self.writer.asked
        self.writer.run()

    def syncs(self, doing: Callable[[], object]) -> int:
        """How many files are synced meanwhile."""
        before = self.disk.calls.count("fdatasync")
        doing()
        return self.disk.calls.count("fdatasync") - before

    def survivors(self) -> list[int]:
        """What is there after a power cut that takes all that may be lost."""
        for inode in self.disk.names.values():
            inode.changes.clear()
        self.power_cut()
        return offsets(self.log)


def test_what_comes_meanwhile_is_written_and_confirmed() -> None:
    bench = Pair(LATER)
    bench.begin()
    bench.append(100)
    assert bench.syncs(bench.settle) == 0
    assert bench.log.durable_offset == 2
    assert bench.syncs(bench.synced) == 1
    assert bench.survivors() == [0, 1], "the file was synced after the second was written"


def test_what_comes_while_it_is_synced_is_synced_within_its_own_interval() -> None:
    bench = Pair(LATER)
    bench.begin()
    bench.append(100)
    bench.engine.commit()
    assert bench.writer.run() is None, "the end of the sync wakes it"
    bench.writer.time += 0.15
    bench.synced()
    assert not bench.is_begun(), "its interval is not over"
    bench.writer.time += 0.06
    assert bench.writer.run() is None
    assert bench.is_begun()
    bench.synced()
    assert bench.survivors() == [0, 1]


def test_a_sync_that_takes_longer_than_an_interval_is_followed_by_the_next_at_once() -> None:
    bench = Pair(LATER)
    bench.begin()
    bench.append(100)
    bench.settle()
    for _ in range(3):
        assert bench.late() is None
    assert bench.syncs(bench.synced) == 1
    assert bench.is_begun()
    assert bench.syncs(bench.synced) == 1
    assert not bench.is_begun(), "nothing was written since"
    assert bench.late() is None


def test_two_intervals_in_a_row_are_two_syncs() -> None:
    bench = Pair(LATER)
    for _ in range(2):
        bench.begin()
        assert bench.syncs(bench.synced) == 1
        assert not bench.is_begun()
    assert bench.survivors() == [0, 1]


def test_much_is_synced_at_once_and_so_is_what_comes_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("robustmq.storage.segment_engine._SYNC_BYTES", 2 * SIZE)
    bench = Pair(LATER)
    bench.append(100)
    bench.settle()
    assert not bench.is_begun()
    bench.append(100)
    bench.settle()
    assert bench.is_begun()
    bench.append(100)
    bench.settle()
    assert bench.log.durable_offset == 3
    assert bench.syncs(bench.synced) == 1
    assert bench.is_begun(), "it was much, when it was written"
    assert bench.syncs(bench.synced) == 1
    assert not bench.is_begun()
    assert bench.survivors() == [0, 1, 2]


def test_the_writer_sleeps_until_the_next_is_due() -> None:
    bench = Pair(LATER)
    bench.begin()
    bench.synced()
    bench.append(100)
    bench.engine.commit()
    assert bench.writer.run() == pytest.approx(0.2)


def test_a_segment_that_is_full_is_finished_when_its_sync_is_done() -> None:
    bench = Pair(LATER)
    bench.begin(HELD)
    bench.append(100)
    bench.settle()
    assert bench.log.durable_offset == HELD, "what comes behind the end of the file waits"
    assert "/d/7/" + "0" * 20 + ".index" not in bench.disk.names
    bench.synced()
    bench.engine.completed()
    assert bench.log.durable_offset == HELD + 1
    assert "/d/7/" + "0" * 20 + ".index" in bench.disk.names
    bench.late()
    bench.synced()
    assert bench.survivors() == list(range(HELD + 1))


def test_a_cut_waits_and_is_then_done() -> None:
    bench = Pair(LATER)
    bench.begin(4)
    bench.log.truncate(2)
    bench.append(50)
    bench.settle()
    name = "/d/7/" + bench.files()[0]
    assert len(bench.disk.names[name].data) == 4 * SIZE
    bench.synced()
    assert len(bench.disk.names[name].data) == 2 * SIZE + len(batch(1, b"x" * 50))
    bench.engine.completed()
    assert bench.log.durable_offset == 3
    bench.late()
    bench.synced()
    assert bench.survivors() == [0, 1, 2]


def test_a_file_that_is_removed_is_closed_only_when_its_sync_is_done() -> None:
    bench = Pair(LATER)
    bench.begin(2)
    bench.log.reset(50)
    bench.append(100)
    bench.settle()
    assert len(bench.files()) == 1
    bench.synced()
    assert bench.files() == [f"{50:020d}.log"]
    bench.engine.completed()
    assert bench.log.durable_offset == 51


def test_a_log_that_is_removed_goes_when_its_sync_is_done() -> None:
    bench = Pair(LATER)
    bench.begin(2)
    bench.engine.remove(7)
    bench.settle()
    assert bench.files()
    bench.synced()
    assert not bench.files()
    assert not bench.disk.open_files


def test_other_logs_are_written_on() -> None:
    bench = Pair(LATER)
    other = bench.engine.open(8, LATER)
    bench.begin()
    other.append(batch(1), 1, 1_000)
    bench.settle()
    assert other.durable_offset == 1


def test_room_is_not_made_of_what_is_being_synced() -> None:
    bench = Pair(LATER)
    bench.append(*[100] * (HELD - 1))
    bench.settle()
    bench.append(100)
    bench.settle()
    bench.late()
    bench.append(*[100] * 2)
    bench.log.trim(HELD)
    bench.disk.room = sum(len(each.data) for each in bench.disk.names.values())
    bench.settle()
    assert bench.disk.open_files, "it has its descriptor for as long as it is needed"
    bench.synced()
    bench.writer.run()
    assert bench.failure() is None
    assert bench.files() == [f"{HELD:020d}.log"]


def test_what_a_failed_sync_may_have_lost_is_written_anew() -> None:
    bench = Pair(LATER)
    bench.begin(2)
    bench.append(100)
    bench.settle()
    assert bench.syncs(lambda: bench.synced(works=False)) == 2, "once more by the writer"
    assert bench.failure() is None
    assert bench.survivors() == [0, 1, 2]


def test_it_is_tried_again_until_it_works_and_refused_meanwhile() -> None:
    bench = Pair(LATER)
    bench.begin(2)
    bench.disk.faults["fdatasync"] = errno.EIO
    bench.disk.forgets = True
    bench.syncer.run()
    assert bench.writer.run() == pytest.approx(0.5)
    assert bench.failure()
    bench.disk.faults.clear()
    bench.writer.run()
    assert bench.failure() is None
    assert bench.survivors() == [0, 1]


def test_all_that_have_failed_together_are_written_anew_at_once() -> None:
    bench = Pair(LATER)
    other = bench.engine.open(8, LATER)
    other.append(batch(1, b"y" * 100), 1, 1_000)
    bench.append(100)
    bench.settle()
    bench.late()
    other.append(batch(1, b"y" * 100), 1, 1_000)
    bench.log.truncate(0)
    other.truncate(1)
    bench.settle()
    bench.synced(works=False)
    bench.engine.completed()
    assert (bench.log.end_offset, other.durable_offset) == (0, 1)
    for inode in bench.disk.names.values():
        inode.changes.clear()
    bench.power_cut()
    assert bench.engine.open(8, LATER).end_offset == 1


@pytest.mark.parametrize("flush", ["interval", "always"])
def test_a_cut_behind_a_failed_sync_loses_nothing_before_it(flush: str) -> None:
    settings = LogSettings(flush=flush, interval_ms=200, preallocate_bytes=0)  # type: ignore[arg-type]
    bench = Pair(settings)
    bench.append(*[100] * 4)
    bench.engine.commit()
    if flush == "interval":
        bench.writer.run()
        bench.late()
        bench.log.truncate(2)
        bench.settle()
        bench.synced(works=False)
    else:
        bench.disk.faults["fdatasync"] = errno.EIO
        bench.disk.forgets = True
        bench.writer.run()
        bench.log.truncate(2)
        bench.engine.commit()
        bench.disk.faults.clear()
        bench.writer.run()
    bench.engine.completed()
    assert bench.log.durable_offset == 2
    assert bench.survivors() == [0, 1]


def test_a_cut_that_could_not_be_synced_writes_anew_what_is_before_it() -> None:
    bench = Pair(LATER)
    bench.append(*[100] * 4)
    bench.settle()
    bench.log.truncate(2)
    bench.engine.commit()
    bench.disk.faults["fdatasync"] = errno.EIO
    bench.disk.forgets = True
    bench.writer.run()
    bench.disk.faults.clear()
    bench.writer.run()
    bench.engine.completed()
    assert bench.survivors() == [0, 1]


def test_what_must_be_on_the_disk_at_once_is_synced_before_it_is_confirmed() -> None:
    bench = Pair(LogSettings(flush="always"))
    bench.append(100)
    assert bench.syncs(bench.settle) > 0
    assert not bench.is_begun()
    assert bench.log.durable_offset == 1
    assert bench.survivors() == [0]


def test_a_log_that_is_synced_at_once_from_now_on_waits_for_the_sync_under_way() -> None:
    bench = Pair(LATER)
    bench.begin()
    bench.log.configure(LogSettings(flush="always", preallocate_bytes=0))
    bench.append(100)
    bench.settle()
    assert bench.log.durable_offset == 1
    bench.synced(works=False)
    bench.engine.completed()
    assert bench.log.durable_offset == 2
    assert bench.survivors() == [0, 1]


@pytest.mark.parametrize("works", [True, False])
def test_the_end_waits_for_what_is_under_way(works: bool) -> None:
    bench = Pair(LATER)
    logs = [bench.log, *(bench.engine.open(shard, LATER) for shard in (8, 9))]
    for log in logs:
        log.append(batch(1, b"x" * 100), 1, 1_000)
    bench.settle()
    bench.late()
    for log in logs:
        log.append(batch(1, b"x" * 100), 1, 1_000)
    if not works:
        bench.disk.faults["fdatasync"] = errno.EIO
        bench.disk.forgets = True
        bench.syncer.run()
        bench.disk.faults.clear()
    bench.engine.close()
    assert not bench.disk.open_files
    for inode in bench.disk.names.values():
        inode.changes.clear()
    bench.power_cut()
    assert bench.engine.recovery.batches == 0, "the files are sealed"
    for shard, log in zip((8, 9), logs[1:], strict=True):
        assert log.end_offset == bench.engine.open(shard, LATER).end_offset == 2
    assert offsets(bench.log) == [0, 1]


def test_what_is_begun_while_the_end_is_near_is_done_by_the_writer() -> None:
    disk, woken = Disk(), []
    syncer = HandWriter()
    syncs = SegmentSyncs(disk, lambda: woken.append(1), syncer)
    segment = Segment("/d", 0)
    segment.fd = disk.open("/d/x", write=True, create=True)
    disk.pwritev(segment.fd, [b"data"], 0)
    segment.written = 4
    syncs.close()
    syncs.begin((segment,))
    assert not syncs.is_under_way(segment)
    assert segment.synced == 4
    assert syncer.work is None
    assert disk.names["/d/x"].durable == b"data"


def test_what_the_thread_has_not_come_to_is_done_by_the_writer() -> None:
    disk, woken = Disk(), []
    syncs = SegmentSyncs(disk, lambda: woken.append(1), HandWriter())
    segment = Segment("/d", 0)
    segment.fd = disk.open("/d/x", write=True, create=True)
    disk.pwritev(segment.fd, [b"data"], 0)
    segment.written = 4
    syncs.begin((segment,))
    assert syncs.is_under_way(segment)
    assert segment.suspect, "whatever cuts it off, it is not taken for synced"
    syncs.close()
    assert syncs.finish() == []
    assert not syncs.is_under_way(segment)
    assert (segment.synced, segment.suspect) == (4, False)
    assert woken


def test_a_thread_that_was_stopped_is_not_started() -> None:
    writer = WriterThread("never")
    writer.stop()
    writer.start(lambda: pytest.fail("it was too late"))
    writer.wake()
