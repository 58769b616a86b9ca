"""Reads of partitions: the asker's side, which may wait, and the owner's, which tells it more.

An owner says at once what it has of all that was wanted. Unless that is enough it parks the read,
and says what has come since when a partition wakes it, all of a turn together. Nothing is looked
at twice: what is told later lies behind what was told before.
"""

import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from robustmq.broker.partition_api import Fault, Partition, Read, Wanted
from robustmq.broker.timers import Timer

_BASE: Final = struct.Struct(">q")
_LAST_DELTA: Final = struct.Struct(">i")
_LAST_DELTA_AT: Final = 23


class Parked(Protocol):
    """Who waits for a partition to go on."""

    def cancel(self) -> None:
        """It waits no more."""


class Source(Protocol):
    """The partitions of this core, as those see them who read (`partition_owner`)."""

    def read(self, wanted: Wanted) -> Read:
        """Read what there is now."""

    def park(self, partition: Partition, is_committed: bool, wake: Callable[[], None]) -> Parked:
        """Call `wake` once when there may be more of a partition, or a fault."""


Tell = Callable[[Sequence[tuple[int, Read]], bool], None]
"""Says reads by place in what was wanted, and whether these are the last."""


def next_offset(batch: bytes) -> int:
    """Return the offset behind a stored record batch."""
    return int(_BASE.unpack_from(batch)[0] + _LAST_DELTA.unpack_from(batch, _LAST_DELTA_AT)[0] + 1)


class Serving:
    """The owner's side of one read.

    `collect` says what there is of all that is due, `tell` that to the asker. `woken()` is called
    when something is due again; not before the turn's commit.
    """

    __slots__ = (
        "_due", "_left", "_min_bytes", "_parked", "_source", "_tell", "_wanted", "_woken",
        "is_over",
    )  # fmt: skip

    def __init__(
        self, source: Source, wanted: Sequence[Wanted], min_bytes: int, max_bytes: int
    ) -> None:
        self._source = source
        self._wanted = list(wanted)
        self._min_bytes = min_bytes
        self._left = max_bytes
        self._tell: Tell
        self._woken: Callable[[], None]
        self._parked: dict[int, Parked] = {}
        self._due: list[int] = list(range(len(wanted)))
        self.is_over = False

    def connect(self, tell: Tell, woken: Callable[[], None]) -> None:
        """Know whom to tell, and whom to ask for another `collect`."""
        self._tell = tell
        self._woken = woken

    def collect(self) -> list[tuple[int, Read]]:
        """Read all that is due; `is_over` when it is enough, or there is a fault."""
        due, self._due = self._due, []
        found = [(place, self._read(place)) for place in due]
        if self._min_bytes <= 0 or self._left <= 0 or any(read.fault for _, read in found):
            self.stop()
        return found

    def tell(self, found: Sequence[tuple[int, Read]]) -> None:
        """Tell the asker, and wait for more of it unless it is over."""
        self._tell(found, self.is_over)
        # Whoever hears it may want no more.
        if not self.is_over:
            for place, _ in found:
                self._park(place)

    def _read(self, place: int) -> Read:
        wanted = self._wanted[place]
        if wanted.max_bytes > self._left:
            wanted = wanted._replace(max_bytes=max(self._left, 0))
        read = self._source.read(wanted)
        if read.batches:
            size = read.size
            self._left -= size
            self._min_bytes -= size
            self._wanted[place] = wanted._replace(
                offset=next_offset(read.batches[-1]), max_bytes=max(wanted.max_bytes - size, 0)
            )
        return read

    def _park(self, place: int) -> None:
        wanted = self._wanted[place]
        if wanted.max_bytes:
            self._parked[place] = self._source.park(
                wanted.partition, wanted.is_committed, partial(self._wake, place)
            )

    def _wake(self, place: int) -> None:
        if self._parked.pop(place, None) is not None:
            self._due.append(place)
            if len(self._due) == 1:
                self._woken()

    def stop(self) -> None:
        """Nobody waits any more."""
        for parked in self._parked.values():
            parked.cancel()
        self._parked.clear()
        self._due.clear()
        self.is_over = True


