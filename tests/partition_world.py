"""Routers to partitions on several cores in one thread, above owners that keep all in memory."""

import struct
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import msgspec

from robustmq._kernel.turn import Turn
from robustmq.broker.catalog_api import Configured, Leader, Topic
from robustmq.broker.partition_api import (
    Append,
    Appended,
    EpochEnd,
    Fault,
    Found,
    Marker,
    Opening,
    Partition,
    Producing,
    Read,
    Size,
    Sought,
    Wanted,
)
from robustmq.broker.partition_reads import next_offset
from robustmq.broker.partitions import Partitions
from robustmq.broker.placement import Placement
from robustmq.broker.timers import Timers
from robustmq.config import TopicRule
from robustmq.errors import Refused
from robustmq.message.core_number import global_core
from robustmq.message.tenancy import DEFAULT_TENANT
from robustmq.metrics import CELLS

START_MS = 1_700_000_000_000
TOPIC = b"t"
_HEADER = 61


def batch_of(payload: bytes, records: int = 1) -> bytes:
    """Something that has the header of a record batch of so many records."""
    head = bytearray(_HEADER)
    struct.pack_into(">i", head, 23, records - 1)
    return bytes(head) + payload


def payload_of(batch: bytes) -> bytes:
    """What `batch_of` was given."""
    return batch[_HEADER:]


class Parked:
    """A reader that waits at an owner."""

    def __init__(self, owner: "Owner", partition: Partition, wake: Callable[[], None]) -> None:
        self._waiting = owner.waiting.setdefault(partition, {})
        self._waiting[self] = wake

    def cancel(self) -> None:
        """It waits no more."""
        self._waiting.pop(self, None)


class Owner:
    """The partitions of one core; `commit` makes what was appended readable."""

    def __init__(self, logs: dict[Partition, list[bytes]] | None = None) -> None:
        self.logs: dict[Partition, list[bytes]] = logs if logs is not None else {}
        self.ends: dict[Partition, int] = {}
        self.waiting: dict[Partition, dict[Parked, Callable[[], None]]] = {}
        self.faults: dict[Partition, int] = {}
        self.reads = 0
        self._undone: list[tuple[Partition, bytes, Callable[[Appended], None]]] = []
        self._markers: list[Callable[[int], None]] = []
        for partition, log in self.logs.items():
            self.ends[partition] = next_offset(log[-1]) if log else 0

    def append(
        self,
        partition: Partition,
        batch: bytes | memoryview,
        done: Callable[[Appended], None] | None,
    ) -> None:
        """Append with the next commit."""
        assert done is not None
        if partition in self.faults:
            done(Appended(self.faults[partition]))
        else:
            self._undone.append((partition, bytes(batch), done))

    def appender(self, partition: Partition) -> Append | None:
        """Append to one."""
        return partial(self.append, partition)

    def commit(self) -> None:
        """Answer what was appended, and wake who waits for it."""
        undone, self._undone = self._undone, []
        for partition, batch, done in undone:
            base = self.ends.get(partition, 0)
            stored = struct.pack(">q", base) + batch[8:]
            self.logs.setdefault(partition, []).append(stored)
            self.ends[partition] = next_offset(stored)
            done(Appended(0, base))
        for partition in {partition: None for partition, *_ in undone}:
            self.wake(partition)
        markers, self._markers = self._markers, []
        for marked in markers:
            marked(0)

    def wake(self, partition: Partition) -> None:
        """Wake who waits for a partition."""
        waiting = self.waiting.pop(partition, {})
        for wake in list(waiting.values()):
            wake()

    def read(self, wanted: Wanted) -> Read:
        """Read whole batches, the first whatever its size."""
        self.reads += 1
        partition = wanted.partition
        if partition in self.faults:
            return Read(self.faults[partition])
        end = self.ends.get(partition, 0)
        if not 0 <= wanted.offset <= end:
            return Read(Fault.OUT_OF_RANGE, end, end, 0)
        found: list[bytes] = []
        left = wanted.max_bytes
        for batch in self.logs.get(partition, ()):
            if next_offset(batch) > wanted.offset and left > 0:
                if found and len(batch) > left:
                    break
                found.append(batch)
                left -= len(batch)
        return Read(0, end, end, 0, found)

    def park(self, partition: Partition, is_committed: bool, wake: Callable[[], None]) -> Parked:
        """Let a reader wait."""
        del is_committed
        return Parked(self, partition, wake)

    def moved(self) -> None:
        """Wake who waits for what has a fault now."""
        for partition in self.faults:
            self.wake(partition)

    @property
    def parked(self) -> int:
        """How many readers wait."""
        return sum(map(len, self.waiting.values()))

    def find(self, sought: Sought) -> Found:
        """Say where the partition ends."""
        return Found(0, self.ends.get(sought.partition, 0), sought.time_ms)

    def epoch_end(self, partition: Partition, current: int, epoch: int) -> EpochEnd:
        """Say where the partition ends."""
        return EpochEnd(0, epoch + current, self.ends.get(partition, 0))

    def trim(self, partition: Partition, offset: int) -> Found:
        """Do nothing."""
        return Found(0, min(offset, self.ends.get(partition, 0)))

    def begin(self, opening: Opening) -> int:
        """Say the fault of the partition."""
        return self.faults.get(opening.partition, 0)

    def end(self, marker: Marker, done: Callable[[int], None]) -> None:
        """Answer with the next commit."""
        if marker.partition in self.faults:
            done(self.faults[marker.partition])
        else:
            self._markers.append(done)

    def producers(self, partition: Partition) -> tuple[int, Sequence[Producing]]:
        """Know one."""
        return 0, [Producing(partition.number, 1, 2, 3)]

    def sizes(self) -> Sequence[Size]:
        """Say how large all are."""
        return [Size(each, sum(map(len, log))) for each, log in self.logs.items()]


