"""Transactions in one thread from one seed: coordinators, partitions, groups, and producers.

Messages between any two are delivered in order, those of others in between; processes die with
what they remember, coordinators believe for a while that they still are, and old producers come
back. Partitions and groups are models of what `broker.partition_api` and a group promise.
"""

import random
from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeAlias, cast

from robustmq import metrics
from robustmq.broker.ledger_api import Page
from robustmq.broker.partition_api import Fault, Marker, Opening, Partition
from robustmq.broker.timers import Timers
from robustmq.errors import Refusal, Refused
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.producer_ids import ProducerIds
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.transaction import Identity, Transaction
from robustmq.kafka.transaction_coordinator import PREFIX, TransactionCoordinator
from robustmq.kafka.transaction_end import Settlement
from robustmq.settings.kafka import KafkaRuntime
from robustmq.settings.kafka_transactions import KafkaTransactions
from tests.simulation.transaction_models import Group, Log

Action: TypeAlias = Callable[[], None]
Story: TypeAlias = Generator[Callable[[Callable[[Any], None]], None], Any, None]

LATER = frozenset(
    {
        ErrorCode.CONCURRENT_TRANSACTIONS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
    }
)
"""What clients answer by asking again."""
KEYS = ("txn/default/a", "txn/default/b")
TIMEOUT_MS = 3_000


