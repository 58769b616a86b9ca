"""The turn's clock, on the twin: the wall clock may step, the time of the turns does not."""

import time

import pytest

from robustmq import metrics
from robustmq._kernel.pure.poller import Poller
from robustmq._kernel.pure.turn import Turn

HOUR_NS = 3_600_000_000_000


@pytest.mark.parametrize("step_ns", [HOUR_NS, -HOUR_NS])
def test_a_step_of_the_wall_clock_moves_no_deadline(
    monkeypatch: pytest.MonkeyPatch, step_ns: int
) -> None:
    steady, wall = [0], [50 * HOUR_NS]
    monkeypatch.setattr(time, "monotonic_ns", lambda: steady[0])
    monkeypatch.setattr(time, "time_ns", lambda: wall[0])
    turn = Turn(memoryview(bytearray(8 * metrics.CELLS)).cast("Q"))
    poller = Poller(turn, lambda: True, lambda: None, lambda _: None)
    begun = turn.now_ms
    assert begun == wall[0] // 1_000_000
    wall[0] += step_ns
    for _ in range(64):
        steady[0] += 1_000_000_000
        wall[0] += 1_000_000_000
        poller.tick()
    direction = 1 if step_ns > 0 else -1
    assert turn.now_ms - begun == 64_000 + direction * 1_000
    poller.close()
