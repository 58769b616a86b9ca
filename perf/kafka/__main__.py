"""Throughput and latency of Produce and Fetch: `python -m perf.kafka --help`.

Scenarios: produce and fetch of 1 KiB records, 1 and 12 partitions, acks 1 and all, in batches of
64 KiB, and of 1 MB (librdkafka makes some of 0.8 to 0.9 MB when it sends as fast as it can);
`paced`: 50 MB/s in an open loop, for the latency; `client`: confluent-kafka as producer. All peers
take turns. The bar: 60 % of what raw receive and raw append of the same bytes reach.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException, Producer

from perf import brokers, machine, processes
from perf.kafka.load import Load, Report
from perf.kafka.peers import NOTES, PEERS, Site, site, speaks_kafka
from perf.kafka.traffic import TOPIC, batch

RESULTS: Final = Path(__file__).parent.parent / "results"
BAR: Final = 0.6
MEGA: Final = 1e6
PACE: Final = 50e6
SETTLE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A row: what is done, with how many partitions; `batch` in records of 1 KiB."""

    name: str
    partitions: int
    acks: int = -1
    records: int = 64
    kind: str = "produce"
    paced: bool = False


SCENARIOS: Final = (
    Scenario("p1_all", 1),
    Scenario("p1_1", 1, acks=1),
    Scenario("p12_all", 12),
    Scenario("p12_1", 12, acks=1),
    Scenario("p1_all_1m", 1, records=970),
    Scenario("p12_all_1m", 12, records=970),
    Scenario("p1_1_1m", 1, acks=1, records=970),
    Scenario("p12_1_1m", 12, acks=1, records=970),
    Scenario("paced_p1_all", 1, paced=True),
    Scenario("paced_p12_all", 12, paced=True),
    Scenario("fetch_p1", 1, kind="fetch"),
    Scenario("fetch_p12", 12, kind="fetch"),
    Scenario("client_p1_all", 1, kind="client"),
    Scenario("client_p12_all", 12, kind="client"),
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a run gave: MB of record batches a second, times, and CPU time for a MB of them."""

    scenario: str
    peer: str
    number: int
    rate_mb: float = 0.0
    p50_us: float = 0.0
    p99_us: float = 0.0
    broker_cpu_us_per_mb: float = 0.0
    load_cpu_us_per_mb: float = 0.0
    fault: str = ""


def _run(load: Load) -> Report:
    words = [sys.executable, "-m", "perf.kafka.load", json.dumps(asdict(load))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        return Report(fault=done.stderr.strip().splitlines()[-1])
    return Report(**json.loads(done.stdout))


def _client(port: int, seconds: float) -> Report:
    """Produce by confluent-kafka, as fast as it can."""
    report = Report()
    settings: dict[str, Any] = {
        "bootstrap.servers": f"127.0.0.1:{port}",
        "acks": "all",
        "enable.idempotence": True,
        "queue.buffering.max.messages": 100_000,
        "linger.ms": 5,
    }
    producer = Producer(settings)
    value = bytes(1024)

    def delivered(error: object, _message: object) -> None:
        if error is not None:
            report.errors += 1
        else:
            report.bytes += len(value)

    begin, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds:
        for _ in range(1_000):
            try:
                producer.produce(TOPIC, value, on_delivery=delivered)
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    producer.flush(30)
    report.seconds = time.perf_counter() - begin
    report.cpu_seconds = time.process_time() - cpu
    return report


def _ends(scenario: Scenario, where: Site, seconds: float) -> list[int]:
    """Fill the partitions for a Fetch; returns where each ends."""
    from confluent_kafka import Consumer, TopicPartition  # noqa: PLC0415

    _run(Load("produce", where.places, seconds=seconds, warmup=0.0))
    consumer = Consumer({"bootstrap.servers": f"127.0.0.1:{where.broker.port}", "group.id": "perf"})
    found = [
        consumer.get_watermark_offsets(TopicPartition(TOPIC, number), timeout=10)[1]
        for number in range(scenario.partitions)
    ]
    consumer.close()
    return found


def _load(scenario: Scenario, where: Site, peer: str, seconds: float) -> Load:
    kind = "produce" if speaks_kafka(peer) else "raw"
    load = Load(kind, where.places, records=scenario.records, acks=scenario.acks, seconds=seconds)
    if scenario.paced:
        return replace(load, rate=PACE / len(batch(scenario.records, load.value_bytes)))
    return load


def measure(scenario: Scenario, peer: str, number: int, options: argparse.Namespace) -> Measurement:
    """One run of a scenario on a fresh peer; a failure becomes its fault."""
    seconds: float = options.seconds
    try:
        with site(peer, options.workers, scenario.partitions, options.directory) as where:
            ends = _ends(scenario, where, seconds) if scenario.kind == "fetch" else []
            # What a node does in its first seconds is none of the load's.
            time.sleep(SETTLE_SECONDS)
            before = processes.cpu(where.broker.pid)
            if scenario.kind == "client":
                report = _client(where.broker.port, seconds)
            elif scenario.kind == "fetch":
                report = _run(Load("fetch", where.places, ends=ends))
            else:
                report = _run(_load(scenario, where, peer, seconds))
            spent = processes.cpu(where.broker.pid).since(before)
    except (brokers.BrokerError, KafkaException) as error:
        return Measurement(scenario.name, peer, number, fault=str(error))
    fault = report.fault or (f"{report.errors} errors" if report.errors else "")
    megabytes = max(report.bytes / MEGA, 1e-9)
    # What the broker has spent before the measured part, too, is a small part of it.
    return Measurement(
        scenario.name,
        peer,
        number,
        rate_mb=report.rate / MEGA,
        p50_us=report.p50_us,
        p99_us=report.p99_us,
        broker_cpu_us_per_mb=spent * MEGA / megabytes,
        load_cpu_us_per_mb=report.cpu_seconds * MEGA / megabytes,
        fault=fault,
    )


def _applies(scenario: Scenario, peer: str) -> bool:
    if scenario.kind == "produce":
        return True
    # The mock cluster keeps too little to be read from.
    return speaks_kafka(peer) and (scenario.kind == "client" or peer != "mock")


def _median(found: list[Measurement], scenario: str, peer: str, field: str) -> float:
    values = [
        getattr(each, field)
        for each in found
        if (each.scenario, each.peer, each.fault) == (scenario, peer, "")
    ]
    return statistics.median(values) if values else 0.0


def table(found: list[Measurement]) -> str:
    """The medians, a line for each scenario and peer."""
    lines = [f"{'scenario':<15}{'peer':<15}{'MB/s':>8}{'p50 us':>9}{'p99 us':>9}{'cpu us/MB':>11}"]
    for scenario, peer in dict.fromkeys((each.scenario, each.peer) for each in found):
        rate, p50, p99, cpu = (
            _median(found, scenario, peer, field)
            for field in ("rate_mb", "p50_us", "p99_us", "broker_cpu_us_per_mb")
        )
        line = f"{scenario:<15}{peer:<15}{rate:>8.0f}{p50:>9.0f}{p99:>9.0f}{cpu:>11.0f}"
        raw = _median(found, scenario, "append", "rate_mb")
        if raw and peer.startswith("robustmq") and not scenario.startswith("paced"):
            line += f"  {rate / raw:.2f} of append, the bar is {BAR}"
        lines.append(line)
    return "\n".join(lines)


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m perf.kafka", description=__doc__)
    parser.add_argument("--scenario", metavar="NAME,...", help="only these")
    parser.add_argument("--peers", metavar="NAME,...", default=",".join(PEERS))
    parser.add_argument("--runs", type=int, default=3, help="interleaved runs of each (3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="measured seconds (3)")
    parser.add_argument("-w", "--workers", type=int, default=2, help="workers, or processes (2)")
    parser.add_argument("--directory", type=Path, help="where the data are: it decides which disk")
    parser.add_argument("--json", type=Path, metavar="FILE", help="instead of perf/results/DATE")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Run what the command line asks for; exit status 1 when a run failed."""
    options = _arguments(words)
    names = options.scenario.split(",") if options.scenario else None
    scenarios = [each for each in SCENARIOS if names is None or each.name in names]
    found: list[Measurement] = []
    started, steal = datetime.now(UTC), processes.steal_seconds()
    for number in range(1, options.runs + 1):
        for scenario in scenarios:
            for peer in options.peers.split(","):
                if _applies(scenario, peer):
                    one = measure(scenario, peer, number, options)
                    found.append(one)
                    said = one.fault or f"{one.rate_mb:.0f} MB/s, p99 {one.p99_us:.0f} us"
                    print(f"run {number} {scenario.name} {peer}: {said}", file=sys.stderr)
    after = processes.steal_seconds()
    about = machine.describe(options.directory)
    about["stolen_percent"] = round(100 * (after[0] - steal[0]) / max(after[1] - steal[1], 1e-9), 2)
    print(f"{about['processor']}, {about['cores']} cores, {about['stolen_percent']} % stolen")
    print("\n".join(f"{peer}: {note}" for peer, note in NOTES.items()))
    print(table(found))
    path = options.json or RESULTS / f"{started:%Y%m%d-%H%M%S}-kafka.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "date": started.isoformat(timespec="seconds"),
        "machine": about,
        "notes": NOTES,
        "measurements": [asdict(each) for each in found],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written: {path}")
    return 1 if any(each.fault for each in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())
