"""Pages of lists that lie in parts on workers, and who may see them."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from robustmq.admin import app
from robustmq.settings.admin import Admin
from tests.unit.admin.test_app import CLOSED, Shown
from tests.unit.admin.workforce import Workforce

NAMES = [[f"a{n}" for n in range(7)], [], [f"c{n}" for n in range(4)]]


@pytest.fixture
def workforce() -> Workforce:
    workforce = Workforce(3)
    workforce.lists["mqtt.clients"] = [[{"client_id": each} for each in part] for part in NAMES]
    return workforce


def _client(workforce: Workforce, address: str = "127.0.0.1") -> TestClient:
    application = app.create(Shown(), workforce, Admin(max_page=50), CLOSED)
    return TestClient(application, client=(address, 50_000))


def _page(client: TestClient, query: str) -> dict[str, Any]:
    answer = client.get(f"/api/mqtt/client/list?{query}")
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 11, 50])
def test_pages_and_cursors_show_everything_once(workforce: Workforce, limit: int) -> None:
    client = _client(workforce)
    expected = [name for part in NAMES for name in part]
    paged: list[str] = []
    for number in range(1, 13):
        data = _page(client, f"limit={limit}&page={number}")["data"]
        assert data["total_count"] == 11
        paged += [each["client_id"] for each in data["data"]]
    assert paged == expected
    walked: list[str] = []
    cursor: str | None = "0:0"
    while cursor is not None:
        data = _page(client, f"limit={limit}&cursor={cursor}")["data"]
        walked += [each["client_id"] for each in data["data"]]
        cursor = data["cursor"]
    assert walked == expected


def test_a_page_without_entries_counts(workforce: Workforce) -> None:
    data = _page(_client(workforce), "limit=0")["data"]
    assert (data["data"], data["total_count"]) == ([], 11)


def test_who_does_not_answer_is_named_and_passed_over(workforce: Workforce) -> None:
    workforce.silent = {0}
    content = _page(_client(workforce), "limit=50")
    assert content["missing"] == ["worker 0"]
    assert [each["client_id"] for each in content["data"]["data"]] == NAMES[2]


def test_what_a_worker_refuses_is_told(workforce: Workforce) -> None:
    answer = _client(workforce).get("/api/mqtt/session/list")
    assert answer.status_code == 400
    assert answer.json()["error"] == "no worker answers mqtt.sessions"


@pytest.mark.parametrize("address", ["10.0.0.1", "::2", "testclient", "::ffff:10.0.0.1"])
def test_strangers_may_not_ask(workforce: Workforce, address: str) -> None:
    answer = _client(workforce, address).get("/api/mqtt/client/list")
    assert answer.status_code == 403
    assert "admin.trusted_networks" in answer.json()["error"]
    assert _client(workforce, address).get("/health/live").status_code == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_trusted_networks_may(workforce: Workforce, address: str) -> None:
    assert _page(_client(workforce, address), "limit=1")["data"]["total_count"] == 11


def test_an_unknown_path_below_api_is_a_json_404(workforce: Workforce) -> None:
    assert _client(workforce).get("/api/nothing").status_code == 404
