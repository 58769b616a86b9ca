"""mqtt.js (Node.js) over TCP and WebSocket, two workers; the scenario is in js/client.mjs."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.integration.homes import PLACES, name_on, topic_on
from tests.integration.supervised import Node

SCENARIO: Final = Path(__file__).parent / "js" / "client.mjs"
PATIENCE: Final = 90


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("mqttjs") / "data", module="robustmq.cli.supervisor")
    yield node.ready()
    ended = node.seen("process ended")
    node.close()
    assert not ended


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", [3, 4, 5])
def test_the_scenario_comes_true(node: Node, version: int, qos: int) -> None:
    play(f"mqtt://127.0.0.1:{node.address()[1]}", version, qos)


@pytest.mark.parametrize(("version", "qos"), [(3, 0), (4, 1), (5, 2)])
def test_it_comes_true_over_websocket(node: Node, version: int, qos: int) -> None:
    play(f"ws://127.0.0.1:{node.address('mqtt_ws')[1]}/mqtt", version, qos)


def play(address: str, version: int, qos: int) -> None:
    places = PLACES[(version + qos) % len(PLACES)]
    publisher, subscriber = (name_on(core, "js") for core in places)
    done = subprocess.run(
        [
            "node",
            str(SCENARIO),
            address,
            str(version),
            publisher,
            subscriber,
            topic_on(0, "js/{}"),
            str(qos),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", ""), done.stderr
