"""Both ends of the way between the meta process and the others of its node, over real channels."""

from collections.abc import Callable, Iterator

import pytest

from robustmq.errors import Refusal, Refused
from robustmq.message.session_record import SessionChange, SessionHead, SessionRecord
from robustmq.message.topic import stable_hash
from robustmq.meta import commands, data
from robustmq.meta.commands import Change, SetKey
from robustmq.meta.data import Batch, Data, Retained
from robustmq.meta.machine import Applied, Outcome
from robustmq.meta.metadata import Metadata
from robustmq.meta.offset import Offsets
from robustmq.meta.records import Record
from robustmq.net.channel import Channel, pair
from robustmq.workers import feed as feeds
from robustmq.workers.feed import Feed
from robustmq.workers.meta_link import MetaLink
from robustmq.workers.meta_messages import Changed
from tests.unit.meta.memory_store import MemoryStore

WORKERS = 2


class Groups:
    """Groups of one node: a proposal is folded when it is told to `settle`."""

    def __init__(self) -> None:
        self.machines: dict[str, Metadata | Data | Offsets] = {
            "metadata": Metadata(MemoryStore()),
            "data_0": Data(MemoryStore()),
            "offset_0": Offsets(MemoryStore()),
            "offset_1": Offsets(MemoryStore()),
        }
        self.waiting: list[Callable[[], None]] = []
        self.index = 0

    def propose(self, group: str, command: bytes, done: Callable[[Outcome], None]) -> None:
        self.waiting.append(lambda: done(self.fold(group, command)))

    def fold(self, group: str, command: bytes) -> Applied:
        self.index += 1
        return Applied(self.index, self.machines[group].apply(self.index, command))

    def read(self, group: str, done: Callable[[Refused | None], None]) -> None:
        assert group in self.machines
        done(None)

    def leader(self, group: str) -> int | None:
        return 0 if group else None

    def settle(self) -> None:
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each()


class Line(Channel):
    """The meta process' end toward one process, whose life is told."""

    epoch = 0


class Node:
    """A node: a meta process with its groups, two workers and a server, driven by hand."""

    def __init__(self) -> None:
        self.ends = [pair() for _ in range(WORKERS + 1)]
        self.lines = [Line(ours, lambda: None) for ours, _ in self.ends]
        self.groups = Groups()
        self.now_ms = 0
        self.life = 0
        self.restart()

    def restart(self, is_current: bool = True) -> None:
        """End the meta process, with all that it was asked, and begin its next life."""
        self.groups.waiting.clear()
        self.life += 1
        metadata, data_0, *offsets = self.groups.machines.values()
        assert isinstance(metadata, Metadata)
        assert isinstance(data_0, Data)
        self.feed = Feed(
            self.lines,
            metadata,
            {"data_0": data_0},
            self.groups,
            life=self.life,
            number=0,
            workers=WORKERS,
            offsets={f"offset_{n}": each for n, each in enumerate(offsets)},  # type: ignore[misc]
        )
        if is_current:
            self.feed.start()

    def link(self, endpoint: int) -> MetaLink:
        """Begin a life of a process."""
        self.lines[endpoint].epoch += 1
        channel = Channel(self.ends[endpoint][1], lambda: None)
        link = MetaLink(
            channel, self.lines[endpoint].epoch, now_ms=lambda: self.now_ms, timeout_ms=100
        )
        link.start()
        return link

    def turn(self, *links: MetaLink) -> None:
        """Let everybody say and hear all, until nobody has anything to say."""
        for _ in range(12):
            for endpoint, line in enumerate(self.lines):
                for message in line.receive():
                    self.feed.receive(endpoint, message)
            self.groups.settle()
            self.feed.flush()
            for link in links:
                link.receive()

    def change(self, *records: Record) -> None:
        self.groups.fold("metadata", commands.encode(Change([*records])))

    def retain(self, topic: bytes, message: bytes | None) -> None:
        batch = Batch(0, 1, [], [Retained(topic, message)])
        self.groups.fold("data_0", data.encode(batch))

    def close(self) -> None:
        for ours, theirs in self.ends:
            ours.close()
            theirs.close()


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.close()


