"""Slow subscribers as an administrator sees them: those of all workers, the slowest first."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from starlette.testclient import TestClient

from robustmq.admin import app
from robustmq.admin.node import Replies
from robustmq.settings.admin import Admin
from tests.unit.admin.test_app import CLOSED, Shown
from tests.unit.admin.workforce import Workforce


class Slow(Workforce):
    """Two workers, of which the second does not answer when it is silent."""

    def __init__(self) -> None:
        super().__init__()
        self.found = {
            0: [{"client_id": "a", "time_span": 5_000}, {"client_id": "b", "time_span": 10}],
            1: [{"client_id": "c", "time_span": 700}],
        }

    async def ask(
        self, kind: str, arguments: Mapping[str, Any], cores: Iterable[int] | None = None
    ) -> Replies:
        if kind == "mqtt.slow_subscribers":
            values: dict[int, Any] = dict(self.found)
        else:
            assert kind == "mqtt.slow_subscribers.clear"
            values = {core: len(found) for core, found in self.found.items()}
        answers = {core: value for core, value in values.items() if core not in self.silent}
        return Replies(answers, sorted(self.silent))


@pytest.fixture
def node() -> Slow:
    return Slow()


@pytest.fixture
def client(node: Slow) -> TestClient:
    return TestClient(app.create(Shown(), node, Admin(), CLOSED), client=("127.0.0.1", 1))


@pytest.mark.parametrize(
    ("query", "names"),
    [("", ["a", "c", "b"]), ("?limit=2", ["a", "c"]), ("?limit=2&page=2", ["b"])],
)
def test_the_slowest_come_first(client: TestClient, query: str, names: list[str]) -> None:
    data = client.get(f"/api/mqtt/slow-subscribe/list{query}").json()["data"]
    assert [each["client_id"] for each in data["data"]] == names
    assert data["total_count"] == 3


def test_a_worker_that_does_not_answer_is_named(client: TestClient, node: Slow) -> None:
    node.silent = {1}
    answer = client.get("/api/mqtt/slow-subscribe/list").json()
    assert answer["missing"] == ["worker 1"]
    assert answer["data"]["total_count"] == 2


def test_they_are_cleared_by_a_post_only(client: TestClient) -> None:
    path = "/api/mqtt/slow-subscribe/clear"
    assert client.post(path, json={}).json()["data"] == 3
    assert client.get(path).status_code == 405
    assert client.post(path).status_code == 415
