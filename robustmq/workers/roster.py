"""The server process' end of the administration: all workers of the node, asked at once."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from robustmq.admin.node import Replies
from robustmq.net.channel import Channel
from robustmq.shm.region import Phase, State
from robustmq.workers import log, questions
from robustmq.workers.inheritance import ServerInheritance
from robustmq.workers.questions import (
    Answer,
    Applied,
    Change,
    Hello,
    Image,
    Notice,
    Question,
    Record,
)

OPEN_QUESTIONS: Final = 16
"""Questions that are on their way at once; others wait for their turn."""

BACKLOG_BYTES: Final = 4 << 20
"""Bytes that wait for a worker beyond which it is told nothing but the records at its start."""

_SERVING: Final = (Phase.READY, Phase.DRAINING)

_log = log.EventLog("roster")


class _Waiting:
    """A question on its way, or a version of the records: who owes an answer, and what came."""

    def __init__(self, cores: Iterable[int]) -> None:
        self.owing = set(cores)
        self.values: dict[int, Any] = {}
        self.errors: list[str] = []
        self.done = asyncio.Event()
        self._look()

    def answered(self, core: int) -> None:
        self.owing.discard(core)
        self._look()

    def _look(self) -> None:
        if not self.owing:
            self.done.set()

    async def settled(self, seconds: float) -> list[int]:
        """Wait for all, no longer than told; return who has not answered."""
        try:
            await asyncio.wait_for(self.done.wait(), seconds)
        except TimeoutError:
            return sorted(self.owing)
        return []


class Roster:
    """Asks workers and tells them; one that is down or slow delays nobody beyond the timeout.

    `image()` is (version, all records), for a worker that begins; `noticed` are the callables
    for what workers tell unasked, by kind: they get (core, value).
    """

    def __init__(
        self, inheritance: ServerInheritance, image: Callable[[], tuple[int, list[Record]]]
    ) -> None:
        self.noticed: dict[str, Callable[[int, dict[str, Any]], None]] = {}
        self.workers = inheritance.workers
        self._image = image
        self._seconds = inheritance.config.admin.answer_timeout_ms / 1_000
        self._states: list[State] = [inheritance.region.state(n) for n in range(self.workers)]
        self._channels = [
            Channel(end, partial(self._blocked, core))
            for core, end in enumerate(inheritance.channels)
        ]
        self._asked: dict[int, _Waiting] = {}
        self._published: dict[int, _Waiting] = {}
        self._open = asyncio.Semaphore(OPEN_QUESTIONS)
        # Beyond every number of an earlier life, whose answers may still come.
        self._last = inheritance.region.state(inheritance.index).epoch << 40

    def start(self) -> None:
        """Listen to the workers, and tell those that run what the records are."""
        loop = asyncio.get_running_loop()
        for core, channel in enumerate(self._channels):
            loop.add_reader(channel.fileno(), self._receive, core)
            if self._states[core].pid:
                self._send_image(core)

    async def ask(
        self, kind: str, arguments: Mapping[str, Any], cores: Iterable[int] | None = None
    ) -> Replies:
        """Ask the cores, all unless named; whoever has not answered in time is `missing`.

        Raises ValueError when a worker refuses the question, with its sentence.
        """
        wanted = range(self.workers) if cores is None else sorted(cores)
        async with self._open:
            self._last += 1
            number = self._last
            asked = [core for core in wanted if self._is_reachable(core)]
            waiting = self._asked[number] = _Waiting(asked)
            for core in asked:
                epoch = self._states[core].epoch
                self._send(core, Question(epoch, number, kind, dict(arguments)))
            try:
                late = await waiting.settled(self._seconds)
            finally:
                del self._asked[number]
        if waiting.errors:
            raise ValueError(waiting.errors[0])
        return Replies(waiting.values, sorted({*wanted} - {*asked} | {*late}))

    async def publish(self, version: int, records: Sequence[Record]) -> list[int]:
        """Tell every worker of a change; return who serves clients and has not applied it."""
        serving = [core for core in range(self.workers) if self._states[core].phase in _SERVING]
        waiting = self._published[version] = _Waiting(serving)
        for core in range(self.workers):
            if self._states[core].pid and self._channels[core].backlog_bytes < BACKLOG_BYTES:
                self._send(core, Change(self._states[core].epoch, version, list(records)))
        try:
            return await waiting.settled(self._seconds)
        finally:
            del self._published[version]

    def _is_reachable(self, core: int) -> bool:
        serving = self._states[core].phase in _SERVING
        return serving and self._channels[core].backlog_bytes < BACKLOG_BYTES

    def _send(self, core: int, message: questions.ToWorker) -> None:
        self._channels[core].send(questions.encode(message))

    def _send_image(self, core: int) -> None:
        version, records = self._image()
        self._send(core, Image(self._states[core].epoch, version, records))

    def _receive(self, core: int) -> None:
        for data in self._channels[core].receive():
            match questions.for_server(data):
                case Answer(number, value, error):
                    self._answered(core, number, value, error)
                case Applied(version):
                    self._applied(core, version)
                case Hello(epoch):
                    if epoch == self._states[core].epoch:
                        # What was meant for its predecessor is nobody's any more.
                        self._channels[core].clear()
                        self._send_image(core)
                case Notice(kind, value):
                    if kind in self.noticed:
                        self.noticed[kind](core, value)

    def _answered(self, core: int, number: int, value: object, error: str | None) -> None:
        waiting = self._asked.get(number)
        if waiting is None:
            return
        if error is None:
            waiting.values[core] = value
        else:
            waiting.errors.append(error)
        waiting.answered(core)

    def _applied(self, core: int, version: int) -> None:
        for published, waiting in self._published.items():
            if published <= version:
                waiting.answered(core)

    def _blocked(self, core: int) -> None:
        loop = asyncio.get_running_loop()
        channel = self._channels[core]

        def writable() -> None:
            loop.remove_writer(channel.fileno())
            channel.flush()

        loop.add_writer(channel.fileno(), writable)
