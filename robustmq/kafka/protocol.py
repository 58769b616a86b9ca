"""Kafka on one core: what its connections, handlers and coordinators share."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from robustmq.broker.api import Broker, CredentialBook, Principal, Timer
from robustmq.broker.catalog_api import Catalog
from robustmq.broker.ledger_api import Ledger
from robustmq.broker.partition_api import Partitions
from robustmq.broker.rights_api import Rights
from robustmq.kafka.rights import CLUSTER_NAME, OPERATIONS, Authority, Operation, Resource
from robustmq.settings.kafka import KafkaRuntime

if TYPE_CHECKING:
    from robustmq.kafka.coordination import Coordination


class Endpoint(NamedTuple):
    """A broker as clients are told of it."""

    broker_id: int
    host: str
    port: int
    rack: str | None = None


class Room(NamedTuple):
    """The size of the disk that holds the logs and what is free of it, in bytes; -1: unknown."""

    total: int = -1
    usable: int = -1


class Cluster(Protocol):
    """Who else there is: nodes, their cores, and where clients reach them."""

    node: int
    """The number of this node."""

    @property
    def id(self) -> str:
        """What every client is told that this cluster is called."""

    @property
    def lives(self) -> int:
        """A number that is another one whenever nodes have come or gone."""

    def coordinator_of(self, key: str) -> tuple[int, int] | None:
        """Return the node and the core there that coordinate a key; None: not known yet."""

    def brokers(self, listener: str) -> Sequence[Endpoint]:
        """Return the brokers of all live nodes, as clients of a listener reach them."""

    def broker_id(self, node: int, core: int) -> int:
        """Return the number of the broker that a core belongs to (`kafka_runtime.advertise`)."""

    def number_of(self, node: int, core: int) -> int:
        """Return the number by which frames reach a core (`message.core_number`)."""


class Kafka:
    """The protocol's state on one core.

    `core` is the index of this core on its node; `coordination` asks other coordinators,
    `credentials` are those of users.
    """

    coordination: "Coordination"
    credentials: CredentialBook

    def __init__(
        self,
        broker: Broker,
        settings: KafkaRuntime,
        *,
        core: int,
        cluster: Cluster,
        partitions: Partitions,
        catalog: Catalog,
        ledger: Ledger,
        authority: Authority,
    ) -> None:
        self.broker = broker
        self.settings = settings
        self.core = core
        self.cluster = cluster
        self.partitions = partitions
        self.catalog = catalog
        self.ledger = ledger
        self._authority = authority
        self.rights: Rights
        """What administrators say of clients; set by whoever puts this together."""
        self.room: Callable[[], Room] = Room
        self.coordinators: list[Callable[[], None]] = []
        """Those who have to see what they coordinate now, when `moved` is called."""

    def moved(self) -> None:
        """The core is ready, or nodes have come or gone: coordinators may be others now."""
        for see in self.coordinators:
            see()

    @property
    def now_ms(self) -> int:
        """The turn's clock: Unix milliseconds."""
        return self.broker.turn.now_ms

    def at(self, when_ms: int, callback: Callable[[], None]) -> Timer:
        """Call back at a time of the turn's clock."""
        return self.broker.at(when_ms, callback)

    def may(
        self, principal: Principal, operation: Operation, resource: Resource, name: str = ""
    ) -> bool:
        """Say whether somebody may do something to a topic, a group, ..., or the cluster."""
        if principal.superuser:
            return True
        return self._authority.may(principal, operation, resource, name or CLUSTER_NAME)

    @property
    def rules(self) -> int:
        """Another number whenever somebody may do other things than before."""
        return self._authority.version

    def granted(self, principal: Principal, resource: Resource, name: str = "") -> int:
        """Return what somebody may do to something, as clients are told: a bit per operation."""
        may = (each for each in OPERATIONS[resource] if self.may(principal, each, resource, name))
        return sum(1 << operation for operation in may)

    def coordinator_of(self, key: str) -> tuple[int, int] | None:
        """Return the node and its core that coordinate `group/<tenant>/<id>` or `txn/...`."""
        return self.cluster.coordinator_of(key)

    def coordinates(self, key: str) -> bool:
        """Say whether this core does."""
        return self.cluster.coordinator_of(key) == (self.cluster.node, self.core)
