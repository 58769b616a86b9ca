"""One replica whose peers are the test: what it is told, and what it says."""

from collections.abc import Sequence

from robustmq.raft.message import (
    Entry,
    HardState,
    Membership,
    Message,
    MessageKind,
    Snapshot,
)
from robustmq.raft.node import Node
from robustmq.raft.ready import Ready
from robustmq.settings.raft import Raft
from tests.simulation.raft_disk import Disk
from tests.unit.raft.group import GROUP, HEARTBEAT, TIMEOUT

SETTINGS = Raft(election_timeout_ms=TIMEOUT, heartbeat_interval_ms=HEARTBEAT)


class Lone:
    """Replica 0 of the voters 0, 1 and 2."""

    def __init__(
        self,
        log: Sequence[Entry] = (),
        hard_state: HardState | None = None,
        applied: int = 0,
        settings: Raft = SETTINGS,
    ) -> None:
        self.disk = Disk(Snapshot(0, 0, Membership((0, 1, 2))))
        self.disk.entries = list(log)
        self.disk.hard_state = hard_state or HardState(log[-1].term if log else 0)
        self.disk.applied = applied
        self.now = 0
        self.node = Node(
            0, GROUP, settings, self.disk.stored(), chance=lambda: 0.0, now_ms=self.now
        )
        self.readies: list[Ready] = []

    def hears(self, kind: MessageKind, sender: int = 1, term: int = -1, **fields: object) -> None:
        term = self.node.term if term < 0 else term
        message = Message(kind, GROUP, sender, 0, term, **fields)  # type: ignore[arg-type]
        self.node.step(message, self.now)

    def take(self, sync: bool = True) -> list[Message]:
        """Do what it asks for; returns what it says."""
        said: list[Message] = []
        while (ready := self.node.ready()) is not None:
            self.readies.append(ready)
            said += ready.messages
            if ready.number:
                self.disk.write(ready)
                if sync:
                    self.sync(ready.number)
        return said

    def sync(self, number: int) -> None:
        self.disk.sync(number)
        self.node.persisted(number)

    def lead(self) -> None:
        """Win an election by the vote of 1."""
        self.now += TIMEOUT
        self.node.tick(self.now)
        self.take()
        self.hears(MessageKind.PRE_VOTE_REPLY, term=self.node.term + 1)
        self.take()
        self.hears(MessageKind.VOTE_REPLY)
        assert self.node.leads
        self.take()
