"""A node of several cores under a thousand seeds: clients, crashes, full disks, power cuts.

`ROBUSTMQ_SEEDS=100000` tries that many, `ROBUSTMQ_SEED=123` one of them with all that happens.
"""

import os

import pytest

from tests.simulation.world import World

SEEDS = int(os.environ.get("ROBUSTMQ_SEEDS", "1000"))
"""How many histories are tried."""
STEP = max(50, -(-SEEDS // 200))
"""Seeds of one test."""
ASKED = os.environ.get("ROBUSTMQ_SEED")


def portions() -> list[range]:
    """The seeds of each test."""
    if ASKED is not None:
        return [range(int(ASKED), int(ASKED) + 1)]
    return [range(first, min(first + STEP, SEEDS)) for first in range(0, SEEDS, STEP)]


@pytest.mark.timeout(180 + STEP)
@pytest.mark.parametrize("seeds", portions(), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_no_promise_is_broken(seeds: range, capsys: pytest.CaptureFixture[str]) -> None:
    def tell(line: str) -> None:
        with capsys.disabled():
            print(line)

    broken: dict[int, list[str]] = {}
    for seed in seeds:
        try:
            faults = World(seed, tell if ASKED else None).run()
        except Exception as error:
            error.add_note(f"ROBUSTMQ_SEED={seed}")
            raise
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


def test_the_seeds_see_everything_that_can_happen() -> None:
    lines: list[str] = []
    for seed in range(60):
        World(seed, lines.append).run()
    history = "\n".join(lines)
    for what in (
        "dies at read",
        "dies at commit",
        "dies at pushed",
        "dies at sent",
        "power cut: True",
        "power cut: False",
        "is full",
        "has room again",
        "QUOTA_EXCEEDED",
        "present True",
        "with will",
        " dup",
        " retained",
        "$delayed/15",
        "DISCONNECT 0x4",
    ):
        assert what in history, what
