"""`/api/cluster/status` and the changes of who is in the cluster."""

import pytest
from starlette.testclient import TestClient

from robustmq.admin import app
from robustmq.settings.admin import Admin
from tests.unit.admin.test_app import CLOSED, Shown
from tests.unit.admin.workforce import Workforce


@pytest.fixture
def workforce() -> Workforce:
    return Workforce()


@pytest.fixture
def client(workforce: Workforce) -> TestClient:
    settings = Admin(trusted_networks=("0.0.0.0/0",))
    application = app.create(Shown(), workforce, settings, CLOSED)
    return TestClient(application, raise_server_exceptions=False, client=("10.0.0.1", 1))


def test_the_status_is_what_the_meta_process_says(client: TestClient, workforce: Workforce) -> None:
    workforce.cluster["status"] = {"node": 1}
    assert client.get("/api/cluster/status").json()["data"] == {"node": 1}


@pytest.mark.parametrize("change", ["promote", "replace", "leave"])
def test_a_change_is_passed_on_and_its_refusal_is_a_sentence(
    client: TestClient, workforce: Workforce, change: str
) -> None:
    workforce.cluster[change] = ValueError("node 2 is not there")
    answer = client.post(f"/api/cluster/node/{change}", json={"node_id": 2})
    assert (answer.status_code, answer.json()["error"]) == (409, "node 2 is not there")
    kind, arguments = workforce.asked[0]
    assert (kind, arguments["node"]) == (change, 2)


def test_who_leaves_against_the_majority_is_forced(
    client: TestClient, workforce: Workforce
) -> None:
    workforce.cluster["leave"] = "success"
    answer = client.post("/api/cluster/node/leave", json={"node_id": 2, "force": True})
    assert answer.json()["data"] == "success"
    assert workforce.asked == [("leave", {"node": 2, "force": True})]


def test_a_meta_process_that_is_silent_is_unavailable(
    client: TestClient, workforce: Workforce
) -> None:
    workforce.cluster["status"] = TimeoutError()
    assert client.get("/api/cluster/status").status_code == 503