class Promise:
    """What a producer was told of one of its transactions, and what it wrote and was told of."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: dict[int, list[str]] = {}
        self.group: list[str] = []
        self.outcome: bool | None = None


class Coordinating:
    """A core that coordinates, in one life; it is its own ledger, partitions and cluster."""

    node = 1

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.is_alive = True
        self.believes = True
        self.asked: dict[int, Callable[[Any], None]] = {}
        kafka = Kafka(
            cast("Any", SimpleNamespace(turn=world, at=self.at)),
            KafkaRuntime(transactions=world.settings),
            core=0,
            cluster=cast("Any", self),
            partitions=cast("Any", self),
            catalog=cast("Any", SimpleNamespace(of=lambda _name: SimpleNamespace(partitions=3))),
            ledger=cast("Any", self),
            authority=cast("Any", None),
        )
        self.ids = ProducerIds(cast("Any", self))
        self.coordinator = TransactionCoordinator(kafka, self.ids, self.settle)

    def coordinator_of(self, key: str) -> tuple[int, int]:
        """See `Cluster`."""
        assert key.startswith(PREFIX)
        return self.node if self.believes else self.node + 1, 0

    def at(self, when_ms: int, callback: Action) -> object:
        """A timer of this life."""

        def due() -> None:
            if self.is_alive:
                callback()

        return self.world.timers.at(when_ms, due)

    def _ask(
        self, what: str, does: Callable[[], Any], reply: Callable[[Any], None], failed: object
    ) -> None:
        """Ask somebody: it may be done, and the answer be lost."""
        world = self.world

        def back(answer: object) -> None:
            if self.is_alive:
                reply(answer)

        def act() -> None:
            luck = world.random.random()
            answer = failed if luck < world.loss else does()
            if luck > 1 - world.loss:
                answer = failed
            world.send(what, self.name, partial(back, answer))

        world.send(self.name, what, act)

    def read(self, key: str, reply: Callable[[Page | Refused], None]) -> None:
        """See `Ledger`."""
        self._ask("ledger", lambda: self.world.pages.get(key, Page()), reply, _GONE)

    def write(
        self, key: str, value: bytes | None, version: int, reply: Callable[[int | Refused], None]
    ) -> None:
        """See `Ledger`."""

        def act() -> int | Refused:
            world = self.world
            if world.pages.get(key, Page()).version != version:
                return Refused(Refusal.CONFLICT, "somebody else")
            world.number += 1
            world.pages[key] = Page(world.number, value)
            return world.number

        self._ask("ledger", act, reply, _GONE)

    def keys(self, prefix: str, reply: Callable[[Sequence[str] | Refused], None]) -> None:
        """See `Ledger`."""
        assert prefix == PREFIX
        self._ask("ledger", lambda: list(self.world.pages), reply, _GONE)

    def producer_ids(self, reply: Callable[[range | Refused], None]) -> None:
        """See `Ledger`."""

        def act() -> range:
            self.world.number += 2
            return range(self.world.number, self.world.number + 2)

        self._ask("ledger", act, reply, _GONE)

    def begin(self, openings: Sequence[Opening], reply: Callable[[Sequence[int]], None]) -> None:
        """See `Partitions`."""
        self._ask_logs(openings, lambda log, opening: log.begin(opening), reply)

    def end(self, markers: Sequence[Marker], reply: Callable[[Sequence[int]], None]) -> None:
        """See `Partitions`."""
        self._ask_logs(markers, lambda log, marker: log.end(marker), reply)

    def _ask_logs(
        self,
        things: Sequence[Any],
        does: Callable[[Log, Any], int],
        reply: Callable[[Sequence[int]], None],
    ) -> None:
        answers: dict[int, int] = {}

        def take(place: int, fault: int) -> None:
            answers[place] = fault
            if len(answers) == len(things):
                reply([answers[each] for each in range(len(things))])

        for place, thing in enumerate(things):
            number = thing.partition.number
            log = self.world.logs[number]

            def act(log: Log = log, life: int = log.life, thing: Marker | Opening = thing) -> int:
                return does(log, thing) if log.life == life else Fault.UNAVAILABLE

            self._ask(f"log {number}", act, partial(take, place), Fault.UNAVAILABLE)

    def settle(self, settlement: Settlement, reply: Callable[[bool], None]) -> None:
        """See `Settle`."""

        def act() -> bool:
            self.world.group.settle(settlement)
            return True

        self._ask("group", act, reply, False)


_GONE = Refused(Refusal.UNAVAILABLE, "nobody knows")


class World:
    """One history."""

    def __init__(self, seed: int, tell: Callable[[str], None] | None = None) -> None:
        self.random = random.Random(seed)
        self._tell = tell
        self.now_ms = 1_000_000
        self.row = [0] * metrics.CELLS
        self.timers = Timers(1)
        self.loss = self.random.choice((0, 0.03, 0.1))
        self.settings = KafkaTransactions(retry_ms=50, max_retry_ms=200, look_again_ms=400)
        self.pages: dict[str, Page] = {}
        self.number = 0
        self.logs = [Log() for _ in range(3)]
        self.group = Group()
        self.promises: list[Promise] = []
        self._channels: dict[tuple[str, str], deque[Action]] = {}
        self._lives = 0
        self._asked = 0
        self._running = 0
        self.coordinators: list[Coordinating] = []
        self._start()

    def tell(self, line: str) -> None:
        """Say what happens, to who wants to know."""
        if self._tell is not None:
            self._tell(f"{self.now_ms} {line}")

    def send(self, source: str, target: str, action: Action) -> None:
        """Deliver something after what was sent on the same way before."""
        self._channels.setdefault((source, target), deque()).append(action)

    def ask(
        self,
        call: Callable[[TransactionCoordinator, Callable[[Any], None]], None],
        reply: Callable[[Any], None],
        who: str = "client",
    ) -> None:
        """Ask a core that takes itself for the coordinator; when it dies it is not available."""
        ready = [each for each in self.coordinators if each.believes]
        target = self.random.choice(ready) if ready else None
        if target is None:
            self.timers.at(self.now_ms + 20, lambda: reply(ErrorCode.COORDINATOR_NOT_AVAILABLE))
            return
        self._asked += 1
        number = self._asked
        target.asked[number] = reply

        def answered(answer: object) -> None:
            self.send(target.name, who, lambda: deliver(answer))

        def deliver(answer: object) -> None:
            if (waiting := target.asked.pop(number, None)) is not None:
                waiting(answer)

        def act() -> None:
            if target.is_alive:
                call(target.coordinator, answered)

        self.send(who, target.name, act)

    def _start(self) -> None:
        """Another core coordinates; those before believe for a while that they still do."""
        for old in self.coordinators:
            self.tell(f"another core coordinates than {old.name}")
            self.timers.at(self.now_ms + self.random.randrange(350), partial(self._hear, old))
        self._lives += 1
        life = Coordinating(self, f"coordinator {self._lives}")
        self.coordinators.append(life)
        life.coordinator.moved()

    def _kill(self, life: Coordinating) -> None:
        self.tell(f"{life.name} dies")
        life.is_alive = False
        self.coordinators.remove(life)
        asked, life.asked = life.asked, {}
        for reply in asked.values():
            reply(ErrorCode.COORDINATOR_NOT_AVAILABLE)

    def _happen(self) -> None:
        """Something that nobody asked for."""
        luck = self.random.random()
        if luck < 0.3:
            log = self.random.choice(self.logs)
            self.tell(f"partition {self.logs.index(log)} dies")
            log.die()
        elif luck < 0.6 or not self.coordinators:
            if self.coordinators:
                self._kill(self.random.choice(self.coordinators))
            self._start()
        else:
            self._start()

    def _hear(self, life: Coordinating) -> None:
        if life.is_alive:
            self.tell(f"{life.name} hears that it does not coordinate")
            life.believes = False
            life.coordinator.moved()

    def _drive(self, story: Story) -> None:
        """Run a story: what it yields is called with where its answer goes."""
        self._running += 1

        def go_on(answer: object) -> None:
            try:
                step = story.send(answer)
            except StopIteration:
                self._running -= 1
                return
            step(go_on)

        go_on(None)

    def _sleep(self, ms: int) -> Callable[[Callable[[Any], None]], None]:
        return lambda reply: (self.timers.at(self.now_ms + ms, lambda: reply(None)), None)[1]

    def _retried(
        self, call: Callable[[TransactionCoordinator, Callable[[Any], None]], None]
    ) -> Generator[Any, Any, Any]:
        while True:
            answer = yield partial(self.ask, call)
            if answer not in LATER:
                return answer
            yield self._sleep(self.random.randrange(1, 60))

    def producer(self, key: str, name: str) -> Story:
        """A client that does some transactions, until it is done or fenced."""
        identity = yield from self._retried(
            lambda coordinator, reply: coordinator.initialize(key, None, TIMEOUT_MS, reply)
        )
        if isinstance(identity, ErrorCode):
            return
        sequences = dict.fromkeys(range(len(self.logs)), 0)
        for number in range(self.random.randrange(1, 5)):
            promise = Promise(f"{name}.{number}")
            self.promises.append(promise)
            going = yield from self._transaction(key, identity, sequences, promise)
            self.tell(f"{promise.name} {identity} ended: {promise.outcome}, goes on: {going}")
            if not going:
                return
            if self.random.random() < 0.2:
                # KIP-360: it goes on with an epoch of its own, as after an error.
                identity = yield from self._retried(partial(self._bump, key, identity))
                if isinstance(identity, ErrorCode):
                    return
                sequences = dict.fromkeys(sequences, 0)

    @staticmethod
    def _bump(
        key: str,
        identity: Identity,
        coordinator: TransactionCoordinator,
        reply: Callable[[Any], None],
    ) -> None:
        coordinator.initialize(key, identity, TIMEOUT_MS, reply)

    def _transaction(
        self, key: str, identity: Identity, sequences: dict[int, int], promise: Promise
    ) -> Generator[Any, Any, bool]:
        numbers = self.random.sample(range(len(self.logs)), self.random.randrange(1, 4))
        places = frozenset(Partition(b"t", number) for number in numbers)
        groups = frozenset({"g"}) if self.random.random() < 0.5 else frozenset[str]()
        code = yield from self._retried(
            lambda coordinator, reply: coordinator.join(key, identity, places, groups, reply)
        )
        is_good = code is ErrorCode.NONE
        for count in range(self.random.randrange(1, 6)):
            if not is_good:
                break
            number = self.random.choice(numbers)
            value = f"{promise.name}/{count}"
            promise.values.setdefault(number, []).append(value)
            fault = yield from self._append(key, identity, number, sequences[number], value)
            sequences[number] += 1
            is_good = not fault
            if self.random.random() < 0.1:
                yield self._sleep(self.random.choice((50, 500, 2 * TIMEOUT_MS)))
        if is_good and groups:
            promise.group.append(promise.name)
            code = yield partial(self._pend, key, identity, promise.name)
            is_good = code is ErrorCode.NONE
        is_committed = is_good and self.random.random() < 0.8
        code = yield from self._retried(
            lambda coordinator, reply: coordinator.end(key, identity, is_committed, reply)
        )
        if code is ErrorCode.NONE:
            promise.outcome = is_committed
        return code is ErrorCode.NONE

    def _append(
        self, key: str, identity: Identity, number: int, sequence: int, value: str
    ) -> Generator[Any, Any, int]:
        """Append as whoever handles Produce does, until it is known what became of it."""
        log = self.logs[number]

        def append(reply: Callable[[Any], None]) -> None:
            def act() -> None:
                luck = self.random.random()
                fault: int = Fault.UNAVAILABLE
                if luck > self.loss:
                    fault = log.append(identity, sequence, value)
                if luck > 1 - self.loss:
                    fault = Fault.UNAVAILABLE
                self.send(f"log {number}", "client", lambda: reply(fault))

            self.send("client", f"log {number}", act)

        places = frozenset({Partition(b"t", number)})
        while True:
            fault = yield append
            if fault == Fault.INVALID_TRANSACTION:
                code = yield from self._retried(
                    lambda coordinator, reply: coordinator.check(
                        key, identity, places, frozenset(), reply
                    )
                )
                if isinstance(code, ErrorCode):
                    return int(fault)
            elif fault != Fault.UNAVAILABLE:
                return int(fault)

    def _pend(
        self, key: str, identity: Identity, value: str, reply: Callable[[ErrorCode], None]
    ) -> None:
        """The group's coordinator asks whether it is part of the transaction, and keeps it."""

        def checked(answer: object) -> None:
            if isinstance(answer, ErrorCode):
                reply(answer)
                return
            serial = cast("Transaction", answer).serial + 1
            is_kept = self.group.pend(identity.producer_id, serial, value)
            reply(ErrorCode.NONE if is_kept else ErrorCode.INVALID_TXN_STATE)

        self.ask(
            lambda coordinator, told: coordinator.check(
                key, identity, frozenset(), frozenset({"g"}), told
            ),
            checked,
            "group",
        )

    def run(self, steps: int = 2_500) -> list[str]:
        """Let things happen, then let them end; return what is wrong."""
        producers = 0
        for _ in range(steps):
            luck = self.random.random()
            if luck < 0.006 and producers < 8:
                producers += 1
                name = f"p{producers}"
                key = self.random.choice(KEYS)
                self.tell(f"{name} begins as {key}")
                self._drive(self.producer(key, name))
            elif luck < 0.01:
                self._happen()
            self._step()
        self.loss = 0
        for _ in range(200_000):
            if not self._running and self.now_ms > 1_000_000 + 120_000 and not self._ways():
                break
            self._step()
        return self._faults()

    def _ways(self) -> list[tuple[str, str]]:
        return [way for way, actions in self._channels.items() if actions]

    def _step(self) -> None:
        ways = self._ways()
        if ways and self.random.random() < 0.9:
            self._channels[self.random.choice(ways)].popleft()()
        else:
            self.now_ms += self.random.choice((1, 5, 40)) if ways else 40
            self.timers.run(self.now_ms)

    def _faults(self) -> list[str]:
        faults = [f"{self._running} stories never end"] if self._running else []
        for number, log in enumerate(self.logs):
            if log.open:
                faults.append(f"partition {number} has open transactions for ever: {log.open}")
        if self.group.pending:
            faults.append(f"offsets are pending for ever: {self.group.pending}")
        read = {number: log.committed() for number, log in enumerate(self.logs)}
        for number, values in read.items():
            if len(values) != len(set(values)):
                faults.append(f"partition {number} has something twice: {values}")
        for promise in self.promises:
            faults += self._broken(promise, read)
        return faults

    def _broken(self, promise: Promise, read: dict[int, list[str]]) -> list[str]:
        """All of a transaction is read, in order, or nothing; as was said."""
        seen = {
            number: [each for each in read[number] if each in values]
            for number, values in promise.values.items()
        }
        is_seen = any(seen.values())
        offsets = [each for each in self.group.committed if each in promise.group]
        is_expected = is_seen or bool(offsets) if promise.outcome is None else promise.outcome
        wanted = promise.values if is_expected else {key: [] for key in promise.values}
        is_whole = seen == wanted and offsets == (promise.group if is_expected else [])
        if is_whole:
            return []
        return [f"{promise.name}, told {promise.outcome}: {seen} of {promise.values}, {offsets}"]
