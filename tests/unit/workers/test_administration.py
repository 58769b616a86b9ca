"""Both ends of the administration over real channels: questions, records, lives."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from robustmq.config import Config
from robustmq.errors import ConfigError, Refusal, Refused
from robustmq.net.channel import Channel, pair
from robustmq.settings.admin import Admin
from robustmq.shm.region import Phase, Region
from robustmq.workers import questions
from robustmq.workers.administration import Administration
from robustmq.workers.inheritance import ServerInheritance
from robustmq.workers.questions import Applied, Change, Hello, Image, Question, Record, listing
from robustmq.workers.records import FILE, Records
from robustmq.workers.roster import Roster


class Kept:
    """What records become: a dictionary."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {}

    def clear(self) -> None:
        self.values.clear()

    def apply(self, name: str, value: dict[str, Any] | None) -> None:
        if value is None:
            self.values.pop(name, None)
        elif value.get("bad"):
            raise ValueError("it is bad")
        else:
            self.values[name] = value


class Site:
    """A region with two workers, of which the first one is played by the test."""

    def __init__(self) -> None:
        self.region = Region.create(3, 4_096)
        self.pairs = [pair() for _ in range(2)]
        for number in range(3):
            state = self.region.state(number)
            state.epoch, state.pid, state.phase = 1, 1, Phase.READY
        self.image: tuple[int, list[Record]] = (0, [])

    def roster(self, timeout_ms: int = 200) -> Roster:
        inheritance = SimpleNamespace(
            config=Config(admin=Admin(answer_timeout_ms=timeout_ms)),
            region=self.region,
            workers=2,
            index=2,
            channels=tuple(ours for ours, _ in self.pairs),
        )
        return Roster(cast("ServerInheritance", inheritance), lambda: self.image)

    def worker(self, core: int = 0, epoch: int = 1) -> tuple[Administration, Kept]:
        administration = Administration(Channel(self.pairs[core][1], lambda: None), epoch)
        kept = administration.records["thing"] = Kept()
        return administration, kept

    def live(self, administration: Administration, core: int = 0) -> None:
        """Let a worker read whenever something has come, within the loop of the test."""
        asyncio.get_running_loop().add_reader(self.pairs[core][1].fileno(), administration.receive)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    for ends in site.pairs:
        for end in ends:
            end.close()


def _run(test: Callable[[], Any]) -> None:
    asyncio.run(test())


def test_questions_are_answered_and_who_does_not_is_named(site: Site) -> None:
    async def scene() -> None:
        roster = site.roster()
        roster.start()
        administration, _ = site.worker()
        administration.answers["sum"] = lambda arguments: arguments["a"] + arguments["b"]
        site.live(administration)
        replies = await roster.ask("sum", {"a": 1, "b": 2})
        assert (replies.values, replies.missing) == ({0: 3}, [1])
        assert (await roster.ask("sum", {"a": 1, "b": 2}, (0,))).missing == []
        site.region.state(1).phase = Phase.RECOVERING
        replies = await asyncio.wait_for(roster.ask("sum", {"a": 0, "b": 0}), 30)
        assert (replies.values, replies.missing) == ({0: 0}, [1])

    _run(scene)


def test_a_question_that_cannot_be_answered_is_refused_in_a_sentence(site: Site) -> None:
    def wrong(_arguments: object) -> object:
        raise ValueError("a must be a number")

    def fails(_arguments: object) -> object:
        raise KeyError("a")

    async def scene() -> None:
        roster = site.roster()
        roster.start()
        administration, _ = site.worker()
        administration.answers |= {"wrong": wrong, "fails": fails}
        site.live(administration)
        for kind, said in (
            ("wrong", "a must be a number"),
            ("fails", "fails failed: see the worker's log"),
            ("other", "no worker answers other"),
        ):
            with pytest.raises(ValueError, match=said):
                await roster.ask(kind, {}, (0,))

    _run(scene)


def test_what_was_meant_for_an_earlier_life_is_not_heard(site: Site) -> None:
    server = Channel(site.pairs[0][0], lambda: None)
    server.send(questions.encode(Question(1, 1, "sum", {})))
    server.send(questions.encode(Image(1, 5, [Record("thing", "old", {})])))
    administration, kept = site.worker(epoch=2)
    administration.start()
    administration.receive()
    assert (kept.values, administration.is_informed) == ({}, False)
    assert [questions.for_server(each) for each in server.receive()] == [Hello(2)]
    server.send(questions.encode(Image(2, 7, [Record("thing", "new", {})])))
    administration.receive()
    assert (kept.values, administration.is_informed) == ({"new": {}}, True)
    assert [questions.for_server(each) for each in server.receive()] == [Applied(7)]


def test_records_are_applied_in_order_and_a_gap_is_asked_about(site: Site) -> None:
    server = Channel(site.pairs[0][0], lambda: None)
    administration, kept = site.worker()

    def told(*messages: Image | Change) -> list[questions.ToServer]:
        for message in messages:
            server.send(questions.encode(message))
        administration.receive()
        return [questions.for_server(each) for each in server.receive()]

    assert told(Change(1, 1, [Record("thing", "a", {})])) == []
    first = Image(1, 3, [Record("thing", "a", {}), Record("unknown", "x", {})])
    assert told(first) == [Applied(3)]
    assert told(Change(1, 3, [Record("thing", "b", {})])) == []
    assert told(Change(1, 4, [Record("thing", "b", {}), Record("thing", "a", None)])) == [
        Applied(4)
    ]
    assert kept.values == {"b": {}}
    assert told(Change(1, 6, [Record("thing", "c", {})])) == [Hello(1)]
    bad = Record("thing", "bad", {"bad": True})
    assert told(Image(1, 6, [bad, Record("thing", "c", {})])) == [Applied(6)]
    assert kept.values == {"c": {}}
    assert told(Image(1, 5, [])) == []


