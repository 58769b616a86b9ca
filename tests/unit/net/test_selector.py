"""asyncio on the poller: its timers, descriptors and threads work while the poller takes turns."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pytest

from robustmq import metrics
from robustmq._kernel.poller import Poller
from robustmq._kernel.turn import Turn
from robustmq.net.selector import PollerSelector


class Turns:
    """A poller that counts its turns, and the loop on it."""

    def __init__(self) -> None:
        self.count = 0
        turn = Turn(memoryview(bytearray(8 * metrics.CELLS)).cast("Q"))
        self.poller = Poller(turn, self.end_turn, lambda: None, self.fail)
        self.loop = asyncio.SelectorEventLoop(PollerSelector(self.poller))

    def end_turn(self) -> bool:
        self.count += 1
        return True

    def fail(self, error: Exception) -> None:
        raise error

    def close(self) -> None:
        self.loop.close()
        self.poller.close()


@pytest.fixture
def turns() -> Iterator[Turns]:
    turns = Turns()
    yield turns
    turns.close()


def test_a_timer_of_asyncio_ends_the_wait(turns: Turns) -> None:
    start = time.monotonic()
    turns.loop.run_until_complete(asyncio.sleep(0.03))
    assert 0.029 <= time.monotonic() - start < 5


def test_a_descriptor_of_asyncio_is_told_again_until_it_is_read(turns: Turns) -> None:
    read, write = os.pipe()
    calls: list[int] = []

    def told() -> None:
        calls.append(1)
        if len(calls) == 3:
            os.read(read, 1)
            turns.loop.stop()

    turns.loop.add_reader(read, told)
    os.write(write, b"x")
    turns.loop.run_forever()
    assert len(calls) == 3
    turns.loop.remove_reader(read)
    os.close(read)
    os.close(write)


def test_the_data_path_takes_turns_without_asyncio(turns: Turns) -> None:
    read, write = os.pipe()
    seen: list[bytes] = []
    turns.poller.watch(read, lambda: seen.append(os.read(read, 1)))

    async def main() -> None:
        for _ in range(5):
            os.write(write, b"x")
            await asyncio.sleep(0.01)

    turns.loop.run_until_complete(main())
    assert seen == [b"x"] * 5
    assert turns.count >= 5
    os.close(read)
    os.close(write)


def test_another_thread_wakes_the_loop(turns: Turns) -> None:
    done = turns.loop.run_in_executor(None, time.sleep, 0.02)
    turns.loop.run_until_complete(asyncio.wait_for(done, 5))
    assert done.done()


def test_a_signal_wakes_the_loop(turns: Turns) -> None:
    turns.loop.add_signal_handler(signal.SIGUSR1, turns.loop.stop)
    turns.loop.call_later(0.02, os.kill, os.getpid(), signal.SIGUSR1)
    turns.loop.call_later(5, turns.loop.call_exception_handler, {"message": "no signal"})
    start = time.monotonic()
    turns.loop.run_forever()
    assert time.monotonic() - start < 5
