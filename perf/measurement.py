"""One measurement: one scenario on one fresh broker, as a flat record that goes into the JSON."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perf import brokers, generator, processes
from perf.scenarios import Scenario

SETTLE_SECONDS = 0.5
WARMUP_SECONDS = 0.3
MICRO = 1e6


@dataclass(frozen=True, slots=True)
class Plan:
    """How a comparison is made.

    Seconds of load, robustmq's workers, peers that the user added, and where all peers keep their
    data (None: where temporary files are).
    """

    seconds: float
    workers: int
    commands: dict[str, str]
    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one run of one scenario gave.

    `cpu_us`: the broker's CPU time for a delivery (for a connection in conn10k), in microseconds;
    with a backlog that of its delivery; `rate`: deliveries (connections) per second;
    `publish_rate`: publishes, above QoS 0 all acknowledged, per second; `pss_bytes`: the broker's
    memory at the end of the load; `connection_bytes` and `idle_cores` are measured in conn10k only.
    `fault` says why there are no figures, or which verification failed; it is empty when all is
    well.
    """

    scenario: str
    peer: str
    number: int
    fault: str
    cpu_us: float = 0.0
    rate: float = 0.0
    publish_rate: float = 0.0
    p50_us: float = 0.0
    p99_us: float = 0.0
    p999_us: float = 0.0
    generator_cpu_us: float = 0.0
    pss_bytes: int = 0
    connection_bytes: float = 0.0
    idle_cores: float = 0.0
    report: dict[str, Any] | None = None


@dataclass(slots=True)
class _Watch:
    """Reads the broker's clocks at the two gates of the generator."""

    pid: int
    idle_seconds: float
    before: processes.CpuSample | None = None
    after: processes.CpuSample | None = None
    memory: int = 0
    idle_cores: float = 0.0

    def ready(self) -> None:
        self.before = processes.cpu(self.pid)
        if self.idle_seconds:
            self.memory = processes.memory(self.pid)
            start, began = processes.cpu(self.pid), time.monotonic()
            time.sleep(self.idle_seconds)
            seconds = time.monotonic() - began
            self.idle_cores = processes.cpu(self.pid).since(start) / seconds

    def filled(self) -> None:
        """From here on a backlog is delivered, and that is what is measured."""
        self.before = processes.cpu(self.pid)

    def done(self) -> None:
        self.after = processes.cpu(self.pid)
        if not self.idle_seconds:
            self.memory = processes.memory(self.pid)

    def cpu_seconds(self) -> float:
        if self.before is None or self.after is None:
            return 0.0
        return self.after.since(self.before)


def _connections(scenario: Scenario, plan: Plan, number: int, peer: str) -> Measurement:
    with brokers.running(peer, plan.workers, plan.commands, plan.directory) as broker:
        time.sleep(SETTLE_SECONDS)
        memory, start = processes.memory(broker.pid), processes.cpu(broker.pid)
        watch = _Watch(broker.pid, idle_seconds=plan.seconds)
        report = generator.run(
            scenario.load,
            broker.port,
            ready=watch.ready,
            done=watch.done,
            options=("--timeout=90",),
        )
        spent = watch.before.since(start) if watch.before else 0.0
    count = max(report.connections, 1)
    return Measurement(
        scenario.name,
        peer,
        number,
        report.faults(),
        cpu_us=spent * MICRO / count,
        rate=report.connect_rate,
        pss_bytes=watch.memory,
        connection_bytes=(watch.memory - memory) / count,
        idle_cores=watch.idle_cores,
        report=asdict(report),
    )


def _messages(scenario: Scenario, plan: Plan, number: int, peer: str) -> Measurement:
    # How long a backlog takes to be published says the broker, not the plan.
    options = ("--timeout=150", "--drain=10") if scenario.load.backlog else ()
    with brokers.running(peer, plan.workers, plan.commands, plan.directory) as broker:
        watch = _Watch(broker.pid, idle_seconds=0.0)
        report = generator.run(
            scenario.load,
            broker.port,
            seconds=plan.seconds,
            warmup=WARMUP_SECONDS,
            ready=watch.ready,
            done=watch.done,
            filled=watch.filled,
            options=options,
        )
    deliveries = max(report.deliveries, 1)
    return Measurement(
        scenario.name,
        peer,
        number,
        report.faults(),
        cpu_us=watch.cpu_seconds() * MICRO / deliveries,
        rate=report.throughput,
        publish_rate=report.publish_rate,
        p50_us=report.latency_us.p50,
        p99_us=report.latency_us.p99,
        p999_us=report.latency_us.p999,
        generator_cpu_us=report.cpu_seconds * MICRO / deliveries,
        pss_bytes=watch.memory,
        report=asdict(report),
    )


def measure(scenario: Scenario, plan: Plan, number: int, peer: str) -> Measurement:
    """Starts the peer, runs the scenario once and stops the peer; a failure becomes its fault."""
    kind = _connections if scenario.load.topology == "connect" else _messages
    try:
        return kind(scenario, plan, number, peer)
    except (brokers.BrokerError, generator.GeneratorError) as error:
        return Measurement(scenario.name, peer, number, fault=str(error))
