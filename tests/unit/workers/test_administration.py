"""Both ends of the administration over real channels: questions, news, lives."""

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from robustmq.config import Config
from robustmq.net.channel import Channel, pair
from robustmq.settings.admin import Admin
from robustmq.shm.region import Phase, Region
from robustmq.workers import questions
from robustmq.workers.administration import Administration
from robustmq.workers.inheritance import ServerInheritance
from robustmq.workers.questions import Applied, Greeting, Hello, Question, listing
from robustmq.workers.roster import Roster


class Site:
    """A region with two workers, of which the first one is played by the test."""

    def __init__(self) -> None:
        self.region = Region.create(3, 4_096)
        self.pairs = [pair() for _ in range(2)]
        for number in range(3):
            state = self.region.state(number)
            state.epoch, state.pid, state.phase = 1, 1, Phase.READY

    def roster(self, timeout_ms: int = 200) -> Roster:
        inheritance = SimpleNamespace(
            config=Config(admin=Admin(answer_timeout_ms=timeout_ms)),
            region=self.region,
            workers=2,
            index=2,
            channels=tuple(ours for ours, _ in self.pairs),
        )
        return Roster(cast("ServerInheritance", inheritance))

    def worker(self, core: int = 0, epoch: int = 1) -> Administration:
        return Administration(Channel(self.pairs[core][1], lambda: None), epoch)

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
        administration = site.worker()
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
        administration = site.worker()
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
    server.send(questions.encode(Greeting(1)))
    administration = site.worker(epoch=2)
    administration.applied(7)
    administration.start()
    administration.receive()
    told = [questions.for_server(each) for each in server.receive()]
    assert told == [Applied(7), Hello(2)]


def test_a_change_is_settled_when_all_who_serve_have_applied_it(site: Site) -> None:
    async def scene() -> None:
        roster = site.roster()
        roster.start()
        administration = site.worker()
        site.live(administration)
        administration.applied(1)
        assert await roster.settled(1) == [1]
        assert await roster.settled(2) == [0, 1]
        asyncio.get_running_loop().call_later(0.02, administration.applied, 2)
        assert await roster.settled(2) == [1]
        site.region.state(1).phase = Phase.STOPPED
        assert await roster.settled(2) == []
        site.region.state(0).epoch = 2
        assert await roster.settled(2) == [0]

    _run(scene)


def test_the_next_life_of_the_server_hears_how_far_images_are(site: Site) -> None:
    async def scene() -> None:
        administration = site.worker()
        site.live(administration)
        administration.applied(5)
        Channel(site.pairs[0][0], lambda: None).receive()
        site.region.state(1).phase = Phase.STOPPED
        roster = site.roster()
        roster.start()
        assert await roster.settled(5) == []

    _run(scene)


def test_what_a_worker_tells_is_heard(site: Site) -> None:
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
        administration = site.worker(epoch=2)
        site.live(administration)
        administration.start()
        administration.notify("unheard", {})
        administration.notify("seen", {"x": 1})
        await asyncio.wait_for(come.wait(), 30)
        assert heard == [(0, {"x": 1})]

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
