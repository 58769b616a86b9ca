"""Kernel objects in reference cycles: the collector clears their attributes before they die."""

import gc
import importlib
from types import ModuleType

import pytest

from robustmq import metrics
from tests.kernels import implementations


def _row() -> memoryview:
    return memoryview(bytearray(8 * metrics.CELLS)).cast("Q")


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("module", implementations("outbox"))
def test_an_outbox_with_waiting_bytes_dies_in_a_cycle(module: ModuleType, large: bool) -> None:
    turn_module = importlib.import_module(module.__name__.replace("outbox", "turn"))
    turn = turn_module.Turn(_row())
    for _ in range(50):
        outbox = module.Outbox(turn)
        outbox.put(b"x" * (100_000 if large else 100))
        outbox.drained = outbox
        turn.outboxes.clear()
        del outbox
    del turn
    assert gc.collect() >= 50
