"""A front of Kafka above partitions whose answers the test gives, and what clients send there."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, cast
from unittest.mock import patch

import msgspec

from robustmq.broker.api import Gate, Peer, Principal
from robustmq.broker.catalog_api import Topic
from robustmq.broker.partition_api import Append, Appended, Partition, Partitions
from robustmq.broker.timers import Timer
from robustmq.kafka import codec
from robustmq.kafka.api_keys import SPOKEN, ApiKey
from robustmq.kafka.coordination import Coordination
from robustmq.kafka.front import Allowance, Front
from robustmq.kafka.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from robustmq.kafka.produce_route import ProduceRoutes
from robustmq.kafka.rights import Operation, Resource
from robustmq.message.batch import Buffer
from robustmq.message.tenancy import DEFAULT_TENANT
from robustmq.settings.kafka import KafkaRuntime
from tests import kafka_desk
from tests.kafka_front import Client, Everybody
from tests.logins import ScriptedLogins
from tests.partition_world import Topics, World

VERSIONS = range(3, 12)
NAMES = ("t", "events", "x" * 200)
PARTITIONS = 4


class Named(Topics):
    """A catalog of several topics, which come and go."""

    def __init__(self, cores: int) -> None:
        super().__init__(cores, PARTITIONS)
        self.known: dict[bytes, Topic] = {}
        for name in NAMES:
            self.make(name)

    def make(self, name: str) -> None:
        """Have a topic, or have it anew."""
        topic = msgspec.structs.replace(self.topic, name=name.encode(), settings={})
        self.known[name.encode()] = topic
        self.version += 1

    def drop(self, name: str) -> None:
        """Have it no more."""
        self.known.pop(name.encode(), None)
        self.version += 1

    def want(self, name: str, replicas: int) -> None:
        """Let a topic want so many replicas in sync."""
        settings = {"min.insync.replicas": str(replicas)}
        if (topic := self.known.get(name.encode())) is not None:
            self.known[topic.name] = msgspec.structs.replace(topic, settings=settings)
        self.version += 1

    def find(self, tenant: str, name: str) -> Topic | None:
        """Know those of the one tenant."""
        return self.of(name.encode()) if tenant == DEFAULT_TENANT else None

    def of(self, topic: bytes) -> Topic | None:
        """Know them."""
        return self.known.get(topic)

    def core_of(self, partition: Partition) -> int | None:
        """Say the core."""
        topic = self.of(partition.topic)
        if topic is None or not 0 <= partition.number < topic.partitions:
            return None
        return self.elsewhere.get(partition, partition.number % self.cores)


class Script:
    """Partitions that answer when and what the test says; `appended` is all that came."""

    def __init__(self) -> None:
        self.appended: list[tuple[Partition, bytes]] = []
        self.waiting: list[Callable[[Appended], None]] = []
        self.at_once: Appended | None = None

    def append(
        self, partition: Partition, batch: Buffer, reply: Callable[[Appended], None] | None
    ) -> None:
        """Take a batch."""
        assert reply is not None
        self.appended.append((partition, bytes(batch)))
        if self.at_once is not None:
            reply(self.at_once)
        else:
            self.waiting.append(reply)

    def appender(self, partition: Partition) -> Append:
        """As `append`, of one."""
        return partial(self.append, partition)

    def answer(self, outcome: Appended, which: int = 0) -> None:
        """Say what became of one of those that wait, if there is any."""
        if self.waiting:
            self.waiting.pop(which % len(self.waiting))(outcome)


class Door:
    """The front of core 0 of a world; its partitions are those of the world, or a `script`."""

    version = 0
    """That of the quotas."""

    def __init__(
        self,
        world: World | None = None,
        *,
        script: Script | None = None,
        settings: KafkaRuntime | None = None,
        pressure_bytes: int = 1 << 30,
    ) -> None:
        self.topics = Named(2)
        self.world = world or World(2, topics=self.topics)
        if isinstance(self.world.topics, Named):
            self.topics = self.world.topics
        self.desk = kafka_desk.Desk(self.world, settings=settings)
        self.kafka = self.desk.kafka
        if script is not None:
            self.kafka.partitions = cast("Partitions", script)
        self._timers: list[Timer] = []
        self.kafka.at = self._at  # type: ignore[method-assign]
        self.allowance: Allowance | None = None
        self.said: list[str] = []
        coordination = Coordination(self.kafka, self.desk.handlers, lambda *_: None, epoch=1)
        self.kafka.coordination = coordination
        self.front = Front(
            self.kafka,
            self.desk.handlers,
            coordination,
            self,
            logins=ScriptedLogins(),
            gate=cast("Gate", Everybody()),
            tenants=frozenset(),
            is_certified=lambda _: False,
            complain=lambda _, why: self.said.append(why),
            clock_ns=lambda: 1,
            pressure_bytes=pressure_bytes,
        )

    def _at(self, when_ms: int, callback: Callable[[], None]) -> Timer:
        timer = self.world.cores[0].timers.at(when_ms, callback)
        self._timers.append(timer)
        return timer

    def of(self, principal: Principal, client_id: str | None) -> Allowance | None:
        """The allowance of everybody."""
        del principal, client_id
        return self.allowance

    def limit(self, allowance: Allowance | None) -> None:
        """Let this be the allowance of everybody."""
        self.allowance = allowance
        self.version += 1

    def forbid(self, name: str, *, is_denied: bool = True) -> None:
        """Take the right to write to a topic, or give it back."""
        what = (Operation.WRITE, Resource.TOPIC, name)
        (self.desk.denied.add if is_denied else self.desk.denied.discard)(what)
        self.desk.version += 1

    def client(self) -> Client:
        """A client that has connected."""
        return Client(cast("Any", self), Peer("192.0.2.1", "tcp"))

    def wait(self, passed_ms: int) -> None:
        """Let time pass."""
        self.world.advance(passed_ms)

    def live_timers(self) -> int:
        """How many timers wait for something, of the connections."""
        return sum(timer.callback is not None for timer in self._timers)


class Spender:
    """An allowance that makes its clients wait."""

    def __init__(self) -> None:
        self.produced: list[int] = []

    def take(self, produced: int, consumed: int, busy_ns: int, now_ms: int) -> int:
        """Count, and let them wait a moment."""
        del consumed, busy_ns, now_ms
        self.produced.append(produced)
        return 5


def produce(
    records: bytes | None,
    *,
    topic: str = "t",
    partition: int = 0,
    acks: int = -1,
    timeout_ms: int = 30_000,
) -> ProduceRequest:
    """A request of one batch."""
    data = PartitionProduceData(index=partition, records=records)
    topics = [TopicProduceData(name=topic, partition_data=[data])]
    return ProduceRequest(acks=acks, timeout_ms=timeout_ms, topic_data=topics)


def body(
    request: ProduceRequest, version: int, number: int = 1, client_id: str | None = "me"
) -> bytes:
    """A request as it travels, without its size."""
    return b"".join(codec.encode_request(ApiKey.PRODUCE, version, number, client_id, request))


def is_flexible(version: int) -> bool:
    """Say whether requests of a version have tags and sizes of any length."""
    return SPOKEN[ApiKey.PRODUCE].is_flexible(version)


def sized(data: bytes) -> bytes:
    """A request as a frame."""
    return len(data).to_bytes(4, "big") + data


class Ways:
    """Which requests took which way."""

    def __init__(self) -> None:
        self.taken: list[bool] = []


def watched(ways: Ways, *, is_short: bool) -> AbstractContextManager[object]:
    """Note the way of each request; without `is_short` all take the way of all requests."""
    if not is_short:
        return patch.object(ProduceRoutes, "suits", staticmethod(lambda _: False))
    take = ProduceRoutes.take

    def noted(self: ProduceRoutes, frame: bytes) -> bool:
        taken = take(self, frame)
        ways.taken.append(taken)
        return taken

    return patch.object(ProduceRoutes, "take", noted)


Heard = tuple[list[list[bytes]], list[tuple[Partition, bytes]], list[str]]


def both(
    scenario: Callable[[Door, Script], Sequence[list[bytes]]],
    ways: Ways | None = None,
    settings: KafkaRuntime | None = None,
) -> Sequence[list[bytes]]:
    """Run a scenario on either way; what is heard and appended is the same. Returns what is."""
    found: list[Heard] = []
    for is_short in (True, False):
        script = Script()
        door = Door(script=script, settings=settings)
        with watched(ways or Ways(), is_short=is_short):
            heard = list(scenario(door, script))
        found.append((heard, script.appended, door.said))
    assert found[0] == found[1]
    return found[0][0]
