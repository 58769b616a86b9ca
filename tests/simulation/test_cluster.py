"""Several nodes under many seeds: nodes die, lose their lease, are fenced and return.

`ROBUSTMQ_SEEDS=100000` tries that many, `ROBUSTMQ_SEED=123` one of them with all that happens.
"""

import os

import pytest

from tests.simulation.cluster import Cluster

SEEDS = int(os.environ.get("ROBUSTMQ_SEEDS", "500"))
"""How many histories are tried."""
STEP = max(25, -(-SEEDS // 200))
"""Seeds of one test."""
ASKED = os.environ.get("ROBUSTMQ_SEED")


def portions() -> list[range]:
    """The seeds of each test."""
    if ASKED is not None:
        return [range(int(ASKED), int(ASKED) + 1)]
    return [range(first, min(first + STEP, SEEDS)) for first in range(0, SEEDS, STEP)]


@pytest.mark.timeout(180 + 4 * STEP)
@pytest.mark.parametrize("seeds", portions(), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_no_promise_is_broken(seeds: range, capsys: pytest.CaptureFixture[str]) -> None:
    def tell(line: str) -> None:
        with capsys.disabled():
            print(line)

    broken: dict[int, list[str]] = {}
    for seed in seeds:
        try:
            faults = Cluster(seed, tell if ASKED else None).run()
        except Exception as error:
            error.add_note(f"ROBUSTMQ_SEED={seed}")
            raise
        if faults:
            broken[seed] = faults
    assert not broken


def test_the_seeds_see_everything_that_can_happen() -> None:
    lines: list[str] = []
    for seed in range(40):
        Cluster(seed, lines.append).run()
    history = "\n".join(lines)
    for what in (
        "dies at committed",
        "loses its lease",
        "is fenced",
        "returns",
        "hears image",
        "everybody knows everybody",
        "power cut: True",
        "is full",
        "with will",
        " dup",
        "$delayed/15",
    ):
        assert what in history, what
