"""What a leader knows of one other replica: how far its log matches, and what is under way to it.

A replica is probed until it is known where its log parts from the leader's: one message, then its
answer. From then on entries are sent ahead of their acknowledgements, in a window. One whose next
entry is no longer in the leader's log waits for a snapshot.
"""

import enum
from collections import deque


class Phase(enum.IntEnum):
    """How entries are sent to a replica."""

    PROBE = 0
    STREAM = 1
    SNAPSHOT = 2


class Progress:
    """The leader's view of one replica.

    matched: Its log is the leader's up to here, on its disk.
    next: The next entry to be sent to it.
    told: What it was told is committed.
    round: The latest round of reads that it has confirmed.
    heard_ms: When it was last heard in this term.
    snapshot: The index of the snapshot that is on its way to it; 0: none.
    """

    __slots__ = (
        "_flying",
        "_flying_bytes",
        "_most_bytes",
        "_most_messages",
        "heard_ms",
        "matched",
        "next",
        "phase",
        "probing",
        "round",
        "snapshot",
        "told",
    )

    def __init__(self, following: int, now_ms: int, most_messages: int, most_bytes: int) -> None:
        self.phase = Phase.PROBE
        self.matched = 0
        self.next = following
        self.told = 0
        self.round = 0
        self.heard_ms = now_ms
        self.snapshot = 0
        self.probing = False
        self._flying: deque[tuple[int, int]] = deque()
        self._flying_bytes = 0
        self._most_messages = most_messages
        self._most_bytes = most_bytes

    @property
    def may_send(self) -> bool:
        """Whether a message with entries may be sent to it now."""
        if self.phase is Phase.STREAM:
            flying = self._flying
            return len(flying) < self._most_messages and self._flying_bytes < self._most_bytes
        return self.phase is Phase.PROBE and not self.probing

    def sent(self, last: int, size: int) -> None:
        """A message was sent whose last entry is `last`, of `size` bytes of entries."""
        if self.phase is Phase.STREAM:
            self.next = last + 1
            self._flying.append((last, size))
            self._flying_bytes += size
        else:
            self.probing = True

    def accepted(self, index: int) -> bool:
        """It has the log up to `index`, durable; says whether that is new."""
        flying = self._flying
        while flying and flying[0][0] <= index:
            self._flying_bytes -= flying.popleft()[1]
        if index <= self.matched:
            return False
        self.matched = index
        self.next = max(self.next, index + 1)
        return True

    def stream(self) -> None:
        """Where its log matches is known: send ahead."""
        self._reset(Phase.STREAM)
        self.next = self.matched + 1

    def probe(self, following: int) -> None:
        """Look for where its log matches, from `following` on."""
        self._reset(Phase.PROBE)
        self.next = max(following, self.matched + 1)

    def needs_snapshot(self) -> None:
        """What it lacks is not in the log any more."""
        self._reset(Phase.SNAPSHOT)

    def _reset(self, phase: Phase) -> None:
        self.phase = phase
        self.probing = False
        self.snapshot = 0
        self._flying.clear()
        self._flying_bytes = 0
