"""Another number of workers: everything is there, also when the move is killed on its way."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from robustmq.mqtt.packets import Properties, Pubcomp, Publish, Pubrec, Pubrel
from tests.integration.homes import name_on, topic_on
from tests.integration.supervised import Node, until
from tests.integration.wire_client import Client

SESSION = Properties(session_expiry_interval=3_600)
COUNT = 40
Start = Callable[..., Node]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a node on the one directory; (workers, stop) where a move shall stop."""
    nodes: list[Node] = []

    def begin(workers: int, stop: str = "") -> Node:
        module = "tests.integration.slow_move" if stop else "robustmq.cli.supervisor"
        environment = {"ROBUSTMQ_TEST_STOP": stop}
        node = Node(tmp_path / "data", workers=workers, module=module, environment=environment)
        nodes.append(node)
        return node

    yield begin
    for node in nodes:
        node.close()


def stop(node: Node) -> None:
    """End in order."""
    node.send(signal.SIGTERM)
    assert node.wait() == 0
    assert node.complaints() == []


def layout(data: Path) -> tuple[int, int, list[str]]:
    """Workers and generation that count, and the directories that are there."""
    written = json.loads((data / "format.json").read_text())
    return written["workers"], written["generation"], sorted(each.name for each in data.glob("g*"))


class World:
    """Clients on every core, with a backlog, retained messages and an exchange that is open."""

    def __init__(self, node: Node) -> None:
        self.topics = [topic_on(core, "moved/{}") for core in (0, 1)]
        self.hearers = [name_on(core, "hears") for core in (0, 1, 0, 1)]
        self.speaker = name_on(1, "says")
        for number, name in enumerate(self.hearers):
            with Client(node, name, clean=False, properties=SESSION) as hears:
                hears.subscribe(self.topics[0], 1 + number // 2)
                hears.subscribe("moved/#", 2)
                hears.disconnect()
        with Client(node, self.speaker, clean=False, properties=SESSION) as says:
            for number in range(COUNT):
                topic = self.topics[number % 2]
                assert says.publish(topic, b"%d" % number, 1 + number // 2 % 2) == 0
            for number in range(COUNT):
                says.publish(f"kept/{number}", b"%d" % number, 1, retain=True)
            says.send(Publish(self.topics[0].encode(), b"once", 2, packet_id=500))
            assert says.expect(Pubrec) == Pubrec(500)
        one_by_one = Properties(session_expiry_interval=3_600, receive_maximum=1)
        with Client(node, self.hearers[0], clean=False, properties=one_by_one) as hears:
            assert hears.payloads(4) == [b"0", b"1", b"2", b"3"]

    def check(self, node: Node) -> None:
        """Whoever comes gets what it is owed, once and in order."""
        with Client(node, self.speaker, clean=False, properties=SESSION) as says:
            assert says.connack.session_present
            says.send(Publish(self.topics[0].encode(), b"once", 2, False, True, 500), Pubrel(500))
            assert says.expect(Pubrec) == Pubrec(500)
            assert says.expect(Pubcomp) == Pubcomp(500)
            says.publish(self.topics[0], b"new", 2)
        for number, name in enumerate(self.hearers):
            with Client(node, name, clean=False, properties=SESSION) as hears:
                assert hears.connack.session_present
                expected = [*map(str, range(COUNT)), "once", "new"]
                # The first has had four of them.
                expected = expected if number else expected[4:]
                assert [each.decode() for each in hears.payloads(len(expected))] == expected
                assert hears.heard() == []
                hears.disconnect()
        with Client(node, "curious") as curious:
            curious.subscribe("kept/#", 1)
            found = {message.topic: message.payload for message in curious.messages(COUNT)}
            assert found == {b"kept/%d" % number: b"%d" % number for number in range(COUNT)}


def test_what_is_owed_comes_once_and_in_order_after_every_move(
    start: Start, tmp_path: Path
) -> None:
    node = start(2).ready()
    world = World(node)
    for generation, workers in enumerate((3, 1, 4), start=2):
        stop(node)
        node = start(workers).ready()
        (begin,) = node.seen("the data is moved")
        assert begin["to_workers"] == workers
        assert len(node.seen("the data has moved")) == 1
        assert layout(tmp_path / "data") == (workers, generation, [f"g{generation}"])
    world.check(node)
    stop(node)
    node = start(4).ready()
    assert not node.seen("the data is moved")
    stop(node)


@pytest.mark.parametrize("where", ["writing", "written", "switched"])
def test_a_move_that_is_killed_is_begun_anew(start: Start, tmp_path: Path, where: str) -> None:
    node = start(2).ready()
    world = World(node)
    stop(node)
    node = start(3, where)
    until(lambda: node.seen("stopped here"), "the move stops")
    assert layout(tmp_path / "data")[2] == ["g1", "g2"]
    node.close()
    node = start(3).ready()
    assert len(node.seen("the data is moved")) == (where != "switched")
    assert layout(tmp_path / "data") == (3, 2, ["g2"])
    world.check(node)
    stop(node)


def test_a_move_that_fails_says_so_and_leaves_the_data(start: Start, tmp_path: Path) -> None:
    node = start(2).ready()
    world = World(node)
    stop(node)
    node = start(3, "full")
    assert node.wait() == 1
    (failure,) = [event for event in node.events() if event["level"] == "error"]
    assert failure["event"] == "the data could not be moved"
    assert "No space left on device" in failure["reason"]
    lines = [line for line in node.errors().splitlines() if not line.startswith("{")]
    assert len(lines) == 1
    assert "from 2 workers to 3" in lines[0]
    assert "-w 2" in lines[0]
    assert layout(tmp_path / "data") == (2, 1, ["g1"])
    node = start(2).ready()
    world.check(node)
    stop(node)


def test_a_signal_ends_the_move(start: Start, tmp_path: Path) -> None:
    node = start(2).ready()
    world = World(node)
    stop(node)
    node = start(3, "written")
    until(lambda: node.seen("stopped here"), "the move stops")
    stop(node)
    assert layout(tmp_path / "data")[:2] == (2, 1)
    node = start(2).ready()
    assert layout(tmp_path / "data") == (2, 1, ["g1"])
    world.check(node)
    stop(node)
