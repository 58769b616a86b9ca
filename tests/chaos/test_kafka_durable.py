"""Whatever is killed, nothing that a Kafka client was told is kept is lost, doubled or disordered.

`ROBUSTMQ_CHAOS_KILLS` is the number of kills; 4 without it.
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.chaos.plant import RobustPlant
from tests.integration.mosquitto import fixed_port
from tests.integration.supervised import until

KILLS: Final = int(os.environ.get("ROBUSTMQ_CHAOS_KILLS", "4"))
SECONDS: Final = 240 + 4 * KILLS
PATIENCE: Final = 60.0
TOPIC: Final = "durable"
PARTITIONS: Final = 6
PRODUCERS: Final = 3
PAUSE: Final = 0.002
FAST: Final = {
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 100,
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 200,
    "topic.metadata.refresh.fast.interval.ms": 50,
    "log_level": 0,
}


class Place(NamedTuple):
    """Where a record lies."""

    partition: int
    offset: int


class Load(threading.Thread):
    """An idempotent producer of numbered records, each to the next partition."""

    def __init__(self, address: str, name: str) -> None:
        super().__init__(name=name)
        self.acknowledged: dict[str, Place] = {}
        self.failed: list[str] = []
        self.sent = 0
        self.over = threading.Event()
        settings: dict[str, Any] = {
            "bootstrap.servers": address,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "message.timeout.ms": int(PATIENCE * 1_000),
            **FAST,
        }
        self._producer = Producer(settings)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        value = (message.value() or b"").decode()
        if error is not None:
            self.failed.append(f"{value}: {error}")
            return
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        assert value not in self.acknowledged, "acknowledged twice"
        self.acknowledged[value] = Place(partition, offset)

    def run(self) -> None:
        """Produce until it is over, and until everything is answered."""
        while not self.over.is_set():
            value = f"{self.name}:{self.sent}"
            partition = self.sent % PARTITIONS
            self._producer.produce(
                TOPIC, value.encode(), partition=partition, on_delivery=self._delivered
            )
            self.sent += 1
            self._producer.poll(PAUSE)
        self._producer.flush(PATIENCE)


class Reading(threading.Thread):
    """A consumer of all partitions from their start."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.found: dict[Place, str] = {}
        self.over = threading.Event()
        settings: dict[str, Any] = {
            "bootstrap.servers": address,
            "group.id": "reading",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 100,
            **FAST,
        }
        self._consumer = Consumer(settings)
        self._consumer.assign([TopicPartition(TOPIC, number, 0) for number in range(PARTITIONS)])

    def run(self) -> None:
        """Read until it is over."""
        while not self.over.is_set():
            for message in self._consumer.consume(500, 0.1):
                if message.error() is None:
                    partition, offset = message.partition(), message.offset()
                    assert partition is not None
                    assert offset is not None
                    self.found[Place(partition, offset)] = (message.value() or b"").decode()
        self._consumer.close()


class Verdict(NamedTuple):
    """What was counted."""

    sent: int
    acknowledged: int
    lost: int
    duplicates: int
    disordered: int
    misplaced: int
    failed: int

    def faults(self) -> dict[str, int]:
        """Return what must be nothing, and is not."""
        fields = ("lost", "duplicates", "disordered", "misplaced", "failed")
        return {name: getattr(self, name) for name in fields if getattr(self, name)}


def judge(loads: list[Load], found: dict[Place, str]) -> Verdict:
    """Compare what was acknowledged with what lies in the log."""
    acknowledged = {value: place for load in loads for value, place in load.acknowledged.items()}
    times = Counter(found.values())
    disordered = 0
    last: dict[tuple[int, str], int] = {}
    for place, value in sorted(found.items()):
        producer, _, number = value.partition(":")
        key = place.partition, producer
        disordered += int(number) <= last.get(key, -1)
        last[key] = int(number)
    return Verdict(
        sent=sum(load.sent for load in loads),
        acknowledged=len(acknowledged),
        lost=sum(value not in times for value in acknowledged),
        duplicates=sum(count - 1 for count in times.values()),
        disordered=disordered,
        misplaced=sum(
            found.get(place) != value for value, place in acknowledged.items() if value in times
        ),
        failed=sum(len(load.failed) for load in loads),
    )


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[RobustPlant]:
    port = fixed_port()
    settings = ('kafka_runtime.listeners=["tcp"]', f"kafka_runtime.tcp_port={port}")
    plant = RobustPlant(tmp_path, settings=settings)
    plant.start()
    yield plant
    plant.close()


def _address(plant: RobustPlant) -> str:
    host, port = plant.node.address("kafka_tcp")
    return f"{host}:{port}"


def _read(address: str, most: int) -> dict[Place, str]:
    """Read everything anew, until there are as many records."""
    reading = Reading(address)
    reading.start()
    begin = time.monotonic()
    while len(reading.found) < most and time.monotonic() - begin < PATIENCE:
        time.sleep(0.05)
    # What nobody acknowledged may lie there, too, and what lies there twice.
    time.sleep(0.5)
    reading.over.set()
    reading.join()
    return reading.found


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
def test_nothing_acknowledged_is_lost_doubled_or_disordered(
    plant: RobustPlant, capsys: pytest.CaptureFixture[str]
) -> None:
    address = _address(plant)
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])[TOPIC].result(PATIENCE)
    loads = [Load(address, f"p{number}") for number in range(PRODUCERS)]
    live = Reading(address)
    for thread in (*loads, live):
        thread.start()
    rng = random.Random(f"kafka {KILLS}")
    killed: Counter[str] = Counter()
    for _ in range(KILLS):
        before = sum(len(load.acknowledged) for load in loads)
        until(
            lambda: sum(len(load.acknowledged) for load in loads) > before + 100,  # noqa: B023
            "producers go on",
            PATIENCE,
        )
        time.sleep(rng.uniform(0.0, 0.5))
        killed[plant.disturb(rng)] += 1
    for load in loads:
        load.over.set()
    for load in loads:
        load.join()
    acknowledged = sum(len(load.acknowledged) for load in loads)
    found = _read(address, acknowledged)
    until(lambda: len(live.found) >= len(found), "the live reader has all", PATIENCE)
    live.over.set()
    live.join()
    verdict = judge(loads, found)
    with capsys.disabled():
        print(f"\n{KILLS} kills ({dict(killed)}): {verdict}")
    assert not verdict.faults(), [failed for load in loads for failed in load.failed[:5]]
    assert live.found == found
    assert verdict.acknowledged > 100 * KILLS
