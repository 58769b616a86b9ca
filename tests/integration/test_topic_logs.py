"""Topics with logs of their own, on a real server: what was acknowledged is in the data directory.

Nothing reads the logs over the network yet, so the tests open the engines when the server is gone.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from robustmq._kernel.batch import records
from robustmq.mqtt.packets import V5, V311, Puback, Publish
from robustmq.mqtt.reasons import Reason
from robustmq.storage.layout import open_layout
from robustmq.storage.log import Log
from robustmq.storage.log_settings import LogSettings
from robustmq.storage.rocksdb_engine import RocksdbEngine
from robustmq.storage.segment_engine import SegmentEngine
from tests.integration.homes import name_on, topic_on
from tests.integration.supervised import Node, until
from tests.integration.wire_client import Client, Ended, numbered

RULES = """
[storage]
retain_interval_ms = 50

[[topic_rules]]
filter = "own/#"
own_shard = true

[[topic_rules]]
filter = "files/#"
engine = "EngineSegment"
flush = "always"
own_shard = true

[[topic_rules]]
filter = "shared/#"
retention_ms = 3600000

[[topic_rules]]
filter = "last/#"
own_shard = true
retention_records = 10

[[topic_rules]]
filter = "small/#"
max_message_bytes = 4

[[topic_rules]]
filter = "memory/#"
engine = "memory"
own_shard = true
"""

Start = Callable[[], Node]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a server with these rules on one directory, again and again."""
    config = tmp_path / "server.toml"
    config.write_text(RULES)
    nodes: list[Node] = []

    def begin() -> Node:
        module = "robustmq.cli.supervisor"
        node = Node(tmp_path / "data", "--config", str(config), module=module)
        nodes.append(node)
        return node.ready()

    yield begin
    for node in nodes:
        node.close()


class Found(NamedTuple):
    """A log as it was found: its core, its engine, the first offset, topics and payloads."""

    core: int
    engine: str
    start: int
    topics: list[bytes | None]
    payloads: list[bytes | None]


def content(core: int, engine: str, log: Log) -> Found:
    """All that a log has."""
    topics, payloads = [], []
    at = log.start_offset
    while batches := log.read(at, 1 << 20):
        for base, count, data in batches:
            for number, (_, _, _, topic, value, _) in enumerate(records(data)):
                if base + number >= at:
                    topics.append(topic)
                    payloads.append(value)
            at = base + count
    assert at == log.end_offset
    return Found(core, engine, log.start_offset, topics, payloads)


def logs_in(data: Path) -> dict[bytes, Found]:
    """The logs in a data directory that no server uses; shared ones are named by core too."""
    layout = open_layout(str(data))
    found = {}
    for core in layout.cores():
        path = layout.core_path(core)
        database = RocksdbEngine(path)
        files = SegmentEngine(f"{path}/segments") if Path(f"{path}/segments").exists() else None
        for key, value in list(database.table().walk(b"Q", b"R")):
            number, medium = int.from_bytes(value[:4], "big"), value[4]
            name = key[1:] + (b"@%d" % core if key[1:2] == b"r" else b"")
            engine = files if medium else database
            assert engine is not None
            log = engine.open(number, LogSettings())
            found[name] = content(core, "segment" if medium else "rocksdb", log)
        if files is not None:
            assert files.recovery.quarantined == []
            files.close()
        assert database.recovery.quarantined == []
        database.close()
    return found


def stop(node: Node) -> None:
    node.send(signal.SIGTERM)
    assert node.wait() == 0
    assert node.complaints() == []


