"""The blacklist over HTTP."""

import time
from typing import Any

import pytest
from starlette.testclient import TestClient

from robustmq.admin import app
from robustmq.errors import Refusal, Refused
from robustmq.settings.admin import Admin
from tests.unit.admin.test_app import CLOSED, Shown
from tests.unit.admin.workforce import Workforce

PATH = "/api/cluster/blacklist"


@pytest.fixture
def workforce() -> Workforce:
    return Workforce()


@pytest.fixture
def client(workforce: Workforce) -> TestClient:
    return TestClient(app.create(Shown(), workforce, Admin(), CLOSED), client=("127.0.0.1", 50_000))


def _ban(name: str, **changes: object) -> dict[str, Any]:
    ban = {"name": name, "blacklist_type": "ClientId", "resource_name": "c", "desc": "why"}
    return {**ban, **changes}


def test_bans_are_made_listed_and_deleted(client: TestClient, workforce: Workforce) -> None:
    for name in ("b", "a", "c"):
        answer = client.post(f"{PATH}/create", json=_ban(name))
        assert answer.json() == {"code": 0, "data": "success", "error": None}
    data = client.get(f"{PATH}/list?limit=2").json()["data"]
    assert (data["total_count"], [each["name"] for each in data["data"]]) == (3, ["a", "b"])
    assert data["data"][0] == {**_ban("a"), "tenant": "default", "end_time": 0}
    workforce.silent = {1}
    answer = client.post(f"{PATH}/delete", json={"name": "a"})
    assert answer.json()["missing"] == ["worker 1"]
    data = client.get(f"{PATH}/list?page=2&limit=1").json()["data"]
    assert (data["total_count"], [each["name"] for each in data["data"]]) == (2, ["c"])


def test_what_is_over_is_not_shown_and_goes_with_the_next(
    client: TestClient, workforce: Workforce
) -> None:
    client.post(f"{PATH}/create", json=_ban("old", end_time=int(time.time()) - 5))
    assert client.get(f"{PATH}/list").json()["data"]["total_count"] == 0
    client.post(f"{PATH}/create", json=_ban("new", end_time=int(time.time()) + 500))
    assert list(workforce.kept["blacklist"]) == ["new"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (_ban(""), 400, "name must have 1 to 256 characters"),
        (_ban("\0"), 400, "and not U+0000"),
        (_ban("a", blacklist_type="Dog"), 400, "Invalid enum value 'Dog'"),
        (_ban("a", blacklist_type="IPCIDR"), 400, "is not what IPCIDR needs"),
        ({"name": "a"}, 400, "missing required field `blacklist_type`"),
        ([], 400, "Expected `object`, got `array`"),
    ],
)
def test_what_cannot_be_is_said(client: TestClient, body: object, status: int, said: str) -> None:
    answer = client.post(f"{PATH}/create", json=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_only_json_that_is_not_too_large_is_read(client: TestClient) -> None:
    text = {"content-type": "text/plain"}
    assert client.post(f"{PATH}/create", content="{}", headers=text).status_code == 415
    json = {"content-type": "application/json; charset=utf-8"}
    assert client.post(f"{PATH}/create", content="{", headers=json).status_code == 400
    large = b" " * ((1 << 20) + 1)
    assert client.post(f"{PATH}/create", content=large, headers=json).status_code == 413
    assert client.get(f"{PATH}/create").status_code == 405


def test_a_ban_that_is_not_there_cannot_be_deleted(client: TestClient) -> None:
    answer = client.post(f"{PATH}/delete", json={"name": "x"})
    assert (answer.status_code, "'x'" in answer.json()["error"]) == (404, True)


@pytest.mark.parametrize(
    ("code", "status"), [(Refusal.UNAVAILABLE, 503), (Refusal.QUOTA_EXCEEDED, 409)]
)
def test_a_disk_that_fails_is_told(
    client: TestClient, workforce: Workforce, code: Refusal, status: int
) -> None:
    workforce.refusal = Refused(code, "why")
    answer = client.post(f"{PATH}/create", json=_ban("a"))
    assert (answer.status_code, answer.json()["error"]) == (status, "why")