def test_a_change_is_answered_when_those_who_serve_have_applied_it(site: Site) -> None:
    async def scene() -> None:
        roster = site.roster()
        site.image = (1, [Record("thing", "a", {})])
        administration, kept = site.worker()
        roster.start()
        site.live(administration)
        assert await roster.publish(2, [Record("thing", "b", {})]) == [1]
        assert sorted(kept.values) == ["a", "b"]
        site.region.state(1).phase = Phase.STOPPED
        assert await roster.publish(3, [Record("thing", "a", None)]) == []
        assert sorted(kept.values) == ["b"]

    _run(scene)


def test_a_worker_that_begins_gets_the_records_and_what_it_tells_is_heard(site: Site) -> None:
    async def scene() -> None:
        roster = site.roster()
        heard: list[tuple[int, dict[str, Any]]] = []
        come = asyncio.Event()

        def noticed(core: int, value: dict[str, Any]) -> None:
            heard.append((core, value))
            come.set()

        roster.noticed["seen"] = noticed
        roster.start()
        site.region.state(0).epoch = 2
        site.image = (9, [Record("thing", "a", {"n": 1})])
        administration, kept = site.worker(epoch=2)
        site.live(administration)
        administration.start()
        administration.notify("unheard", {})
        administration.notify("seen", {"x": 1})
        await asyncio.wait_for(come.wait(), 30)
        assert heard == [(0, {"x": 1})]
        administration.answers["ready"] = lambda _: list(kept.values)
        assert (await roster.ask("ready", {}, (0,))).values == {0: ["a"]}
        assert administration.is_informed

    _run(scene)


def test_a_page_is_bounded_work() -> None:
    looked: list[int] = []

    def walk(start: int, arguments: questions.Arguments) -> Iterator[tuple[int, object | None]]:
        for number in range(start, 5_000):
            looked.append(number)
            wanted = "every" not in arguments or number % arguments["every"] == 0
            yield number + 1, number if wanted else None

    ask = listing(walk, lambda: 5_000)
    assert ask({"limit": 2}) == {"items": [0, 1], "skipped": 0, "next": 2, "total": 5_000}
    assert ask({"start": 4_998, "limit": 5}) == {
        "items": [4_998, 4_999],
        "skipped": 0,
        "next": None,
        "total": 5_000,
    }
    looked.clear()
    far = cast("dict[str, Any]", ask({"limit": 2, "every": 2_000, "start": 1}))
    assert (far["items"], far["next"]) == ([], 1 + questions.BUDGET)
    assert len(looked) == questions.BUDGET
    skipping = cast("dict[str, Any]", ask({"limit": 2, "skip": 3}))
    assert (skipping["items"], skipping["skipped"], skipping["next"]) == ([3, 4], 3, 5)


class Cores:
    """Remembers what was published; says who has not applied it."""

    def __init__(self) -> None:
        self.told: list[tuple[int, Sequence[Record]]] = []
        self.late: list[int] = []

    async def publish(self, version: int, records: Sequence[Record]) -> list[int]:
        self.told.append((version, records))
        return self.late


def test_records_outlive_the_process(tmp_path: Path) -> None:
    async def scene() -> None:
        cores = Cores()
        records = Records(tmp_path, 3, cores.publish)
        assert (records.version, records.image()) == (0, [])
        first = [Record("thing", "a", {"n": 1}), Record("other", "b", {"m": [2]})]
        assert await records.change(first) == []
        cores.late = [1]
        assert await records.change([Record("thing", "a", None)]) == [1]
        assert cores.told == [(1, first), (2, [Record("thing", "a", None)])]
        again = Records(tmp_path, 3, cores.publish)
        assert (again.version, again.image()) == (2, [Record("other", "b", {"m": [2]})])
        assert (again.of("other"), again.of("none")) == ({"b": {"m": [2]}}, {})

    _run(scene)


def test_too_many_records_and_a_disk_that_fails_change_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        cores = Cores()
        records = Records(tmp_path, 2, cores.publish)
        many = [Record("thing", str(number), {}) for number in range(3)]
        refused = await records.change(many)
        assert isinstance(refused, Refused)
        assert (refused.code, "admin.max_records" in refused.detail) == (
            Refusal.QUOTA_EXCEEDED,
            True,
        )
        assert await records.change(many[:2]) == []
        (tmp_path / "records.new").mkdir()
        refused = await records.change([many[0]._replace(value=None)])
        assert isinstance(refused, Refused)
        assert refused.code is Refusal.UNAVAILABLE
        assert (records.version, len(records.image()), len(cores.told)) == (1, 2, 1)

    _run(scene)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "cannot be read"),
        (b'{"format": 1, "version": 1, "records": 3}', "cannot be read"),
        (b'{"format": 2, "version": 1, "records": {}}', "a newer version has written it"),
    ],
)
def test_a_file_that_cannot_be_used_is_said_so(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        Records(tmp_path, 3, Cores().publish)
