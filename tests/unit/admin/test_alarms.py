"""Alarms: when they are raised and cleared, and how an administrator sees them."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from robustmq.admin import app
from robustmq.admin.alarms import CALM_LOOKS, Alarms, Reading
from robustmq.settings.admin import Admin
from tests.unit.admin.test_app import CLOSED, Shown
from tests.unit.admin.workforce import Workforce


def _reading(value: float, name: str = "Hot") -> Reading:
    return Reading(name, value, 80, 60, f"it is {value}")


def test_an_alarm_is_raised_once_and_ends_when_all_is_well_for_a_while() -> None:
    alarms = Alarms(10)
    assert alarms.look(1, [_reading(79)]) == []
    (raised,) = alarms.look(2, [_reading(80)])
    assert (raised.name, raised.message, raised.activate_at, raised.activated) == (
        "Hot", "it is 80", 2, True,
    )  # fmt: skip
    assert alarms.look(3, [_reading(99)]) == []
    # Between the two marks it stays, and a moment below them is not enough.
    for value in (61, 59, 59, 61, 59, 59):
        assert alarms.look(4, [_reading(value)]) == []
    assert list(alarms.states()) == [("Hot", True)]
    (ended,) = alarms.look(5, [_reading(59)])
    assert (ended.activated, ended.deactivate_at) == (False, 5)
    assert list(alarms.states()) == [("Hot", False)]


def test_the_history_is_bounded() -> None:
    alarms = Alarms(3)
    for number in range(10):
        alarms.look(number, [_reading(100, f"Alarm{number}")])
        for _ in range(CALM_LOOKS):
            alarms.look(number, [_reading(0, f"Alarm{number}")])
    assert [alarm.name for alarm in alarms.listed("ended")] == ["Alarm9", "Alarm8", "Alarm7"]
    assert alarms.listed("active") == []


@pytest.fixture
def client() -> TestClient:
    alarms = Alarms(10)
    alarms.look(1, [_reading(100, "First"), _reading(0, "Never")])
    alarms.look(2, [_reading(100, "Second")])
    for _ in range(CALM_LOOKS):
        alarms.look(3, [_reading(0, "First")])
    application = app.create(Shown(), Workforce(), Admin(max_page=50), CLOSED, alarms)
    return TestClient(application, client=("127.0.0.1", 1), raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("query", "names", "total"),
    [
        ("", ["Second", "First"], 2),
        ("?state=active", ["Second"], 1),
        ("?state=ended", ["First"], 1),
        ("?limit=1&page=2", ["First"], 2),
    ],
)
def test_alarms_are_listed(client: TestClient, query: str, names: list[str], total: int) -> None:
    data: dict[str, Any] = client.get(f"/api/mqtt/system-alarm/list{query}").json()["data"]
    assert [each["name"] for each in data["data"]] == names
    assert data["total_count"] == total


def test_a_state_that_there_is_not_is_refused(client: TestClient) -> None:
    answer = client.get("/api/mqtt/system-alarm/list?state=x")
    assert answer.status_code == 400
    assert "active, ended, all" in answer.json()["error"]


def test_prometheus_sees_every_alarm(client: TestClient) -> None:
    lines = client.get("/metrics").text.splitlines()
    assert 'robustmq_alarm_active{name="First"} 0.0' in lines
    assert 'robustmq_alarm_active{name="Second"} 1.0' in lines
    assert 'robustmq_alarm_active{name="Never"} 0.0' in lines
