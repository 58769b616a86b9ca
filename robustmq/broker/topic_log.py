"""One topic log of a core: its shard, and who waits for it to move."""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from robustmq.broker.log_rows import Listed
from robustmq.config import Engine, TopicRule
from robustmq.shard.shard import Shard

_NOTE_BYTES: Final = 1 << 22
_NOTE_TIMES: Final = 4


class Note(NamedTuple):
    """Who had appended what when the log ended at `offset`."""

    offset: int
    value: bytes


class Waiting(NamedTuple):
    """Whoever asked to keep what ends at `offset`; `reply` gets 0 or a Refusal.

    `once`: what was appended must not be asked for a second time.
    """

    offset: int
    reply: Callable[[int], None]
    once: bool


class Parking(Protocol):
    """A reader that waits."""

    def cancel(self) -> None:
        """It waits no more."""


class Nowhere:
    """A reader that nobody will wake."""

    def cancel(self) -> None:
        """It waits no more."""


class Parked:
    """A reader that has caught up: it is woken once, or cancels."""

    __slots__ = ("_log", "is_committed", "wake")

    def __init__(self, log: "TopicLog", is_committed: bool, wake: Callable[[], None]) -> None:
        self._log = log
        self.is_committed = is_committed
        self.wake = wake

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._log.parked.pop(self, None)


class TopicLog:
    """One log, kept by `rule`; `engine` None: in memory. `is_listed`: its row is durable.

    `waiting` want to hear when it has come so far, `parked` when it has moved at all.
    """

    __slots__ = (
        "_reached", "_stable", "engine", "is_listed", "is_noted", "name", "note", "note_bytes",
        "parked", "rule", "shard", "unnoted", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        name: bytes,
        shard: Shard,
        engine: Engine | None,
        *,
        is_listed: bool,
        rule: TopicRule,
    ) -> None:
        self.name = name
        self.shard = shard
        self.engine = engine
        self.is_listed = is_listed
        self.rule = rule
        self.waiting: deque[Waiting] = deque()
        self.parked: dict[Parked, None] = {}
        self.unnoted = 0
        self.note_bytes = _NOTE_BYTES
        """Bytes appended between two notes: a restart reads so much of it, hardly more."""
        self.note: Note | None = None
        self.is_noted = True
        self._reached, self._stable = self.high_watermark, self.stable_offset

    @property
    def high_watermark(self) -> int:
        """The offset below which records may be read: nothing until the log's row is durable."""
        return self.shard.high_watermark if self.is_listed else self.shard.start_offset

    @property
    def stable_offset(self) -> int:
        """The offset below which no transaction is open."""
        return min(self.shard.stable_offset, self.high_watermark)

    @property
    def row(self) -> Listed:
        """What its row says of it; one in memory has none."""
        assert self.engine is not None
        return Listed(self.shard.number, self.engine, self.shard.epochs.encode())

    @property
    def is_note_due(self) -> bool:
        """Whether a note is small beside what was appended since the last one."""
        return self.note_bytes == _NOTE_BYTES or self.unnoted >= self.note_bytes

    def draw_note(self) -> None:
        """Note who has appended what, to be written when all of it is durable."""
        if self.engine is not None and not self.is_noted and self.note is None:
            self.note = Note(self.shard.end_offset, self.shard.note())
            # A note of many producers is not written for every few batches.
            self.note_bytes = max(_NOTE_BYTES, _NOTE_TIMES * len(self.note.value))
            self.is_noted = True
            self.unnoted = 0

    def park(self, is_committed: bool, wake: Callable[[], None]) -> Parked:
        """Wake once when the high watermark, or with `is_committed` the stable offset, moves."""
        parked = Parked(self, is_committed, wake)
        self.parked[parked] = None
        return parked

    def notice(self) -> bool:
        """Wake the parked if it has moved since it was last looked at; says whether it has."""
        reached = self.high_watermark
        stable = min(self.shard.stable_offset, reached)
        if reached == self._reached and stable == self._stable:
            return False
        is_stable_moved = stable != self._stable
        self._reached, self._stable = reached, stable
        if self.parked:
            self._wake([each for each in self.parked if is_stable_moved or not each.is_committed])
        return True

    def wake_all(self) -> None:
        """Have all readers look again: it is gone, or what they wait for is in memory."""
        self._wake(list(self.parked))

    def give_up(self, code: int) -> None:
        """Nothing that waits will ever be safe."""
        waiting, self.waiting = self.waiting, deque()
        for each in waiting:
            each.reply(code)

    def _wake(self, parked: list[Parked]) -> None:
        for each in parked:
            self.parked.pop(each, None)
        for each in parked:
            each.wake()
