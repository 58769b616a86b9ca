"""Several cores of a broker in one thread, on links that can delay, stall and lose a core.

What the links do is what `workers.links` promises: frames in order per pair, those for or from an
earlier life of a core are never seen, and a peer hears of a replacement before its first frame.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Final, Literal, NamedTuple

from robustmq._kernel.outbox import Outbox
from robustmq._kernel.turn import Turn
from robustmq._kernel.window import Window
from robustmq.broker.api import Kept, Options
from robustmq.broker.assembly import assemble
from robustmq.broker.placement import Placement
from robustmq.broker.shares import KEY_SHIFT
from robustmq.config import Config, Runtime, Storage, TopicRule
from robustmq.errors import Refused
from robustmq.message.record import NO_HEADERS, Record
from robustmq.metrics import CELLS
from robustmq.mqtt.headers import describe
from robustmq.policy.principal import Principal
from robustmq.settings.kafka import KafkaRuntime
from robustmq.settings.mqtt import MqttProtocol, MqttRetained, MqttRuntime, MqttShared
from robustmq.settings.topics import Strategy
from robustmq.storage.memory_table import MemoryTable
from tests.held_logs import HeldLogs

START_MS: Final = 1_700_000_000_000
ROUNDS: Final = 10_000
"""Turns after which a fabric that has not come to rest never will."""


class Message(NamedTuple):
    """A PUBLISH as a client reads it."""

    topic: bytes
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int
    properties: bytes


def decode(data: bytes) -> Iterator[Message]:
    """Read MQTT 5 PUBLISH packets (MQTT5 3.3); PUBREL is passed over."""
    at = 0
    while at < len(data):
        first = data[at]
        length, body = varint(data, at + 1)
        at = body + length
        if first >> 4 == 6:
            continue
        assert first >> 4 == 3, f"a packet of type {first >> 4}"
        end = body + 2 + int.from_bytes(data[body : body + 2], "big")
        topic = data[body + 2 : end]
        qos = first >> 1 & 3
        packet_id = 0
        if qos:
            packet_id = int.from_bytes(data[end : end + 2], "big")
            end += 2
        size, start = varint(data, end)
        payload = data[start + size : at]
        properties = data[start : start + size]
        yield Message(topic, payload, qos, bool(first & 1), bool(first & 8), packet_id, properties)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a variable byte integer (MQTT5 1.5.5): its value, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


class Limits(NamedTuple):
    """What a core may take; the defaults are never reached by accident."""

    max_batch_bytes: int = 1 << 20
    pressure_bytes: int = 1 << 20
    max_retained: int = 1 << 20
    max_retained_bytes: int = 1 << 30
    max_pending: int = 1 << 20
    route_cache: int = 1 << 16
    strategy: Strategy = "round_robin"
    topic_rules: tuple[TopicRule, ...] = ()
    storage: Storage = Storage()
    overlap: Literal["combined", "separate"] = "combined"
    kafka: KafkaRuntime = KafkaRuntime()

    def config(self) -> Config:
        """The configuration with these limits."""
        return Config(
            runtime=Runtime(
                max_batch_bytes=self.max_batch_bytes, pressure_bytes=self.pressure_bytes
            ),
            mqtt_runtime=MqttRuntime(
                protocol=MqttProtocol(
                    route_cache=self.route_cache,
                    max_server_topic_aliases=0,
                    max_topic_levels=100,
                    overlap=self.overlap,
                ),
                retained=MqttRetained(
                    max_messages=self.max_retained, max_bytes=self.max_retained_bytes
                ),
                shared=MqttShared(max_pending=self.max_pending, strategy=self.strategy),
            ),
            kafka_runtime=self.kafka,
            topic_rules=self.topic_rules,
            storage=self.storage,
        )


class _Frame(NamedTuple):
    source_life: int
    target_life: int
    data: bytes


class Links:
    """The fabric of one life of one core."""

    def __init__(self, fabric: "Fabric", core: int) -> None:
        self._fabric = fabric
        self.core = core
        self.life = fabric.lives[core]
        self.known = list(fabric.lives)
        self.own: list[bytes] = []
        self.waiting: dict[int, deque[bytes]] = {}

    def send(self, core: int, frame: bytes) -> None:
        """Queue a frame; to the core itself it comes with the next turn."""
        if core == self.core:
            self.own.append(frame)
        else:
            self.waiting.setdefault(core, deque()).append(frame)

    def backlog(self, core: int) -> int:
        """Bytes that found no room."""
        return sum(map(len, self.waiting.get(core, ())))

    def epoch(self, core: int) -> int:
        """The life that a core is in, as far as this one has met it."""
        return self.known[core]

    def flush(self) -> None:
        """Push to every core whose link is not stalled."""
        for core, queue in self.waiting.items():
            if (self.core, core) not in self._fabric.stalled:
                ring = self._fabric.rings[self.core, core]
                ring.extend(_Frame(self.life, self.known[core], data) for data in queue)
                queue.clear()


class Node:
    """One core with all its parts, and its clients."""

    def __init__(
        self,
        fabric: "Fabric",
        index: int,
        limits: Limits,
        table: MemoryTable | None = None,
        held: HeldLogs | None = None,
    ) -> None:
        self.index = index
        self.turn = Turn(array("Q", bytes(8 * CELLS)))
        self.turn.now_ms = START_MS
        self.links = Links(fabric, index)
        self.table = table or MemoryTable()
        self.held = held or HeldLogs()
        self.core, self.parts = assemble(
            self.turn,
            limits.config(),
            core=index,
            epoch=self.links.life,
            placement=fabric.placement,
            fabric=self.links,
            table=self.table,
            committer=self.table,
            describe=describe,
            chance=Random(0).randrange,
            log_store=self.held,
        )
        self.interests = self.parts.interests
        self.router = self.parts.router
        self.retained = self.parts.retained
        self.scans = self.parts.scans
        self.subscriptions = self.parts.subscriptions
        self.shares = self.parts.shares
        self.keys = index << KEY_SHIFT | self.links.life << 32

    def own_frames(self) -> bool:
        """Handle what the core told itself; True when there was anything."""
        found = bool(self.links.own)
        while self.links.own:
            own, self.links.own = self.links.own, []
            for frame in own:
                self.core.receive(self.index, frame)
        return found

    def client(self, **options: int) -> "Client":
        """A connected client whose session lives here."""
        return Client(self, **options)

    def publish(
        self,
        topic: str,
        payload: str,
        qos: int = 0,
        retain: bool = False,
        *,
        headers: bytes = NO_HEADERS,
    ) -> "Answer":
        """Publish one message; its answer is filled in later."""
        answer = Answer()
        record = Record(
            key=topic.encode(),
            value=payload.encode(),
            headers=headers,
            qos=qos,
            retain=retain,
            timestamp=self.turn.now_ms,
        )
        principal = Principal("publisher")
        reply = answer.settle if qos else None
        answer.refused = self.core.publish(principal, record, reply, qos == 2)
        return answer


class Answer:
    """What came back for a publish: every (code, matched), in order."""

    def __init__(self) -> None:
        self.got: list[tuple[int, bool]] = []
        self.refused: Refused | None = None

    def settle(self, code: int, matched: bool) -> None:
        """Take an answer."""
        self.got.append((code, matched))


class Client:
    """A subscriber: a window and an outbox, acknowledging what it reads unless told otherwise."""

    def __init__(
        self, node: Node, *, limit: int = 60_000, version: int = 5, max_queued: int = 100_000
    ) -> None:
        node.keys += 1
        self.node = node
        self.limit = limit
        self.version = version
        self.acknowledges = True
        self.reads_on = True
        """Whether it reads what its acknowledgements let go, before that is committed."""
        self.window = Window(node.turn, max_queued, 1 << 30, 1 << 30)
        self.window.key = node.keys
        self.outbox: Outbox | None = None
        self.messages: list[Message] = []
        self.acknowledged: list[Message] = []
        self.subacks = 0
        self.connect()

    def connect(self) -> None:
        """The client has come (again)."""
        self.outbox = Outbox(self.node.turn)
        self.window.attach(self.outbox, self.version, self.limit, 0, 0)
        self.node.core.open(self.window, True)

    def disconnect(self) -> None:
        """The client has gone, its session stays."""
        self.read()
        if self.outbox is not None:
            self.outbox.close()
        self.outbox = None
        self.window.detach()
        self.node.core.open(self.window, False)

    def subscribe(
        self,
        topic_filter: str,
        options: Options = Options(2),  # noqa: B008
        retained: bool = False,
        replied: Callable[[], None] = lambda: None,
    ) -> None:
        """Subscribe; as in MQTT, retained messages are asked for when SUBACK is sent."""
        name = topic_filter.encode()

        def settled(kept: list[Kept]) -> None:
            self.subacks += 1
            replied()
            self.node.core.send_retained(self.window, name, options, kept)

        self.node.core.subscribe(self.window, name, options, retained, settled)

    def unsubscribe(self, topic_filter: str) -> None:
        """Unsubscribe; what came before is read first."""
        self.read()
        self.node.core.unsubscribe(self.window, topic_filter.encode())

    def join(
        self,
        group: str,
        topic_filter: str,
        options: Options = Options(2),  # noqa: B008
        replied: Callable[[], None] = lambda: None,
    ) -> None:
        """Become a member of a shared subscription."""

        def settled() -> None:
            self.subacks += 1
            replied()

        core = self.node.core
        core.join(self.window, group.encode(), topic_filter.encode(), options, settled)

    def leave(self, group: str, topic_filter: str) -> None:
        """Be a member no more."""
        self.read()
        self.node.core.leave(self.window, group.encode(), topic_filter.encode())

    def read(self) -> list[Message]:
        """Read what has been sent, and acknowledge it; returns what is new."""
        new: list[Message] = []
        while self.outbox is not None and self.outbox.size:
            got = list(decode(self.outbox.take()))
            new += got
            if self.acknowledges:
                for message in got:
                    self.acknowledge(message)
            if not self.reads_on:
                break
        self.messages += new
        return new

    def acknowledge(self, message: Message) -> None:
        """Answer one message as its QoS wants it."""
        if message.qos == 1:
            assert self.window.puback(message.packet_id)
        elif message.qos == 2:
            core = self.node.core
            assert self.window.pubrec(message.packet_id, False)
            core.released(self.window, message.packet_id)
            assert self.window.pubcomp(message.packet_id)
            core.completed(self.window, message.packet_id)
        self.acknowledged.append(message)

    @property
    def payloads(self) -> list[str]:
        """The payloads of all that was read so far."""
        self.read()
        return [message.payload.decode() for message in self.messages]


class Fabric:
    """`cores` nodes and the links between them."""

    def __init__(self, cores: int, limits: Limits = Limits()) -> None:  # noqa: B008
        self.placement = Placement(cores)
        self.limits = limits
        self.lives = [1] * cores
        self.stalled: set[tuple[int, int]] = set()
        self.rings: dict[tuple[int, int], deque[_Frame]] = {
            (source, target): deque()
            for source in range(cores)
            for target in range(cores)
            if source != target
        }
        self.nodes = [Node(self, index, limits) for index in range(cores)]
        for node in self.nodes:
            node.core.start()
        self.settle()

    def turn(self, index: int, frames: int = 1 << 30) -> bool:
        """One turn of a core, taking at most `frames` from each peer; True if it did anything."""
        node = self.nodes[index]
        active = node.core.busy or bool(node.turn.builders)
        active |= node.own_frames()
        for peer in range(len(self.nodes)):
            if peer != index:
                active |= self._receive(node, peer, frames)
        node.core.run_turn()
        if node.own_frames():
            active = True
            node.core.run_turn()
        node.core.commit()
        before = {core: len(queue) for core, queue in node.links.waiting.items()}
        node.links.flush()
        active |= any(len(node.links.waiting[core]) < size for core, size in before.items())
        if node.turn.resumes and not node.core.blocked:
            active = True
            resumes = node.turn.resumes[:]
            node.turn.resumes.clear()
            for intake in resumes:
                intake.resume()
        return active or node.core.busy

    def _receive(self, node: Node, peer: int, most: int) -> bool:
        ring = self.rings[peer, node.index]
        active = self._meet(node, peer) if not ring else False
        while ring and most:
            frame = ring.popleft()
            active = True
            if frame.target_life != node.links.life:
                continue
            if frame.source_life > node.links.known[peer]:
                self._meet(node, peer)
            if frame.source_life == node.links.known[peer]:
                most -= 1
                node.core.receive(peer, frame.data)
        return active

    def _meet(self, node: Node, peer: int) -> bool:
        """Let a core hear that a peer was replaced, if it was."""
        if node.links.known[peer] == self.lives[peer]:
            return False
        node.links.known[peer] = self.lives[peer]
        node.links.waiting.pop(peer, None)
        node.core.replaced(peer)
        return True

    def notice(self, index: int, peer: int) -> None:
        """Core `index` hears at once of the new life of `peer`, after what the old one said."""
        node = self.nodes[index]
        ring = self.rings[peer, index]
        while ring and ring[0].source_life <= node.links.known[peer]:
            frame = ring.popleft()
            if frame.target_life == node.links.life:
                node.core.receive(peer, frame.data)
        self._meet(node, peer)

    def replace(self, index: int, lost: int = 0) -> Node:
        """Kill a core and start its replacement; each peer loses the last `lost` frames of it.

        What was written to its disk is there again; clients' sessions are not.
        """
        return self.crash(index, lost, [])

    def crash(self, index: int, lost: int, restores: Sequence[Callable[[], None]]) -> Node:
        """As `replace`; `restores` bring the core's sessions back before it starts."""
        self.lives[index] += 1
        for (source, _), ring in self.rings.items():
            if source == index:
                for _ in range(min(lost, len(ring))):
                    ring.pop()
        died = self.nodes[index]
        table, held = died.table.crash(), died.held.crash()
        node = self.nodes[index] = Node(self, index, self.limits, table, held)
        for restore in restores:
            restore()
        node.core.start()
        return node

    def settle(self) -> None:
        """Take turns until nothing is left to do but what stalled links hold back."""
        for _ in range(ROUNDS):
            if not sum(self.turn(index) for index in range(len(self.nodes))):
                return
        raise AssertionError("the fabric does not come to rest")