class Done:
    """A read that was answered at once."""

    def cancel(self) -> None:
        """Do nothing."""


class Portion:
    """What one core has been asked for of a read; `places` are those in all that is wanted."""

    __slots__ = ("core", "is_silent", "places", "reading")

    def __init__(self, core: int, places: Sequence[int], reading: "Pending") -> None:
        self.core = core
        self.places = places
        self.reading = reading
        self.is_silent = True


class Pending:
    """The asker's side of one read; `partition_api.Reading`.

    `calls` are its open portions by their call's number; `close(call, portion)` ends one of them
    whose owner would say more. It answers when all portions have spoken and there is enough, or a
    fault, or it is too late to wait; a core that says nothing by then is not waited for when
    there is something to tell of the others.
    """

    __slots__ = (
        "_close", "_is_late", "_min_bytes", "_reads", "_reply", "_silent", "_size", "_timer",
        "calls", "is_due",
    )  # fmt: skip

    def __init__(
        self,
        reads: list[Read | None],
        min_bytes: int,
        reply: Callable[[Sequence[Read]], None],
        close: Callable[[int, Portion], None],
    ) -> None:
        self._reads = reads
        self._min_bytes = min_bytes
        self._reply: Callable[[Sequence[Read]], None] | None = reply
        self._close = close
        self._silent = 0
        self._size = 0
        self._timer: Timer | None = None
        self._is_late = False
        self.calls: dict[int, Portion] = {}
        # What nobody leads is answered without delay.
        self.is_due = any(read is not None for read in reads)

    def ask(self, call: int, core: int, places: Sequence[int]) -> Portion:
        """Wait for a portion."""
        portion = self.calls[call] = Portion(core, places, self)
        self._silent += 1
        return portion

    @property
    def is_over(self) -> bool:
        """Whether it was answered or cancelled."""
        return self._reply is None

    def wait(self, timer: Timer) -> None:
        """Be told by a timer that it is late."""
        self._timer = timer

    def take(self, portion: Portion, reads: Sequence[tuple[int, Read]]) -> None:
        """Hear what an owner has to tell; `answer_if_ready` follows."""
        if portion.is_silent:
            portion.is_silent = False
            self._silent -= 1
        for place, read in reads:
            at = portion.places[place]
            before = self._reads[at]
            self._reads[at] = read if before is None else _joined(before, read)
            if read.batches:
                self._size += read.size
            elif read.fault:
                self.is_due = True

    def lose(self, portion: Portion) -> None:
        """The owner is gone: what it had not told is not known; `answer_if_ready` follows."""
        if portion.is_silent:
            portion.is_silent = False
            self._silent -= 1
            for at in portion.places:
                self._reads[at] = Read(Fault.UNAVAILABLE)
        self.is_due = True

    def answer_if_ready(self) -> None:
        """Answer when there is what was asked for."""
        reply = self._reply
        if reply is None or (self._silent and not (self._is_late and self._size)):
            return
        if self.is_due or self._is_late or self._size >= self._min_bytes:
            self.cancel()
            silent = Read(Fault.UNAVAILABLE)
            reply([silent if read is None else read for read in self._reads])

    def late(self) -> None:
        """The time to wait is over."""
        self._timer = None
        self._is_late = True
        self.answer_if_ready()

    def cancel(self) -> None:
        """See `partition_api.Reading.cancel`."""
        self._reply = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        calls, self.calls = self.calls, {}
        for call, portion in calls.items():
            self._close(call, portion)


def _joined(before: Read, then: Read) -> Read:
    """What was told first, and what came behind it; a fault waits until it is asked for."""
    if not before.batches:
        return then
    if then.fault:
        return before
    return then._replace(
        batches=[*before.batches, *then.batches], aborted=[*before.aborted, *then.aborted]
    )
