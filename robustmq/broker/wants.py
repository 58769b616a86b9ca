"""Interest asked of all cores and answered: a subscription is settled when each of them knows it.

A core that joins the cluster meanwhile need not be waited for: it appends nothing before it has
heard what is wanted here (`lives`). One that departs has answered.
"""

from collections.abc import Callable

from robustmq._kernel.window import Window
from robustmq.broker import frames
from robustmq.broker.api import Kept
from robustmq.broker.deposits import Deposits
from robustmq.broker.interests import Interests
from robustmq.broker.placement import Placement
from robustmq.broker.replicas import Proposals
from robustmq.broker.router import Fabric, Router
from robustmq.broker.subscriptions import Subscriptions
from robustmq.message.core_number import FIRST_REMOTE


class _Wait:
    """An interest that waits for cores to know it; they are `owing` an answer.

    `window` is the subscriber's, None when a shared group wants the filter.
    """

    __slots__ = ("kept", "owing", "reply", "retained", "topic_filter", "window")

    def __init__(
        self,
        topic_filter: bytes,
        owing: set[int],
        window: Window | None,
        retained: bool,
        reply: Callable[[list[Kept]], None],
    ) -> None:
        self.topic_filter = topic_filter
        self.owing = owing
        self.window = window
        self.retained = retained
        self.reply = reply
        self.kept: list[Kept] = []


class Wants:
    """What this core wants of all cores, itself among them, and what they want of it.

    `send` takes a frame for a core, and one for this core without a detour, because what
    concerns deliveries keeps their order.
    """

    def __init__(
        self,
        *,
        placement: Placement,
        fabric: Fabric,
        interests: Interests,
        router: Router,
        subscriptions: Subscriptions,
        deposits: Deposits,
        send: Callable[[int, bytes], None],
    ) -> None:
        self._placement = placement
        self._fabric = fabric
        self._interests = interests
        self._router = router
        self._subscriptions = subscriptions
        self._deposits = deposits
        self._send = send
        self._waits: dict[int, _Wait] = {}
        self._unanswered: list[tuple[int, int, bytes]] = []
        self._last_call = 0

    @property
    def next_call(self) -> int:
        """The call of the `want` that follows."""
        return self._last_call + 1

    def want(
        self,
        topic_filter: bytes,
        window: Window | None,
        retained: bool,
        reply: Callable[[list[Kept]], None],
    ) -> None:
        """Tell all that a filter is wanted here; `reply` when they know it."""
        self._last_call += 1
        owing = set(self._placement.cores)
        wait = self._waits[self._last_call] = _Wait(topic_filter, owing, window, retained, reply)
        for core in self._placement.cores:
            self._ask(core, self._last_call, wait)

    def _ask(self, core: int, call: int, wait: _Wait) -> None:
        durable = self._subscriptions.is_durable(wait.topic_filter)
        is_all = self._router.proposals is not None
        retained = wait.retained and (is_all or core < FIRST_REMOTE)
        self._fabric.send(core, frames.want(call, durable, retained, wait.topic_filter))

    def unwant(self, topic_filter: bytes) -> None:
        """Tell all that a filter is not wanted any more, if that is so."""
        if not self._subscriptions.is_wanted(topic_filter):
            frame = frames.unwant(topic_filter)
            for core in self._placement.cores:
                self._fabric.send(core, frame)

    def tell(self, core: int) -> None:
        """Tell a core all that is wanted here; no answer is waited for."""
        for topic_filter in self._subscriptions.filters():
            durable = self._subscriptions.is_durable(topic_filter)
            self._fabric.send(core, frames.want(0, durable, False, topic_filter))

    def replaced(self, core: int) -> None:
        """Core `core` was replaced: ask again for what its predecessor had not answered."""
        self._forget_questions(core)
        for call, wait in self._waits.items():
            if core in wait.owing:
                self._ask(core, call, wait)
                if not self._subscriptions.is_wanted(wait.topic_filter):
                    self._fabric.send(core, frames.unwant(wait.topic_filter))

    def departed(self, core: int) -> None:
        """Core `core` is gone: nothing comes from there that could be missed."""
        self._forget_questions(core)
        for call, wait in list(self._waits.items()):
            if core in wait.owing:
                self._settle(core, call, wait)

    def _forget_questions(self, core: int) -> None:
        # The calls of its next life begin anew.
        self._unanswered = [each for each in self._unanswered if each[0] != core]

    # ------------------------------------------------------------------ frames

    def on_want(self, source: int, frame: bytes) -> None:
        """A core wants what matches a filter."""
        call, durable, retained, topic_filter = frames.read_want(frame)
        self._interests.want(source, topic_filter, durable)
        if call and retained and self._router.has_replays:
            # What the last life retained is sent first: who asks now will not hear it live.
            self._unanswered.append((source, call, topic_filter))
        elif call:
            self._answer(source, call, topic_filter, retained)

    def answer_late(self) -> None:
        """Once a turn: answer those who had to wait for what the last life retained."""
        if self._unanswered and not self._router.has_replays:
            unanswered, self._unanswered = self._unanswered, []
            for source, call, topic_filter in unanswered:
                self._answer(source, call, topic_filter, True)

    def _answer(self, source: int, call: int, topic_filter: bytes, retained: bool) -> None:
        if retained and self._router.proposals is not None:
            self._answer_of_groups(source, call, self._router.proposals)
            return
        so_far = self._router.retained_so_far(topic_filter) if retained else (0, [])
        self._send(source, frames.wanted(call, self._router.sent, *so_far))

    def _answer_of_groups(self, source: int, call: int, proposals: Proposals) -> None:
        """Answer twice: from here on it is heard live, and where in the groups the rest is."""
        position, life = self._router.retained, self._fabric.epoch(source)
        self._send(source, frames.wanted(call, self._router.sent, position, []))

        def decided() -> None:
            if self._placement.is_live(source) and self._fabric.epoch(source) == life:
                answer = frames.wanted(call, self._router.sent, position, proposals.indexes)
                self._send(source, answer)

        proposals.after(decided)

    def on_unwant(self, source: int, frame: bytes) -> None:
        """A core does not want what matches a filter any more."""
        self._interests.unwant(source, frame[1:])

    def on_wanted(self, source: int, frame: bytes) -> None:
        """A core knows what is wanted here."""
        call, number, position, sent = frames.read_wanted(frame)
        self._deposits.passed(source, number)
        wait = self._waits.get(call)
        if wait is None or source not in wait.owing:
            return
        if wait.retained and self._router.proposals is not None:
            if wait.window is not None:
                self._subscriptions.settle(wait.window, wait.topic_filter, call, source)
            if not sent:
                return
            wait.kept.append(Kept(self._placement.number_of(source), position, sent))
        elif wait.retained and source < FIRST_REMOTE:
            wait.kept.append(Kept(source, position, sent))
        self._settle(source, call, wait)

    def _settle(self, core: int, call: int, wait: _Wait) -> None:
        wait.owing.discard(core)
        if wait.window is not None:
            self._subscriptions.settle(wait.window, wait.topic_filter, call, core)
        if not wait.owing:
            del self._waits[call]
            wait.reply(wait.kept)
