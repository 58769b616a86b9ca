"""A node of a simulated cluster: MQTT on one core, on links that delay and stall."""

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

import msgspec

from robustmq.broker.api import Kept, Options, Principal, Record, Window
from robustmq.errors import Refused
from robustmq.message.core_number import global_core, node_of
from robustmq.message.session_record import SessionChange, SessionRecord, Verdict
from robustmq.mqtt.connection import Connection
from robustmq.mqtt.protocol import Mqtt
from robustmq.mqtt.roaming import Roaming
from robustmq.mqtt.seeker import FIRST_KIND
from robustmq.policy.principal import Peer
from robustmq.settings.mqtt import MqttProtocol, MqttRuntime
from robustmq.storage.memory_table import MemoryTable
from robustmq.workers.relays import Relays
from tests.logins import ScriptedLogins
from tests.simulation.cluster_memory import Life, Memory
from tests.simulation.wire import ServerStream, Wire
from tests.unit.mqtt.scripted import ScriptedBroker

TIMEOUT_MS = 3_000
"""How long a client waits at most."""

HELLO = b""


class Seen(NamedTuple):
    """A node as the cluster knows it."""

    incarnation: int
    is_live: bool


class _Frame(NamedTuple):
    source_life: int
    target_life: int
    data: bytes


class Broker(ScriptedBroker):
    """Settles subscriptions at once, and gives wills to whoever counts them."""

    def __init__(self, table: MemoryTable, will: Callable[[bytes], None]) -> None:
        super().__init__(table)
        self._will = will
        self._said: list[bytes] = []

    def committed(self) -> None:
        """What was published with the rows of this turn is heard."""
        said, self._said = self._said, []
        for payload in said:
            self._will(payload)

    def publish(
        self,
        principal: Principal,
        record: Record,
        reply: Callable[[int, bool], None] | None,
        once: bool = False,
    ) -> Refused | None:
        del principal, reply, once
        self._said.append(record.value)
        return None

    def subscribe(
        self,
        window: Window,
        topic_filter: bytes,
        options: Options,
        retained: bool,
        reply: Callable[[list[Kept]], None],
    ) -> None:
        del window, topic_filter, options, retained
        reply([])


class Links:
    """Frames between the nodes, in order per pair; what a life has not heard it never hears."""

    def __init__(self) -> None:
        self.queues: dict[tuple[int, int], deque[_Frame]] = {}
        self.cut: set[int] = set()

    def queue(self, source: int, target: int) -> deque[_Frame]:
        return self.queues.setdefault((source, target), deque())


