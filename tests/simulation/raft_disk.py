"""A replica's disk in the simulation of Raft: what is written is lost in a crash until a sync."""

import random
from collections.abc import Sequence

from robustmq.raft.message import Entry, HardState, Snapshot
from robustmq.raft.ready import Ready, Stored


class Disk:
    """The journal and the store of one replica."""

    def __init__(self, start: Snapshot) -> None:
        self.hard_state = HardState()
        self.start = start
        self.entries: list[Entry] = []
        self.pending: list[Ready] = []
        self.applied = start.index
        """What the store has applied; it is written without a sync."""
        self.applied_durable = start.index

    @property
    def last_index(self) -> int:
        return self.start.index + len(self.entries)

    def read(self, first: int, last: int, most_bytes: int) -> Sequence[Entry]:
        assert self.start.index < first <= last <= self.last_index, "read what is not durable"
        found: list[Entry] = []
        for entry in self.entries[first - self.start.index - 1 : last - self.start.index]:
            most_bytes -= entry.size
            if found and most_bytes < 0:
                break
            found.append(entry)
        return found

    def write(self, ready: Ready) -> None:
        self.pending.append(ready)

    def sync(self, number: int) -> None:
        while self.pending and self.pending[0].number <= number:
            self._settle(self.pending.pop(0))

    def _settle(self, ready: Ready) -> None:
        if ready.hard_state is not None:
            assert ready.hard_state.term >= self.hard_state.term
            self.hard_state = ready.hard_state
        if ready.snapshot is not None:
            self.start = ready.snapshot
            self.entries = []
            self.applied = self.applied_durable = ready.snapshot.index
        if ready.entries:
            first = ready.entries[0].index
            assert self.start.index < first <= self.last_index + 1, "a gap in the journal"
            del self.entries[first - self.start.index - 1 :]
            self.entries += ready.entries

    def compact(self, start: Snapshot) -> None:
        if start.index > self.start.index:
            del self.entries[: start.index - self.start.index]
            self.start = start

    def crash(self, chance: random.Random) -> None:
        """Power is lost: of what was written a part is there, in order, and not the rest."""
        for ready in self.pending[: chance.randint(0, len(self.pending))]:
            self._settle(ready)
        self.pending.clear()
        self.applied_durable = chance.randint(self.applied_durable, self.applied)
        self.applied = self.applied_durable

    def has(self, index: int, term: int) -> bool:
        """Whether an entry is durable, or what stands for it."""
        if index <= self.start.index:
            return True
        place = index - self.start.index - 1
        return place < len(self.entries) and self.entries[place].term == term

    def stored(self) -> Stored:
        return Stored(
            start=self.start, hard_state=self.hard_state, applied=self.applied, entries=self
        )
