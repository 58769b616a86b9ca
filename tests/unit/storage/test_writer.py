"""The thread that waits for the disk."""

import queue
import select
import signal
import subprocess
import sys

from robustmq.storage.writer import WriterThread

PATIENCE = 30


def is_readable(writer: WriterThread, seconds: float = 0) -> bool:
    return bool(select.select([writer.fileno()], [], [], seconds)[0])


def test_work_is_called_when_asked_when_it_wants_and_at_the_end() -> None:
    writer = WriterThread("test")
    calls: queue.Queue[int] = queue.Queue()
    waits = iter([0.001, None, None])
    count = 0

    def work() -> float | None:
        nonlocal count
        count += 1
        calls.put(count)
        writer.ring()
        return next(waits)

    writer.start(work)
    assert not is_readable(writer)
    writer.wake()
    assert [calls.get(timeout=PATIENCE) for _ in range(2)] == [1, 2]
    assert is_readable(writer, PATIENCE)
    writer.stop()
    assert calls.get(timeout=PATIENCE) == 3


def test_a_bell_is_rung_until_it_is_hushed() -> None:
    writer = WriterThread("test")
    writer.start(lambda: None)
    writer.hush()
    for rings in (1, 2):
        for _ in range(rings):
            writer.ring()
        assert is_readable(writer)
        writer.hush()
        writer.hush()
        assert not is_readable(writer)
    before = writer.now()
    assert writer.now() >= before
    writer.stop()


FAILING = """
import time
from robustmq.storage.writer import WriterThread

def work():
    raise LookupError("what nobody thought of")

writer = WriterThread("test")
writer.start(work)
writer.wake()
time.sleep(60)
"""


def test_a_process_does_not_go_on_without_its_writer() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAILING],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == -signal.SIGABRT
    assert "LookupError: what nobody thought of" in done.stderr
