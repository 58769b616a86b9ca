"""A core that coordinates transactions, for tests: its ledger answers when it is let, or fails."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from robustmq import metrics
from robustmq.broker.ledger_api import Page
from robustmq.broker.partition_api import Marker, Opening
from robustmq.broker.timers import Timers
from robustmq.errors import Refusal, Refused
from robustmq.kafka.producer_ids import ProducerIds
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation, Resource
from robustmq.kafka.transaction import Transaction, decode
from robustmq.kafka.transaction_coordinator import TransactionCoordinator
from robustmq.kafka.transaction_end import Settlement
from robustmq.settings.kafka import KafkaRuntime
from robustmq.settings.kafka_transactions import KafkaTransactions

GONE = Refused(Refusal.UNAVAILABLE, "the ledger does not answer")


class Ledger:
    """Pages; each call waits in `calls` until `run`, which may let it fail (`fault`)."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.calls: deque[Callable[[], None]] = deque()
        self.fault: Refused | None = None
        self.version = 0
        self.next_id = 1_000
        self.reads = 0
        self.writes = 0

    def run(self, count: int = 1_000) -> None:
        """Answer what was asked, and what is asked meanwhile."""
        while self.calls and count:
            count -= 1
            self.calls.popleft()()

    def put(self, key: str, known: Transaction) -> None:
        """Another core writes a page."""
        self.version += 1
        self.pages[key] = Page(self.version, known.encode())

    def known(self, key: str) -> Transaction:
        """What a page says."""
        value = self.pages[key].value
        assert value is not None
        return decode(value)

    def read(self, key: str, reply: Callable[[Page | Refused], None]) -> None:
        """See `broker.ledger_api`."""
        self.reads += 1
        self.calls.append(lambda: reply(self.fault or self.pages.get(key, Page())))

    def write(
        self, key: str, value: bytes | None, version: int, reply: Callable[[int | Refused], None]
    ) -> None:
        """See `broker.ledger_api`."""
        self.calls.append(partial(self._write, key, value, version, reply))

    def _write(
        self, key: str, value: bytes | None, version: int, reply: Callable[[int | Refused], None]
    ) -> None:
        self.writes += 1
        if self.fault is not None:
            reply(self.fault)
        elif self.pages.get(key, Page()).version != version:
            reply(Refused(Refusal.CONFLICT, "another one has written"))
        else:
            self.version += 1
            self.pages[key] = Page(self.version, value)
            reply(self.version)

    def keys(self, prefix: str, reply: Callable[[Sequence[str] | Refused], None]) -> None:
        """See `broker.ledger_api`."""
        self.calls.append(
            lambda: reply(self.fault or [key for key in self.pages if key.startswith(prefix)])
        )

    def producer_ids(self, reply: Callable[[range | Refused], None]) -> None:
        """See `broker.ledger_api`."""

        def take() -> None:
            self.next_id += 10
            reply(self.fault or range(self.next_id - 10, self.next_id))

        self.calls.append(take)


class Partitions:
    """Remembers what partitions are told; `faults` by partition number."""

    def __init__(self) -> None:
        self.openings: list[Opening] = []
        self.markers: list[Marker] = []
        self.faults: dict[int, int] = {}

    def begin(self, openings: Sequence[Opening], reply: Callable[[Sequence[int]], None]) -> None:
        """See `broker.partition_api`."""
        self.openings += openings
        reply([self.faults.get(each.partition.number, 0) for each in openings])

    def end(self, markers: Sequence[Marker], reply: Callable[[Sequence[int]], None]) -> None:
        """See `broker.partition_api`."""
        self.markers += markers
        reply([self.faults.get(each.partition.number, 0) for each in markers])


class Topics:
    """A catalog whose topics have three partitions each."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)

    def find(self, tenant: str, name: str) -> object | None:
        """See `broker.catalog_api`."""
        del tenant
        return self.of(name.encode())

    def of(self, topic: bytes) -> object | None:
        """See `broker.catalog_api`."""
        if topic.decode() not in self.names:
            return None
        return SimpleNamespace(name=topic, partitions=3)

    @staticmethod
    def written(topic: SimpleNamespace) -> str:
        """See `broker.catalog_api`."""
        return str(topic.name.decode())


class Desk:
    """The core, its clock and its partners."""

    node = 1

    def __init__(self, settings: KafkaTransactions | None = None) -> None:
        self.now_ms = 1_000_000
        self.row = [0] * metrics.CELLS
        self.timers = Timers(1)
        self.ledger = Ledger()
        self.partitions = Partitions()
        self.topics = Topics("t", "u")
        self.settlements: list[Settlement] = []
        self.is_settled = True
        self.is_ours = True
        self.denied: set[tuple[Operation, Resource]] = set()
        self.kafka = Kafka(
            cast("Any", SimpleNamespace(turn=self, at=self.timers.at)),
            KafkaRuntime(transactions=settings or KafkaTransactions()),
            core=0,
            cluster=cast("Any", self),
            partitions=cast("Any", self.partitions),
            catalog=cast("Any", self.topics),
            ledger=cast("Any", self.ledger),
            authority=cast("Any", self),
        )
        self.ids = ProducerIds(cast("Any", self.ledger))
        self.coordinator = TransactionCoordinator(self.kafka, self.ids, self.settle)

    def coordinator_of(self, key: str) -> tuple[int, int]:
        """See `protocol.Cluster`."""
        assert key
        return (self.node, 0) if self.is_ours else (self.node + 1, 0)

    @staticmethod
    def broker_id(node: int, core: int) -> int:
        """See `protocol.Cluster`."""
        assert core == 0
        return node

    def may(self, principal: object, operation: Operation, resource: Resource, name: str) -> bool:
        """See `rights.Authority`."""
        assert principal
        assert name
        return (operation, resource) not in self.denied

    def settle(self, settlement: Settlement, reply: Callable[[bool], None]) -> None:
        """See `transaction_end.Settle`."""
        self.settlements.append(settlement)
        reply(self.is_settled)

    def pass_time(self, ms: int) -> None:
        """Let time pass, and do what is due."""
        self.now_ms += ms
        self.timers.run(self.now_ms)
        self.ledger.run()
