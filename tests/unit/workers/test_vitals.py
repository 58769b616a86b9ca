"""What is measured for alarms."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from robustmq import metrics
from robustmq.admin.alarms import Reading
from robustmq.admin.prometheus import Core
from robustmq.settings.tls import MqttTls
from robustmq.settings.watch import MqttSystemMonitor
from robustmq.workers.vitals import Vitals
from tests.unit.admin.test_app import Shown


class Steered(Shown):
    """A node of two workers whose cells a test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = [[0] * metrics.CELLS, [0] * metrics.CELLS]
        self.up = [True, True]

    def cores(self) -> Sequence[Core]:
        pairs = zip(self.up, self.rows, strict=True)
        return [Core(number, up, 0, row) for number, (up, row) in enumerate(pairs)]


@pytest.fixture
def node() -> Steered:
    return Steered()


def _readings(vitals: Vitals) -> dict[str, Reading]:
    return {reading.name: reading for reading in vitals.read()}


def _vitals(node: Steered, *certificates: str) -> Vitals:
    tls = MqttTls(tls_cert=certificates, tls_key=certificates)
    return Vitals(MqttSystemMonitor(), tls, node, max_connections=1_000)


def test_a_node_that_is_well_raises_nothing_but_what_its_machine_does(node: Steered) -> None:
    beyond = {name for name, each in _readings(_vitals(node)).items() if each.value >= each.high}
    assert beyond <= {"HighCpuUsage", "HighMemoryUsage"}


def test_a_worker_that_has_not_been_up_yet_is_not_down(node: Steered) -> None:
    node.up[1] = False
    vitals = _vitals(node)
    assert _readings(vitals)["WorkerDown"].value == 0
    node.up[1] = True
    assert _readings(vitals)["WorkerDown"].value == 0
    node.up[1] = False
    assert _readings(vitals)["WorkerDown"].value == 1


def test_workers_are_named(node: Steered) -> None:
    vitals = _vitals(node)
    vitals_before = _readings(vitals)["PublishersPaused"]
    node.up[0] = False
    node.rows[1][metrics.STORAGE_REFUSING] = 1
    node.rows[1][metrics.PUBLISHERS_PAUSED] = 7
    node.rows[1][metrics.CONNECTIONS] = 950
    found = _readings(vitals)
    assert (found["WorkerDown"].value, found["WorkerDown"].message) == (1, "not ready: worker 0")
    assert found["StorageRefusing"].message == "the disk is full or fails: worker 1"
    assert (vitals_before.value, found["PublishersPaused"].value) == (0, 7)
    assert found["HighConnectionUsage"].value == 95
    assert _readings(vitals)["PublishersPaused"].value == 0


def _certificate(path: Path, days: float) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=100))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, SHA256())
    )
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return str(path)


@pytest.mark.parametrize(("days", "raised"), [(300, False), (15, False), (13.5, True), (-1, True)])
def test_the_certificate_that_expires_first_counts(
    node: Steered, tmp_path: Path, days: float, raised: bool
) -> None:
    late = _certificate(tmp_path / "late.pem", 1_000)
    soon = _certificate(tmp_path / "soon.pem", days)
    reading = _readings(_vitals(node, late, soon))["CertificateExpires"]
    assert (reading.value >= reading.high) is raised
    assert "soon.pem" in reading.message


def test_a_certificate_that_cannot_be_read_is_not_this_alarms_business(
    node: Steered, tmp_path: Path
) -> None:
    reading = _readings(_vitals(node, str(tmp_path / "none.pem")))["CertificateExpires"]
    assert reading.value < reading.high
