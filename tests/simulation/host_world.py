"""Three Raft hosts in one thread from one seed: their disks, their links, and all that breaks."""

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from zlib import crc32

from robustmq.errors import Refusal, Refused
from robustmq.meta.machine import Applied, Outcome, Store
from robustmq.meta.raft_host import Disk, RaftHost
from robustmq.raft.message import Membership
from robustmq.settings.raft import Raft
from tests.simulation.host_disk import Fuse, FusedDisk, Killed, MemoryDatabases
from tests.unit.storage.disk import HandWriter

SETTINGS = Raft(
    election_timeout_ms=300,
    heartbeat_interval_ms=50,
    batch_bytes=1_024,
    batches_in_flight=2,
    pending_bytes=20_000,
    retry_ms=200,
    segment_bytes=2_048,
    compact_entries=12,
    keep_entries=4,
    snapshot_part_bytes=1_024,
    snapshot_window=2,
    snapshot_timeout_ms=1_000,
    cache_bytes=1_500,
)
GROUPS = ("metadata", "data_0")
TIMEOUT_MS = 3_000
POISON = b"poison"


class Ledger:
    """A machine that counts each command, and chains all of them."""

    def __init__(self, store: Store, seen: Callable[[int, int], None]) -> None:
        self.store = store
        self.seen = seen
        self.chain = 0

    def apply(self, index: int, command: bytes) -> bytes:
        count = int(self.store.get(b"c" + command) or b"0") + 1
        self.store.put(b"c" + command, str(count).encode())
        if command.startswith(POISON):
            self.chain = -1
            raise ValueError("poison")
        self.chain = crc32(command, self.chain)
        self.store.put(b"#", str(self.chain).encode())
        # Rows that come and go.
        self.store.put(b"w" + str(index % 20).encode(), command)
        self.store.delete(b"w" + str((index + 7) % 20).encode())
        self.seen(index, self.chain)
        return command + b"@" + str(index).encode()

    def reload(self) -> None:
        self.chain = int(self.store.get(b"#") or b"0")


class Proposal:
    """A command and what became of it."""

    def __init__(self, group: str, command: bytes, node: int, life: int) -> None:
        self.group = group
        self.command = command
        self.node = node
        self.life = life
        self.outcome: Outcome | None = None

    def is_done(self) -> bool:
        return self.outcome is not None

    def done(self, outcome: Outcome) -> None:
        assert self.outcome is None, "answered twice"
        self.outcome = outcome


class Computer:
    """One node: what outlives its process, and the process."""

    def __init__(self, number: int, world: "World") -> None:
        self.number = number
        self.world = world
        self.fuse = Fuse()
        self.files = FusedDisk(self.fuse)
        self.databases = MemoryDatabases(self.fuse)
        self.writer = HandWriter()
        self.host: RaftHost | None = None
        self.starts = 0
        self.down_until = 0
        self.disk_due = 0
        self.power: bool | None = None
        """Whether a kill is one of the machine; None: that is chance."""

    def start(self) -> None:
        self.starts += 1
        self.writer = HandWriter()
        world = self.world
        life = self.starts
        try:
            self.host = RaftHost(
                me=self.number,
                groups={name: self.machine(name) for name in GROUPS},
                voters=Membership((1, 2, 3)),
                settings=world.settings,
                timeout_ms=TIMEOUT_MS,
                disk=Disk(self.files, self.writer, self.databases, "/data/meta"),
                send=lambda to, data: world.send(self.number, life, to, data),
                chance=world.rng.random,
                report=world.reports.append,
                wall_s=1,
                now_ms=world.now,
            )
        except Killed:
            self.killed()

    def machine(self, group: str) -> Callable[[Store], Ledger]:
        return lambda store: Ledger(store, lambda at, chain: self.world.seen(group, at, chain))

    def is_staging(self) -> bool:
        """Whether a snapshot is being received."""
        host = self.host
        return host is not None and any(host.group(name).store.staged for name in GROUPS)

    def is_up(self) -> bool:
        return self.host is not None

    def die(self, power: bool) -> None:
        self.host = None
        self.fuse.left = None
        self.down_until = self.world.now + self.world.rng.randint(10, 800)
        if power:
            self.files.lose_power(self.world.rng)
            self.databases.lose_power(self.world.rng)
        else:
            self.files.kill()

    def killed(self) -> None:
        self.world.kills += 1
        self.die(power=self.world.rng.random() < 0.5 if self.power is None else self.power)

    def do(self, what: Callable[[RaftHost], object]) -> None:
        """Let the process do something; it may be killed in it."""
        if self.host is None:
            return
        try:
            what(self.host)
        except Killed:
            self.killed()

    def step(self) -> None:
        world = self.world
        if self.host is None:
            if world.now >= self.down_until:
                self.start()
            return
        if self.writer.asked and world.now >= self.disk_due:
            self.do(lambda _: self.writer.run())
            self.disk_due = world.now + world.rng.choice((0, 1, 1, 2, 30))
        self.do(self._turn)

    def _turn(self, host: RaftHost) -> None:
        if self.writer.rings or host.next_ms <= self.world.now:
            host.turn(self.world.now)


