"""Nodes of several cores in one thread: the real parts on a fake disk, rings, links and sockets.

A core's turn has the order of `workers.worker`. It may die at any of the places where that makes
a difference; the next life finds what the disk has.
"""

from array import array
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, Literal, NamedTuple

from robustmq._kernel.turn import Turn
from robustmq.broker.assembly import assemble
from robustmq.broker.placement import Life, Placement
from robustmq.broker.shares import KEY_SHIFT
from robustmq.config import Config
from robustmq.errors import Refusal, Refused
from robustmq.message.core_number import FIRST_REMOTE, global_core, node_of
from robustmq.message.topic import stable_hash
from robustmq.metrics import CELLS
from robustmq.mqtt.connection import Connection
from robustmq.mqtt.headers import describe
from robustmq.mqtt.protocol import Mqtt
from robustmq.policy.principal import Peer
from robustmq.storage.memory_table import MemoryTable
from tests.logins import ScriptedLogins
from tests.simulation.groups import Groups, Replica
from tests.simulation.network import FLOOR, Lines, Network
from tests.simulation.rings import Links, Rings
from tests.simulation.wire import ServerStream, Wire

START_MS: Final = 1_700_000_000_000
FULL: Final = Refused(Refusal.QUOTA_EXCEEDED, "the disk is full")

Place = Literal["read", "received", "commit", "committed", "pushed", "sent"]
PLACES: Final[Sequence[Place]] = ("read", "received", "commit", "committed", "pushed", "sent")
"""Where in its turn a core may die."""


class Died(Exception):
    """The process of a core was killed here."""


class Budget(NamedTuple):
    """What a turn may take: bytes of each connection, frames of each ring."""

    bytes: int = 1 << 30
    frames: int = 1 << 30


ALL: Final = Budget()


class _Disk:
    """The committer of a core: it may die when it has written."""

    def __init__(self, table: MemoryTable) -> None:
        self._table = table
        self.commits_left = -1

    def commit(self) -> bool:
        moved = self._table.commit()
        self.commits_left -= 1
        if not self.commits_left:
            raise Died
        return moved

    def completed(self) -> object:
        return self._table.completed()


class Fabric:
    """How one life of one core reaches the others: by rings on its node, by lines beyond it."""

    def __init__(self, links: Links, lines: Lines, clock: Callable[[], int]) -> None:
        self._links = links
        self._lines = lines
        self._clock = clock

    def send(self, core: int, frame: bytes) -> None:
        """Queue a frame."""
        if core < FIRST_REMOTE:
            self._links.send(core, frame)
        else:
            self._lines.send(core, frame, self._clock())

    def backlog(self, core: int) -> int:
        """Bytes that wait."""
        return self._links.backlog(core) if core < FIRST_REMOTE else self._lines.backlog(core)

    def epoch(self, core: int) -> int:
        """The life that a core is in, as far as this one has met it."""
        if core < FIRST_REMOTE:
            return self._links.epoch(core)
        incarnation, life = self._lines.known.get(core, FLOOR)
        return incarnation << 20 | life


