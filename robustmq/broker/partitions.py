"""The way to partitions: to the owner on this core directly, to those on other cores by frames.

Calls are numbered anew with every life of a core, above all numbers of earlier lives: an answer
to a call that nobody knows is for a life that has ended, or for somebody who waits no more.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from robustmq._kernel.turn import Turn
from robustmq.broker import partition_frames as frames
from robustmq.broker.catalog_api import Catalog
from robustmq.broker.partition_api import (
    Append,
    Appended,
    EpochEnd,
    Fault,
    Following,
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
from robustmq.broker.partition_readers import Followed, Readers
from robustmq.broker.partition_reads import Source
from robustmq.broker.partition_ways import Ways
from robustmq.broker.placement import Placement
from robustmq.broker.router import Fabric
from robustmq.broker.timers import Timer, Timers
from robustmq.message.batch import Buffer

_EPOCH_SHIFT: Final = 40
_HARD: Final = 4
"""Times `pressure_bytes` that wait for their answers, beyond which more is refused."""


class Owner(Source, Oracle, Protocol):
    """The partitions of this core (`partition_owner`); what it is asked it answers itself."""

    def append(
        self, partition: Partition, batch: Buffer, done: Callable[[Appended], None] | None
    ) -> None:
        """Append a batch; answered when it is below the high watermark, or at once."""

    def appender(self, partition: Partition) -> Append | None:
        """As `append` to one partition until the catalog is another; None: it is not led here."""

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
        self._core = core
        self._placement = placement
        self._fabric = fabric
        self._owner = owner
        self._pressure_bytes = pressure_bytes
        self._last_call = epoch << _EPOCH_SHIFT
        self._ways = Ways(catalog, placement)
        self._readers = Readers(
            turn,
            core=core,
            fabric=fabric,
            ways=self._ways,
            source=owner,
            next_call=self._next_call,
            at=self._at,
            pressure_bytes=pressure_bytes,
        )
        self._unanswered = 0
        self._appends: dict[int, _Append] = {}
        self._parts: dict[int, Part[Any]] = {}
        self.timers: Timers
        self.appending: Callable[
            [Partition, Callable[[Appended], None]], Callable[[Appended], None]
        ]
        self.appending = lambda _, done: done
        """Told of what the owner here is about to append; returns who hears what became of it."""
        self.handlers: dict[int, Callable[[int, bytes], None]] = {
            Kind.APPEND: self._on_append,
            Kind.APPENDED: self._on_appended,
            Kind.ASK: self._on_ask,
            Kind.ANSWER: self._on_answer,
        } | self._readers.handlers

    def _at(self, when_ms: int, callback: Callable[[], None]) -> Timer:
        return self.timers.at(when_ms, callback)

    def _next_call(self) -> int:
        self._last_call += 1
        return self._last_call

    # ------------------------------------------------------------------ appending

    def append(
        self, partition: Partition, batch: Buffer, reply: Callable[[Appended], None] | None
    ) -> None:
        """See `partition_api.Partitions.append`."""
        self._ways.look()
        core, fault = self._ways.core_of(partition)
        size = len(batch)
        if not fault and self._unanswered > _HARD * self._pressure_bytes:
            fault = Fault.BUSY
        if fault:
            if reply is not None:
                reply(Appended(fault))
            return
        if core == self._core:
            self._append_here(partition, partial(self._owner.append, partition), batch, reply)
            return
        self._unanswered += size
        call = self._next_call()
        self._appends[call] = _Append(core, size, reply)
        self._fabric.send(core, frames.append(call, partition, batch))

    def appender(self, partition: Partition) -> Append:
        """See `partition_api.Partitions.appender`."""
        self._ways.look()
        core, fault = self._ways.core_of(partition)
        append = self._owner.appender(partition) if core == self._core and not fault else None
        if append is None:
            return partial(self.append, partition)
        return partial(self._append, partition, append)

    def _append(
        self,
        partition: Partition,
        append: Append,
        batch: Buffer,
        reply: Callable[[Appended], None],
    ) -> None:
        if self._unanswered > _HARD * self._pressure_bytes:
            reply(Appended(Fault.BUSY))
        else:
            self._append_here(partition, append, batch, reply)

    def _append_here(
        self,
        partition: Partition,
        append: Append,
        batch: Buffer,
        reply: Callable[[Appended], None] | None,
    ) -> None:
        size = len(batch)
        self._unanswered += size
        append(batch, self.appending(partition, partial(self._appended, size, reply)))

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
        return self._readers.read(wanted, min_bytes, max_bytes, until_ms, reply)

    def follow(self) -> Following:
        """See `partition_api.Partitions.follow`."""
        return Followed(self._readers)

    @property
    def busy(self) -> bool:
        """Whether there is work for another turn although nothing new has arrived."""
        return self._readers.busy

    @property
    def is_woken(self) -> bool:
        """Whether `run` has something to do."""
        return self._readers.is_woken

    def run(self) -> None:
        """After a commit: read what has become readable for those who wait for it."""
        self._readers.run()

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
        self._ways.look()
        for place, partition in enumerate(partitions):
            core, fault = self._ways.core_of(partition, anywhere=anywhere)
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
        for call in [call for call, each in self._appends.items() if each.core == core]:
            asked = self._appends.pop(call)
            self._appended(asked.size, asked.reply, Appended(Fault.UNAVAILABLE))
        self._readers.replaced(core)
        for call in [call for call, each in self._parts.items() if each.core == core]:
            self._parts.pop(call).lose()


def _no_producers(fault: int) -> tuple[int, Sequence[Producing]]:
    return fault, ()
