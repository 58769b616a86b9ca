"""mqtt.js (Node.js) over TCP and WebSocket, two workers; the scenario is in js/client.mjs."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests import authority
from tests.integration.homes import PLACES, name_on, topic_on
from tests.integration.secure import settings
from tests.integration.supervised import Node

SCENARIO: Final = Path(__file__).parent / "js" / "client.mjs"
PATIENCE: Final = 90


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority.made(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def node(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    data = tmp_path_factory.mktemp("mqttjs") / "data"
    node = Node(data, module="robustmq.cli.supervisor", settings=settings(directory))
    yield node.ready()
    ended = node.seen("process ended")
    node.close()
    assert not ended


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", [3, 4, 5])
def test_the_scenario_comes_true(node: Node, version: int, qos: int) -> None:
    play(f"mqtt://127.0.0.1:{node.address()[1]}", version, qos)


@pytest.mark.parametrize(
    ("scheme", "version", "qos"), [("ws", 3, 0), ("ws", 4, 1), ("ws", 5, 2), ("wss", 5, 1)]
)
def test_it_comes_true_over_websocket(
    node: Node, directory: Path, scheme: str, version: int, qos: int
) -> None:
    port = node.address(f"mqtt_{scheme}")[1]
    play(f"{scheme}://127.0.0.1:{port}/mqtt", version, qos, directory / "ca.pem")


def play(address: str, version: int, qos: int, trusted: Path | None = None) -> None:
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
        env={**os.environ, **({"NODE_EXTRA_CA_CERTS": str(trusted)} if trusted else {})},
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", ""), done.stderr
