"""What is measured: robustmq as a broker of Kafka, and what it is compared with."""

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from perf.brokers import Broker, BrokerError, Launch, free_port, started, supervisor
from perf.kafka.traffic import TOPIC

PEERS: Final = ("robustmq", "robustmq-core", "mock", "append", "discard")
NOTES: Final = {
    "robustmq-core": "robustmq with kafka_runtime.advertise = core: clients talk to the owners",
    "mock": "librdkafka's mock cluster: one thread, in memory, keeps and checks little, and has "
    "never more than 4 partitions",
    "append": "raw socket receive and raw file append of the same bytes, as many processes",
    "discard": "the loopback's own limit: what is sent is received, and thrown away",
}
"""What one has to know about a peer to compare its figures with others."""

MOCK_PARTITIONS: Final = 4

_PATIENCE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Site:
    """A peer that runs, and where its partitions are: a host and a port for each."""

    broker: Broker
    places: list[tuple[str, int]]


def speaks_kafka(peer: str) -> bool:
    """Say whether a peer is more than sockets and files."""
    return peer not in {"append", "discard"}


def _robustmq(name: str, workers: int, port: int, folder: Path) -> Launch:
    http = free_port()
    advertise = "core" if name == "robustmq-core" else "node"
    settings = [
        "broker_ip=127.0.0.1",
        f"http_port={http}",
        'mqtt_runtime.server.listeners=["tcp"]',
        "mqtt_runtime.server.tcp_port=0",
        'kafka_runtime.listeners=["tcp"]',
        f"kafka_runtime.tcp_port={port}",
        f"kafka_runtime.advertise={advertise}",
        # The load is busy on the same cores, and no peer is pinned.
        "runtime.pin=false",
    ]
    command = [supervisor(), "-w", str(workers), "--data", str(folder / "data")]
    for setting in settings:
        command += ["--set", setting]
    return Launch(command, {}, f"http://127.0.0.1:{http}/health/ready")


def _launch(name: str, workers: int, port: int, folder: Path) -> Launch:
    if name.startswith("robustmq"):
        return _robustmq(name, workers, port, folder)
    python = [sys.executable, "-m"]
    if name == "mock":
        return Launch([*python, "perf.kafka.mock", str(port)], {})
    return Launch([*python, "perf.kafka.raw", name, str(port), str(workers), str(folder)], {})


def _places(name: str, port: int, partitions: int) -> list[tuple[str, int]]:
    """Make the topic, and ask where its partitions are."""
    address: dict[str, str | int | float | bool] = {
        "bootstrap.servers": f"127.0.0.1:{port}",
        "log_level": 0,
    }
    if name == "mock":
        # It makes topics that are asked for, always with as many partitions.
        partitions = min(partitions, MOCK_PARTITIONS)
    else:
        admin = AdminClient(address)
        admin.create_topics([NewTopic(TOPIC, partitions, 1)])[TOPIC].result(_PATIENCE_SECONDS)
    client = Producer(address)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = client.list_topics(TOPIC, timeout=10)
        known = found.topics[TOPIC].partitions
        if len(known) >= partitions and all(each.leader >= 0 for each in known.values()):
            leaders = [found.brokers[known[number].leader] for number in range(partitions)]
            return [(broker.host, broker.port) for broker in leaders]
        time.sleep(0.1)
    raise BrokerError(f"the topic's {partitions} partitions have no leaders")


@contextlib.contextmanager
def site(name: str, workers: int, partitions: int, directory: Path | None = None) -> Iterator[Site]:
    """Start a peer with an empty topic of so many partitions, and stop it at the end."""
    with started(
        name, lambda port, folder: _launch(name, workers, port, folder), directory
    ) as broker:
        if speaks_kafka(name):
            yield Site(broker, _places(name, broker.port, partitions))
        else:
            yield Site(broker, [("127.0.0.1", broker.port)] * partitions)