def test_what_was_published_is_in_the_logs_over_restarts(start: Start, tmp_path: Path) -> None:
    topics = [
        topic_on(core, pattern)
        for core in (0, 1)
        for pattern in ("own/{}", "files/{}", "shared/{}")
    ]
    expected: list[bytes] = []
    for life in range(3):
        node = start()
        with Client(node, name_on(life % 2, "p")) as says, Client(node, name_on(0, "s")) as hears:
            hears.subscribe("#", 1)
            for qos in (0, 1, 2):
                payload = b"%d at %d" % (life, qos)
                expected.append(payload)
                for topic in topics:
                    assert says.publish(topic, payload, qos) == 0
                says.publish("memory/1", payload, qos)
                says.publish("nobody/keeps", payload, qos)
            assert len(hears.messages(24)) == 24
        stop(node)
    found = logs_in(tmp_path / "data")
    own = [topic.encode() for topic in topics if not topic.startswith("shared")]
    assert found.keys() == {*(b"t" + topic for topic in own), b"rshared/#@0", b"rshared/#@1"}
    for number, topic in enumerate(topics):
        if not topic.startswith("shared"):
            log = found[b"t" + topic.encode()]
            engine = "segment" if topic.startswith("files") else "rocksdb"
            assert (log.core, log.engine, log.start) == (number // 3, engine, 0)
            assert log.payloads == expected
            assert set(log.topics) == {topic.encode()}
    shared = [topic.encode() for topic in topics if topic.startswith("shared")]
    for core, lives in ((0, (0, 2)), (1, (1,))):
        log = found[b"rshared/#@%d" % core]
        assert log.payloads == [
            b"%d at %d" % (life, qos) for life in lives for qos in (0, 1, 2) for _ in shared
        ]
        assert log.topics == shared * 3 * len(lives)


def test_retention_by_records(start: Start, tmp_path: Path) -> None:
    node = start()
    topic = topic_on(1, "last/{}")
    with Client(node, name_on(0, "p")) as says:
        for payload in numbered(100):
            says.publish(topic, payload, 1)
    stop(node)
    # The next start looks at every log before it does anything else.
    stop(start())
    log = logs_in(tmp_path / "data")[b"t" + topic.encode()]
    assert (log.start, log.payloads) == (90, list(numbered(10, 90)))


@pytest.mark.parametrize(("version", "answer"), [(V5, Reason.QUOTA_EXCEEDED), (V311, 0)])
def test_a_message_too_large_for_its_topic(start: Start, version: int, answer: int) -> None:
    node = start()
    with (
        Client(node, name_on(0, "p"), version) as says,
        Client(node, name_on(1, "s"), version) as hears,
    ):
        hears.subscribe("small/#", 2)
        for qos in (0, 1, 2):
            assert says.publish("small/1", b"four", qos) == 0
            assert says.publish("small/1", b"fifth", qos) == (answer if qos else 0)
        assert hears.payloads(3) == [b"four"] * 3
        hears.ping()
        dropped = [
            node.sample(f'mqtt_messages_dropped_refused_total{{core="{core}"}}') for core in (0, 1)
        ]
        assert sum(dropped) == 3


class Talker(threading.Thread):
    """Publishes without pause, 20 messages at a time, until the server is gone or `count` are."""

    def __init__(self, client: Client, topics: list[str], count: int = 1 << 30) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.topics = topics
        self.count = count
        self.sent = 0
        self.acknowledged: list[int] = []

    def run(self) -> None:
        topics = [topic.encode() for topic in self.topics]
        try:
            while self.sent < self.count:
                first = self.sent
                self.sent += 20
                numbers = range(first, self.sent)
                self.client.send(
                    *(
                        Publish(topic, b"%d" % number, 1, False, False, number % 60_000 + 1, None)
                        for number in numbers
                        for topic in (topics[number % len(topics)],)
                    )
                )
                for number in numbers:
                    answer = self.client.expect(Puback)
                    assert answer.packet_id == number % 60_000 + 1
                    assert answer.reason in {0, Reason.NO_MATCHING_SUBSCRIBERS}
                    self.acknowledged.append(number)
        except (Ended, OSError):
            return


def have_talked(talkers: list[Talker], count: int) -> bool:
    """Say whether everybody has so many answers."""
    return all(len(talker.acknowledged) >= count for talker in talkers)


def test_nothing_acknowledged_is_lost_when_everything_is_killed(
    start: Start, tmp_path: Path
) -> None:
    topics = [topic_on(core, p) for p in ("own/{}", "files/{}", "shared/{}") for core in (0, 1)]
    talkers: list[list[Talker]] = []
    for life in range(3):
        node = start()
        mine = [
            Talker(Client(node, name_on(core, "t")), [f"{topic}/{life}/{core}" for topic in topics])
            for core in (0, 1)
        ]
        talkers.append(mine)
        for talker in mine:
            talker.start()
        until(partial(have_talked, mine, 200), "they talk")
        for pid in [*node.children().values(), node.process.pid]:
            os.kill(pid, signal.SIGKILL)
        node.close()
        for talker in mine:
            talker.join(20)
            talker.client.close()
    stop(start())
    found = logs_in(tmp_path / "data")
    kept: dict[bytes | None, list[int]] = {}
    for log in found.values():
        for name, payload in zip(log.topics, log.payloads, strict=True):
            assert payload is not None
            kept.setdefault(name, []).append(int(payload))
    for talker in (each for mine in talkers for each in mine):
        got: list[int] = []
        for topic in talker.topics:
            numbers = kept.get(topic.encode(), [])
            assert numbers == sorted(set(numbers)), "in order, and once"
            got += numbers
        lost = set(talker.acknowledged) - set(got)
        assert not lost
        assert set(got) <= set(range(talker.sent))


@pytest.mark.parametrize("pattern", ["own/{}", "files/{}"])
def test_an_owner_is_killed_while_others_publish(
    start: Start, tmp_path: Path, pattern: str
) -> None:
    node = start()
    topics = [topic_on(1, pattern) for _ in range(2)]
    with Client(node, name_on(0, "t")) as client:
        talker = Talker(client, topics, 6_000)
        talker.start()
        for some in (300, 1_500, 3_000):
            until(partial(have_talked, [talker], some), "it talks")
            os.kill(node.children()["worker 1"], signal.SIGKILL)
        talker.join(60)
        assert talker.acknowledged == list(range(6_000))
    node.send(signal.SIGTERM)
    assert node.wait() == 0
    found = logs_in(tmp_path / "data")
    for number, topic in enumerate(topics):
        got = found[b"t" + topic.encode()].payloads
        assert got == [b"%d" % each for each in range(number, 6_000, 2)]
