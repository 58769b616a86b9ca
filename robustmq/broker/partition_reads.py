"""Reads of partitions: the asker's side, which may wait, and the owner's, which tells it more.

An owner says at once what it has of all that is wanted and was not told yet. Unless that is enough
the read waits there, and what has come since is told when a partition wakes it, all of a turn
together. Nothing is looked at twice: what is told later lies behind what was told before.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
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


Told = Sequence[tuple[int, Read]]
"""Reads by their places in what is wanted."""


def next_offset(batch: bytes) -> int:
    """Return the offset behind a stored record batch."""
    return int(_BASE.unpack_from(batch)[0] + _LAST_DELTA.unpack_from(batch, _LAST_DELTA_AT)[0] + 1)


class Standing:
    """What one asker wants of this core's partitions, by place; what `is_lasting` reads again.

    `hot` are the places of which there may be something that was not told; the others are parked,
    and become hot when they are woken. `serving` is the read that waits, if there is one.
    """

    __slots__ = ("_parked", "hot", "is_lasting", "serving", "source", "wanted")

    def __init__(self, source: Source, *, is_lasting: bool) -> None:
        self.source = source
        self.is_lasting = is_lasting
        self.wanted: dict[int, Wanted] = {}
        self.hot: dict[int, None] = {}
        self.serving: Serving | None = None
        self._parked: dict[int, Parked] = {}

    def change(self, changes: Iterable[tuple[int, Wanted | None]]) -> None:
        """Want something else, or with None nothing any more, at some places."""
        for place, wanted in changes:
            parked = self._parked.pop(place, None)
            if parked is not None:
                parked.cancel()
            if wanted is None:
                self.wanted.pop(place, None)
                self.hot.pop(place, None)
            else:
                self.wanted[place] = wanted
                self.hot[place] = None

    def park(self, place: int) -> None:
        """Let a place be woken when there is more of it."""
        if place not in self._parked:
            wanted = self.wanted[place]
            self._parked[place] = self.source.park(
                wanted.partition, wanted.is_committed, partial(self._wake, place)
            )

    def _wake(self, place: int) -> None:
        if self._parked.pop(place, None) is not None:
            self.hot[place] = None
            if self.serving is not None:
                self.serving.wake(place)

    def close(self) -> None:
        """Nothing is wanted any more."""
        if self.serving is not None:
            self.serving.stop()
        for parked in self._parked.values():
            parked.cancel()
        self._parked.clear()
        self.hot.clear()


class Serving:
    """The owner's side of one read of what stands.

    `collect` says what there is of all that is due, `tell` that to the asker. `woken()` is called
    when something is due again; not before the turn's commit.
    """

    __slots__ = ("_due", "_left", "_min_bytes", "_next", "_tell", "_woken", "is_over", "standing")

    def __init__(self, standing: Standing, min_bytes: int, max_bytes: int) -> None:
        self.standing = standing
        standing.serving = self
        self._min_bytes = min_bytes
        self._left = max_bytes
        self._tell: Callable[[Told, bool], None]
        self._woken: Callable[[], None]
        self._due: list[int] = list(standing.hot)
        self._next: dict[int, Wanted] = {}
        self.is_over = False

    def connect(self, tell: Callable[[Told, bool], None], woken: Callable[[], None]) -> None:
        """Know whom to tell reads, and whether they are the last, and who calls `collect`."""
        self._tell = tell
        self._woken = woken

    def collect(self) -> list[tuple[int, Read]]:
        """Read all that is due; `is_over` when it is enough, or there is a fault."""
        due, self._due = self._due, []
        found = [(place, self._read(place)) for place in due]
        if self._min_bytes <= 0 or self._left <= 0 or any(read.fault for _, read in found):
            self.stop()
        if self.standing.is_lasting or not self.is_over:
            self._park(found)
        return found

    def tell(self, found: Told) -> None:
        """Tell the asker what `collect` has returned."""
        self._tell(found, self.is_over)

    def _read(self, place: int) -> Read:
        standing = self.standing
        wanted = self._next.get(place) or standing.wanted[place]
        left = self._left
        if wanted.max_bytes > left:
            wanted = wanted._replace(max_bytes=max(left, 0))
        read = standing.source.read(wanted)
        if read.batches:
            size = read.size
            self._left -= size
            self._min_bytes -= size
            # The others come before it next time.
            standing.hot.pop(place, None)
            standing.hot[place] = None
            if self._min_bytes > 0:
                self._next[place] = wanted._replace(
                    offset=next_offset(read.batches[-1]), max_bytes=wanted.max_bytes - size
                )
        elif not read.fault and wanted.max_bytes:
            standing.hot.pop(place, None)
        return read

    def _park(self, found: Told) -> None:
        """Let those be woken of which there was nothing, or of which more may be waited for."""
        standing = self.standing
        for place, read in found:
            if read.fault:
                continue
            if place not in standing.hot or (
                not self.is_over and place in self._next and self._next[place].max_bytes > 0
            ):
                standing.park(place)

    def wake(self, place: int) -> None:
        """There may be more at a place."""
        self._due.append(place)
        if len(self._due) == 1:
            self._woken()

    def stop(self) -> None:
        """Nobody waits any more."""
        self.is_over = True
        self._due.clear()
        self.standing.serving = None
        if not self.standing.is_lasting:
            self.standing.close()


class Portion:
    """What one core has been asked for of a read: the places that it leads."""

    __slots__ = ("core", "is_silent", "places", "reading")

    def __init__(self, core: int, places: Iterable[int], reading: "Pending") -> None:
        self.core = core
        self.places = places
        self.reading = reading
        self.is_silent = True


class Pending:
    """The asker's side of one read; `partition_api.Reading`.

    `reads` holds what is known without asking: faults. `calls` are its open portions by their
    call's number; `close(call, portion)` ends one of them whose owner would say more. It answers
    when all portions have spoken and there is enough, or a fault, or it is too late to wait; a
    core that says nothing by then is not waited for when there is something to tell of the others.
    """

    __slots__ = (
        "_close", "_is_late", "_min_bytes", "_reads", "_reply", "_silent", "_size", "_timer",
        "calls", "is_due",
    )  # fmt: skip

    def __init__(
        self,
        reads: dict[int, Read],
        min_bytes: int,
        reply: Callable[[Mapping[int, Read]], None],
        close: Callable[[int, Portion], None],
    ) -> None:
        self._reads = reads
        self._min_bytes = min_bytes
        self._reply: Callable[[Mapping[int, Read]], None] | None = reply
        self._close = close
        self._silent = 0
        self._size = 0
        self._timer: Timer | None = None
        self._is_late = False
        self.calls: dict[int, Portion] = {}
        # What nobody leads is answered without delay.
        self.is_due = bool(reads)

    def ask(self, call: int, core: int, places: Iterable[int]) -> Portion:
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

    def take(self, portion: Portion, reads: Told) -> None:
        """Hear what an owner has to tell; `answer_if_ready` follows."""
        if portion.is_silent:
            portion.is_silent = False
            self._silent -= 1
        for place, read in reads:
            before = self._reads.get(place)
            self._reads[place] = read if before is None else _joined(before, read)
            if read.batches:
                self._size += read.size
            elif read.fault:
                self.is_due = True

    def lose(self, portion: Portion) -> None:
        """The owner is gone: what it had not told is not known; `answer_if_ready` follows."""
        if portion.is_silent:
            portion.is_silent = False
            self._silent -= 1
            self._miss(portion)
        self.is_due = True

    def _miss(self, portion: Portion) -> None:
        for place in portion.places:
            self._reads[place] = Read(Fault.UNAVAILABLE)

    def answer_if_ready(self) -> None:
        """Answer when there is what was asked for."""
        reply = self._reply
        if reply is None or (self._silent and not (self._is_late and self._size)):
            return
        if self.is_due or self._is_late or self._size >= self._min_bytes:
            for portion in self.calls.values():
                if portion.is_silent:
                    self._miss(portion)
            self.cancel()
            reply(self._reads)

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
