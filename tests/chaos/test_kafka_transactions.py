"""Whatever is killed, what is copied by transactions is there once, and in order.

`ROBUSTMQ_CHAOS_KILLS` is the number of kills; 3 without it. `ROBUSTMQ_CHAOS_SEED` says which.
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import Producer

from tests.chaos.plant import RobustPlant
from tests.copying import PARTITIONS, PATIENCE, STAYING, Copying, Site
from tests.integration.cluster import cluster
from tests.integration.mosquitto import fixed_port
from tests.integration.supervised import until

KILLS: Final = int(os.environ.get("ROBUSTMQ_CHAOS_KILLS", "3"))
SEED: Final = int(os.environ.get("ROBUSTMQ_CHAOS_SEED", "1"))
COPIERS: Final = 2


class Writing:
    """Writes numbers to the source, each partition its own, for as long as it is let."""

    def __init__(self, site: Site) -> None:
        self.values: list[bytes] = []
        self._site = site
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        """No more; all is acknowledged."""
        self._is_over.set()
        self._thread.join(2 * PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        settings = {"bootstrap.servers": self._site.address, "enable.idempotence": True, **STAYING}
        producer = Producer({**settings, "message.timeout.ms": 300_000})
        while not self._is_over.is_set():
            number = len(self.values)
            self.values.append(b"%d" % number)
            producer.produce(self._site.source, self.values[-1], partition=number % PARTITIONS)
            producer.poll(0)
            time.sleep(0.01)
        assert producer.flush(2 * PATIENCE) == 0


def copied_while(site: Site, disturb: Callable[[], object], rng: random.Random) -> tuple[int, int]:
    """Copy while all is disturbed; all must be there once, in order. Transactions and faults."""
    writing = Writing(site)
    copyings = [Copying(site, f"{site.id}-{number}") for number in range(COPIERS)]
    try:
        for _ in range(KILLS):
            seen = sum(each.count for each in copyings)
            until(
                lambda seen=seen: sum(each.count for each in copyings) > seen,  # type: ignore[misc]
                "something is copied",
                2 * PATIENCE,
            )
            time.sleep(rng.random())
            disturb()
        writing.end()
        until(lambda: site.is_copied(writing.values), "all is copied", 2 * PATIENCE)
    finally:
        writing.end()
        for each in copyings:
            each.end()
    assert site.committed() == len(writing.values)
    copied = [int(value[:-1]) for value in site.read(site.target)]
    for number in range(PARTITIONS):
        mine = [value for value in copied if value % PARTITIONS == number]
        assert mine == sorted(mine)
    return sum(each.count for each in copyings), sum(len(each.faults) for each in copyings)


@pytest.mark.timeout(150 + 30 * KILLS)
def test_what_is_copied_by_transactions_is_there_once(tmp_path: Path) -> None:
    address = ("127.0.0.1", fixed_port())
    settings = (
        f"kafka_runtime.tcp_port={address[1]}",
        "kafka_runtime.groups.initial_rebalance_delay_ms=100",
    )
    plant = RobustPlant(tmp_path, settings=settings)
    rng = random.Random(SEED)
    killed: Counter[str] = Counter()
    try:
        plant.start()
        site = Site(address)
        slices, faults = copied_while(site, lambda: killed.update([plant.disturb(rng)]), rng)
        print(f"\n{dict(killed)}: {slices} transactions, {faults} faults")
    finally:
        plant.close()


@pytest.mark.timeout(200 + 60 * KILLS)
def test_what_is_copied_in_a_cluster_is_there_once(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    with cluster(tmp_path, settings=("kafka_runtime.groups.initial_rebalance_delay_ms=100",)) as it:
        ports = {number: fixed_port() for number in it.first}
        killed: Counter[int] = Counter()

        def start(*numbers: int) -> None:
            for number in numbers:
                it.launch(number, f"kafka_runtime.tcp_port={ports[number]}")
            for number in numbers:
                it.nodes[number].ready()

        def disturb() -> None:
            number = rng.choice(it.first)
            killed[number] += 1
            it.kill(number)
            time.sleep(rng.random())
            start(number)

        start(*it.first)
        it.settled()
        site = Site(*(("127.0.0.1", ports[number]) for number in it.first))
        slices, faults = copied_while(site, disturb, rng)
        print(f"\nnodes {dict(killed)}: {slices} transactions, {faults} faults")
