"""Topics of the cluster over HTTP."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from robustmq.admin import app
from robustmq.settings.admin import Admin
from tests.unit.admin.test_app import CLOSED, Shown
from tests.unit.admin.workforce import Workforce

TOPIC = "/api/cluster/topic"
SUCCESS = {"code": 0, "data": "success", "error": None}


@pytest.fixture
def workforce() -> Workforce:
    return Workforce()


@pytest.fixture
def client(workforce: Workforce) -> TestClient:
    return TestClient(app.create(Shown(), workforce, Admin(), CLOSED), client=("127.0.0.1", 50_000))


def _names(client: TestClient, query: str = "") -> tuple[list[str], int]:
    data = client.get(f"{TOPIC}/list{query}").json()["data"]
    return [each["topic_name"] for each in data["data"]], data["total_count"]


def test_topics_are_made_listed_and_deleted(client: TestClient, workforce: Workforce) -> None:
    wanted: dict[str, Any] = {
        "topic_name": "orders",
        "partition": 3,
        "storage_type": "EngineRocksDB",
        "config": {"retention.ms": "5"},
    }
    assert client.post(f"{TOPIC}/create", json=wanted).json() == SUCCESS
    assert client.post(f"{TOPIC}/create", json={"topic_name": "a"}).json() == SUCCESS
    blue = {"topic_name": "b", "tenant": "blue"}
    assert client.post(f"{TOPIC}/create", json=blue).json() == SUCCESS
    assert _names(client) == (["a", "orders"], 2)
    assert _names(client, "?limit=1&page=2") == (["orders"], 2)
    assert _names(client, "?topic_name=rd") == (["orders"], 1)
    assert _names(client, "?tenant=blue") == (["b"], 1)
    found = client.get(f"{TOPIC}/detail?topic_name=orders").json()["data"]
    assert found["topic_info"]["storage_type"] == "EngineRocksDB"
    assert found["topic_info"]["partition"] == 3
    assert found["config"]["retention.ms"] == "5"
    assert [each["leader"] for each in found["partitions"]] == [1, 1, 1]
    workforce.silent = {1}
    gone = client.post(f"{TOPIC}/delete", json={"topic_name": "orders"}).json()
    assert gone == SUCCESS | {"missing": ["worker 1"]}
    assert _names(client) == (["a"], 1)


@pytest.mark.parametrize(
    ("wanted", "status", "words"),
    [
        ({"topic_name": "a/b"}, 400, "cannot be the name of a topic"),
        ({"topic_name": "a", "replication": 3}, 400, "one replica"),
        ({"topic_name": "a", "config": {"retention": "1"}}, 400, "no topic setting retention"),
        ({"topic_name": "a", "storage_type": "tape"}, 400, "must be"),
        ({"topic_name": "a", "partition": 100_000}, 409, "kafka_runtime.max_partitions"),
        ({"partition": 1}, 400, "topic_name"),
    ],
)
def test_what_cannot_be_made_is_refused(
    client: TestClient, wanted: dict[str, Any], status: int, words: str
) -> None:
    refused = client.post(f"{TOPIC}/create", json=wanted)
    assert refused.status_code == status
    assert words in refused.json()["error"]


def test_a_topic_that_is_not_there_is_not_found(client: TestClient) -> None:
    assert client.get(f"{TOPIC}/detail?topic_name=x").status_code == 404
    assert client.post(f"{TOPIC}/delete", json={"topic_name": "x"}).status_code == 404
