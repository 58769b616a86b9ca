"""Three nodes are restarted one after the other under load: nothing acknowledged is lost."""

import asyncio
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.device import Device, Publisher, Subscriber
from tests.chaos.ledger import Ledger, Stream, named
from tests.integration.cluster import Cluster, cluster
from tests.integration.homes import name_on
from tests.integration.mosquitto import fixed_port

WORKERS: Final = 1
RATE: Final = 40.0
TOPICS: Final = ("roll/a/x", "roll/b/y", "roll/c/x")
PATIENCE: Final = 60.0
ANSWER_SECONDS: Final = 1.0
"""A client goes to the next node when one does not answer its CONNECT for so long."""
# A node that is back before it is given up finds everything as it was, on a slow machine, too.
SETTINGS: Final = ("meta_runtime.heartbeat_timeout_ms=60000",)


class TimedLedger(Ledger):
    """A ledger that knows how long messages were on their way; seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.delays: list[float] = []
        self._since: dict[tuple[Stream, int], float] = {}

    def sends(self, stream: Stream) -> int:
        """A publisher sends its next message for the first time."""
        number = super().sends(stream)
        self._since[stream, number] = time.monotonic()
        return number

    def delivered(self, subscriber: str, topic: str, qos: int, payload: bytes) -> None:
        """A subscriber was given a message; the first time counts."""
        found = named(payload)
        if found is not None and found[1] not in self.heard(subscriber, found[0]):
            self.delays.append(time.monotonic() - self._since[found])
        super().delivered(subscriber, topic, qos, payload)


class Load:
    """Clients that know all nodes, and keys that are set on any of them."""

    def __init__(self, nodes: Cluster, ports: dict[int, int]) -> None:
        self.ledger = TimedLedger()
        self.outages: list[float] = []
        self.keys: dict[str, str] = {}
        self._nodes = nodes
        self._ports = ports
        self._tasks: list[asyncio.Task[None]] = []
        self._loads: list[asyncio.Task[None]] = []
        names = (name_on(0, "roll", WORKERS) for _ in itertools.count())
        self.publishers = [
            Publisher(self.ledger, next(names), [(topic, 1) for topic in TOPICS]) for _ in range(4)
        ]
        filters = [("roll/#", 1), ("roll/+/x", 1), ("roll/b/y", 1)]
        self.subscribers = [
            Subscriber(self.ledger, next(names), [filters[number % 3]]) for number in range(6)
        ]

    @property
    def devices(self) -> Sequence[Device]:
        """All clients."""
        return (*self.publishers, *self.subscribers)

    async def begin(self) -> None:
        """Connect everybody, evenly over the nodes, and publish when all have subscribed."""
        for number, device in enumerate(self.devices):
            self._tasks.append(asyncio.create_task(self._roam(device, number)))
        await self._until(lambda: all(each.subscribed() for each in self.subscribers))
        await self._until(lambda: all(each.online for each in self.devices))
        for publisher in self.publishers:
            rng = random.Random(publisher.client_id)
            self._loads.append(asyncio.create_task(publisher.produce(rng, RATE)))
        self._loads.append(asyncio.create_task(self._set_keys()))

    async def goes_on(self) -> None:
        """Wait until everybody is connected and a good deal more has been delivered."""
        await self._until(lambda: all(each.online for each in self.devices))
        wanted = self.ledger.progress + 500
        await self._until(lambda: self.ledger.progress >= wanted)

    async def settle(self) -> None:
        """Publish no more, and hear the rest."""
        for task in self._loads:
            task.cancel()
        await asyncio.gather(*self._loads, return_exceptions=True)
        await self._until(lambda: not any(each.pending for each in self.publishers))
        await self._until(lambda: self.ledger.missing() == 0)

    async def end(self) -> None:
        """End all clients."""
        for task in (*self._loads, *self._tasks):
            task.cancel()
        await asyncio.gather(*self._loads, *self._tasks, return_exceptions=True)

    async def _roam(self, device: Device, place: int) -> None:
        """Keep a client connected: to the next node, when one is lost or does not answer."""
        places = sorted(self._ports)
        lost = 0.0
        while True:
            address = ("127.0.0.1", self._ports[places[place % len(places)]])
            place += 1
            before = device.connections
            living = asyncio.create_task(device.run(address))
            try:
                begin = time.monotonic()
                while not device.online and time.monotonic() - begin < ANSWER_SECONDS:
                    await asyncio.sleep(0.01)
                if lost and device.connections > before:
                    self.outages.append(time.monotonic() - lost)
                while device.online:
                    await asyncio.sleep(0.01)
                lost = time.monotonic() if device.connections > before else lost
            finally:
                living.cancel()
                await asyncio.gather(living, return_exceptions=True)

    async def _set_keys(self) -> None:
        """Set keys, each on the next node; note what is acknowledged."""
        for number in itertools.count():
            node = self._nodes.first[number % len(self._nodes.first)]
            key = f"roll/{number}"
            if await asyncio.to_thread(self._set_key, node, key):
                self.keys[key] = f"{number}"
            await asyncio.sleep(0.05)

    def _set_key(self, node: int, key: str) -> bool:
        content = {"key": key, "value": key.rsplit("/", 1)[1]}
        try:
            return self._nodes.ask(node, "kv/set", content)[0] == 200
        except (OSError, KeyError, ValueError):
            # It is being restarted.
            return False

    async def _until(self, condition: Callable[[], object]) -> None:
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() - begin < PATIENCE, self.ledger.verdict()
            await asyncio.sleep(0.02)


def known(nodes: Cluster, number: int) -> dict[str, str]:
    """Return all keys, as a node says."""
    found: dict[str, str] = {}
    start = ""
    while True:
        path = f"/api/cluster/kv/list?prefix=roll/&limit=100&start={start}"
        code, text = nodes.nodes[number].get(path)
        assert code == 200, text
        answer = json.loads(text)
        rows = answer["data"]["data"]
        found |= {row["key"]: row["value"] for row in rows}
        start = answer["data"].get("next") or ""
        if not start:
            return found


def spread(seconds: Sequence[float]) -> str:
    """Return p50, p99 and the greatest of what was measured."""
    found = sorted(seconds)
    p50, p99 = (found[int((len(found) - 1) * part)] for part in (0.5, 0.99))
    return f"p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, max {found[-1] * 1e3:.0f} ms"


@pytest.fixture
def rolling(tmp_path: Path) -> Iterator[tuple[Cluster, dict[int, int]]]:
    with cluster(tmp_path, workers=WORKERS, settings=SETTINGS) as nodes:
        ports = {number: fixed_port() for number in nodes.first}
        for number in nodes.first:
            launch(nodes, ports, number)
        for number in nodes.first:
            nodes.nodes[number].ready()
        nodes.settled()
        yield nodes, ports


def launch(nodes: Cluster, ports: dict[int, int], number: int) -> None:
    nodes.launch(number, f"mqtt_runtime.server.tcp_port={ports[number]}")


async def roll(nodes: Cluster, ports: dict[int, int], load: Load) -> list[float]:
    """Restart the nodes one after the other; return the seconds from each stop to ready."""
    seconds = []
    await load.begin()
    for number in nodes.first:
        await load.goes_on()
        begin = time.monotonic()
        assert await asyncio.to_thread(nodes.stop, number) == 0
        launch(nodes, ports, number)
        await asyncio.to_thread(nodes.nodes[number].ready)
        seconds.append(time.monotonic() - begin)
        await asyncio.to_thread(nodes.settled)
    await load.goes_on()
    await load.settle()
    return seconds


def test_nothing_is_lost_by_a_rolling_restart(
    rolling: tuple[Cluster, dict[int, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    nodes, ports = rolling
    load = Load(nodes, ports)

    async def trial() -> list[float]:
        try:
            return await roll(nodes, ports, load)
        finally:
            await load.end()

    restarts = asyncio.run(trial())
    verdict = load.ledger.verdict()
    with capsys.disabled():
        sys.stdout.write(
            f"\nrestarts: {', '.join(f'{each:.1f} s' for each in restarts)}; "
            f"reconnects: {len(load.outages)}, {spread(load.outages)}; "
            f"messages: {len(load.ledger.delays)} delivered, {verdict.repeats} repeated, "
            f"{spread(load.ledger.delays)}; keys: {len(load.keys)}\n"
        )
    assert not verdict.faults(), verdict
    assert verdict.refused == 0, verdict
    assert load.outages
    for number in nodes.first:
        assert load.keys.items() <= known(nodes, number).items()
