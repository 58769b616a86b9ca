"""A Raft group under a test's control: its time, its links, and what its disks have done."""

from collections.abc import Sequence

from robustmq.raft.message import Entry, EntryKind, Membership, Message, MessageKind, Snapshot
from robustmq.raft.node import Node
from robustmq.raft.ready import Read
from robustmq.settings.raft import Raft
from tests.simulation.raft_disk import Disk

GROUP = 3
TIMEOUT = 1_000
HEARTBEAT = 100


class Group:
    """Replicas 0, 1, ...; of those without a leader the lowest asks for votes first."""

    def __init__(
        self, voters: int = 3, spare: int = 0, settings: Raft | None = None, start: int = 0
    ) -> None:
        self.now = start
        self.settings = settings or Raft(
            election_timeout_ms=TIMEOUT, heartbeat_interval_ms=HEARTBEAT
        )
        self.disks = {
            each: Disk(Snapshot(0, 0, Membership(tuple(range(voters))))) for each in range(voters)
        }
        for each in range(voters, voters + spare):
            self.disks[each] = Disk(Snapshot())
        self.nodes: dict[int, Node] = {}
        self.applied: dict[int, list[Entry]] = {}
        self.reads: dict[int, list[Read]] = {}
        self.cut: set[tuple[int, int]] = set()
        self.slow: set[int] = set()
        """Replicas whose disks write and do not sync."""
        self.wire: list[Message] = []
        self.log: list[Message] = []
        """All messages that were delivered."""
        self.snapshots: list[tuple[int, int]] = []
        """(leader, follower) of each snapshot that was asked for."""
        for each in self.disks:
            self.start(each)

    def start(self, number: int) -> Node:
        self.applied[number] = []
        self.reads[number] = []
        self.nodes[number] = Node(
            number,
            GROUP,
            self.settings,
            self.disks[number].stored(),
            chance=lambda: number / 10,
            now_ms=self.now,
        )
        return self.nodes[number]

    def crash(self, number: int) -> None:
        """Power is lost: all that was not synced is."""
        disk = self.disks[number]
        disk.pending.clear()
        disk.applied = disk.applied_durable
        del self.nodes[number]

    def isolate(self, number: int) -> None:
        for other in self.disks:
            self.cut |= {(number, other), (other, number)}

    def pump(self, number: int) -> None:
        """Do what one replica asks for."""
        node, disk = self.nodes[number], self.disks[number]
        while (ready := node.ready()) is not None:
            if ready.number:
                disk.write(ready)
            self.wire += ready.messages
            self.snapshots += [(number, to) for to in ready.snapshots_to]
            self.applied[number] += ready.committed
            if ready.committed:
                disk.applied = ready.committed[-1].index
            self.reads[number] += ready.reads
            if ready.number and number not in self.slow:
                disk.sync(ready.number)
                node.persisted(ready.number)

    def sync(self, number: int) -> None:
        """A slow disk has synced all."""
        last = self.disks[number].pending[-1].number
        self.disks[number].sync(last)
        self.nodes[number].persisted(last)

    def settle(self) -> None:
        """Deliver messages until there are none."""
        for _ in range(100_000):
            for number in list(self.nodes):
                self.pump(number)
            if not self.wire:
                return
            message = self.wire.pop(0)
            if (message.sender, message.to) not in self.cut and message.to in self.nodes:
                self.log.append(message)
                self.nodes[message.to].step(message, self.now)
        raise AssertionError("the group does not come to rest")

    def advance(self, milliseconds: int) -> None:
        """Let time pass, in small steps."""
        for _ in range(0, milliseconds, 20):
            self.now += 20
            for number in list(self.nodes):
                self.nodes[number].tick(self.now)
            self.settle()

    def elected(self) -> "Group":
        """The group with replica 0 as its leader."""
        self.advance(TIMEOUT + 100)
        assert self.leader == 0
        return self

    @property
    def leader(self) -> int:
        """The one that leads in the latest term."""
        leading = [(node.term, number) for number, node in self.nodes.items() if node.leads]
        return max(leading)[1] if leading else -1

    def propose(self, *data: bytes, at: int = 0) -> int:
        index = self.nodes[at].propose(data, self.now)
        assert isinstance(index, int), index
        return index

    def commands(self, number: int) -> list[bytes]:
        """What a replica has applied in this life."""
        return [each.data for each in self.applied[number] if each.kind is EntryKind.COMMAND]

    def delivered(self, kind: MessageKind) -> list[Message]:
        return [each for each in self.log if each.kind is kind]


def entries(first: int, *terms: int) -> Sequence[Entry]:
    """Commands of these terms."""
    return tuple(
        Entry(first + at, term, EntryKind.COMMAND, b"%d of %d" % (first + at, term))
        for at, term in enumerate(terms)
    )