class Topics:
    """A catalog with one topic, whose partitions go round the cores of a node."""

    version: int

    def __init__(self, cores: int, partitions: int) -> None:
        self.topic = Topic(
            name=TOPIC, id=bytes(16), partitions=partitions, rule=TopicRule(filter="t")
        )
        self.version = 1
        self.cores = cores
        self.elsewhere: dict[Partition, int | None] = {}
        self._nodes: dict[Partition, int] = {}

    def set(self, settings: Mapping[str, str]) -> None:
        """Let these be the settings of the topic."""
        self.topic = msgspec.structs.replace(self.topic, settings=settings)

    def move(self, partition: Partition, node: int) -> None:
        """Let another node lead a partition, since epoch 7."""
        self.elsewhere[partition] = global_core(node, 0)
        self._nodes[partition] = node
        self.version += 1

    def find(self, tenant: str, name: str) -> Topic | None:
        """Know the one."""
        return self.of(name.encode()) if tenant == DEFAULT_TENANT else None

    def of(self, topic: bytes) -> Topic | None:
        """Know the one."""
        return self.topic if topic == TOPIC else None

    def by_id(self, topic_id: bytes) -> Topic | None:
        """Know the one."""
        return self.topic if topic_id == self.topic.id else None

    def written(self, topic: Topic) -> str:
        """Return its name."""
        return topic.name.decode()

    def walk(self, tenant: str) -> Iterator[Topic]:
        """Yield the one."""
        del tenant
        yield self.topic

    def leader(self, partition: Partition) -> Leader | None:
        """Say the core."""
        if partition in self._nodes:
            return Leader(self._nodes[partition], 0, 7)
        core = self.core_of(partition)
        return None if core is None else Leader(1, core, 0)

    def core_of(self, partition: Partition) -> int | None:
        """Say the core."""
        if partition.topic != TOPIC or not 0 <= partition.number < self.topic.partitions:
            return None
        return self.elsewhere.get(partition, partition.number % self.cores)

    def create(
        self,
        tenant: str,
        name: str,
        partitions: int,
        settings: Mapping[str, str],
        reply: Callable[[Topic | Refused], None],
    ) -> None:
        """Nobody asks."""
        raise NotImplementedError

    def plan(
        self, tenant: str, name: str, partitions: int, settings: Mapping[str, str]
    ) -> Topic | Refused:
        """Nobody asks."""
        raise NotImplementedError

    def judge(self, topic: Topic, settings: Mapping[str, str]) -> Refused | None:
        """Nobody asks."""
        raise NotImplementedError

    def settings(self, topic: Topic | None) -> Iterator[Configured]:
        """Nobody asks."""
        raise NotImplementedError

    def grow(self, topic: Topic, partitions: int, reply: Callable[[Refused | None], None]) -> None:
        """Nobody asks."""
        raise NotImplementedError

    def configure(
        self, topic: Topic, settings: Mapping[str, str], reply: Callable[[Refused | None], None]
    ) -> None:
        """Nobody asks."""
        raise NotImplementedError

    def delete(self, topic: Topic, reply: Callable[[Refused | None], None]) -> None:
        """Nobody asks."""
        raise NotImplementedError

    def check(self, name: str, settings: Mapping[str, str]) -> Sequence[str]:
        """Nobody asks."""
        raise NotImplementedError


