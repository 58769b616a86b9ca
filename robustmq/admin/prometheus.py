"""The exposition for Prometheus: one series per core, read from shared memory at each scrape.

Nothing is counted here. Cores count in their own cells; this collector turns the cells into
families when somebody asks. Counters of a core go on over its restarts.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from robustmq.metrics import META_TABLE, TABLE


class Core(NamedTuple):
    """A worker as the exposition shows it; `counters` has a cell per row of metrics.TABLE."""

    number: int
    up: bool
    restarts: int
    counters: Sequence[int]


class Usage(NamedTuple):
    """What a process takes: resident memory in bytes, processor time in seconds."""

    process: str
    resident_bytes: int
    cpu_seconds: float


class Snapshot(Protocol):
    """What the application asks of the node; given to it by the process that serves it."""

    @property
    def kernel(self) -> str:
        """Return "compiled" or "pure"."""
        ...

    def cores(self) -> Sequence[Core]:
        """Read the workers' states and counters now."""
        ...

    def meta(self) -> Sequence[int]:
        """Read the counters of the meta process, a cell per row of metrics.META_TABLE."""
        ...

    def is_isolated(self) -> bool:
        """Whether the node hears of no leader of its cluster, and so serves nobody."""
        ...

    def processes(self) -> Sequence[Usage]:
        """Measure all processes of the node that are alive."""
        ...

    def phases(self) -> dict[str, str]:
        """Return each worker's phase in lower case, by its name."""
        ...


class NodeCollector(Collector):
    """Makes the metric families from a snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        """Promise nothing in advance, so that registering does not collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every family with its series."""
        cores = self._snapshot.cores()
        for cell, row in enumerate(TABLE):
            make = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
            family = make(row.name, row.help, labels=("core",))
            for core in cores:
                family.add_metric((str(core.number),), core.counters[cell])
            yield family
        yield from self._meta()
        up = GaugeMetricFamily(
            "robustmq_worker_up", "1 when the worker is ready.", labels=("core",)
        )
        restarts = CounterMetricFamily(
            "robustmq_worker_restarts", "Times that the worker was replaced.", labels=("core",)
        )
        for core in cores:
            up.add_metric((str(core.number),), int(core.up))
            restarts.add_metric((str(core.number),), core.restarts)
        yield from (up, restarts, *self._usage())
        yield InfoMetricFamily(
            "robustmq_kernel",
            "Which implementation of the hot loops runs.",
            value={"implementation": self._snapshot.kernel},
        )

    def _meta(self) -> Iterator[Metric]:
        for row, value in zip(META_TABLE, self._snapshot.meta(), strict=False):
            make = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
            yield make(row.name, row.help, value=value)

    def _usage(self) -> Iterator[Metric]:
        memory = GaugeMetricFamily(
            "robustmq_process_resident_memory_bytes", "Resident memory.", labels=("process",)
        )
        cpu = CounterMetricFamily(
            "robustmq_process_cpu_seconds", "Processor time, user and system.", labels=("process",)
        )
        for usage in self._snapshot.processes():
            memory.add_metric((usage.process,), usage.resident_bytes)
            cpu.add_metric((usage.process,), usage.cpu_seconds)
        yield from (memory, cpu)


class Exposition:
    """Writes the node's metrics in the form that a scraper accepts; `others` add to them."""

    def __init__(self, snapshot: Snapshot, *others: Collector) -> None:
        self._registry = CollectorRegistry()
        for collector in (NodeCollector(snapshot), *others):
            self._registry.register(collector)

    def write(self, accept: str) -> tuple[bytes, str]:
        """Return the text and its content type for a scraper's Accept header."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type
