"""The way to partitions: to the owner on this core directly, to those on other cores by frames.

Calls are numbered anew with every life of a core, above all numbers of earlier lives: an answer
to a call that nobody knows is for a life that has ended, or for somebody who waits no more.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

from robustmq._kernel.turn import Turn
from robustmq.broker import partition_frames as frames
from robustmq.broker.catalog_api import Catalog
from robustmq.broker.partition_api import (
    Appended,
    EpochEnd,
    Fault,
    Found,
    Marker,
    Opening,
    Partition,
    Producing,
    Read,
    Reading,
    Size,
    Sought,
    Wanted,
)
from robustmq.broker.partition_frames import Kind, Question
from robustmq.broker.partition_questions import Answer, Gathering, Oracle, Part, answer
from robustmq.broker.partition_reads import Pending, Portion, Serving, Source
from robustmq.broker.placement import Placement
from robustmq.broker.router import Fabric
from robustmq.broker.timers import Timers
from robustmq.message.core_number import FIRST_REMOTE

_EPOCH_SHIFT: Final = 40
_HARD: Final = 4
"""Times `pressure_bytes` that wait for their answers, beyond which more is refused."""


class Owner(Source, Oracle, Protocol):
    """The partitions of this core (`partition_owner`); what it is asked it answers itself."""

    def append(
        self, partition: Partition, batch: bytes, done: Callable[[Appended], None] | None
    ) -> None:
        """Append a batch; answered when it is below the high watermark, or at once."""

    def moved(self) -> None:
        """Wake who waits for what is not led here any more."""


class _Append:
    """A batch that its owner, on another core, has not answered."""

    __slots__ = ("core", "reply", "size")

    def __init__(self, core: int, size: int, reply: Callable[[Appended], None] | None) -> None:
        self.core = core
        self.size = size
        self.reply = reply


class Partitions:
    """A `partition_api.Partitions` on core `core` in its life `epoch`.

    While much more than `pressure_bytes` are appended and not answered more is refused: whoever
    appends has to pause before. What is read for another core waits while more than that waits for
    room to it.
    """

    def __init__(
        self,
        turn: Turn,
        *,
        core: int,
        epoch: int,
        placement: Placement,
        fabric: Fabric,
        catalog: Catalog,
        owner: Owner,
        pressure_bytes: int,
    ) -> None:
        self._turn = turn
        self._core = core
        self._placement = placement
        self._fabric = fabric
        self._catalog = catalog
        self._owner = owner
        self._pressure_bytes = pressure_bytes
        self._last_call = epoch << _EPOCH_SHIFT
        self._version = catalog.version
        self._cores: dict[Partition, int] = {}
        self._unanswered = 0
        self._appends: dict[int, _Append] = {}
        self._portions: dict[int, Portion] = {}
        self._parts: dict[int, Part[Any]] = {}
        self._servings: dict[tuple[int, int], Serving] = {}
        self._woken: dict[tuple[int, int], None] = {}
        self.timers: Timers
        self.appending: Callable[
            [Partition, Callable[[Appended], None]], Callable[[Appended], None]
        ]
        self.appending = lambda _, done: done
        """Told of what the owner here is about to append; returns who hears what became of it."""
        self.handlers: dict[int, Callable[[int, bytes], None]] = {
            Kind.APPEND: self._on_append,
            Kind.APPENDED: self._on_appended,
            Kind.READ: self._on_read,
            Kind.READING: self._on_reading,
            Kind.CANCEL: self._on_cancel,
            Kind.ASK: self._on_ask,
            Kind.ANSWER: self._on_answer,
        }

    def _next_call(self) -> int:
        self._last_call += 1
        return self._last_call

    def _core_of(self, partition: Partition, *, anywhere: bool = False) -> tuple[int, int]:
        """The core that leads a partition, and 0; else the fault in the second place.

        What clients ask is asked only of cores of this node unless `anywhere`. `_look` has been
        called since the catalog may have changed.
        """
        core = self._cores.get(partition)
        if core is not None:
            return core, 0
        core = self._catalog.core_of(partition)
        if core is not None and (core < FIRST_REMOTE or anywhere):
            if not self._placement.is_live(core):
                return core, Fault.UNAVAILABLE
            if core < FIRST_REMOTE:
                self._cores[partition] = core
            return core, 0
        topic = self._catalog.of(partition.topic)
        if topic is None or not 0 <= partition.number < topic.partitions:
            return 0, Fault.UNKNOWN
        return 0, Fault.NOT_LEADER

    def _look(self) -> None:
        """Forget who leads what when the catalog is another."""
        version = self._catalog.version
        if version != self._version:
            self._version = version
            self._cores.clear()

    # ------------------------------------------------------------------ appending

    def append(
        self, partition: Partition, batch: bytes, reply: Callable[[Appended], None] | None
    ) -> None:
        """See `partition_api.Partitions.append`."""
        self._look()
        core, fault = self._core_of(partition)
        size = len(batch)
        if not fault and self._unanswered > _HARD * self._pressure_bytes:
            fault = Fault.BUSY
        if fault:
            if reply is not None:
                reply(Appended(fault))
            return
        self._unanswered += size
        if core == self._core:
            done = self.appending(partition, partial(self._appended, size, reply))
            self._owner.append(partition, batch, done)
            return
        call = self._next_call()
        self._appends[call] = _Append(core, size, reply)
        self._fabric.send(core, frames.append(call, partition, batch))

    def _appended(
        self, size: int, reply: Callable[[Appended], None] | None, outcome: Appended
    ) -> None:
        self._unanswered -= size
        if reply is not None:
            reply(outcome)

    def _on_append(self, source: int, frame: bytes) -> None:
        call, partition, batch = frames.read_append(frame)
        done = self.appending(partition, partial(self._tell_appended, source, call))
        self._owner.append(partition, batch, done)

    def _tell_appended(self, source: int, call: int, outcome: Appended) -> None:
        self._fabric.send(source, frames.appended(call, outcome))

    def _on_appended(self, source: int, frame: bytes) -> None:
        del source
        call, outcome = frames.read_appended(frame)
        asked = self._appends.pop(call, None)
        if asked is not None:
            self._appended(asked.size, asked.reply, outcome)

    # ------------------------------------------------------------------ reading

    def read(
        self,
        wanted: Sequence[Wanted],
        min_bytes: int,
        max_bytes: int,
        until_ms: int,
        reply: Callable[[Sequence[Read]], None],
    ) -> Reading:
        """See `partition_api.Partitions.read`."""
        assert wanted, "nothing comes of nothing"
        places: dict[int, list[int]] = {}
        reads: list[Read | None] = [None] * len(wanted)
        self._look()
        for place, each in enumerate(wanted):
            core, fault = self._core_of(each.partition)
            if fault:
                reads[place] = Read(fault)
            elif core in places:
                places[core].append(place)
            else:
                places[core] = [place]
        is_waiting = until_ms > self._turn.now_ms
        least = min_bytes if is_waiting else 0
        pending = Pending(reads, least, reply, self._close)
        if pending.is_due:
            least = 0
        if len(places.get(self._core, ())) == len(wanted):
            serving = Serving(self._owner, wanted, least, max_bytes)
            found = serving.collect()
            if serving.is_over:
                reply([read for _, read in found])
                return pending
            call = self._expect(pending, self._core, places[self._core])
            self._serve((self._core, call), serving)
            serving.tell(found)
        else:
            self._ask_cores(pending, wanted, places, least, max_bytes)
        if is_waiting and not pending.is_over:
            pending.wait(self.timers.at(until_ms, pending.late))
        return pending

    def _expect(self, pending: Pending, core: int, places: Sequence[int]) -> int:
        """Let a core's portion of a read have a call."""
        call = self._next_call()
        self._portions[call] = pending.ask(call, core, places)
        return call

    def _ask_cores(
        self,
        pending: Pending,
        wanted: Sequence[Wanted],
        places: Mapping[int, list[int]],
        min_bytes: int,
        max_bytes: int,
    ) -> None:
        """Ask several cores, this one at last: the others work on it meanwhile."""
        asked = [(self._expect(pending, core, ours), core) for core, ours in places.items()]
        for call, core in sorted(asked, key=lambda each: each[1] == self._core):
            ours = places[core]
            share = max(max_bytes * len(ours) // len(wanted), 1)
            of_core = [wanted[place] for place in ours]
            if core == self._core:
                serving = Serving(self._owner, of_core, min_bytes, share)
                self._serve((core, call), serving)
                self._run((core, call), serving)
            else:
                self._fabric.send(core, frames.read(call, min_bytes, share, of_core))
        pending.answer_if_ready()

    def _close(self, call: int, portion: Portion) -> None:
        """A portion is wanted no more, though its owner has not said its last."""
        del self._portions[call]
        if portion.core == self._core:
            self._forget((self._core, call))
        else:
            self._fabric.send(portion.core, frames.cancel(call))

    def _serve(self, key: tuple[int, int], serving: Serving) -> None:
        source, call = key
        tell = self._told if source == self._core else self._tell
        serving.connect(partial(tell, source, call), partial(self._wake, key))
        self._servings[key] = serving

    def _wake(self, key: tuple[int, int]) -> None:
        self._woken[key] = None

    def _run(self, key: tuple[int, int], serving: Serving) -> None:
        source = key[0]
        if source != self._core and self._fabric.backlog(source) > self._pressure_bytes:
            self._woken[key] = None
        else:
            serving.tell(serving.collect())
            if serving.is_over:
                self._servings.pop(key, None)

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

    def _tell(
        self, source: int, call: int, reads: Sequence[tuple[int, Read]], is_last: bool
    ) -> None:
        self._fabric.send(source, frames.reading(call, reads, is_last))

    def _told(
        self, source: int, call: int, reads: Sequence[tuple[int, Read]], is_last: bool
    ) -> None:
        portion = self._portions.get(call)
        if portion is None or portion.core != source:
            return
        pending = portion.reading
        if is_last:
            del self._portions[call], pending.calls[call]
        pending.take(portion, reads)
        pending.answer_if_ready()

    def _on_read(self, source: int, frame: bytes) -> None:
        call, min_bytes, max_bytes, wanted = frames.read_read(frame)
        serving = Serving(self._owner, wanted, min_bytes, max_bytes)
        self._serve((source, call), serving)
        self._run((source, call), serving)

    def _on_reading(self, source: int, frame: bytes) -> None:
        self._told(source, *frames.read_reading(frame))

    def _on_cancel(self, source: int, frame: bytes) -> None:
        self._forget((source, frames.read_cancel(frame)))

    def _forget(self, key: tuple[int, int]) -> None:
        self._woken.pop(key, None)
        serving = self._servings.pop(key, None)
        if serving is not None:
            serving.stop()

    # ------------------------------------------------------------------ questions

    def find(self, sought: Sequence[Sought], reply: Callable[[Sequence[Found]], None]) -> None:
        """See `partition_api.Partitions.find`."""
        self._ask(Question.FIND, sought, [each.partition for each in sought], Found, reply)

    def epoch_ends(
        self,
        asked: Sequence[tuple[Partition, int, int]],
        reply: Callable[[Sequence[EpochEnd]], None],
    ) -> None:
        """See `partition_api.Partitions.epoch_ends`."""
        self._ask(Question.EPOCH_ENDS, asked, [each[0] for each in asked], EpochEnd, reply)

    def trim(
        self, asked: Sequence[tuple[Partition, int]], reply: Callable[[Sequence[Found]], None]
    ) -> None:
        """See `partition_api.Partitions.trim`."""
        self._ask(Question.TRIM, asked, [each[0] for each in asked], Found, reply)

    def begin(self, openings: Sequence[Opening], reply: Callable[[Sequence[int]], None]) -> None:
        """See `partition_api.Partitions.begin`."""
        partitions = [each.partition for each in openings]
        self._ask(Question.BEGIN, openings, partitions, int, reply, anywhere=True)

    def end(self, markers: Sequence[Marker], reply: Callable[[Sequence[int]], None]) -> None:
        """See `partition_api.Partitions.end`."""
        partitions = [each.partition for each in markers]
        self._ask(Question.END, markers, partitions, int, reply, anywhere=True)

    def producers(
        self, partition: Partition, reply: Callable[[int, Sequence[Producing]], None]
    ) -> None:
        """See `partition_api.Partitions.producers`."""

        def answered(answers: Sequence[tuple[int, Sequence[Producing]]]) -> None:
            reply(*answers[0])

        self._ask(Question.PRODUCERS, [partition], [partition], _no_producers, answered)

    def sizes(self, reply: Callable[[Sequence[Size]], None]) -> None:
        """See `partition_api.Partitions.sizes`; what a core that is gone has is left out."""
        cores = range(self._placement.workers)
        gathering = Gathering[Sequence[Size]](
            len(cores), lambda answers: reply([size for sizes in answers for size in sizes])
        )
        for core in cores:
            self._ask_core(Part(gathering, core, [core], list[Size]), Question.SIZES, [None])

    def _ask(
        self,
        question: Question,
        things: Sequence[object],
        partitions: Sequence[Partition],
        failed: Callable[[int], Answer],
        reply: Callable[[Sequence[Answer]], None],
        *,
        anywhere: bool = False,
    ) -> None:
        """Ask a question of each thing where its partition is; `failed` makes a Fault an answer."""
        gathering = Gathering[Answer](len(things), reply)
        places: dict[int, list[int]] = {}
        faults: list[tuple[int, int]] = []
        self._look()
        for place, partition in enumerate(partitions):
            core, fault = self._core_of(partition, anywhere=anywhere)
            if fault:
                faults.append((place, fault))
            else:
                places.setdefault(core, []).append(place)
        lost = partial(failed, Fault.UNAVAILABLE)
        for core, ours in places.items():
            part = Part(gathering, core, ours, lost)
            self._ask_core(part, question, [things[place] for place in ours])
        for place, fault in faults:
            gathering.fill((place,), (failed(fault),))

    def _ask_core(self, part: Part[Answer], question: Question, things: Sequence[object]) -> None:
        if part.core == self._core:
            answer(self._owner, question, things, part.take)
        else:
            call = self._next_call()
            self._parts[call] = part
            self._fabric.send(part.core, frames.ask(call, question, things))

    def _on_ask(self, source: int, frame: bytes) -> None:
        call, question, things = frames.read_ask(frame)
        answer(self._owner, question, things, partial(self._answer, source, call, question))

    def _answer(
        self, source: int, call: int, question: Question, answers: Sequence[object]
    ) -> None:
        self._fabric.send(source, frames.answer(call, question, answers))

    def _on_answer(self, source: int, frame: bytes) -> None:
        del source
        call, answers = frames.read_answer(frame)
        part = self._parts.pop(call, None)
        if part is not None:
            part.take(answers)

    # ------------------------------------------------------------------ lives of other cores

    def moved(self) -> None:
        """Others lead partitions than before: who waits for one that left this core hears it."""
        self._owner.moved()

    def replaced(self, core: int) -> None:
        """Core `core` has a new life, or is gone: what it had not answered is UNAVAILABLE.

        What its last life had asked for is answered to nobody.
        """
        for key in [key for key in self._servings if key[0] == core]:
            self._forget(key)
        for call in [call for call, each in self._appends.items() if each.core == core]:
            asked = self._appends.pop(call)
            self._appended(asked.size, asked.reply, Appended(Fault.UNAVAILABLE))
        for call in [call for call, each in self._portions.items() if each.core == core]:
            # Answers to those before it may have cancelled it.
            portion = self._portions.pop(call, None)
            if portion is not None:
                del portion.reading.calls[call]
                portion.reading.lose(portion)
                portion.reading.answer_if_ready()
        for call in [call for call, each in self._parts.items() if each.core == core]:
            self._parts.pop(call).lose()


def _no_producers(fault: int) -> tuple[int, Sequence[Producing]]:
    return fault, ()