class Site:
    """One life of a node's process; the next one has its disk."""

    def __init__(
        self,
        number: int,
        life: int,
        *,
        links: Links,
        memory: Memory,
        table: MemoryTable,
        now_ms: int,
        will: Callable[[bytes], None],
        nodes: Sequence[int],
    ) -> None:
        self.number = number
        self.life = life
        self.table = table
        self.is_dead = False
        self.is_cut = False
        self.incarnation = 1
        self.version = 0
        self.view: dict[int, Seen] = {}
        self._lives: dict[int, int] = {}
        self._unsent: dict[int, list[bytes]] = {}
        self._links = links
        self._memory = memory
        self._nodes = nodes
        self.broker = Broker(table, will)
        self.broker.turn.now_ms = now_ms
        self.wires: list[Wire] = []
        protocol = MqttProtocol(connect_timeout_ms=TIMEOUT_MS, max_session_expiry_interval=10_000)
        config = MqttRuntime(protocol=protocol)
        self.mqtt = Mqtt(
            self.broker,
            config,
            core=0,
            home_of=lambda _: 0,
            first_key=(life & 0xFFF) << 32,
            seed=f"{number}",
            logins=ScriptedLogins(),
            complain=lambda *_: None,
        )
        self.relays = Relays(self, 4_096, self.mqtt.connection, _raise)
        self.mqtt.roaming = self.roaming = Roaming(
            self.broker,
            self.mqtt.sessions,
            config,
            cluster=_Cluster(self),
            registry=_Registry(self, memory),
            bring=self.relays.bring,
        )
        self.mqtt.sessions.restore(lambda _: None)
        self._is_new = True
        self._greet()

    def _greet(self) -> None:
        for peer in self._nodes:
            if peer != self.number:
                self._push(peer, HELLO)

    def rejoin(self, life: int, incarnation: int) -> None:
        """The cluster had given the node up, and has taken it back."""
        self.life = life
        self.incarnation = incarnation
        for peer in self._nodes:
            if peer != self.number:
                self._replaced(peer)
        self._greet()

    # ------------------------------------------------------------------ links

    def send(self, core: int, frame: bytes) -> None:
        """Queue a frame for another node."""
        self._push(node_of(core), frame)

    def _push(self, peer: int, data: bytes) -> None:
        if data != HELLO and peer not in self._lives:
            # It is sent when the other end is known.
            self._unsent.setdefault(peer, []).append(data)
            return
        queue = self._links.queue(self.number, peer)
        queue.append(_Frame(self.life, self._lives.get(peer, 0), data))

    def _receive(self, rng: Random, everything: bool) -> bool:
        active = False
        for peer in self._nodes:
            if peer == self.number or peer in self._links.cut:
                continue
            queue = self._links.queue(peer, self.number)
            for _ in range(len(queue) if everything else rng.choice((0, 1, 3, 10))):
                if not queue or self._is_early(peer, queue[0]):
                    break
                active = True
                self._take(peer, queue.popleft())
        return active

    def _is_early(self, peer: int, frame: _Frame) -> bool:
        """Whether a node speaks that is not known to be back."""
        return not self._is_live(peer) and frame.source_life > self._lives.get(peer, 0)

    def _is_live(self, peer: int) -> bool:
        return peer in self.view and self.view[peer].is_live

    def _take(self, peer: int, frame: _Frame) -> None:
        known = self._lives.get(peer, 0)
        if frame.source_life < known:
            return
        if frame.source_life > known:
            self._lives[peer] = frame.source_life
            self._push(peer, HELLO)
            self._replaced(peer)
            for data in self._unsent.pop(peer, []):
                self._push(peer, data)
        if frame.data == HELLO or frame.target_life != self.life or not self._is_live(peer):
            return
        core = global_core(peer, 0)
        if frame.data[0] >= FIRST_KIND:
            self.roaming.receive(core, frame.data)
        else:
            self.relays.receive(core, frame.data)

    def _replaced(self, peer: int) -> None:
        core = global_core(peer, 0)
        self.relays.replaced(core)
        self.roaming.replaced(core)

    # ------------------------------------------------------------------ the cluster

    def learn(self, version: int, view: dict[int, Seen]) -> None:
        """Know the cluster as of a version."""
        before, self.view, self.version = self.view, view, version
        for node, seen in view.items():
            was_live = node in before and before[node].is_live
            if node == self.number or (node in before and was_live == seen.is_live):
                continue
            if seen.is_live:
                self.roaming.returned(node)
            else:
                self._replaced(node)
                self.roaming.fenced(node)
        self.roaming.look()

    def adopt(self, node: int, rows: list[SessionRecord]) -> None:
        """Take over a share of what a node had."""
        copies = [
            msgspec.msgpack.decode(msgspec.msgpack.encode(row), type=SessionRecord) for row in rows
        ]
        self.roaming.adopt(node, copies)

    def own(self) -> None:
        """Learn what is this node's own."""
        self.roaming.restored(self._memory.owned(self.number))
        if self._is_new:
            self._is_new = False
            self.mqtt.sessions.resume()

    @property
    def serves(self) -> bool:
        """Whether clients may be here."""
        return not self.is_dead and self.roaming.refusal is None

    # ------------------------------------------------------------------ the turn

    def accept(self, wire: Wire) -> None:
        """Take a connection."""
        connection: Connection = self.mqtt.connection(Peer("peer"))
        connection.stream = ServerStream(wire)
        wire.accept(connection.intake, connection.outbox, connection.lost)
        self.wires.append(wire)

    def turn(self, now_ms: int, rng: Random, everything: bool = False) -> bool:
        """Take a turn; says whether anything happened."""
        broker, turn = self.broker, self.broker.turn
        turn.now_ms = now_ms
        active = False
        self.wires = [wire for wire in self.wires if not wire.server_gone]
        for wire in self.wires:
            active |= wire.turn(1 << 30 if everything else rng.choice((0, 20, 1 << 30)))
        next_ms = broker.timers.next_ms
        if next_ms is not None and next_ms <= now_ms:
            active = True
            broker.timers.run(now_ms)
        if not self.is_cut:
            active |= self._receive(rng, everything)
        self.roaming.run()
        for _ in range(4):
            broker.table.commit()
            broker.table.completed()
            broker.committed()
            broker.state.settle()
        self.roaming.flush()
        self.relays.flush()
        active |= self._flush()
        resumes = turn.resumes[:]
        turn.resumes.clear()
        for intake in resumes:
            active = True
            if intake.outbox.stream is not None:
                intake.outbox.stream.resume()
        return active or self.roaming.busy

    def _flush(self) -> bool:
        turn = self.broker.turn
        found = False
        outboxes = turn.outboxes
        while outboxes:
            found = True
            turn.outboxes = []
            for outbox in outboxes:
                outbox.settle()
                if outbox.stream is not None:
                    outbox.stream.flush()
            outboxes = turn.outboxes
        return found

    def die(self) -> None:
        """The process is gone."""
        self.is_dead = True
        for wire in self.wires:
            wire.die()


class _Cluster:
    """What the site knows of the others."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.send = site.send

    @property
    def node(self) -> int:
        return self._site.number

    @property
    def version(self) -> int:
        return self._site.version

    def homes(self, client_id: bytes) -> list[int]:
        del client_id
        return [
            global_core(node, 0)
            for node, seen in self._site.view.items()
            if seen.is_live and node != self._site.number
        ]


class _Registry:
    """The cluster's memory as this life of a node reaches it."""

    def __init__(self, site: Site, memory: Memory) -> None:
        self._site = site
        self._memory = memory
        self._life = Life(site.number, lambda: site.incarnation, lambda: not site.is_cut)

    def propose(self, change: SessionChange, done: Callable[[Verdict], None]) -> None:
        site = self._site
        self._memory.propose(self._life, change, lambda v: None if site.is_dead else done(v))


def _raise(error: Exception) -> None:
    raise error
