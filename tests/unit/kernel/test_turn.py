"""The turn: a row of counters that is large enough, and what the end of the turn must flush."""

from array import array

import pytest

from robustmq.metrics import CELLS
from tests.datapath import SIDES, Side


@pytest.mark.parametrize("kind", SIDES)
def test_turn_begins_with_nothing_to_do(kind: str) -> None:
    row = array("Q", bytes(8 * CELLS))
    turn = Side(kind).Turn(row)
    assert (turn.now_ms, turn.sequence) == (0, 0)
    assert (turn.outboxes, turn.builders, turn.resumes) == ([], [], [])
    assert (turn.hungry, turn.acknowledged, turn.exact) == ([], [], [])
    turn.row[3] += 5
    assert row[3] == 5


@pytest.mark.parametrize("kind", SIDES)
@pytest.mark.parametrize("row", [array("Q", [0] * (CELLS - 1)), array("I", [0] * CELLS), b""])
def test_row_that_kernels_would_write_beyond_is_refused(kind: str, row: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Side(kind).Turn(row)
