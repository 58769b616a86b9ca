"""The administration of a real node: questions to all workers, pages, and who may ask."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.integration.supervised import Node, until

MODULE = "robustmq.cli.supervisor"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "data", module=MODULE, settings=("admin.answer_timeout_ms=500",))
    try:
        yield node.ready()
    finally:
        node.close()


def _listed(node: Node, path: str) -> dict[str, Any]:
    status, text = node.get(f"/api/mqtt/{path}")
    assert status == 200, text
    content: dict[str, Any] = json.loads(text)
    assert (content["code"], content["error"]) == (0, None)
    return content


def _connect(node: Node, client_id: str) -> paho.Client:
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5)
    client.connect(*node.address())
    client.loop_start()
    return client


def test_lists_hold_what_is_on_all_workers(node: Node) -> None:
    names = [f"client-{number}" for number in range(12)]
    clients = [_connect(node, name) for name in names]
    try:
        until(
            lambda: _listed(node, "client/list")["data"]["total_count"] == 12, "clients are listed"
        )
        for client in clients:
            client.subscribe(
                [
                    ("a/b", SubscribeOptions(qos=1)),
                    ("$share/g/c/#", SubscribeOptions(qos=0)),
                ]
            )
        until(
            lambda: _listed(node, "subscribe/list")["data"]["total_count"] == 24,
            "subscriptions are listed",
        )
        pages = [
            _listed(node, f"client/list?limit=5&page={number}")["data"]["data"]
            for number in (1, 2, 3, 4)
        ]
        assert [len(page) for page in pages] == [5, 5, 2, 0]
        assert sorted(each["client_id"] for page in pages for each in page) == sorted(names)
        seen: list[dict[str, Any]] = []
        cursor: str | None = "0:0"
        while cursor is not None:
            data = _listed(node, f"subscribe/list?limit=7&cursor={cursor}")["data"]
            seen += data["data"]
            cursor = data["cursor"]
        assert len({(each["client_id"], each["path"]) for each in seen}) == len(seen) == 24
        (one,) = _listed(node, "session/list?client_id=client-3")["data"]["data"]
        assert (one["client_id"], one["connected"], one["subscriptions"]) == ("client-3", True, 2)
        two = _listed(node, "subscribe/list?client_id=client-3")["data"]["data"]
        assert [(each["path"], each["group"], each["qos"]) for each in two] == [
            ("a/b", None, 1),
            ("$share/g/c/#", "g", 0),
        ]
    finally:
        for client in clients:
            client.disconnect()
            client.loop_stop()


def test_a_worker_that_hangs_is_named(node: Node) -> None:
    worker = psutil.Process(node.children()["worker 1"])
    worker.suspend()
    try:
        assert _listed(node, "client/list")["missing"] == ["worker 1"]
    finally:
        worker.resume()
    until(lambda: "missing" not in _listed(node, "client/list"), "the worker answers again")


def test_workers_and_the_server_process_may_be_replaced(node: Node) -> None:
    children = node.children()
    psutil.Process(children["worker 0"]).send_signal(signal.SIGKILL)
    until(lambda: node.get("/health/ready")[0] == 503, "the loss is seen")
    until(lambda: node.get("/health/ready")[0] == 200, "the worker is back")
    assert "missing" not in _listed(node, "client/list")
    psutil.Process(children["server"]).send_signal(signal.SIGKILL)
    until(lambda: node.children().get("server", children["server"]) != children["server"], "new")

    def answers() -> bool:
        try:
            return "missing" not in _listed(node, "client/list")
        except OSError:
            return False

    until(answers, "the new server process asks the workers")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("client/list?limit=x", "limit must be a number from 0 to 1000, not 'x'"),
        ("client/list?limit=1001", "limit must be a number from 0 to 1000, not '1001'"),
        ("client/list?cursor=1", "cursor must be what the page before has returned"),
    ],
)
def test_a_wrong_question_is_told_so(node: Node, path: str, said: str) -> None:
    status, text = node.get(f"/api/mqtt/{path}")
    assert status == 400
    assert json.loads(text) == {"code": 100, "data": None, "error": said}
