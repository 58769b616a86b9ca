"""The console's files are served, complete, and confined by what the browser is told."""

import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from robustmq.admin import console

ROOT = Path(__file__).resolve().parents[3]
STATIC = ROOT / "robustmq" / "admin" / "static"


@pytest.fixture
def client() -> TestClient:
    listeners = console.WebSocketListeners(ws=8083, wss=None, path="/mqtt")
    return TestClient(Starlette(routes=console.routes(listeners)))


@pytest.mark.parametrize("path", ["/", "/dashboard"])
def test_the_page_is_found(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.url.path) == (200, "/dashboard/")
    assert answer.headers["content-type"].startswith("text/html")


def test_all_that_the_page_loads_is_ours_and_there(client: TestClient) -> None:
    page = client.get("/dashboard/").text
    files = re.findall(r'(?:src|href)="([^":]+)"', page)
    assert len(files) == 3
    for name in files:
        answer = client.get(f"/dashboard/{name}")
        assert (answer.status_code, answer.content) == (200, (STATIC / name).read_bytes())
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_every_element_that_the_script_asks_for_is_on_the_page() -> None:
    script = (STATIC / "console.js").read_text()
    page = (STATIC / "index.html").read_text()
    asked = set(re.findall(r'(?:element|on)\("([a-z-]+)"', script)) - {
        "connect", "message", "error", "disconnect", "close",
    }  # fmt: skip
    assert len(asked) > 10
    for name in asked:
        assert f'id="{name}"' in page


def test_the_page_is_told_where_mqtt_is(client: TestClient) -> None:
    answer = client.get("/dashboard/listeners.json")
    assert answer.json() == {"ws": 8083, "wss": None, "path": "/mqtt"}


@pytest.mark.parametrize("path", ["../app.py", "%2e%2e/app.py", "..%2fapp.py"])
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(f"/dashboard/{path}").status_code == 404
