"""Sessions over several nodes: many seeds of clients that roam, and nodes that come and go.

`ROBUSTMQ_ROAMING_SEEDS=10000` tries that many, `ROBUSTMQ_SEED=123` one with all that happens.
"""

import os

import pytest

from tests.simulation.roaming_world import World

SEEDS = int(os.environ.get("ROBUSTMQ_ROAMING_SEEDS", "80"))
"""How many histories are tried."""
STEP = 20
"""Seeds of one test."""
ASKED = os.environ.get("ROBUSTMQ_SEED")


def portions() -> list[range]:
    """The seeds of each test."""
    if ASKED is not None:
        return [range(int(ASKED), int(ASKED) + 1)]
    return [range(first, min(first + STEP, SEEDS)) for first in range(0, SEEDS, STEP)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seeds", portions(), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_no_promise_is_broken(seeds: range, capsys: pytest.CaptureFixture[str]) -> None:
    def tell(line: str) -> None:
        with capsys.disabled():
            print(line)

    broken: dict[int, list[str]] = {}
    for seed in seeds:
        faults = World(seed, tell if ASKED else None).run()
        if faults:
            broken[seed] = faults
    assert not broken


def test_a_seed_is_one_history() -> None:
    first: list[str] = []
    second: list[str] = []
    World(7, first.append).run()
    World(7, second.append).run()
    assert len(first) > 50
    assert first == second


def test_the_seeds_see_what_can_happen() -> None:
    lines: list[str] = []
    for seed in range(25):
        World(seed, lines.append).run()
    told = "\n".join(lines)
    for what in ("dies", "is cut off", "is isolated", "is fenced", "present True", "will b'"):
        assert what in told
    assert "TAKEN_OVER" in told
