"""The way of reads between cores: those of this core's readers, and those that others ask here."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from robustmq._kernel.turn import Turn
from robustmq.broker import partition_frames as frames
from robustmq.broker.partition_api import Read, Reading, Wanted
from robustmq.broker.partition_frames import Change, Kind
from robustmq.broker.partition_reads import Pending, Portion, Serving, Source, Standing, Told
from robustmq.broker.partition_ways import Ways
from robustmq.broker.router import Fabric
from robustmq.broker.timers import Timer

_Key = tuple[int, int]
"""The asking core, and its call's number."""


class Readers:
    """All reads of core `core`, and those of other cores that it serves.

    `at(when_ms, callback)` sets a timer. What is read for another core waits while more than
    `pressure_bytes` wait for room to it.
    """

    def __init__(
        self,
        turn: Turn,
        *,
        core: int,
        fabric: Fabric,
        ways: Ways,
        source: Source,
        next_call: Callable[[], int],
        at: Callable[[int, Callable[[], None]], Timer],
        pressure_bytes: int,
    ) -> None:
        self.ways = ways
        self.next_call = next_call
        self._turn = turn
        self._core = core
        self._fabric = fabric
        self._source = source
        self._at = at
        self._pressure_bytes = pressure_bytes
        self._followed: dict[int, Followed] = {}
        self._portions: dict[int, Portion] = {}
        self._standings: dict[_Key, Standing] = {}
        self._servings: dict[_Key, Serving] = {}
        self._woken: dict[_Key, None] = {}
        self.handlers: dict[int, Callable[[int, bytes], None]] = {
            Kind.READ: self._on_read,
            Kind.READING: lambda source, frame: self._told(source, *frames.read_reading(frame)),
            Kind.CANCEL: lambda source, frame: self._stop((source, frames.read_cancel(frame))),
            Kind.FORGET: lambda source, frame: self._forget(source, frames.read_forget(frame)),
        }

    # ------------------------------------------------------------------ asking

    def read(
        self,
        wanted: Sequence[Wanted],
        min_bytes: int,
        max_bytes: int,
        until_ms: int,
        reply: Callable[[Sequence[Read]], None],
    ) -> Reading:
        """See `partition_api.Partitions.read`."""
        self.ways.look()
        changes: dict[int, list[Change]] = {}
        faults: dict[int, Read] = {}
        core_of = self.ways.core_of
        for place, each in enumerate(wanted):
            core, fault = core_of(each.partition)
            if fault:
                faults[place] = Read(fault)
            elif core in changes:
                changes[core].append((place, each))
            else:
                changes[core] = [(place, each)]
        places = {core: [place for place, _ in ours] for core, ours in changes.items()}
        count = len(wanted)

        def answered(reads: Mapping[int, Read]) -> None:
            reply([reads[place] for place in range(count)])

        return self.begin(0, places, changes, faults, (min_bytes, max_bytes, until_ms), answered)

    def begin(  # noqa: PLR0917
        self,
        number: int,
        places: Mapping[int, Sequence[int] | dict[int, None]],
        changes: Mapping[int, Sequence[Change]],
        faults: dict[int, Read],
        bounds: tuple[int, int, int],
        reply: Callable[[Mapping[int, Read]], None],
    ) -> Reading:
        """Begin a read of places by their cores; what `faults` has is known already.

        `bounds`: the least bytes, the most, and until when it may wait.
        """
        min_bytes, max_bytes, until_ms = bounds
        is_waiting = until_ms > self._turn.now_ms
        # What has a fault is told without delay.
        least = min_bytes if is_waiting and not faults else 0
        pending = Pending(faults, least, reply, self._close)
        total = sum(map(len, places.values()))
        # Others work on it while this core does.
        for core in sorted(places, key=lambda each: each == self._core):
            call = self.next_call()
            self._portions[call] = pending.ask(call, core, places[core])
            share = max(max_bytes * len(places[core]) // total, 1)
            if core != self._core:
                frame = frames.read(call, number, least, share, changes.get(core, ()))
                self._fabric.send(core, frame)
                continue
            standing = self._standing(core, number)
            standing.change(changes.get(core, ()))
            self._serve((core, call), Serving(standing, least, share))
        pending.answer_if_ready()
        if is_waiting and not pending.is_over:
            pending.wait(self._at(until_ms, pending.late))
        return pending

    def _close(self, call: int, portion: Portion) -> None:
        """A portion is wanted no more, though its owner has not said its last."""
        del self._portions[call]
        if portion.core == self._core:
            self._stop((self._core, call))
        else:
            self._fabric.send(portion.core, frames.cancel(call))

    def _told(self, source: int, call: int, reads: Told, is_last: bool) -> None:
        portion = self._portions.get(call)
        if portion is None or portion.core != source:
            return
        pending = portion.reading
        if is_last:
            del self._portions[call], pending.calls[call]
        pending.take(portion, reads)
        pending.answer_if_ready()

    # ------------------------------------------------------------------ following

    def followed(self, followed: "Followed") -> int:
        """Somebody reads again and again; returns the number for that."""
        number = self.next_call()
        self._followed[number] = followed
        return number

    def unfollow(self, number: int, core: int) -> None:
        """A core need not know any more what is read again and again there."""
        if core == self._core:
            self._forget(core, number)
        else:
            self._fabric.send(core, frames.forget(number))

    def unfollowed(self, number: int) -> None:
        """Somebody reads no more."""
        del self._followed[number]

    # ------------------------------------------------------------------ serving

    def _standing(self, source: int, number: int) -> Standing:
        if not number:
            return Standing(self._source, is_lasting=False)
        key = source, number
        standing = self._standings.get(key)
        if standing is None:
            standing = self._standings[key] = Standing(self._source, is_lasting=True)
        return standing

    def _forget(self, source: int, number: int) -> None:
        standing = self._standings.pop((source, number), None)
        if standing is not None:
            standing.close()

    def _serve(self, key: _Key, serving: Serving) -> None:
        source, call = key
        tell = self._told if source == self._core else self._tell
        serving.connect(partial(tell, source, call), partial(self._wake, key))
        self._servings[key] = serving
        self._run(key, serving)

    def _wake(self, key: _Key) -> None:
        self._woken[key] = None

    def _run(self, key: _Key, serving: Serving) -> None:
        source = key[0]
        if source != self._core and self._fabric.backlog(source) > self._pressure_bytes:
            self._woken[key] = None
            return
        found = serving.collect()
        if serving.is_over:
            del self._servings[key]
        serving.tell(found)

    @property
    def busy(self) -> bool:
        """Whether there is work for another turn although nothing new has arrived."""
        return any(self._fabric.backlog(key[0]) <= self._pressure_bytes for key in self._woken)

    @property
    def is_woken(self) -> bool:
        """Whether `run` has something to do."""
        return bool(self._woken)

    def run(self) -> None:
        """After a commit: read what has become readable for those who wait for it."""
        woken, self._woken = self._woken, {}
        for key in woken:
            serving = self._servings.get(key)
            if serving is not None:
                self._run(key, serving)

    def _tell(self, source: int, call: int, reads: Told, is_last: bool) -> None:
        self._fabric.send(source, frames.reading(call, reads, is_last))

    def _on_read(self, source: int, frame: bytes) -> None:
        call, number, min_bytes, max_bytes, changes = frames.read_read(frame)
        standing = self._standing(source, number)
        standing.change(changes)
        self._serve((source, call), Serving(standing, min_bytes, max_bytes))

    def _stop(self, key: _Key) -> None:
        self._woken.pop(key, None)
        serving = self._servings.pop(key, None)
        if serving is not None:
            serving.stop()

    # ------------------------------------------------------------------ lives of other cores

    def replaced(self, core: int) -> None:
        """Core `core` has a new life, or is gone."""
        for key in [key for key in self._servings if key[0] == core]:
            self._stop(key)
        for key in [key for key in self._standings if key[0] == core]:
            self._standings.pop(key).close()
        for followed in list(self._followed.values()):
            followed.lost(core)
        for call in [call for call, each in self._portions.items() if each.core == core]:
            # Answers to those before it may have cancelled it.
            portion = self._portions.pop(call, None)
            if portion is not None:
                del portion.reading.calls[call]
                portion.reading.lose(portion)
                portion.reading.answer_if_ready()


class Followed:
    """A `partition_api.Following`: each core is told once what is wanted, and then what changes."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._number = readers.followed(self)
        self._version = readers.ways.version
        self._wanted: dict[int, Wanted] = {}
        self._cores: dict[int, int] = {}
        self._places: dict[int, dict[int, None]] = {}
        self._changes: dict[int, dict[int, Wanted | None]] = {}
        self._faults: dict[int, Read] = {}

    def want(self, place: int, wanted: Wanted | None) -> None:
        """See `partition_api.Following.want`."""
        if wanted is not None:
            self._wanted[place] = wanted
        elif self._wanted.pop(place, None) is None:
            return
        self._set(place, wanted)

    def _set(self, place: int, wanted: Wanted | None) -> None:
        core, fault = -1, 0
        if wanted is not None:
            core, fault = self._readers.ways.core_of(wanted.partition)
        self._faults.pop(place, None)
        if fault:
            self._faults[place] = Read(fault)
        before = self._cores.pop(place, None)
        if before is not None and (fault or core != before):
            del self._places[before][place]
            self._changes.setdefault(before, {})[place] = None
        if wanted is not None and not fault:
            self._cores[place] = core
            self._places.setdefault(core, {})[place] = None
            self._changes.setdefault(core, {})[place] = wanted

    def read(
        self,
        min_bytes: int,
        max_bytes: int,
        until_ms: int,
        reply: Callable[[Mapping[int, Read]], None],
    ) -> Reading:
        """See `partition_api.Following.read`."""
        ways = self._readers.ways
        ways.look()
        if ways.version != self._version:
            self._version = ways.version
            for place, wanted in self._wanted.items():
                if ways.core_of(wanted.partition) != (self._cores.get(place), 0):
                    self._set(place, wanted)
        for core in [core for core, places in self._places.items() if not places]:
            del self._places[core]
            self._changes.pop(core, None)
            self._readers.unfollow(self._number, core)
        changes = {core: list(each.items()) for core, each in self._changes.items()}
        self._changes.clear()
        bounds = min_bytes, max_bytes, until_ms
        faults = dict(self._faults)
        return self._readers.begin(self._number, self._places, changes, faults, bounds, reply)

    def lost(self, core: int) -> None:
        """A core has forgotten what is wanted of it."""
        places = self._places.get(core)
        if places:
            self._changes[core] = {place: self._wanted[place] for place in places}

    def close(self) -> None:
        """See `partition_api.Following.close`."""
        for core in self._places:
            self._readers.unfollow(self._number, core)
        self._places.clear()
        self._wanted.clear()
        self._readers.unfollowed(self._number)
