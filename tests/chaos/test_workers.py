"""Workers are killed, stopped and drained under load: the others go on, nothing is forgotten."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.chaos.talker import PATIENCE, Talker, opened
from tests.integration.homes import name_on, topic_on
from tests.integration.supervised import Node, until

Start = Callable[..., Node]
KILLS: Final = 20
BACK_OFF: Final = ("runtime.restart_backoff_ms=50", "runtime.restart_backoff_max_ms=100")
LONG_DEATH: Final = ("runtime.restart_backoff_ms=4000", "runtime.restart_backoff_max_ms=4000")
SUPERVISOR: Final = "robustmq.cli.supervisor"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    nodes: list[Node] = []

    def begin(*settings: str, arguments: tuple[str, ...] = ()) -> Node:
        place = tmp_path / f"data{len(nodes)}"
        nodes.append(Node(place, *arguments, module=SUPERVISOR, settings=settings))
        return nodes[-1].ready()

    yield begin
    for node in nodes:
        node.close()


def run(scenario: Coroutine[None, None, None]) -> None:
    """Run a scenario; no scenario takes longer than this."""
    asyncio.run(asyncio.wait_for(scenario, 240))


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition without standing in the clients' way."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < PATIENCE, what
        await asyncio.sleep(0.02)


async def arrive_on(address: tuple[str, int], core: int) -> Talker:
    """Return a client of a core whose connection was accepted there too, while others sleep."""
    waiting: list[asyncio.Task[Talker]] = []
    async with asyncio.timeout(PATIENCE):
        while not any(task.done() for task in waiting):
            waiting.append(asyncio.create_task(opened(address, name_on(core, "arrives"))))
            await asyncio.wait(waiting, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
    arrived = next(task for task in waiting if task.done())
    for task in waiting:
        if task is not arrived:
            task.cancel()
    return arrived.result()


class Casualty:
    """A worker that is killed, and its successor."""

    def __init__(self, node: Node, core: int) -> None:
        self._node = node
        self._name = f"worker {core}"
        self._before = len(node.seen("process is back"))
        self.pid = node.children()[self._name]

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    async def is_dead(self) -> None:
        await eventually(lambda: not psutil.pid_exists(self.pid), "the dead worker is reaped")

    def is_back(self) -> bool:
        return len(self._node.seen("process is back")) > self._before

    async def back(self) -> None:
        await eventually(self.is_back, "the worker is back")
        assert self._node.children()[self._name] != self.pid


class Load:
    """A publisher at QoS 1, `ahead` messages in flight; numbers its messages."""

    def __init__(self, talker: Talker, topic: str, ahead: int = 50) -> None:
        self.talker = talker
        self._topic = topic
        self._room = asyncio.Semaphore(ahead)
        self._stop = asyncio.Event()
        self.sent = 0
        self.answered = 0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._stop.is_set():
            await self._room.acquire()
            answer = self.talker.publish(self._topic, b"%d" % self.sent)
            assert answer is not None
            self.sent += 1
            answer.add_done_callback(self._answered)
            await asyncio.sleep(0)

    def _answered(self, answer: "asyncio.Future[bytes]") -> None:
        if answer.exception() is None:
            self.answered += 1
        self._room.release()

    async def goes_on(self) -> None:
        """Wait until a hundred more are answered."""
        wanted = self.answered + 100
        await eventually(lambda: self.answered >= wanted, "the load runs")

    async def stop(self) -> int:
        """Wait until every message is answered; return how many there were."""
        self._stop.set()
        await self._task
        await eventually(lambda: self.answered == self.sent, "every publish is answered")
        return self.sent


def numbers(talker: Talker, topic: str) -> list[int]:
    """Return the numbers heard from a topic, repeats left out."""
    payloads = [payload for heard, payload in talker.heard if heard == topic and payload]
    return [*dict.fromkeys(map(int, payloads))]


async def reached_again(speaker: Talker, topic: str, members: Sequence[Talker]) -> None:
    """Publish empty messages until one reaches a shared group again, whose leader was replaced.

    What is published between the leader's death and that moment passes the group by.
    """
    before = sum(len(member.heard) for member in members)
    async with asyncio.timeout(PATIENCE):
        while sum(len(member.heard) for member in members) == before:
            await speaker.say(topic, b"")
            await asyncio.sleep(0.02)


def test_survivors_go_on_and_nothing_that_waits_is_forgotten(start: Start) -> None:
    node = start(*LONG_DEATH)

    async def scenario() -> None:
        address = node.address()
        near, far = topic_on(0, "chaos/{}/near"), topic_on(1, "chaos/{}/far")
        later = topic_on(1, "chaos/{}/later")
        listener = await opened(address, name_on(0, "listener"))
        wide = await opened(address, name_on(0, "wide"))
        for topic in (near, far):
            await listener.subscribe(topic)
        await wide.subscribe("chaos/+/far")
        speaker = await opened(address, name_on(0, "speaker"))
        load = Load(await opened(address, name_on(0, "load")), far)
        lost = await opened(address, name_on(1, "lost"))
        await load.goes_on()
        casualty = Casualty(node, 1)
        casualty.kill()
        await casualty.is_dead()
        pending = wide.start_subscribe(later)
        wild = wide.start_subscribe("later/#")
        for number in range(200):
            await speaker.say(near, b"%d" % number)
        assert not casualty.is_back(), "what the survivor owns must not wait for the dead"
        assert not pending.done()
        assert not wild.done()
        await casualty.back()
        await asyncio.wait_for(asyncio.gather(pending, wild), PATIENCE)
        await lost.ended.wait()
        again = await opened(address, lost.client_id)
        await again.say(later, b"1")
        count = await load.stop()
        await eventually(lambda: len(numbers(listener, far)) == count, "all of the load arrives")
        assert numbers(listener, near) == [*range(200)]
        await eventually(lambda: len(numbers(wide, far)) == count, "all of the load arrives")
        assert numbers(listener, far) == numbers(wide, far) == [*range(count)]
        await eventually(lambda: numbers(wide, later) == [1], "the late subscription hears")

    run(scenario())


def test_a_new_worker_waits_until_a_slow_peer_has_told_its_wishes(start: Start) -> None:
    node = start(*BACK_OFF, "runtime.heartbeat_timeout_ms=30000")

    async def scenario() -> None:
        address = node.address()
        topic = topic_on(1, "chaos/{}/wish")
        listener = await opened(address, name_on(0, "listener"))
        await listener.subscribe(topic)
        await listener.subscribe("chaos/+/wish")
        slow = node.children()["worker 0"]
        casualty = Casualty(node, 1)
        os.kill(slow, signal.SIGSTOP)
        try:
            casualty.kill()
            await casualty.back()
            speaker, witness = [await arrive_on(address, 1) for _ in range(2)]
            answer = speaker.publish(topic, b"7")
            assert answer is not None
            # Who publishes is read no further; others on the same core are.
            for _ in range(3):
                await witness.ping()
            assert not answer.done(), "nobody knows yet who wants this message"
        finally:
            os.kill(slow, signal.SIGCONT)
        await asyncio.wait_for(answer, PATIENCE)
        await eventually(lambda: numbers(listener, topic) == [7], "the message is heard")

    run(scenario())


def test_shared_groups_recover(start: Start) -> None:
    node = start(*BACK_OFF)

    async def scenario() -> None:
        address = node.address()
        for leader in (0, 1):
            topic = topic_on(0, "chaos/{}/crew")
            group = topic_on(leader, "crew{}\0" + topic).split("\0")[0]
            shared = f"$share/{group}/{topic}"
            stays = [await opened(address, name_on(0, "stays")) for _ in range(2)]
            dies = await opened(address, name_on(1, "dies"))
            for member in (*stays, dies):
                await member.subscribe(shared)
            speaker = await opened(address, name_on(0, "speaker"))
            for number in range(30):
                await speaker.say(topic, b"%d" % number)
            await dies.until_heard(10)
            casualty = Casualty(node, 1)
            casualty.kill()
            await casualty.back()
            await reached_again(speaker, topic, stays)
            for number in range(30, 60):
                await speaker.say(topic, b"%d" % number)
            joins = await opened(address, name_on(1, "joins"))
            await joins.subscribe(shared)
            for number in range(60, 90):
                await speaker.say(topic, b"%d" % number)
            everyone = (*stays, dies, joins)
            async with asyncio.timeout(PATIENCE):
                while sum(len(numbers(talker, topic)) for talker in everyone) < 90:
                    await asyncio.sleep(0.02)
            shares = [numbers(talker, topic) for talker in everyone]
            assert sorted(number for share in shares for number in share) == [*range(90)]
            assert len(shares[-1]) == 10
            for talker in everyone:
                await talker.close()

    run(scenario())


def test_a_stopped_worker_is_replaced(start: Start) -> None:
    node = start(*BACK_OFF, "runtime.heartbeat_timeout_ms=4000")

    async def scenario() -> None:
        address = node.address()
        near, far = topic_on(0, "chaos/{}/near"), topic_on(1, "chaos/{}/far")
        listener = await opened(address, name_on(0, "listener"))
        await listener.subscribe("chaos/#")
        load = Load(await opened(address, name_on(0, "load")), far)
        speaker = await opened(address, name_on(0, "speaker"))
        await load.goes_on()
        casualty = Casualty(node, 1)
        os.kill(casualty.pid, signal.SIGSTOP)
        for number in range(100):
            await speaker.say(near, b"%d" % number)
        assert not casualty.is_back(), "what the survivor owns must not wait for the stopped"
        await casualty.back()
        count = await load.stop()
        await eventually(lambda: len(numbers(listener, far)) == count, "all of the load arrives")
        assert numbers(listener, far) == [*range(count)]
        assert node.seen("process hangs and is killed")

    run(scenario())


def open_files(pid: int) -> list[str]:
    """What the descriptors of a process are; one may be closed while they are read."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return found


