"""Rounds of harm to a cluster that has work to do, and the accounts of all that was promised."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from tests.chaos.device import Publisher, Subscriber
from tests.chaos.harm import LOSING, HarmedCluster
from tests.chaos.ledger import Ledger, Stream
from tests.chaos.registers import Registers, everything
from tests.chaos.wanderer import END, Wanderer

PATIENCE: Final = 60.0
QUIET: Final = 1.0
"""Seconds without a message after which those that are not owed are given up."""
RATE: Final = 60.0
WANDERERS: Final = 6
WRITERS: Final = 2


async def eventually(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition of the clients."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, what
        await asyncio.sleep(0.05)


@dataclass
class Account:
    """What was counted over all rounds."""

    rounds: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    owed: int = 0
    excused: int = 0
    """Deliveries to and from nodes that were lost, of these `missing` did not come."""
    missing: int = 0
    slowest: float = 0.0
    faults: list[str] = field(default_factory=list)


class Round:
    """Durable subscribers and publishers of one round, one of each at every node."""

    def __init__(self, number: int, cluster: HarmedCluster) -> None:
        self.ledger = Ledger()
        topics = [(f"round/{number}/{leaf}", 1) for leaf in range(2)]
        self.publishers = {
            node: Publisher(self.ledger, f"pub-{number}-{node}", topics) for node in cluster.first
        }
        self.subscribers = {
            node: Subscriber(self.ledger, f"sub-{number}-{node}", [(f"round/{number}/#", 1)])
            for node in cluster.first
        }
        self._cluster = cluster
        self._tasks: list[asyncio.Task[None]] = []
        self._loads: list[asyncio.Task[None]] = []

    async def begin(self, rng: random.Random) -> None:
        """Subscribe everywhere, then publish everywhere."""
        for node, subscriber in self.subscribers.items():
            self._tasks.append(asyncio.create_task(subscriber.run(self._cluster.address(node))))
        await eventually(lambda: all(s.subscribed() for s in self.subscribers.values()), "SUBACKs")
        for node, publisher in self.publishers.items():
            self._tasks.append(asyncio.create_task(publisher.run(self._cluster.address(node))))
            load = publisher.produce(random.Random(rng.random()), RATE)
            self._loads.append(asyncio.create_task(load))
        await eventually(self._flows, "messages pass between all nodes")

    def _flows(self) -> bool:
        return all(
            self.ledger.heard(subscriber.client_id, Stream(publisher.client_id, topic, 1))
            for subscriber in self.subscribers.values()
            for publisher in self.publishers.values()
            for topic in [publisher.streams()[0].topic]
        )

    def owed(self, nodes: set[int]) -> Counter[str]:
        """Count what is owed from these nodes to these, what is missing, and what is disordered."""
        return Counter(
            self.ledger.between(
                {self.subscribers[node].client_id for node in nodes},
                {self.publishers[node].client_id for node in nodes},
            )
        )

    async def settle(self, nodes: set[int]) -> None:
        """Stop the load, and wait for what is owed."""
        await _ended(self._loads)
        with contextlib.suppress(AssertionError):
            await eventually(
                lambda: not any(p.pending for p in self.publishers.values()), "answers"
            )
            await eventually(lambda: not self.owed(nodes)["missing"], "messages")
            # What is not owed for sure may come as well, and is counted.
            await eventually(lambda: all(s.online for s in self.subscribers.values()), "everybody")
            seen = -1
            while seen < self.ledger.progress and self.ledger.missing():
                seen = self.ledger.progress
                await asyncio.sleep(QUIET)

    async def end(self) -> None:
        """Everybody goes."""
        await _ended(self._loads + self._tasks)


class ClusterTrial:
    """Clients that never stop over all rounds: writers of metadata, and sessions that wander."""

    def __init__(self, cluster: HarmedCluster, rng: random.Random) -> None:
        self.account = Account()
        self.ledger = Ledger()
        self.registers = Registers(self._base, cluster.first)
        self._cluster = cluster
        self._rng = rng
        self._tasks: list[asyncio.Task[None]] = []
        self._lives: list[asyncio.Task[None]] = []
        self.wanderers = [
            Wanderer(self.ledger, f"wanderer-{number}", len(cluster.first))
            for number in range(WANDERERS)
        ]
        self._addresses = [cluster.address(number) for number in cluster.first]

    def _base(self, number: int) -> str | None:
        facts = self._cluster.nodes[number].facts
        return f"http://{facts['http']}" if facts else None

    async def begin(self) -> None:
        """Let everybody start."""
        for place, wanderer in enumerate(self.wanderers):
            wanderer.place = place % len(self._addresses)
            self._lives.append(asyncio.create_task(wanderer.run(*self._addresses)))
        await eventually(lambda: all(w.online for w in self.wanderers), "wanderers")
        for wanderer in self.wanderers:
            self._go(wanderer.wander(self._chance()))
        for _ in range(WRITERS):
            self._go(self.registers.write(self._chance()))

    def _chance(self) -> random.Random:
        return random.Random(self._rng.random())

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def round(self, number: int, kind: str, victim: int) -> None:
        """Harm the cluster once, and hold it to what it has promised."""
        cluster, account, begin = self._cluster, self.account, time.monotonic()
        before = await asyncio.to_thread(cluster.incarnations)
        load = Round(number, cluster)
        try:
            await load.begin(self._rng)
            await asyncio.to_thread(cluster.harm, kind, victim, self._rng)
            whole = await asyncio.to_thread(cluster.whole)
            after = await asyncio.to_thread(cluster.incarnations)
            kept = {node for node in cluster.first if before.get(node) == after.get(node)}
            if kind in LOSING - {"worker"}:
                kept -= {victim} if kind != "everything" else {*cluster.first}
            await load.settle(kept)
            self._judge(number, kind, load, kept)
        finally:
            await load.end()
        account.rounds[kind] += 1
        account.slowest = max(account.slowest, whole)
        print(
            f"round {number}: {kind} of {victim}, whole after {whole:.1f} s, kept {kept},", end=""
        )
        counted, *_ = str(load.ledger.verdict()).splitlines()
        print(f" {time.monotonic() - begin:.0f} s: {counted}", flush=True)
        forgotten = self.ledger.verdict().faults()
        assert not forgotten, self.ledger.verdict()

    def _judge(self, number: int, kind: str, load: Round, kept: set[int]) -> None:
        account, verdict = self.account, load.ledger.verdict()
        owed = load.owed(kept)
        account.acknowledged += verdict.acknowledged
        account.owed += owed["owed"]
        account.excused += verdict.owed - owed["owed"]
        account.missing += verdict.lost - owed["missing"]
        wrong = {"lost": owed["missing"], "disordered": owed["disordered"]}
        wrong["unanswered"] = verdict.unanswered
        wrong |= {name: getattr(verdict, name) for name in ("forgotten", "corrupt", "breaches")}
        if any(wrong.values()):
            account.faults.append(f"round {number}, {kind}, kept {kept}: {wrong} of {verdict}")

    async def finish(self) -> list[str]:
        """Stop the clients; return all that is not as it was promised."""
        await _ended(self._tasks)
        await asyncio.to_thread(self._cluster.whole)
        await asyncio.to_thread(self._cluster.agreed)
        faults = [*self.account.faults, *(f"stale: {each}" for each in self.registers.stale)]
        for node in self._cluster.first:
            base = self._base(node)
            assert base is not None
            found = await asyncio.to_thread(everything, base)
            wrong = self.registers.faults(found)
            wrong += await asyncio.to_thread(self.registers.met, self._cluster.address(node))
            faults += [f"node {node}: {each}" for each in wrong]
        faults += await self._sessions()
        verdict = self.ledger.verdict()
        return faults + ([str(verdict)] if verdict.faults() else [])

    async def _sessions(self) -> list[str]:
        """Take every session over on another node, and see whom messages reach there."""
        moved = await asyncio.gather(*(w.move(self._rng, PATIENCE) for w in self.wanderers))
        if not all(moved):
            stuck = [w for w, has_moved in zip(self.wanderers, moved, strict=True) if not has_moved]
            told = (f"{w.client_id} at {w.place + 1}, told {w.refusals}" for w in stuck)
            raise AssertionError(f"sessions that nobody can take over: {', '.join(told)}")
        topics = [w.topic(slot) for w in self.wanderers for slot in range(END + 1)]
        # Whoever has heard the last message has heard all that come from the same publisher.
        for wanderer in self.wanderers:
            wanderer.has[END] = False
            if not await wanderer.change(END, wanted=True):
                return [f"{wanderer.client_id} cannot subscribe"]
        publisher = Publisher(Ledger(), "prober", [(topic, 1) for topic in topics], window=9_999)
        self._lives.append(asyncio.create_task(publisher.run(self._addresses[0])))
        await eventually(lambda: publisher.online, "the prober")
        for stream in publisher.streams():
            publisher.publish(stream)
        await eventually(lambda: not publisher.pending, "the prober is answered")
        with contextlib.suppress(AssertionError):
            await eventually(lambda: not any(w.faults() for w in self.wanderers), "sessions", 20)
        return [fault for wanderer in self.wanderers for fault in wanderer.faults()]

    async def end(self) -> None:
        """End all clients."""
        await _ended(self._tasks + self._lives)


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    tasks.clear()
