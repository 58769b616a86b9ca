"""A load of numbered messages for durable subscribers, while something is killed again and again.

Publishers and subscribers live on all cores, at MQTT 3.1.1 and 5; subscribers stay, come and go,
sleep until the end or join late; exact filters and wildcards, two sessions with the same filter,
and groups that share one.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from tests.chaos.device import Device, Publisher, Subscriber
from tests.chaos.ledger import SHARE, Ledger, Verdict
from tests.chaos.plant import Plant
from tests.integration.homes import name_on

TOPICS: Final = tuple(f"chaos/{number}/{leaf}" for number in range(4) for leaf in ("x", "y"))
PATIENCE: Final = 60.0
"""Seconds without any progress after which what is missing is lost."""
QUIET: Final = 0.5
RATE: Final = 120.0
"""Messages a second that one publisher wants to send."""


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition of the clients."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < PATIENCE, what
        await asyncio.sleep(0.02)


class Trial:
    """The clients of one trial, their ledger, and the killer."""

    def __init__(
        self,
        plant: Plant,
        seed: str,
        cores: int = 2,
        rate: float = RATE,
        patience: float = PATIENCE,
        *,
        groups: bool = True,
    ) -> None:
        self.ledger = Ledger()
        self.killed: Counter[str] = Counter()
        self._plant = plant
        self._rate = rate
        self._patience = patience
        self._seed = seed
        self._cores = cores
        self._named = 0
        self._loads: list[asyncio.Task[None]] = []
        self._lives: list[asyncio.Task[None]] = []
        self.publishers = [
            Publisher(
                self.ledger,
                self._name("pub"),
                [(topic, qos) for topic in TOPICS[number % 2 :: 2] for qos in (1, 2)],
                version=5 if number % 3 else 4,
                window=8 << number % 3,
            )
            for number in range(2 * cores)
        ]
        self.staying = [
            self._subscriber([(TOPICS[0], 1)]),
            self._subscriber([(TOPICS[1], 2)], 4),
            self._subscriber([("chaos/#", 2)], receive_maximum=25, laziness=0.01),
        ]
        self.moving = [
            self._subscriber([(TOPICS[0], 2)], receive_maximum=5),
            self._subscriber([(TOPICS[0], 2)], 4),
            self._subscriber([(TOPICS[2], 1), (TOPICS[3], 2)], 4, laziness=0.02),
            self._subscriber([("chaos/+/x", 2), (TOPICS[5], 1)], receive_maximum=10),
            self._subscriber([("chaos/#", 1)], laziness=0.005),
            self._subscriber([("chaos/+/y", 2)]),
        ]
        self.sleeping = [self._subscriber([("chaos/#", 2)]), self._subscriber([(TOPICS[6], 1)])]
        if groups:
            self._add_groups()
        self.late = [self._subscriber([("chaos/+/x", 2)]), self._subscriber([(TOPICS[7], 2)], 4)]

    def _add_groups(self) -> None:
        """Two groups, one with a member that stays; the sessions of all outlive everything."""
        crew, watch = f"{SHARE}crew/chaos/#", f"{SHARE}watch/chaos/+/x"
        self.staying.append(self._subscriber([(crew, 2)], receive_maximum=20, laziness=0.005))
        self.moving += [
            self._subscriber([(crew, 2)]),
            self._subscriber([(crew, 2)], 4, laziness=0.01),
            self._subscriber([(watch, 1)]),
            self._subscriber([(watch, 1)], 4, laziness=0.02),
        ]

    def _rng(self, what: str) -> random.Random:
        return random.Random(f"{self._seed} {what}")

    def _name(self, beginning: str) -> str:
        self._named += 1
        return name_on(self._named % self._cores, beginning, self._cores)

    def _subscriber(
        self,
        filters: list[tuple[str, int]],
        version: int = 5,
        *,
        receive_maximum: int = 0,
        laziness: float = 0.0,
    ) -> Subscriber:
        name = self._name("sub")
        return Subscriber(
            self.ledger,
            name,
            filters,
            version,
            receive_maximum=receive_maximum,
            laziness=laziness,
        )

    @property
    def subscribers(self) -> list[Subscriber]:
        """All subscribers."""
        return [*self.staying, *self.moving, *self.sleeping, *self.late]

    def _live(self, device: Device) -> None:
        self._lives.append(asyncio.create_task(device.run(self._plant.address)))

    async def _come_and_go(self, subscriber: Subscriber) -> None:
        rng = self._rng(subscriber.client_id)
        while True:
            await asyncio.sleep(rng.uniform(0.2, 2.5))
            subscriber.leave(politely=rng.random() < 0.5)
            await asyncio.sleep(rng.uniform(0.0, 2.5))
            subscriber.come()

    async def _drop_publishers(self) -> None:
        rng = self._rng("drops")
        while True:
            await asyncio.sleep(rng.uniform(0.1, 1.5))
            rng.choice(self.publishers).drop()

    async def begin(self) -> None:
        """Connect, subscribe, and start the load."""
        for subscriber in (*self.staying, *self.moving, *self.sleeping):
            self._live(subscriber)
        first = (*self.staying, *self.moving, *self.sleeping)
        await eventually(lambda: all(each.subscribed() for each in first), "all have subscribed")
        for sleeper in self.sleeping:
            sleeper.leave(politely=True)
        for publisher in self.publishers:
            self._live(publisher)
            rng = self._rng(publisher.client_id)
            self._loads.append(asyncio.create_task(publisher.produce(rng, self._rate)))
        self._loads += [asyncio.create_task(self._come_and_go(each)) for each in self.moving]
        self._loads.append(asyncio.create_task(self._drop_publishers()))

    async def disturb(self, kills: int, least: float = 0.05, most: float = 1.0) -> None:
        """Kill so many times, `least` to `most` seconds after the kill before."""
        rng = self._rng("kills")
        for kill in range(kills):
            await asyncio.sleep(rng.uniform(least, most))
            self.killed[await asyncio.to_thread(self._plant.disturb, rng)] += 1
            if kill == kills // 2:
                for subscriber in self.late:
                    self._live(subscriber)

    async def settle(self) -> Verdict:
        """Stop the load, let everybody come and hear the rest; return what was counted."""
        for task in self._loads:
            task.cancel()
        await asyncio.gather(*self._loads, return_exceptions=True)
        for subscriber in self.subscribers:
            subscriber.come()
        await self._until(lambda: not any(each.pending for each in self.publishers))
        await self._until(lambda: self.ledger.missing() == 0)
        await asyncio.sleep(QUIET)
        return self.ledger.verdict()

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition as long as there is progress."""
        seen, since = -1, time.monotonic()
        while not condition():
            if self.ledger.progress != seen:
                seen, since = self.ledger.progress, time.monotonic()
            if time.monotonic() - since > self._patience:
                return
            await asyncio.sleep(0.1)

    async def restart(self) -> Verdict:
        """Stop the broker in order and start it: everybody comes back, nothing is sent again."""
        await asyncio.to_thread(self._plant.stop)
        before = {device: device.connections for device in (*self.publishers, *self.subscribers)}
        await asyncio.to_thread(self._plant.start)
        await eventually(
            lambda: all(device.connections > count for device, count in before.items()),
            "everybody comes back",
        )
        return await self.settle()

    async def end(self) -> None:
        """End all clients."""
        for task in (*self._loads, *self._lives):
            task.cancel()
        for task in (*self._loads, *self._lives):
            with contextlib.suppress(asyncio.CancelledError):
                await task
