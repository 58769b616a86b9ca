"""Whatever happens to one node after the other, a cluster keeps what it has acknowledged.

`ROBUSTMQ_CHAOS_ROUNDS` is the number of rounds, `ROBUSTMQ_CHAOS_SEED` what is done in them.
"""

import asyncio
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.cluster_trial import ClusterTrial
from tests.chaos.harm import HarmedCluster, plan

ROUNDS: Final = int(os.environ.get("ROBUSTMQ_CHAOS_ROUNDS", "4"))
SEED: Final = os.environ.get("ROBUSTMQ_CHAOS_SEED", str(time.time_ns()))
WORKERS: Final = int(os.environ.get("ROBUSTMQ_CHAOS_WORKERS", "1"))
SECONDS: Final = 180 + 60 * ROUNDS


@pytest.fixture
def harmed(tmp_path: Path) -> Iterator[HarmedCluster]:
    cluster = HarmedCluster(tmp_path, workers=WORKERS)
    try:
        cluster.start()
        cluster.whole()
        yield cluster
    finally:
        cluster.close()


async def tried(trial: ClusterTrial, harmed: HarmedCluster, rng: random.Random) -> list[str]:
    """Make a trial; return its faults."""
    try:
        await trial.begin()
        for number, (kind, victim) in enumerate(plan(ROUNDS, rng)):
            await trial.round(number, kind, victim)
        return await trial.finish()
    except AssertionError as error:
        raise AssertionError(f"{error}\n{harmed.tell()}") from error
    finally:
        await trial.end()


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
def test_nothing_acknowledged_is_lost(
    harmed: HarmedCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(SEED)
    with capsys.disabled():
        print(f"\nseed {SEED}")
        trial = ClusterTrial(harmed, rng)
        faults = asyncio.run(asyncio.wait_for(tried(trial, harmed, rng), SECONDS))
        changed = sum(w.counts["changes"] for w in trial.wanderers)
        moved = sum(w.counts["moves"] for w in trial.wanderers)
        print(f"{trial.account}\n{trial.registers.counts}\n{moved} moves, {changed} changes")
    assert not faults, "\n".join(faults)
    assert trial.account.owed > 50 * ROUNDS, "the trial was too small to say anything"
    assert trial.registers.counts["acknowledged"] > 10
