"""What is logged and counted of a core's storage: recovery, alarm, counters."""

import errno
import io
import json
import os
import types
from array import array
from typing import Any, cast

import pytest

from robustmq import metrics
from robustmq.config import Log
from robustmq.shm.region import State
from robustmq.storage.engine import Quarantined, Recovery, Tally
from robustmq.storage.gate import Gate
from robustmq.workers import log
from robustmq.workers.storage_watch import StorageWatch
from robustmq.workers.stores import Stores

FULL = "cannot write to /data: No space left on device"


class Scene:
    """A watch over engines that are played, and what it writes."""

    def __init__(self) -> None:
        self.out = io.StringIO()
        log.configure(Log(format="json"), "worker 0", self.out)
        self.seconds = 10.0
        self.gate = Gate("/data", 1 << 30)
        self.recovery = Recovery()
        self.rocksdb = types.SimpleNamespace(tally=Tally(), gate=self.gate)
        self.state = State(memoryview(array("Q", bytes(64))))
        self.cells = memoryview(array("Q", bytes(8 * metrics.CELLS)))
        self.watch = StorageWatch(self.state, self.cells, lambda: self.seconds)
        stores = types.SimpleNamespace(
            rocksdb=self.rocksdb,
            recoveries=lambda: [self.recovery],
            refused=lambda: self.gate.refusal(0),
            segments=None,
        )
        self.stores = cast("Stores", stores)

    def fail(self, fails: bool) -> None:
        """Let the disk be full, or not any more."""
        self.gate.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if fails else None

    def lines(self) -> list[dict[str, Any]]:
        """What was written since this was asked last, without what is in every line."""
        found = [json.loads(line) for line in self.out.getvalue().splitlines()]
        self.out.seek(0)
        self.out.truncate()
        return [
            {name: line[name] for name in line if name not in {"time", "process"}} for line in found
        ]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_start_on_nothing_says_nothing(scene: Scene) -> None:
    scene.watch.recovered(scene.stores)
    assert scene.lines() == []
    assert scene.cells[metrics.STORAGE_DAMAGED] == 0


def test_progress_is_told_once_a_second_and_is_a_sign_of_life(scene: Scene) -> None:
    for size in range(25):
        scene.state.heartbeat_ns = 0
        scene.watch.progress(Recovery(logs=1, wal_bytes=size))
        assert scene.state.heartbeat_ns > 0
        scene.seconds += 0.125
    told = [line["bytes"] for line in scene.lines()]
    assert told == [8, 16, 24]
    scene.seconds += 1
    scene.watch.restoring(20_000)
    assert scene.lines() == [
        {
            "level": "info",
            "event": "sessions are being restored",
            "sessions": 20_000,
            "seconds": 4.1,
        }
    ]


def test_what_was_found_is_told_and_counted(scene: Scene) -> None:
    scene.seconds += 1.5
    scene.recovery = Recovery(
        logs=2, bytes=100, wal_bytes=50, cut_bytes=7, damaged=["bytes 1 to 2 of x: a record ends"]
    )
    scene.recovery.quarantined.append(Quarantined(5, 10, 20, "its checksum is wrong"))
    scene.watch.recovered(scene.stores)
    summary, damaged, moved = scene.lines()
    assert summary == {
        "level": "info",
        "event": "storage recovered",
        "logs": 2,
        "bytes": 150,
        "cut_bytes": 7,
        "seconds": 1.5,
    }
    assert (damaged["level"], damaged["place"]) == ("error", scene.recovery.damaged[0])
    assert (moved["level"], moved["log"], moved["start"], moved["end"], moved["reason"]) == (
        *("error", 5, 10, 20),
        "its checksum is wrong",
    )
    assert scene.cells[metrics.STORAGE_RECOVERY_MS] == 1_500
    assert scene.cells[metrics.STORAGE_CUT_BYTES] == 7
    assert scene.cells[metrics.STORAGE_DAMAGED] == 2
    scene.recovery.quarantined.append(Quarantined(6, 0, 1, "found by reading"))
    scene.watch.count()
    scene.watch.count()
    assert [line["log"] for line in scene.lines()] == [6]
    assert scene.cells[metrics.STORAGE_DAMAGED] == 3


def test_the_alarm_begins_and_ends_with_a_line_each(scene: Scene) -> None:
    scene.watch.look()
    scene.watch.recovered(scene.stores)
    scene.fail(True)
    for _ in range(5):
        scene.watch.look()
        assert scene.cells[metrics.STORAGE_REFUSING] == 1
    (began,) = scene.lines()
    assert (began["level"], began["reason"]) == ("error", FULL)
    assert began["code"] == "quota_exceeded"
    scene.seconds += 4
    scene.fail(False)
    scene.watch.look()
    assert scene.cells[metrics.STORAGE_REFUSING] == 0
    (ended,) = scene.lines()
    assert ended == {"level": "info", "event": "storing goes on", "seconds": 4.0}


def test_a_disk_that_fails_now_and_then_fills_no_log(scene: Scene) -> None:
    scene.watch.recovered(scene.stores)
    for number in range(40):
        scene.fail(number % 2 == 1)
        scene.watch.look()
        assert scene.cells[metrics.STORAGE_REFUSING] == number % 2
        scene.seconds += 0.125
    scene.fail(False)
    scene.seconds += 1
    scene.watch.count()
    assert scene.cells[metrics.STORAGE_REFUSING] == 0
    lines = scene.lines()
    assert 2 <= len(lines) <= 7
    assert lines[-1]["event"] == "storing goes on"


def test_counters_go_on_from_where_the_last_life_was(scene: Scene) -> None:
    scene.watch.count()
    scene.cells[metrics.STORAGE_COMMITS] = 100
    scene.watch.recovered(scene.stores)
    scene.rocksdb.tally = Tally(commits=3, rows=7, syncs=2, failures=1)
    scene.gate.pending = 4_096
    for _ in range(2):
        scene.watch.count()
    assert scene.cells[metrics.STORAGE_COMMITS] == 103
    assert scene.cells[metrics.STORAGE_ROWS] == 7
    assert scene.cells[metrics.STORAGE_SYNCS] == 2
    assert scene.cells[metrics.STORAGE_FAILURES] == 1
    assert scene.cells[metrics.STORAGE_PENDING_BYTES] == 4_096
