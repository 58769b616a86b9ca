"""Transactions: many seeds of producers that come back, coordinators and partitions that die.

`ROBUSTMQ_TRANSACTION_SEEDS=10000` tries that many, `ROBUSTMQ_SEED=123` one with all that happens.
"""

import os

import pytest

from tests.simulation.transaction_world import World

SEEDS = int(os.environ.get("ROBUSTMQ_TRANSACTION_SEEDS", "40"))
"""How many histories are tried."""
ASKED = os.environ.get("ROBUSTMQ_SEED")


@pytest.mark.timeout(300)
def test_a_transaction_is_read_whole_or_not_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    def tell(line: str) -> None:
        with capsys.disabled():
            print(line)

    seeds = range(SEEDS) if ASKED is None else range(int(ASKED), int(ASKED) + 1)
    broken: dict[int, list[str]] = {}
    for seed in seeds:
        faults = World(seed, tell if ASKED else None).run()
        if faults:
            broken[seed] = faults
    assert not broken


def test_the_seeds_see_what_can_happen() -> None:
    lines: list[str] = []
    for seed in range(20):
        World(seed, lines.append).run()
    told = "\n".join(lines)
    for what in ("dies", "another core", "does not coordinate", "ended: True", "ended: False"):
        assert what in told
    assert "ended: None" in told