class World:
    """All of it. `run` goes on in steps of a millisecond."""

    def __init__(self, seed: int, settings: Raft = SETTINGS) -> None:
        self.rng = random.Random(seed)
        self.settings = settings
        self.now = 1_000
        self.reports: list[str] = []
        self.chains: dict[tuple[str, int], int] = {}
        self.proposals: list[Proposal] = []
        self.kills = 0
        self.cut: set[tuple[int, int]] = set()
        self.drops = 0.0
        self.links: dict[tuple[int, int], deque[tuple[int, int, bytes]]] = {}
        self.computers = {number: Computer(number, self) for number in (1, 2, 3)}
        for computer in self.computers.values():
            computer.start()

    def seen(self, group: str, position: int, chain: int) -> None:
        known = self.chains.setdefault((group, position), chain)
        assert known == chain, f"{group} differs at {position}"

    def send(self, sender: int, life: int, to: int, data: bytes) -> None:
        if (sender, to) in self.cut or self.rng.random() < self.drops:
            return
        link = self.links.setdefault((sender, to), deque())
        link.append((self.now + self.rng.choice((0, 1, 1, 2, 10)), life, data))

    def propose(self, number: int, group: str, command: bytes) -> Proposal | None:
        computer = self.computers[number]
        if computer.host is None:
            return None
        proposal = Proposal(group, command, number, computer.starts)
        self.proposals.append(proposal)
        computer.do(lambda host: host.propose(group, command, proposal.done))
        return proposal

    def run(self, milliseconds: int) -> None:
        for _ in range(milliseconds):
            self.now += 1
            for (sender, to), link in self.links.items():
                while link and link[0][0] <= self.now:
                    _, _, data = link.popleft()
                    if (sender, to) not in self.cut:
                        self.computers[to].do(partial(RaftHost.receive, peer=sender, data=data))
            for computer in self.computers.values():
                computer.step()

    def until(self, condition: Callable[[], bool], milliseconds: int = 30_000) -> None:
        end = self.now + milliseconds
        while not condition():
            assert self.now < end, "it never came to be"
            self.run(1)

    def lead(self, group: str = GROUPS[0]) -> int | None:
        """The node that leads, if all agree on it."""
        found = {
            None if each.host is None else each.host.leader(group)
            for each in self.computers.values()
        }
        return found.pop() if len(found) == 1 else None

    def is_led(self) -> bool:
        return self.lead() is not None

    def heal(self) -> None:
        self.cut.clear()
        self.drops = 0.0
        for computer in self.computers.values():
            computer.fuse.left = None
            computer.down_until = self.now

    def settle(self) -> None:
        """Heal everything, wait until all nodes are equal, and look what was promised."""
        self.heal()
        last = []
        for number in self.computers:
            self.until(self.computers[number].is_up)
            for group in GROUPS:
                proposal = self.propose(number, group, b"last%d" % number)
                assert proposal is not None
                last.append(proposal)
        self.until(lambda: all(isinstance(each.outcome, Applied) for each in last))
        self.until(self.is_even)
        self.check()

    def is_even(self) -> bool:
        hosts = [each.host for each in self.computers.values()]
        for group in GROUPS:
            found = {None if h is None else h.group(group).position for h in hosts}
            if len(found) != 1 or None in found:
                return False
        return True

    def rows(self, number: int, group: str) -> dict[bytes, bytes]:
        host = self.computers[number].host
        assert host is not None
        return dict(host.group(group).store.walk(b""))

    def check(self) -> None:
        for group in GROUPS:
            rows = self.rows(1, group)
            assert rows == self.rows(2, group) == self.rows(3, group)
            counts = {key[1:]: int(value) for key, value in rows.items() if key[:1] == b"c"}
            assert set(counts.values()) <= {1}, "folded twice"
            for each in self.proposals:
                if each.group != group:
                    continue
                if isinstance(each.outcome, Applied):
                    assert each.command in counts, "acknowledged and lost"
                    command, _, position = each.outcome.result.partition(b"@")
                    assert (command, int(position)) == (each.command, each.outcome.position)
                elif isinstance(each.outcome, Refused) and each.outcome.code is Refusal.INTERNAL:
                    assert each.command.startswith(POISON)
                    assert each.command not in counts