def topics(core: int, count: int) -> list[bytes]:
    named = (b"t/%d" % number for number in range(count * 20))
    return [topic for topic in named if stable_hash(topic) % WORKERS == core][:count]


def test_every_process_has_the_image_and_hears_of_changes(node: Node) -> None:
    node.change(Record("a", "x", b"1"))
    links = [node.link(endpoint) for endpoint in range(3)]
    reached: list[int] = []
    links[0].applied = reached.append
    node.turn(*links)
    assert all(link.is_informed for link in links)
    node.change(Record("a", "y", b"2"))
    node.change(Record("a", "x", None))
    node.turn(*links)
    assert [link.image.of("a") for link in links] == [{"y": b"2"}] * 3
    assert reached == [1, 3]


def test_who_proposes_hears_the_outcome_and_reads_its_write(node: Node) -> None:
    link = node.link(2)
    heard: list[Outcome] = []
    link.propose("metadata", commands.encode(Change([Record("a", "x", b"1")])), heard.append)
    link.propose("nowhere", b"", heard.append)
    node.turn(link)
    refused, applied = heard
    assert isinstance(applied, Applied)
    assert commands.outcome(applied.result) == b""
    assert link.image.index is not None
    assert link.image.index >= applied.position
    assert link.image.of("a") == {"x": b"1"}
    assert isinstance(refused, Refused)
    assert "no group nowhere" in refused.detail


def test_a_proposal_is_refused_when_nothing_is_heard_in_time(node: Node) -> None:
    link = node.link(0)
    heard: list[Outcome] = []
    link.propose("metadata", b"", heard.append)
    node.now_ms = 99
    link.expire()
    assert heard == []
    node.now_ms = 100
    link.expire()
    node.turn(link)
    (refused,) = heard
    assert isinstance(refused, Refused)
    assert refused.code is Refusal.UNAVAILABLE