class Core:
    """One life of one core; `place` is its number among the cores of all nodes."""

    def __init__(self, machine: "Machine", place: int, table: MemoryTable) -> None:
        self.place = place
        self.node, index = divmod(place, machine.workers)
        self.index = index
        self.table = table
        self._machine = machine
        self._turn = Turn(array("Q", bytes(8 * CELLS)))
        self._turn.now_ms = machine.now_ms
        self._links = Links(machine.rings[self.node], index)
        self._lines = Lines(machine.network, self.node, index, self._links.life)
        self.heard = -1
        """The image of the cluster that it has."""
        self._placement = machine.placement(self.node)
        self._disk = _Disk(table)
        self._wires: list[Wire] = []
        self.complaints: list[str] = []
        self.broker = assemble(
            self._turn,
            machine.config,
            core=index,
            epoch=self._links.life,
            placement=self._placement,
            fabric=Fabric(self._links, self._lines, lambda: machine.now_ms),
            table=table,
            committer=self._disk,
            describe=describe,
            chance=Random(0).randrange,
        ).core
        self._replica: Replica | None = None
        if machine.groups is not None:
            self._replica = Replica(
                machine.groups,
                index,
                machine.workers,
                lambda: self.node not in machine.isolated,
            )
            self.broker.replicate(self._replica)
        self._links.handle = self.broker.receive
        self._links.replaced = self.broker.replaced
        self._lines.handle = self.broker.receive
        self._lines.replaced = self.broker.replaced
        self.mqtt = Mqtt(
            self.broker,
            machine.config.mqtt_runtime,
            core=index,
            home_of=self._placement.home_of,
            first_key=index << KEY_SHIFT | (self._links.life & 0xFFFF) << 32,
            seed="seed",
            logins=ScriptedLogins(),
            complain=self._complain,
        )
        machine.watch(self)
        self.mqtt.sessions.restore(lambda _: None)
        if machine.network.comes_first():
            self.heard = len(machine.network.images) - 1
            image = machine.network.images[-1]
            self._lines.hear(image)
            self.broker.start(image)
        else:
            self.broker.start()
        self.mqtt.sessions.resume()
        self.broker.orphans.settled(machine.adopts or self._is_whole)

    @property
    def now_ms(self) -> int:
        """The time of this core's turn."""
        return int(self._turn.now_ms)

    def hear(self, number: int) -> None:
        """Learn of an image of the cluster."""
        images = self._machine.network.images
        image, passed = images[number], images[self.heard : number] if self.heard >= 0 else []
        self.heard = number
        again = self._lines.hear(image)
        fenced = {node for node in image if not all(node in each for each in passed)}
        if self.node in fenced:
            fenced = set()
        self.broker.orphans.settled(False)
        if fenced:
            # Who was gone and is back is gone in one update, and there again in the next.
            self.broker.update({node: image[node] for node in image.keys() - fenced})
        self.broker.update(image)
        for core in again:
            if node_of(core) not in fenced:
                self.broker.replaced(core)
        self.broker.orphans.settled(self._machine.adopts or self._is_whole)

    @property
    def _is_whole(self) -> bool:
        """Whether all nodes are live, as far as it has heard."""
        images = self._machine.network.images
        return self.heard >= 0 and len(images[self.heard]) == self._machine.nodes

    def isolate(self) -> None:
        """The node has lost its lease: this core knows before anybody else decides anything."""
        self.broker.update({})

    def accept(self, wire: Wire) -> None:
        """Take a connection."""
        connection = self.mqtt.connection(Peer(wire.client_id))
        connection.stream = ServerStream(wire)
        wire.accept(connection.intake, connection.outbox, connection.lost)
        self._wires.append(wire)

    def turn(self, rng: Random, budget: Budget = ALL, place: Place | None = None) -> bool:
        """Take a turn, or die in it at `place`; says whether it did anything."""
        self._turn.now_ms = self._machine.now_ms
        broker, links = self.broker, self._links
        active = broker.busy or (bool(self._turn.builders) and not broker.blocked)
        active |= self._read(rng, budget)
        next_ms = broker.timers.next_ms
        if next_ms is not None and next_ms <= self.now_ms:
            active = True
            broker.timers.run(self.now_ms)
        self._may_die("read", place)
        for peer in range(self._machine.workers):
            if peer != self.index:
                active |= links.receive(peer, budget.frames)
        for peer in list(self._lines.known):
            active |= self._lines.receive(peer, budget.frames, self.now_ms)
        if self._replica is not None:
            active |= self._replica.turn(broker, rng, min(budget.frames, 1_000))
        broker.run_turn()
        if links.receive_own():
            active = True
            broker.run_turn()
        self._may_die("received", place)
        self._disk.commits_left = rng.randint(1, 3) if place == "commit" else -1
        broker.commit()
        if place == "pushed":
            links.tear(rng)
        self._may_die("committed", place)
        self._may_die("commit", place)
        self._may_die("pushed", place)
        active |= links.flush()
        active |= self._send(rng, place)
        if self._turn.resumes and not broker.blocked:
            active = True
            resumes = self._turn.resumes[:]
            self._turn.resumes.clear()
            for intake in resumes:
                if intake.outbox.stream is not None:
                    intake.outbox.stream.resume()
        return active or broker.busy

    def die(self) -> None:
        """The process is gone, with all its connections."""
        for wire in self._wires:
            wire.die()

    @property
    def rests(self) -> bool:
        """Whether no frame waits here for room, and all is known that groups have decided."""
        return self._links.idle and (self._replica is None or self._replica.rests)

    def _read(self, rng: Random, budget: Budget) -> bool:
        self._wires = [wire for wire in self._wires if not wire.server_gone]
        if budget is not ALL:
            rng.shuffle(self._wires)
        active = False
        for wire in self._wires:
            most = budget.bytes if budget is ALL else rng.choice((0, budget.bytes, 1 << 30))
            if most and not self._comes_later(wire):
                active |= wire.turn(most)
        return active

    def _comes_later(self, wire: Wire) -> bool:
        """Whether an earlier connection of its client has still to say something."""
        return any(
            other.client_id == wire.client_id and other.number < wire.number and other.to_server
            for other in self._wires
        )

    def _send(self, rng: Random, place: Place | None) -> bool:
        found = False
        outboxes = self._turn.outboxes
        while outboxes:
            found = True
            self._turn.outboxes = []
            for outbox in outboxes:
                if place == "sent" and rng.random() < 0.5:
                    raise Died
                outbox.settle()
                if outbox.stream is not None:
                    outbox.stream.flush()
            outboxes = self._turn.outboxes
        self._may_die("sent", place)
        return found

    @staticmethod
    def _may_die(here: Place, place: Place | None) -> None:
        if here == place:
            raise Died

    def _complain(self, connection: Connection, reason: int, detail: str) -> None:
        self.complaints.append(f"{connection.peer.address}: 0x{reason:02x} {detail}")


