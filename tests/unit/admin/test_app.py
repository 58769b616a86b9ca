"""The HTTP application over a snapshot that stands for a node."""

from collections.abc import Sequence

import pytest
from starlette.testclient import TestClient

from robustmq import metrics
from robustmq.admin import app
from robustmq.admin.console import WebSocketListeners
from robustmq.admin.prometheus import Core, Usage
from robustmq.settings.admin import Admin
from tests.unit.admin.workforce import Workforce

CLOSED = WebSocketListeners(ws=None, wss=None, path="/mqtt")


class Shown:
    """A node of two workers of which the second one is coming back."""

    kernel = "pure"

    def __init__(self) -> None:
        self.second = "starting"
        self.refusing = 0
        self.isolated = False

    def cores(self) -> Sequence[Core]:
        rows = [[number * 100 + cell for cell in range(metrics.CELLS)] for number in (1, 2)]
        for row in rows:
            row[metrics.STORAGE_REFUSING] = 0
        rows[0][metrics.STORAGE_REFUSING] = self.refusing
        return [Core(0, True, 0, rows[0]), Core(1, self.second == "ready", 3, rows[1])]

    def processes(self) -> Sequence[Usage]:
        return [Usage("server", 4096, 1.5)]

    def meta(self) -> Sequence[int]:
        return [1_000 + cell for cell in range(metrics.CELLS)]

    def is_isolated(self) -> bool:
        return self.isolated

    def phases(self) -> dict[str, str]:
        return {"worker 0": "ready", "worker 1": self.second}


@pytest.fixture
def node() -> Shown:
    return Shown()


@pytest.fixture
def client(node: Shown) -> TestClient:
    application = app.create(node, Workforce(), Admin(), CLOSED)
    return TestClient(application, raise_server_exceptions=False)


def test_every_row_of_the_table_has_a_series_per_core(client: TestClient) -> None:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    for cell, row in enumerate(metrics.TABLE):
        name = row.name + ("_total" if row.kind == "counter" else "")
        assert f"# TYPE {name} {row.kind}" in lines
        values = (0.0, 0.0) if cell == metrics.STORAGE_REFUSING else (100.0 + cell, 200.0 + cell)
        assert f'{name}{{core="0"}} {values[0]}' in lines
        assert f'{name}{{core="1"}} {values[1]}' in lines


def test_the_meta_process_has_a_row_of_its_own(client: TestClient) -> None:
    lines = client.get("/metrics").text.splitlines()
    for cell, row in enumerate(metrics.META_TABLE):
        name = row.name + ("_total" if row.kind == "counter" else "")
        assert f"{name} {1000.0 + cell}" in lines


def test_a_node_that_is_cut_off_from_its_cluster_is_not_ready(
    client: TestClient, node: Shown
) -> None:
    node.second = "ready"
    node.isolated = True
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert "leader" in answer.json()["isolated"]


def test_workers_processes_and_kernel_are_shown(client: TestClient) -> None:
    lines = client.get("/metrics").text.splitlines()
    assert 'robustmq_worker_up{core="0"} 1.0' in lines
    assert 'robustmq_worker_up{core="1"} 0.0' in lines
    assert 'robustmq_worker_restarts_total{core="1"} 3.0' in lines
    assert 'robustmq_process_resident_memory_bytes{process="server"} 4096.0' in lines
    assert 'robustmq_process_cpu_seconds_total{process="server"} 1.5' in lines
    assert 'robustmq_kernel_info{implementation="pure"} 1.0' in lines


def test_a_scraper_may_ask_for_openmetrics(client: TestClient) -> None:
    answer = client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_live_is_live(client: TestClient) -> None:
    answer = client.get("/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "live"})


def test_ready_names_who_is_not(client: TestClient, node: Shown) -> None:
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json() == {"status": "not ready", "waiting": {"worker 1": "starting"}}
    node.second = "ready"
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


def test_a_full_disk_is_an_alarm_of_a_node_that_is_ready(client: TestClient, node: Shown) -> None:
    node.refusing = 1
    alarms = {"storage_refusing": ["worker 0"]}
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["alarms"] == alarms
    node.second = "ready"
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "alarms": alarms})


@pytest.mark.parametrize("path", ["/metrics", "/health/live"])
def test_head_is_get_without_a_body(client: TestClient, path: str) -> None:
    answer = client.head(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == client.get(path).headers["content-type"]


@pytest.mark.parametrize(
    "path", ["/dashboards", "/metrics/", "/health", "/nothing", "/dashboard/nothing"]
)
def test_an_unknown_path_is_a_json_404(client: TestClient, path: str) -> None:
    answer = client.get(path, follow_redirects=False)
    assert (answer.status_code, answer.json()) == (404, {"error": "Not Found"})


def test_a_wrong_method_is_told_the_right_ones(client: TestClient) -> None:
    answer = client.post("/metrics")
    assert (answer.status_code, answer.json()) == (405, {"error": "Method Not Allowed"})
    assert "GET" in answer.headers["allow"]


def test_a_failure_is_a_json_500(client: TestClient, node: Shown) -> None:
    def fail() -> dict[str, str]:
        raise OSError("gone")

    node.phases = fail  # type: ignore[method-assign]
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()) == (500, {"error": "Internal Server Error"})