def test_too_many_proposals_are_refused(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustmq.workers.meta_link.PENDING_MOST", 1)
    link = node.link(0)
    heard: list[Outcome] = []
    link.propose("metadata", b"", heard.append)
    link.propose("metadata", b"", heard.append)
    assert [isinstance(each, Refused) and each.code for each in heard] == [Refusal.BUSY]


def test_the_next_life_of_the_meta_process_is_asked_again(node: Node) -> None:
    link = node.link(0)
    node.turn(link)
    heard: list[Outcome] = []
    told: list[Changed] = []
    link.changed = told.append
    link.follow("data_0", (0, b""))
    node.turn(link)
    link.propose("metadata", commands.encode(Change([Record("a", "x", b"1")])), heard.append)
    for message in node.lines[0].receive():
        node.feed.receive(0, message)
    node.restart()
    node.turn(link)
    assert [isinstance(each, Applied) for each in heard] == [True]
    (topic,) = topics(0, 1)
    node.retain(topic, b"m")
    node.turn(link)
    assert told[-1].rows == [(node.groups.index, Retained(topic, b"m"))]


def test_nobody_is_told_anything_before_it_is_known_what_was_decided() -> None:
    node = Node()
    node.restart(is_current=False)
    link = node.link(0)
    node.turn(link)
    informed = [link.is_informed]
    node.feed.start()
    node.turn(link)
    assert [*informed, link.is_informed] == [False, True]
    node.close()


def test_a_new_life_hears_nothing_that_was_meant_for_another(node: Node) -> None:
    first = node.link(0)
    node.turn(first)
    heard: list[Outcome] = []
    first.propose("metadata", b"", heard.append)
    for message in node.lines[0].receive():
        node.feed.receive(0, message)
    second = node.link(0)
    node.turn(second)
    assert second.is_informed
    assert heard == []


def test_who_does_not_read_is_told_where_it_must_ask_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, other = node.link(0), node.link(2)
    told: list[Changed] = []
    link.changed = told.append
    link.follow("data_0", (0, b""))
    node.turn(link, other)
    (topic,) = topics(0, 1)
    monkeypatch.setattr(feeds, "BACKLOG_BYTES", 0)
    node.change(Record("a", "x", b"1"))
    node.retain(topic, b"m")
    node.turn(link, other)
    assert link.image.of("a") == {}
    assert told[-1].rows == []
    monkeypatch.undo()
    node.change(Record("a", "y", b"2"))
    for endpoint in (0, 1, 2):
        node.feed.drained(endpoint)
    node.turn(link, other)
    assert link.image.of("a") == other.image.of("a") == {"x": b"1", "y": b"2"}
    assert told[-1].rows == [(2, Retained(topic, b"m"))]


def test_a_core_follows_its_topics_by_pages(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "PAGE_ROWS", 2)
    ours, others = topics(0, 5), topics(1, 3)
    for topic in [*ours, *others]:
        node.retain(topic, topic)
    link = node.link(0)
    told: list[Changed] = []
    link.changed = told.append
    link.follow("data_0", (0, b""))
    node.retain(ours[0], None)
    node.turn(link)
    rows = [row for message in told for _, row in message.rows]
    assert [row.topic for row in rows] == [*ours[1:], ours[0]]
    assert rows[-1].message is None
    assert told[-1].after is None
    node.retain(others[0], b"again")
    node.turn(link)
    assert (told[-1].rows, told[-1].index) == ([], node.groups.index)


def test_keys_and_sessions_are_found(node: Node) -> None:
    link = node.link(0)
    for key in ("a/1", "a/2", "b"):
        node.groups.fold("metadata", commands.encode(SetKey(key, b"v")))
    found: list[object] = []
    link.keys("a/", "", 1, found.append)
    link.keys("a/", "a/2", 1, found.append)
    identities = [f"c{number}" for number in range(7)]
    head = SessionHead(True, 60, 0, 5)
    sessions = [SessionChange(each, 0, 1, 1, 0, head, whole=True) for each in identities]
    node.groups.fold("data_0", data.encode(Batch(0, 1, sessions[:-1])))
    # What an earlier life of the core has proposed is on its way still.
    late = data.encode(Batch(0, 1, sessions[-1:]))
    node.groups.propose("data_0", late, lambda _outcome: None)
    link.sessions("data_0", ["c1", "nobody"], found.append)
    link.owned("data_0", "", found.append)
    link.owned("nowhere", "", found.append)
    node.turn(link)
    node.groups.settle()
    node.turn(link)
    first, second, known, unknown, owned = found
    assert isinstance(unknown, Refused)
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    assert isinstance(known, tuple)
    assert isinstance(owned, tuple)
    assert ([each.key for each in first[0]], first[1]) == (["a/1"], "a/2")
    assert ([each.key for each in second[0]], second[1]) == (["a/2"], None)
    assert isinstance(known[0][0], SessionRecord)
    assert known[0][1] is None
    home = [each for each in identities if stable_hash(each.encode()) % WORKERS == 0]
    assert ([each.identity for each in owned[0]], owned[1]) == (home, None)


def test_processes_hear_whether_the_node_has_its_cluster(node: Node) -> None:
    link = node.link(1)
    stood: list[bool] = []
    link.stood = stood.append
    node.turn(link)
    node.feed.stand(is_isolated=True)
    node.feed.stand(is_isolated=True)
    node.turn(link)
    assert (stood, link.is_isolated) == ([True], True)
    later = node.link(2)
    node.turn(later)
    assert later.is_isolated
    node.feed.stand(is_isolated=False)
    node.turn(link)
    assert stood == [True, False]


def test_all_is_told_again_when_a_snapshot_was_installed(node: Node) -> None:
    link = node.link(0)
    told: list[Changed] = []
    link.changed = told.append
    link.follow("data_0", (0, b""))
    node.turn(link)
    (topic,) = topics(0, 1)
    metadata, data_0, *_ = node.groups.machines.values()
    assert isinstance(metadata, Metadata)
    assert isinstance(data_0, Data)
    metadata.on_applied = lambda *_: None
    data_0.on_applied = lambda *_: None
    node.change(Record("a", "x", b"1"))
    node.retain(topic, b"m")
    metadata.reload()
    node.turn(link)
    assert link.image.of("a") == {"x": b"1"}
    assert [row for message in told for row in message.rows] == [(2, Retained(topic, b"m"))]