def test_many_kills_leave_nothing_behind_and_lose_nothing(start: Start) -> None:
    node = start(*BACK_OFF)
    supervisor = Path(f"/proc/{node.process.pid}")

    def held() -> tuple[int, int, list[int]]:
        workers = [node.children()[f"worker {core}"] for core in (0, 1)]
        # The database may have more files after each recovery, until it merges them.
        files = [sum("/db/" not in f"{name}/" for name in open_files(pid)) for pid in workers]
        maps = (supervisor / "maps").read_text(encoding="utf-8").count("\n")
        return len([*(supervisor / "fd").iterdir()]), maps, files

    async def scenario() -> None:
        address = node.address()
        far = topic_on(1, "chaos/{}/far")
        listener = await opened(address, name_on(0, "listener"))
        await listener.subscribe(far)
        await listener.subscribe("chaos/#")
        load = Load(await opened(address, name_on(0, "load")), far)
        visitors = [await opened(address, name_on(1, "visitor"), clean=False) for _ in range(5)]
        for kill in range(KILLS):
            await load.goes_on()
            casualty = Casualty(node, 1)
            casualty.kill()
            for place, visitor in enumerate(visitors):
                await asyncio.wait_for(visitor.ended.wait(), PATIENCE)
                visitors[place] = await opened(address, visitor.client_id, clean=False)
                await visitors[place].subscribe("visits")
            await casualty.back()
            assert len(node.seen("process is back")) == kill + 1
        count = await load.stop()
        await eventually(lambda: len(numbers(listener, far)) == count, "all of the load arrives")
        assert numbers(listener, far) == [*range(count)]
        for talker in (*visitors, listener, load.talker):
            await talker.close()

    before = held()
    run(scenario())
    until(lambda: held()[2] == before[2], f"the workers' descriptors are {before[2]} again")
    assert held()[0] == before[0]
    assert held()[1] <= before[1] + 5, "the supervisor maps more and more memory"
    assert node.sample('robustmq_worker_restarts_total{core="1"}') == KILLS


