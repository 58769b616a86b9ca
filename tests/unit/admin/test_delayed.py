"""Delayed messages as an administrator sees and removes them."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from starlette.testclient import TestClient

from robustmq.admin import app
from robustmq.admin.node import Replies
from robustmq.settings.admin import Admin
from tests.unit.admin.test_app import CLOSED, Shown
from tests.unit.admin.workforce import Workforce

PATH = "/api/mqtt/delayed/delete"


class Keeper(Workforce):
    """Worker 1 keeps one message, (5, 7); with `full` no disk takes anything."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False

    async def ask(
        self, kind: str, arguments: Mapping[str, Any], cores: Iterable[int] | None = None
    ) -> Replies:
        if kind != "mqtt.delayed.delete":
            return await super().ask(kind, arguments, cores)
        assert cores is not None
        (core,) = cores
        if core in self.silent:
            return Replies({}, [core])
        if self.full:
            raise ValueError("the disk is full")
        return Replies({core: (core, arguments) == (1, {"due_ms": 5, "number": 7})}, [])


@pytest.fixture
def node() -> Keeper:
    return Keeper()


@pytest.fixture
def client(node: Keeper) -> TestClient:
    return TestClient(app.create(Shown(), node, Admin(), CLOSED), client=("127.0.0.1", 1))


@pytest.mark.parametrize(
    ("name", "status"),
    [("1-5-7", 200), ("0-5-7", 404), ("1-5-8", 404), ("2-5-7", 400), ("x", 400), ("1-5-7\n", 400)],
)
def test_a_message_is_removed_by_its_id(client: TestClient, name: str, status: int) -> None:
    answer = client.post(PATH, json={"id": name})
    assert answer.status_code == status
    assert (answer.json()["error"] is None) is (status == 200)


def test_a_worker_that_does_not_answer_is_named(client: TestClient, node: Keeper) -> None:
    node.silent = {1}
    answer = client.post(PATH, json={"id": "1-5-7"})
    assert (answer.status_code, "worker 1" in answer.json()["error"]) == (503, True)


def test_a_disk_that_takes_nothing_is_the_reason(client: TestClient, node: Keeper) -> None:
    node.full = True
    answer = client.post(PATH, json={"id": "1-5-7"})
    assert (answer.status_code, answer.json()["error"]) == (503, "the disk is full")


def test_messages_are_listed(client: TestClient, node: Keeper) -> None:
    node.lists["mqtt.delayed"] = [[{"id": "0-1-1"}], [{"id": "1-5-7"}]]
    data = client.get("/api/mqtt/delayed/list").json()["data"]
    assert (data["data"], data["total_count"]) == ([{"id": "0-1-1"}, {"id": "1-5-7"}], 2)
