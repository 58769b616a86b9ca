"""Coordinators of consumer groups over one ledger that outlives them, on a clock of its own."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from robustmq.broker.api import Broker, Principal
from robustmq.broker.catalog_api import Catalog, Topic
from robustmq.broker.ledger_api import Kept, Page
from robustmq.broker.partition_api import Partitions
from robustmq.broker.timers import Timer, Timers
from robustmq.config import TopicRule
from robustmq.errors import Refusal, Refused
from robustmq.kafka.call import Call
from robustmq.kafka.coordinator_keys import group_key
from robustmq.kafka.dispatch import Handler
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.group_coordinator import GroupCoordinator
from robustmq.kafka.handlers.group_table import group_handlers
from robustmq.kafka.protocol import Endpoint, Kafka
from robustmq.kafka.rights import Operation, Resource
from robustmq.kafka.schema import Message
from robustmq.metrics import CELLS
from robustmq.settings.kafka import KafkaRuntime
from robustmq.settings.kafka_groups import KafkaGroups

Answer = TypeVar("Answer", bound=Message)

CLIENT = Principal("client", address="10.0.0.1")
CONFLICT = Refused(Refusal.CONFLICT, "another has changed it")


class Store:
    """What survives every coordinator: pages and offsets by key."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.offsets: dict[str, dict[str, Kept]] = {}
        self.writes = 0
        self._version = 0

    def version(self, key: str) -> int:
        """Return the version of a page."""
        return self.pages.get(key, Page()).version

    def write(self, key: str, value: bytes | None, version: int) -> int | Refused:
        """Write a page."""
        if self.version(key) != version:
            return CONFLICT
        self.writes += 1
        if value is None:
            self.pages.pop(key, None)
            return 0
        self._version += 1
        self.pages[key] = Page(self._version, value)
        return self._version

    def commit(self, key: str, version: int, rows: Mapping[str, Kept | None]) -> Refused | None:
        """Commit offsets."""
        if self.version(key) != version:
            return CONFLICT
        kept = self.offsets.setdefault(key, {})
        for place, offset in rows.items():
            if offset is None:
                kept.pop(place, None)
            else:
                kept[place] = offset
        return None

    def erase(self, key: str, version: int) -> Refused | None:
        """Remove a page and its offsets."""
        if self.version(key) != version:
            return CONFLICT
        self.pages.pop(key, None)
        self.offsets.pop(key, None)
        return None