def test_a_drain_under_load_tells_the_clients(start: Start) -> None:
    node = start()

    async def scenario() -> None:
        address = node.address()
        topic = topic_on(1, "chaos/{}/drain")
        talkers = [
            await opened(address, name_on(core, "talker"), version)
            for core in (0, 1)
            for version in (4, 5)
        ]
        for talker in talkers:
            await talker.subscribe(topic)
        loads = [Load(await opened(address, name_on(core, "load"), 5), topic) for core in (0, 1)]
        for load in loads:
            await load.goes_on()
        node.send(signal.SIGTERM)
        for talker in talkers:
            await asyncio.wait_for(talker.ended.wait(), PATIENCE)
            assert talker.reason == (0x8B if talker.version == 5 else None)
        # A worker that is over the bound is killed, and the status is not 0 then.
        assert await asyncio.to_thread(node.wait) == 0
        assert not node.seen("process did not stop in time")
        with pytest.raises(ConnectionError):
            await Talker(name_on(0, "late")).open(address)

    run(scenario())
    assert not node.survivors()


def test_hup_changes_the_level_of_the_workers(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text('[log]\nlevel = "error"\n', encoding="utf-8")
    node = start(arguments=("-c", str(path)))

    async def offend() -> None:
        talker = await opened(node.address(), name_on(0, "offender"))
        talker.send(b"\xf0\x00")
        await asyncio.wait_for(talker.ended.wait(), PATIENCE)

    run(offend())
    assert not node.seen("client broke the protocol")
    path.write_text('[log]\nlevel = "info"\n', encoding="utf-8")
    node.send(signal.SIGHUP)

    async def until_told() -> None:
        while not node.seen("client broke the protocol"):
            await offend()

    run(until_told())
    assert {line["level"] for line in node.seen("client broke the protocol")} == {"info"}
