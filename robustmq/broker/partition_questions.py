"""Questions about several partitions: asked of their owners, put together from their answers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from robustmq.broker.partition_api import (
    EpochEnd,
    Found,
    Marker,
    Opening,
    Partition,
    Producing,
    Size,
    Sought,
)
from robustmq.broker.partition_frames import Question

Answer = TypeVar("Answer")


class Oracle(Protocol):
    """What the partitions of this core can be asked; `partition_api.Partitions` says what."""

    def find(self, sought: Sought) -> Found:
        """Look for an offset."""

    def epoch_end(self, partition: Partition, current: int, epoch: int) -> EpochEnd:
        """Say where an epoch ended; `current` is the asker's, or -1."""

    def trim(self, partition: Partition, offset: int) -> Found:
        """Forget what lies below an offset, or with -1 below the high watermark."""

    def begin(self, opening: Opening) -> int:
        """Take transactional batches of a producer; a Fault or 0."""

    def end(self, marker: Marker, done: Callable[[int], None]) -> None:
        """End a transaction; a Fault or 0."""

    def producers(self, partition: Partition) -> tuple[int, Sequence[Producing]]:
        """Say who produces, or the Fault."""

    def sizes(self) -> Sequence[Size]:
        """Say how large the logs are."""


class Gathering(Generic[Answer]):
    """Answers by place, until all are there."""

    __slots__ = ("_answers", "_owing", "_reply")

    def __init__(self, count: int, reply: Callable[[Sequence[Answer]], None]) -> None:
        self._answers: list[Any] = [None] * count
        self._owing = count
        self._reply = reply
        if not count:
            reply([])

    def fill(self, places: Sequence[int], answers: Sequence[Answer]) -> None:
        """Take the answers of some places, once; reply with the last."""
        for place, answer in zip(places, answers, strict=True):
            self._answers[place] = answer
        self._owing -= len(places)
        if places and not self._owing:
            self._reply(self._answers)


class Part(Generic[Answer]):
    """What core `core` was asked of a gathering, and what to put there when the core is gone."""

    __slots__ = ("_failed", "_gathering", "_places", "core")

    def __init__(
        self,
        gathering: Gathering[Answer],
        core: int,
        places: Sequence[int],
        failed: Callable[[], Answer],
    ) -> None:
        self._gathering = gathering
        self.core = core
        self._places = places
        self._failed = failed

    def take(self, answers: Sequence[Answer]) -> None:
        """Take the core's answers."""
        self._gathering.fill(self._places, answers)

    def lose(self) -> None:
        """The core is gone."""
        self.take([self._failed() for _ in self._places])


def answer(
    oracle: Oracle, question: Question, things: Sequence[Any], done: Callable[[Sequence[Any]], None]
) -> None:
    """Answer a question of each thing; `done` hears it when all is known, at once but for `END`."""
    if question is Question.END:
        gathering = Gathering[int](len(things), done)
        for place, marker in enumerate(things):
            oracle.end(marker, partial(_fill_one, gathering, place))
    elif question is Question.FIND:
        done([oracle.find(sought) for sought in things])
    elif question is Question.EPOCH_ENDS:
        done([oracle.epoch_end(*each) for each in things])
    elif question is Question.TRIM:
        done([oracle.trim(*each) for each in things])
    elif question is Question.BEGIN:
        done([oracle.begin(opening) for opening in things])
    elif question is Question.PRODUCERS:
        done([oracle.producers(partition) for partition in things])
    else:
        done([oracle.sizes() for _ in things])


def _fill_one(gathering: Gathering[int], place: int, outcome: int) -> None:
    gathering.fill((place,), (outcome,))
