"""Topic logs when a node gets another number of workers: all is there, in order, and goes on."""

import fcntl
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from robustmq.mqtt.packets import Properties, Pubcomp, Publish, Pubrec, Pubrel
from robustmq.storage.layout import open_layout
from tests.integration.homes import name_on
from tests.integration.supervised import Node, until
from tests.integration.test_topic_logs import RULES, Found, Talker, have_talked, logs_in, stop
from tests.integration.wire_client import Client, Ended

Start = Callable[..., Node]
MOVES = (2, 3, 1)
SESSION = Properties(session_expiry_interval=3_600)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a server with these rules and so many workers on one directory, again and again.

    It is ready, unless its move is to stop (`stop`).
    """
    config = tmp_path / "server.toml"
    config.write_text(RULES)
    nodes: list[Node] = []

    def begin(workers: int, stop: str = "") -> Node:
        node = Node(
            tmp_path / "data",
            "--config",
            str(config),
            module="tests.integration.slow_move" if stop else "robustmq.cli.supervisor",
            workers=workers,
            environment={"ROBUSTMQ_TEST_STOP": stop},
        )
        nodes.append(node)
        return node if stop else node.ready()

    yield begin
    for node in nodes:
        node.close()


def test_every_log_has_what_it_had(start: Start, tmp_path: Path) -> None:
    topics = [f"{kind}/{number}" for kind in ("own", "files") for number in range(6)]
    expected: dict[bytes, list[bytes]] = {b"t" + topic.encode(): [] for topic in topics}
    expected[b"tlast/1"] = []
    shared: list[bytes] = []
    for workers in (*MOVES, 4):
        node = start(workers)
        assert len(node.seen("the data has moved")) == (workers != MOVES[0])
        for core in range(workers):
            with Client(node, name_on(core, "p", workers)) as says:
                for qos, topic in itertools.product((0, 1, 2), topics):
                    payload = b"%d from %d of %d" % (qos, core, workers)
                    assert says.publish(topic, payload, qos) == 0
                    expected[b"t" + topic.encode()].append(payload)
                for number in range(12):
                    assert says.publish("last/1", b"%d" % number, 1) == 0
                    expected[b"tlast/1"].append(b"%d" % number)
                for number in range(20):
                    payload = b"%d from %d of %d" % (number, core, workers)
                    assert says.publish("shared/1", payload, 1 + number % 2) == 0
                    shared.append(payload)
        stop(node)
        found = logs_in(tmp_path / "data")
        for name, payloads in expected.items():
            log = found[name]
            assert log.start + len(log.payloads) == len(payloads)
            assert log.payloads == payloads[log.start :]
            assert log.engine == ("segment" if name.startswith(b"tfiles") else "rocksdb")
            assert log.start == 0 or name == b"tlast/1"
        assert_shared(found, shared)
        # Retention goes on: a start looks at every log before it does anything else.
        assert workers == MOVES[0] or found[b"tlast/1"].start > 0
    layout = open_layout(str(tmp_path / "data"))
    assert (layout.workers, layout.generation, layout.strays()) == (4, 4, [])


def assert_shared(found: dict[bytes, Found], shared: list[bytes]) -> None:
    """All that was published is in the shared logs once, that of each publisher in order."""
    kept = [log.payloads for name, log in found.items() if name.startswith(b"rshared")]
    assert sorted(payload or b"" for log in kept for payload in log) == sorted(shared)
    for _, group in itertools.groupby(shared, lambda payload: payload.partition(b" ")[2]):
        mine = list(group)
        assert mine in [[payload for payload in log if payload in mine] for log in kept]


@pytest.mark.parametrize("where", ["writing", "written", "switched"])
def test_a_move_that_is_killed_leaves_the_logs_as_they_were(
    start: Start, tmp_path: Path, where: str
) -> None:
    node = start(2)
    topics = ["own/1", "own/2", "files/1", "files/2", "files/3"]
    with Client(node, name_on(0, "p")) as says:
        for number in range(50):
            for topic in topics:
                assert says.publish(topic, b"%d" % number, 1) == 0
    stop(node)
    before = logs_in(tmp_path / "data")
    node = start(3, where)
    until(lambda: node.seen("stopped here"), "the move stops")
    node.close()
    layout = open_layout(str(tmp_path / "data"))
    assert layout.workers == (3 if where == "switched" else 2)
    if where != "switched":
        until(partial(are_free, tmp_path / "data"), "the databases are let go of")
        assert logs_in(tmp_path / "data") == before
    stop(start(3))
    after = logs_in(tmp_path / "data")
    assert {name: log._replace(core=0) for name, log in after.items()} == {
        name: log._replace(core=0) for name, log in before.items()
    }


def are_free(data: Path) -> bool:
    """Say whether nobody has the databases open: the threads of who was killed end one by one."""
    for path in data.glob("g*/core-*/db/LOCK"):
        with path.open("r+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
    return True


class ExactTalker(Talker):
    """Publishes at QoS 2, a message at a time."""

    def run(self) -> None:
        try:
            for number in range(self.count):
                topic = self.topics[number % len(self.topics)].encode()
                packet_id = number % 60_000 + 1
                self.sent = number + 1
                self.client.send(Publish(topic, b"%d" % number, 2, packet_id=packet_id))
                assert self.client.expect(Pubrec).packet_id == packet_id
                self.acknowledged.append(number)
                self.client.send(Pubrel(packet_id))
                assert self.client.expect(Pubcomp).packet_id == packet_id
        except (Ended, OSError):
            return


def test_what_was_acknowledged_before_everything_was_killed(start: Start, tmp_path: Path) -> None:
    kinds = ("own", "files", "shared")
    talkers: list[Talker] = []
    for life, workers in enumerate((2, 3, 1)):
        node = start(workers)
        mine: list[Talker] = []
        for core, each in itertools.product(range(workers), (Talker, ExactTalker)):
            client = Client(node, name_on(core, "t", workers), clean=False, properties=SESSION)
            names = [f"{kind}/{life}/{core}/{each.__name__}" for kind in kinds]
            mine.append(each(client, names))
        talkers += mine
        for talker in mine:
            talker.start()
        until(partial(have_talked, mine, 100), "they talk")
        for pid in [*node.children().values(), node.process.pid]:
            os.kill(pid, signal.SIGKILL)
        node.close()
        for talker in mine:
            talker.join(20)
            talker.client.close()
    stop(start(2))
    kept: dict[bytes | None, list[int]] = {}
    for log in logs_in(tmp_path / "data").values():
        for name, payload in zip(log.topics, log.payloads, strict=True):
            assert payload is not None
            kept.setdefault(name, []).append(int(payload))
    for talker in talkers:
        got: set[int] = set()
        for topic in talker.topics:
            numbers = kept.get(topic.encode(), [])
            assert numbers == sorted(set(numbers)), "in order, and once"
            got.update(numbers)
        assert not set(talker.acknowledged) - got
        assert got <= set(range(talker.sent))
