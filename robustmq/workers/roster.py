"""The server process' end of the administration: all workers of the node, asked at once."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from robustmq.admin.node import Replies
from robustmq.net.channel import Channel
from robustmq.shm.region import Phase, State
from robustmq.workers import log, questions
from robustmq.workers.inheritance import ServerInheritance
from robustmq.workers.questions import Answer, Applied, Greeting, Hello, Notice, Question

OPEN_QUESTIONS: Final = 16
"""Questions that are on their way at once; others wait for their turn."""

BACKLOG_BYTES: Final = 4 << 20
"""Bytes that wait for a worker beyond which it is asked nothing."""

_SERVING: Final = (Phase.READY, Phase.DRAINING)

_log = log.EventLog("roster")


class _Waiting:
    """A question on its way, or an index of the metadata: who owes an answer, and what came."""

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

    `noticed` are the callables for what workers tell unasked, by kind: they get (core, value).
    """

    def __init__(self, inheritance: ServerInheritance) -> None:
        self.noticed: dict[str, Callable[[int, dict[str, Any]], None]] = {}
        self.workers = inheritance.workers
        self._seconds = inheritance.config.admin.answer_timeout_ms / 1_000
        self._states: list[State] = [inheritance.region.state(n) for n in range(self.workers)]
        self._channels = [
            Channel(end, partial(self._blocked, core))
            for core, end in enumerate(inheritance.channels)
        ]
        self._asked: dict[int, _Waiting] = {}
        self._reached: dict[int, tuple[int, int]] = {}
        """How far the image of each core is: (the core's life, index)."""
        self._settling: list[tuple[int, _Waiting]] = []
        self._open = asyncio.Semaphore(OPEN_QUESTIONS)
        # Beyond every number of an earlier life, whose answers may still come.
        self._last = inheritance.region.state(inheritance.index).epoch << 40

    def start(self) -> None:
        """Listen to the workers, and ask those that run how far their images are."""
        loop = asyncio.get_running_loop()
        for core, channel in enumerate(self._channels):
            loop.add_reader(channel.fileno(), self._receive, core)
            if self._states[core].pid:
                self._send(core, Greeting(self._states[core].epoch))

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

    async def settled(self, index: int) -> list[int]:
        """Wait until the images of all who serve clients have reached an index of the metadata.

        Returns the numbers of those whose have not in time.
        """
        serving = (core for core in range(self.workers) if self._states[core].phase in _SERVING)
        waiting = _Waiting(core for core in serving if not self._has_reached(core, index))
        entry = (index, waiting)
        self._settling.append(entry)
        try:
            return await waiting.settled(self._seconds)
        finally:
            self._settling.remove(entry)

    def _has_reached(self, core: int, index: int) -> bool:
        epoch, reached = self._reached.get(core, (0, 0))
        return epoch == self._states[core].epoch and reached >= index

    def _is_reachable(self, core: int) -> bool:
        serving = self._states[core].phase in _SERVING
        return serving and self._channels[core].backlog_bytes < BACKLOG_BYTES

    def _send(self, core: int, message: questions.ToWorker) -> None:
        self._channels[core].send(questions.encode(message))

    def _receive(self, core: int) -> None:
        for data in self._channels[core].receive():
            match questions.for_server(data):
                case Answer(number, value, error):
                    self._answered(core, number, value, error)
                case Applied(index):
                    self._applied(core, index)
                case Hello(epoch):
                    if epoch == self._states[core].epoch:
                        # What was meant for its predecessor is nobody's any more.
                        self._channels[core].clear()
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

    def _applied(self, core: int, index: int) -> None:
        self._reached[core] = (self._states[core].epoch, index)
        for wanted, waiting in self._settling:
            if wanted <= index:
                waiting.answered(core)

    def _blocked(self, core: int) -> None:
        loop = asyncio.get_running_loop()
        channel = self._channels[core]

        def writable() -> None:
            loop.remove_writer(channel.fileno())
            channel.flush()

        loop.add_writer(channel.fileno(), writable)
