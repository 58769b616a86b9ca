"""Users and keys of the cluster over HTTP."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from robustmq.admin import app
from robustmq.errors import Refusal, Refused
from robustmq.policy.passwords import verifier
from robustmq.policy.users import user_of
from robustmq.settings.admin import Admin
from tests.unit.admin.test_app import CLOSED, Shown
from tests.unit.admin.workforce import Workforce

USER = "/api/cluster/user"
KV = "/api/cluster/kv"
SUCCESS = {"code": 0, "data": "success", "error": None}


@pytest.fixture
def workforce() -> Workforce:
    return Workforce()


@pytest.fixture
def client(workforce: Workforce) -> TestClient:
    return TestClient(app.create(Shown(), workforce, Admin(), CLOSED), client=("127.0.0.1", 50_000))


def _user(**changes: object) -> dict[str, Any]:
    return {"username": "alice", "password": "secret", **changes}


def test_users_are_made_listed_and_deleted(client: TestClient, workforce: Workforce) -> None:
    assert client.post(f"{USER}/create", json=_user()).json() == SUCCESS
    other = _user(tenant="blue", is_superuser=True, client_id="dev-*")
    assert client.post(f"{USER}/create", json=other).json() == SUCCESS
    user = user_of("default/alice", workforce.kept["user"]["default/alice"])
    assert all(verifier(each).matches(b"secret") for each in user.passwords)
    assert len(user.passwords) == 2
    answer = client.get(f"{USER}/list")
    assert "SCRAM" not in answer.text
    data = answer.json()["data"]
    assert data["total_count"] == 2
    assert data["data"][0] == {
        "tenant": "blue",
        "username": "alice",
        "is_superuser": True,
        "client_id": "dev-*",
    }
    again = client.post(f"{USER}/create", json=_user())
    assert (again.status_code, "exists already" in again.json()["error"]) == (400, True)
    assert client.post(f"{USER}/delete", json={"username": "alice"}).json() == SUCCESS
    gone = client.post(f"{USER}/delete", json={"username": "alice"})
    assert gone.status_code == 404
    assert list(workforce.kept["user"]) == ["blue/alice"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (_user(username=""), "username must have"),
        (_user(username="a\0"), "username must have"),
        (_user(password=""), "password must have"),
        (_user(tenant=""), "tenant must have"),
        (_user(tenant="a/b"), "tenant must have"),
        ({"username": "a"}, "password"),
    ],
)
def test_a_user_that_cannot_be_is_refused(
    client: TestClient, body: dict[str, Any], said: str
) -> None:
    answer = client.post(f"{USER}/create", json=body)
    assert (answer.status_code, said in answer.json()["error"]) == (400, True)


def test_keys_are_set_listed_by_prefix_and_deleted(
    client: TestClient, workforce: Workforce
) -> None:
    for key in ("b/2", "a", "b/1", "b/3"):
        assert client.post(f"{KV}/set", json={"key": key, "value": f"v{key}"}).json() == SUCCESS
    data = client.get(f"{KV}/list?prefix=b/&limit=2").json()["data"]
    assert data == {
        "data": [{"key": "b/1", "value": "vb/1"}, {"key": "b/2", "value": "vb/2"}],
        "next": "b/3",
    }
    rest = client.get(f"{KV}/list?prefix=b/&limit=2&start=b/3").json()["data"]
    assert ([each["key"] for each in rest["data"]], rest["next"]) == (["b/3"], None)
    assert client.post(f"{KV}/delete", json={"key": "b/1"}).json() == SUCCESS
    assert sorted(workforce.store) == ["a", "b/2", "b/3"]


def test_keys_that_cannot_be_and_a_cluster_that_does_not_answer(
    client: TestClient, workforce: Workforce
) -> None:
    for body, said in (
        ({"key": "", "value": ""}, "key must have"),
        ({"key": "k" * 1_025, "value": ""}, "1024 bytes at most"),
        ({"key": "k", "value": "v" * 65_537}, "65536 bytes at most"),
    ):
        answer = client.post(f"{KV}/set", json=body)
        assert (answer.status_code, said in answer.json()["error"]) == (400, True)
    workforce.refusal = Refused(Refusal.UNAVAILABLE, "nobody answers")
    assert client.get(f"{KV}/list").status_code == 503
    assert client.post(f"{KV}/delete", json={"key": "k"}).status_code == 503