class Machine:
    """The cores of all nodes, their clock, and what can be done to them.

    A core is known by its place: those of the first node come first. `watch(core)` is called with
    every new life of a core before it restores its sessions.
    """

    def __init__(  # noqa: PLR0917
        self,
        config: Config,
        workers: int,
        ring_room: int,
        watch: Callable[[Core], None],
        nodes: int = 1,
        network: Network | None = None,
    ) -> None:
        self.config = config
        self.watch = watch
        self.now_ms = START_MS
        self.adopts = True
        """Whether others have the sessions of a node that is gone at once, else not before it is
        back: cores say that they have all that is their own."""
        self.workers = workers
        self.nodes = nodes
        self.network = network or Network(Random(0), (0,))
        self.rings = [Rings(workers, ring_room) for _ in range(nodes)]
        self.flush = config.storage.flush
        self.down: dict[int, MemoryTable] = {}
        """The disks of the cores that are not running now."""
        self.cores: dict[int, Core] = {}
        self.isolated: set[int] = set()
        """Nodes that have lost their lease and take no clients."""
        self.groups = Groups(2) if nodes > 1 else None
        self._incarnations = [0] * nodes
        self._arriving: list[Wire] = []
        self._connections = 0
        for place in range(nodes * workers):
            self.down[place] = MemoryTable(flush=self.flush)
        for node in range(nodes):
            self.start_node(node)

    def placement(self, node: int) -> Placement:
        """What a process of a node begins with."""
        return Placement(self.workers, node if self.nodes > 1 else None)

    def places(self, node: int) -> range:
        """The cores of a node."""
        return range(node * self.workers, (node + 1) * self.workers)

    def home_of(self, client_id: str) -> int:
        """The core of a client's session; a client keeps to its node."""
        name = client_id.encode()
        node = stable_hash(b"node of " + name) % self.nodes
        return node * self.workers + stable_hash(name) % self.workers

    def connect(self, client_id: str) -> Wire:
        """A client connects; its core takes the connection when it runs."""
        self._connections += 1
        wire = Wire(client_id, self._connections)
        if self.home_of(client_id) // self.workers in self.isolated:
            wire.die()
        else:
            self._arriving.append(wire)
        return wire

    def turn(
        self, index: int, rng: Random, budget: Budget = ALL, place: Place | None = None
    ) -> bool:
        """A turn of a core, if it is up; the one that dies in it is down then."""
        core = self.cores.get(index)
        if core is None:
            return False
        active = False
        for wire in [each for each in self._arriving if self.home_of(each.client_id) == index]:
            self._arriving.remove(wire)
            core.accept(wire)
            active = True
        return core.turn(rng, budget, place) or active

    def kill(self, index: int, power: bool = False) -> None:
        """A core is gone; with `power`, so is what its disk had not synced."""
        core = self.cores.pop(index)
        core.die()
        self.network.lose(global_core(core.node, core.index))
        self.down[index] = core.table.crash(power)

    def start(self, index: int) -> None:
        """Start the next life of a core that is down, while its node goes on."""
        node, worker = divmod(index, self.workers)
        self.rings[node].lives[worker] += 1
        self._start(index)

    def start_node(self, node: int) -> None:
        """All cores of a node are down and start together, in new shared memory."""
        self.rings[node].restart()
        self.join(node)
        for place in self.places(node):
            self._start(place)

    def join(self, node: int) -> None:
        """The cluster takes a node as live, in another incarnation."""
        self.isolated.discard(node)
        if self.nodes > 1:
            self._incarnations[node] += 1
            self.network.change(node, Life(self._incarnations[node], self.workers))

    def _start(self, index: int) -> None:
        table = self.down.pop(index)
        table.hold = self.flush == "always"
        self.cores[index] = Core(self, index, table)

    def stop_clients(self, node: int) -> None:
        """A node has lost its lease: it ends its clients, and takes none."""
        self.isolated.add(node)
        for place in self.places(node):
            if place in self.cores:
                self.cores[place].isolate()

    @property
    def rests(self) -> bool:
        """Whether no frame and no connection is under way, and all know the same."""
        running = {core.node for core in self.cores.values()}
        return (
            not any(self.home_of(wire.client_id) in self.cores for wire in self._arriving)
            and not any(any(self.rings[node].frames.values()) for node in running)
            and all(core.rests for core in self.cores.values())
            and self.network.rests
            and self.agree
        )

    @property
    def agree(self) -> bool:
        """Whether all cores have heard of the same image."""
        last = len(self.network.images) - 1
        return not last or all(core.heard == last for core in self.cores.values())