class Core:
    """One life of one core; a `router.Fabric` for its router."""

    def __init__(self, world: "World", index: int, owner: Owner) -> None:
        self.index = index
        self.life = world.lives[index]
        self.known = list(world.lives)
        self.owner = owner
        self.turn = Turn(array("Q", bytes(8 * CELLS)))
        self.turn.now_ms = world.now_ms
        self.timers = Timers()
        self._world = world
        self.router = Partitions(
            self.turn,
            core=index,
            epoch=self.life,
            placement=world.placement,
            fabric=self,
            catalog=world.topics,
            owner=owner,
            pressure_bytes=world.pressure_bytes,
        )
        self.router.timers = self.timers

    def send(self, core: int, frame: bytes) -> None:
        """Queue a frame."""
        assert core != self.index, "a core asks itself directly"
        self._world.rings[self.index, core].append((self.life, self.known[core], frame))

    def backlog(self, core: int) -> int:
        """Bytes that wait when the link is stalled."""
        if (self.index, core) not in self._world.stalled:
            return 0
        return sum(len(frame) for *_, frame in self._world.rings[self.index, core])

    def epoch(self, core: int) -> int:
        """The life of a core."""
        return self.known[core]


class World:
    """`cores` cores and the links between them."""

    def __init__(
        self,
        cores: int,
        partitions: int = 8,
        pressure_bytes: int = 1 << 20,
        topics: Topics | None = None,
    ) -> None:
        self.now_ms = START_MS
        self.pressure_bytes = pressure_bytes
        self.placement = Placement(cores)
        self.topics = topics or Topics(cores, partitions)
        self.lives = [1] * cores
        self.stalled: set[tuple[int, int]] = set()
        self.rings: dict[tuple[int, int], deque[tuple[int, int, bytes]]] = {
            (source, target): deque()
            for source in range(cores)
            for target in range(cores)
            if source != target
        }
        self.cores = [Core(self, index, Owner()) for index in range(cores)]

    def advance(self, ms: int) -> None:
        """Let time pass on all cores."""
        self.now_ms += ms
        for core in self.cores:
            core.turn.now_ms = self.now_ms
            core.timers.run(self.now_ms)

    def turn(self, index: int, frames: int = 1 << 30) -> bool:
        """One turn of a core: frames in, its owner's commit, whoever was woken."""
        core = self.cores[index]
        active = False
        for peer in range(len(self.cores)):
            if peer != index:
                active |= self._receive(core, peer, frames)
        core.owner.commit()
        active |= core.router.busy
        core.router.run()
        return active

    def _receive(self, core: Core, peer: int, most: int) -> bool:
        ring = self.rings[peer, core.index]
        active = False
        while ring and most and (peer, core.index) not in self.stalled:
            source_life, target_life, frame = ring[0]
            if source_life > core.known[peer]:
                self._meet(core, peer)
            ring.popleft()
            active = True
            if target_life == core.life and source_life == core.known[peer]:
                core.router.handlers[frame[0]](peer, frame)
                most -= 1
        if not ring and core.known[peer] != self.lives[peer]:
            self._meet(core, peer)
            active = True
        return active

    def _meet(self, core: Core, peer: int) -> None:
        core.known[peer] = self.lives[peer]
        core.router.replaced(peer)

    def replace(self, index: int, lost: int = 0) -> None:
        """Kill a core and start the next, which has the logs of its last commit.

        Each peer loses the last `lost` frames of it.
        """
        self.lives[index] += 1
        for (source, _), ring in self.rings.items():
            if source == index:
                for _ in range(min(lost, len(ring))):
                    ring.pop()
        self.cores[index] = Core(self, index, Owner(self.cores[index].owner.logs))

    def settle(self) -> None:
        """Take turns until nothing moves."""
        for _ in range(10_000):
            if not sum(self.turn(index) for index in range(len(self.cores))):
                return
        raise AssertionError("the world does not come to rest")
