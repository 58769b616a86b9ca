"""A Raft group under hundreds of seeds: links, disks, power cuts, members, snapshots, reads.

`ROBUSTMQ_SEEDS=10000` tries that many, `ROBUSTMQ_SEED=123` one of them with all that happens.
"""

import os

import pytest

from tests.simulation.raft_world import World

SEEDS = int(os.environ.get("ROBUSTMQ_SEEDS", "300"))
STEP = max(50, -(-SEEDS // 200))
ASKED = os.environ.get("ROBUSTMQ_SEED")


def portions() -> list[range]:
    """The seeds of each test."""
    if ASKED is not None:
        return [range(int(ASKED), int(ASKED) + 1)]
    return [range(first, min(first + STEP, SEEDS)) for first in range(0, SEEDS, STEP)]


@pytest.mark.timeout(180 + STEP)
@pytest.mark.parametrize("seeds", portions(), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_a_group_is_one_history(seeds: range, capsys: pytest.CaptureFixture[str]) -> None:
    def tell(line: str) -> None:
        with capsys.disabled():
            print(line)

    committed = answered = 0
    for seed in seeds:
        world = World(seed, tell if ASKED else None)
        try:
            world.run()
        except Exception as error:
            error.add_note(f"ROBUSTMQ_SEED={seed}")
            raise
        committed += world.truth.committed
        answered += world.answered
    assert committed > 20 * len(seeds) or ASKED
    assert answered > 5 * len(seeds) or ASKED


def test_a_seed_is_one_history() -> None:
    first: list[str] = []
    second: list[str] = []
    World(7, first.append).run()
    World(7, second.append).run()
    assert len(first) > 20
    assert first == second


def test_the_seeds_see_everything_that_can_happen() -> None:
    lines: list[str] = []
    for seed in range(40):
        World(seed, lines.append).run()
    history = "\n".join(lines)
    for what in (
        "loses power",
        "a snapshot of",
        "learners=(3,)",
        "voters=(0, 1, 2, 3)",
        "voters=(0, 1),",
        "The leader gives its office up",
        "The leader is new",
        "has not caught up",
        "no majority is heard",
        "Another change",
    ):
        assert what in history, what