class StoreLedger:
    """One core's way to the store: what it asks is done later, in order, by `step`.

    After `cut` nothing is answered; what was asked and not done never is.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.asked: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self.is_cut = False
        self.refusal: Refused | None = None
        """What the next change is refused with, without being done."""

    def step(self) -> bool:
        """Do one thing and answer it; False: there was none."""
        if not self.asked:
            return False
        deed, reply = self.asked.popleft()
        refusal, self.refusal = self.refusal, None
        result = deed() if refusal is None else refusal
        if not self.is_cut:
            reply(result)
        return True

    def read(self, key: str, reply: Callable[[Page | Refused], None]) -> None:
        """See `Ledger`."""
        self.asked.append((lambda: self.store.pages.get(key, Page()), reply))

    def write(
        self, key: str, value: bytes | None, version: int, reply: Callable[[int | Refused], None]
    ) -> None:
        """See `Ledger`."""
        self.asked.append((lambda: self.store.write(key, value, version), reply))

    def keys(self, prefix: str, reply: Callable[[Sequence[str] | Refused], None]) -> None:
        """See `Ledger`."""
        found = self.store.pages
        self.asked.append((lambda: sorted(k for k in found if k.startswith(prefix)), reply))

    def commit(
        self,
        key: str,
        version: int,
        offsets: Mapping[str, Kept | None],
        reply: Callable[[Refused | None], None],
    ) -> None:
        """See `Ledger`."""
        rows = dict(offsets)
        self.asked.append((lambda: self.store.commit(key, version, rows), reply))

    def offsets(self, key: str, reply: Callable[[Mapping[str, Kept] | Refused], None]) -> None:
        """See `Ledger`."""
        self.asked.append((lambda: dict(self.store.offsets.get(key, {})), reply))

    def erase(self, key: str, version: int, reply: Callable[[Refused | None], None]) -> None:
        """See `Ledger`."""
        self.asked.append((lambda: self.store.erase(key, version), reply))

    def producer_ids(self, reply: Callable[[range | Refused], None]) -> None:
        """See `Ledger`."""
        raise AssertionError("groups need none")


class Topics:
    """As much of a catalog as groups ask."""

    def __init__(self, topics: Mapping[str, int]) -> None:
        self.version = 0
        self.topics: dict[str, Topic] = {}
        for name, partitions in topics.items():
            self.make(name, partitions)

    def make(self, name: str, partitions: int) -> Topic:
        """Make a topic, or let it have more partitions."""
        self.version += 1
        rule = TopicRule(filter=name)
        known = self.topics.get(name)
        topic_id = known.id if known else b"%16d" % len(self.topics)
        topic = Topic(name=name.encode(), id=topic_id, partitions=partitions, rule=rule)
        self.topics[name] = topic
        return topic

    def drop(self, name: str) -> None:
        """Let a topic be gone."""
        self.version += 1
        del self.topics[name]

    def find(self, tenant: str, name: str) -> Topic | None:
        """See `Catalog`."""
        del tenant
        return self.topics.get(name)

    def by_id(self, topic_id: bytes) -> Topic | None:
        """See `Catalog`."""
        return next((topic for topic in self.topics.values() if topic.id == topic_id), None)

    def written(self, topic: Topic) -> str:
        """See `Catalog`."""
        return topic.name.decode()

    def walk(self, tenant: str) -> Sequence[Topic]:
        """See `Catalog`."""
        del tenant
        return list(self.topics.values())


class _Turn:
    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.row = [0] * CELLS


class _Broker:
    def __init__(self) -> None:
        self.turn = _Turn()
        self.timers = Timers(step_ms=1)

    def at(self, when_ms: int, callback: Callable[[], None]) -> Timer:
        return self.timers.at(when_ms, callback)


class _Cluster:
    """What a node believes: who coordinates, and which nodes live."""

    id = "cluster"

    def __init__(self, world: "GroupWorld", node: int) -> None:
        self.node = node
        self.leader = world.leader
        self.lives = world.lives

    def coordinator_of(self, key: str) -> tuple[int, int] | None:
        del key
        return None if self.leader is None else (self.leader, 0)

    def brokers(self, listener: str) -> Sequence[Endpoint]:
        return [Endpoint(number, f"{listener}{number}.example", 9092) for number in (0, 1)]

    def broker_id(self, node: int, core: int) -> int:
        del core
        return node

    def number_of(self, node: int, core: int) -> int:
        del node
        return core


class Host:
    """A node with one core that may coordinate."""

    def __init__(self, world: "GroupWorld", node: int) -> None:
        self.world = world
        self.broker = _Broker()
        self.broker.turn.now_ms = world.now_ms
        self.ledger = StoreLedger(world.store)
        self.cluster = _Cluster(world, node)
        self.kafka = Kafka(
            cast("Broker", self.broker),
            KafkaRuntime(groups=world.settings),
            core=0,
            cluster=self.cluster,
            partitions=cast("Partitions", None),
            catalog=cast("Catalog", world.topics),
            ledger=self.ledger,
            authority=world,
        )
        self.coordinator = GroupCoordinator(self.kafka)
        self.handlers: Mapping[int, Handler] = group_handlers(self.kafka, self.coordinator)


class GroupWorld:
    """Two nodes of which clients ask one (`leader`); `denied` holds what nobody may."""

    def __init__(
        self, topics: Mapping[str, int] | None = None, settings: KafkaGroups | None = None
    ) -> None:
        self.now_ms = 1_000_000
        self.settings = settings or KafkaGroups(initial_rebalance_delay_ms=0)
        self.store = Store()
        self.topics = Topics(topics or {"t": 4})
        self.denied: set[tuple[Operation, Resource, str]] = set()
        self.leader: int | None = 0
        self.lives = 0
        self.hosts = [Host(self, 0), Host(self, 1)]

    def counted(self, cell: int) -> int:
        """Return what the coordinator has counted (`metrics`)."""
        return self.host.broker.turn.row[cell]

    @property
    def host(self) -> Host:
        """The one that coordinates."""
        assert self.leader is not None
        return self.hosts[self.leader]

    version = 0

    def may(
        self, principal: Principal, operation: Operation, resource: Resource, name: str
    ) -> bool:
        """Say whether it is not denied."""
        del principal
        return (operation, resource, name) not in self.denied

    def lead(self, node: int | None) -> None:
        """Nodes have come or gone: another coordinates, and both know it."""
        self.leader = node
        self.lives += 1
        for each in range(len(self.hosts)):
            self.learn(each)

    def learn(self, node: int) -> None:
        """A node hears who coordinates."""
        host = self.hosts[node]
        if host.cluster.lives != self.lives:
            host.cluster.leader, host.cluster.lives = self.leader, self.lives
            host.kafka.moved()

    def settle(self) -> None:
        """Let the ledger do all that it was asked."""
        while any(host.ledger.step() for host in self.hosts):
            pass

    def wait(self, ms: int) -> None:
        """Let time pass, timer by timer."""
        end = self.now_ms + ms
        while self.now_ms < end:
            due = [host.broker.timers.next_ms for host in self.hosts]
            following = min((each for each in due if each is not None), default=end)
            self.now_ms = max(self.now_ms, min(following, end))
            for host in self.hosts:
                host.broker.turn.now_ms = self.now_ms
                host.broker.timers.run(self.now_ms)
            self.settle()

    def restart(self, node: int = 0) -> None:
        """The process of a node is killed, and another begins."""
        self.hosts[node].ledger.is_cut = True
        self.now_ms += 1
        self.hosts[node] = Host(self, node)

    def send(self, api: int, version: int, request: Message, host: Host | None = None) -> list[Any]:
        """Ask; what is answered comes into the list that is returned."""
        answers: list[Any] = []
        host = host or self.host
        fault = 0 if host.cluster.leader == host.cluster.node else ErrorCode.NOT_COORDINATOR
        call = Call[Any](
            api,
            version,
            "app",
            CLIENT,
            request,
            self.now_ms,
            answers.append,
            listener="tcp",
            fault=fault,
        )
        host.handlers[api](call)
        return answers

    def ask(self, api: int, version: int, request: Message, kind: type[Answer]) -> Answer:
        """Ask, let the ledger settle, and return the one answer."""
        answers = self.send(api, version, request)
        self.settle()
        (answer,) = answers
        assert isinstance(answer, kind)
        return answer

    def key(self, group_id: str) -> str:
        """The key of a group's page."""
        return group_key(CLIENT.tenant, group_id)
