"""A node of several cores in one thread: the real parts on a fake disk, rings and sockets.

A core's turn has the order of `workers.worker`. It may die at any of the places where that makes
a difference; the next life finds what the disk has.
"""

from array import array
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, Literal, NamedTuple

from robustmq._kernel.turn import Turn
from robustmq.broker.assembly import assemble
from robustmq.broker.placement import Placement
from robustmq.broker.shares import KEY_SHIFT
from robustmq.config import Config
from robustmq.errors import Refusal, Refused
from robustmq.metrics import CELLS
from robustmq.mqtt.connection import Connection
from robustmq.mqtt.headers import describe
from robustmq.mqtt.protocol import Mqtt
from robustmq.policy.principal import Peer
from robustmq.storage.memory_table import MemoryTable
from tests.logins import ScriptedLogins
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


class Core:
    """One life of one core."""

    def __init__(self, machine: "Machine", index: int, table: MemoryTable) -> None:
        self.index = index
        self.table = table
        self._machine = machine
        self._turn = Turn(array("Q", bytes(8 * CELLS)))
        self._turn.now_ms = machine.now_ms
        self._links = Links(machine.rings, index)
        self._disk = _Disk(table)
        self._wires: list[Wire] = []
        self.complaints: list[str] = []
        self.broker = assemble(
            self._turn,
            machine.config,
            core=index,
            epoch=self._links.life,
            placement=machine.placement,
            fabric=self._links,
            table=table,
            committer=self._disk,
            describe=describe,
            chance=Random(0).randrange,
        ).core
        self._links.handle = self.broker.receive
        self._links.replaced = self.broker.replaced
        self.mqtt = Mqtt(
            self.broker,
            machine.config.mqtt_runtime,
            core=index,
            home_of=machine.placement.home_of,
            first_key=index << KEY_SHIFT | (self._links.life & 0xFFFF) << 32,
            seed="seed",
            logins=ScriptedLogins(),
            complain=self._complain,
        )
        machine.watch(self)
        self.mqtt.sessions.restore(lambda _: None)
        self.broker.start()
        self.mqtt.sessions.resume()

    @property
    def now_ms(self) -> int:
        """The time of this core's turn."""
        return int(self._turn.now_ms)

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
        active = broker.busy or bool(self._turn.builders)
        active |= self._read(rng, budget)
        next_ms = broker.timers.next_ms
        if next_ms is not None and next_ms <= self.now_ms:
            active = True
            broker.timers.run(self.now_ms)
        self._may_die("read", place)
        for peer in range(self._machine.rings.cores):
            if peer != self.index:
                active |= links.receive(peer, budget.frames)
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
        """Whether no frame waits here for room."""
        return self._links.idle

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
    """The cores of a node, its clock, and what can be done to them.

    `watch(core)` is called with every new life of a core before it restores its sessions.
    """

    def __init__(
        self, config: Config, cores: int, ring_room: int, watch: Callable[[Core], None]
    ) -> None:
        self.config = config
        self.watch = watch
        self.now_ms = START_MS
        self.placement = Placement(cores)
        self.rings = Rings(cores, ring_room)
        self.flush = config.storage.flush
        self.down: dict[int, MemoryTable] = {}
        """The disks of the cores that are not running now."""
        self.cores: dict[int, Core] = {}
        self._arriving: list[Wire] = []
        self._connections = 0
        for index in range(cores):
            self.down[index] = MemoryTable(flush=self.flush)
        self.start_all()

    def home_of(self, client_id: str) -> int:
        """The core of a client's session."""
        return self.placement.home_of(client_id.encode())

    def connect(self, client_id: str) -> Wire:
        """A client connects; its core takes the connection when it runs."""
        self._connections += 1
        wire = Wire(client_id, self._connections)
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
        self.down[index] = core.table.crash(power)

    def start(self, index: int) -> None:
        """Start the next life of a core that is down."""
        self.rings.lives[index] += 1
        self._start(index)

    def start_all(self) -> None:
        """All cores are down and start together, in new shared memory."""
        self.rings.restart()
        for index in range(self.rings.cores):
            self._start(index)

    def _start(self, index: int) -> None:
        table = self.down.pop(index)
        table.hold = self.flush == "always"
        self.cores[index] = Core(self, index, table)

    @property
    def rests(self) -> bool:
        """Whether no frame and no connection is under way."""
        return (
            not self._arriving
            and not any(self.rings.frames.values())
            and all(core.rests for core in self.cores.values())
        )
