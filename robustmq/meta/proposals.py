"""What this node has proposed to a group and not heard of: in order, bounded, with deadlines."""

from collections.abc import Callable, Iterator
from itertools import islice

from msgspec import Struct

from robustmq.errors import Refusal, Refused
from robustmq.meta.machine import Applied, Outcome
from robustmq.meta.outcomes import Batch, Result
from robustmq.meta.site import Counters

COUNTED = 64
"""Bytes that a proposal counts for beside its command."""
LATE = Refused(
    Refusal.UNAVAILABLE, "no majority of the cluster has confirmed it in time; it may yet be done"
)
FULL = Refused(Refusal.BUSY, "as much is proposed to this group as may wait; try again later")
FAILED = Refused(Refusal.INTERNAL, "it failed on every node; their logs say how")


class _Pending(Struct):
    command: bytes
    done: Callable[[Outcome], None]
    deadline_ms: int


class Proposals:
    """The proposals of one node to one group; their sequences have no gap.

    `answer` is called with each outcome.
    """

    def __init__(
        self,
        node: int,
        life: int,
        most_bytes: int,
        answer: Callable[[Callable[[], None]], None],
        counters: Counters,
    ) -> None:
        self._node = node
        self._life = life
        self._most_bytes = most_bytes
        self._answer = answer
        self._counters = counters
        self._pending: dict[int, _Pending] = {}
        """By sequence, ascending."""
        self._next = 1
        self._bytes = 0
        self.sent = 1
        """What is at or behind this sequence has not been given to the leader that is now."""

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, command: bytes, done: Callable[[Outcome], None], deadline_ms: int) -> None:
        """Take a proposal; when too much waits it is refused."""
        self._counters.proposed += 1
        size = len(command) + COUNTED
        if self._bytes + size > self._most_bytes and self._pending:
            self.refuse(FULL, done)
            return
        self._bytes += size
        self._pending[self._next] = _Pending(command, done, deadline_ms)
        self._next += 1

    def refuse(self, why: Refused, done: Callable[[Outcome], None]) -> None:
        """Answer a proposal that is not taken."""
        self._counters.failed += 1
        self._answer(lambda: done(why))

    @property
    def floor(self) -> int:
        """The lowest sequence that is asked for."""
        return next(iter(self._pending), self._next)

    @property
    def has_unsent(self) -> bool:
        """Whether something was not given to the leader."""
        return self.sent < self._next and bool(self._pending)

    @property
    def next_ms(self) -> int | None:
        """The next deadline."""
        first = next(iter(self._pending.values()), None)
        return None if first is None else first.deadline_ms

    def send_again(self) -> None:
        """What was given to a leader may be lost."""
        self.sent = self.floor

    def batches(self, most_bytes: int) -> Iterator[Batch]:
        """Yield what is to be given to the leader, about so many bytes each; it counts as sent."""
        floor = self.floor
        self.sent = max(self.sent, floor)
        while self.sent < self._next:
            first, size = self.sent, 0
            commands: list[bytes] = []
            while self.sent < self._next and size < most_bytes:
                command = self._pending[self.sent].command
                commands.append(command)
                size += len(command) + COUNTED
                self.sent += 1
            yield Batch(self._node, self._life, floor, first, tuple(commands))

    def folded(self, first: int, results: list[Result]) -> None:
        """Some of what was proposed here was folded."""
        for sequence, result in enumerate(results, first):
            self._done(sequence, _outcome(result))

    def known(self, results: dict[int, Result]) -> None:
        """A snapshot has overtaken what was proposed: these are the outcomes that it holds."""
        for sequence in [each for each in self._pending if each in results]:
            self._done(sequence, _outcome(results[sequence]))

    def expire(self, now_ms: int) -> None:
        """Refuse what is too late."""
        while self._pending:
            sequence, pending = next(islice(self._pending.items(), 1))
            if pending.deadline_ms > now_ms:
                break
            self._done(sequence, LATE)

    def refuse_all(self, why: Refused) -> None:
        """Answer everything that waits."""
        for sequence in list(self._pending):
            self._done(sequence, why)

    def _done(self, sequence: int, outcome: Outcome) -> None:
        pending = self._pending.pop(sequence, None)
        if pending is None:
            return
        self._bytes -= len(pending.command) + COUNTED
        if isinstance(outcome, Applied):
            self._counters.answered += 1
        else:
            self._counters.failed += 1
        done = pending.done
        self._answer(lambda: done(outcome))


def _outcome(result: Result) -> Outcome:
    return FAILED if result.data is None else Applied(result.position, result.data)
