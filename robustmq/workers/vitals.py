"""What alarms are raised for: the machine, the workers, their disks and the certificates."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil
from cryptography import x509

from robustmq import metrics
from robustmq.admin.alarms import Reading
from robustmq.admin.prometheus import Core, Snapshot
from robustmq.settings.tls import MqttTls
from robustmq.settings.watch import MqttSystemMonitor


class Vitals:
    """Measures a node; `max_connections` is how many a worker may hold."""

    def __init__(
        self, settings: MqttSystemMonitor, tls: MqttTls, snapshot: Snapshot, max_connections: int
    ) -> None:
        self._settings = settings
        self._certificates = tls.tls_cert
        self._snapshot = snapshot
        self._max_connections = max_connections
        self._paused: int | None = None
        # Who recovers at the start of the node was not up yet, and calls for nobody.
        self._seen_up: set[int] = set()
        # The first answer is about no time at all.
        psutil.cpu_percent()

    def read(self) -> Iterator[Reading]:
        """Yield a reading of everything."""
        cores = self._snapshot.cores()
        yield from self._machine()
        yield from self._workers(cores)
        yield self._connections(cores)
        if self._certificates:
            yield self._expiry(datetime.now(UTC))

    def _machine(self) -> Iterator[Reading]:
        settings = self._settings
        cpu = psutil.cpu_percent()
        yield Reading(
            "HighCpuUsage",
            cpu,
            settings.os_cpu_high_watermark,
            settings.os_cpu_low_watermark,
            f"{cpu:.0f} % of the machine's processor time is used",
        )
        memory = psutil.virtual_memory().percent
        yield Reading(
            "HighMemoryUsage",
            memory,
            settings.os_memory_high_watermark,
            settings.os_memory_low_watermark,
            f"{memory:.0f} % of the machine's memory is used",
        )

    def _workers(self, cores: Sequence[Core]) -> Iterator[Reading]:
        self._seen_up.update(core.number for core in cores if core.up)
        down = [core.number for core in cores if not core.up and core.number in self._seen_up]
        yield _count("WorkerDown", down, f"not ready: {_named(down)}")
        refusing = [core.number for core in cores if core.counters[metrics.STORAGE_REFUSING]]
        yield _count("StorageRefusing", refusing, f"the disk is full or fails: {_named(refusing)}")
        paused = sum(core.counters[metrics.PUBLISHERS_PAUSED] for core in cores)
        before, self._paused = self._paused, paused
        new = max(paused - before, 0) if before is not None else 0
        yield Reading(
            "PublishersPaused", new, 1, 1, f"a core is behind: publishers were paused {new} times"
        )

    def _connections(self, cores: Sequence[Core]) -> Reading:
        most = max((core.counters[metrics.CONNECTIONS] for core in cores), default=0)
        share = 100 * most / self._max_connections
        return Reading(
            "HighConnectionUsage",
            share,
            self._settings.connection_high_watermark,
            self._settings.connection_low_watermark,
            f"a worker has {most} of {self._max_connections} connections "
            "(cluster_limit.max_network_connection, open files)",
        )

    def _expiry(self, now: datetime) -> Reading:
        left = {name: _days_left(name, now) for name in self._certificates}
        name = min(left, key=lambda each: left[each])
        within = -float(self._settings.certificate_days)
        message = f"the certificate {name} expires in {max(left[name], 0):.0f} days"
        return Reading("CertificateExpires", -left[name], within, within, message)


def _count(name: str, cores: Sequence[int], message: str) -> Reading:
    return Reading(name, len(cores), 1, 1, message)


def _named(cores: Sequence[int]) -> str:
    return ", ".join(f"worker {core}" for core in cores)


def _days_left(name: str, now: datetime) -> float:
    """Return the days until a certificate expires; endless when its file cannot be read.

    Whoever serves with it says what is wrong.
    """
    try:
        certificate = x509.load_pem_x509_certificates(Path(name).read_bytes())[0]
    except (OSError, ValueError):
        return float("inf")
    return (certificate.not_valid_after_utc - now).total_seconds() / 86_400
