"""The memory of a simulated cluster: the machine of a data group, reached slowly or not at all."""

import heapq
from collections.abc import Callable
from itertools import count
from random import Random
from typing import NamedTuple

from robustmq.errors import Refused
from robustmq.message.session_record import SessionChange, SessionRecord, Verdict
from robustmq.meta import commands
from robustmq.meta.data import Batch, Close, Data, Open, encode, verdicts
from tests.unit.meta.memory_store import MemoryStore

LONGEST_MS = 400
"""How long a proposal takes at most before nothing more is heard of it."""


class Life(NamedTuple):
    """Who proposes: a life of a node, and whether the others hear it now."""

    node: int
    incarnation: Callable[[], int]
    is_reached: Callable[[], bool]


class Memory:
    """Decides on changes in the order in which they arrive; answers come later, or never."""

    def __init__(self, rng: Random) -> None:
        self.data = Data(MemoryStore())
        self._rng = rng
        self._index = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()
        self._now_ms = 0

    def apply(self, command: Batch | Open | Close) -> bytes | Refused:
        """Fold a command now."""
        self._index += 1
        return commands.outcome(self.data.apply(self._index, encode(command)))

    def fence(self, node: int, incarnation: int) -> None:
        """A node is given up."""
        assert not isinstance(self.apply(Open(node, incarnation)), Refused)

    def welcome(self, node: int, incarnation: int) -> None:
        """A node is back."""
        assert not isinstance(self.apply(Close(node, incarnation)), Refused)

    def owned(self, node: int) -> list[SessionRecord]:
        """The sessions that are a node's own."""
        return list(self.data.owned(node))

    def propose(self, life: Life, change: SessionChange, done: Callable[[Verdict], None]) -> None:
        """Decide on a change after a while."""
        incarnation = life.incarnation()
        told = [False]

        def tell(verdict: Verdict) -> None:
            if not told[0]:
                told[0] = True
                done(verdict)

        def arrive() -> None:
            if not life.is_reached() and self._rng.random() < 0.7:
                return
            found = self.apply(Batch(life.node, incarnation, [change]))
            if not isinstance(found, Refused):
                (verdict,) = verdicts(found)
                self._at(self._while(), lambda: tell(verdict) if life.is_reached() else None)

        self._at(self._while(), arrive)
        self._at(LONGEST_MS, lambda: tell(Verdict.UNKNOWN))

    def _while(self) -> int:
        return self._rng.choice((0, 3, 10, 40, 150))

    def _at(self, after_ms: int, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now_ms + after_ms, next(self._numbers), event))

    def turn(self, now_ms: int) -> None:
        """Let happen what is due."""
        self._now_ms = now_ms
        while self._events and self._events[0][0] <= now_ms:
            heapq.heappop(self._events)[2]()
