"""What is due when: callbacks by time, for a shell that arms one clock."""

import heapq
from collections.abc import Callable
from typing import Final, Optional

_SWEEP_AT: Final = 1_024
"""Cancelled timers that may lie around whatever is left; beyond that, as many as the others."""


class Timer:
    """One callback that is due at `when_ms`; `cancel` forgets it."""

    __slots__ = ("_timers", "callback", "when_ms")

    def __init__(
        self, when_ms: int, callback: Callable[[], None], timers: Optional["Timers"] = None
    ) -> None:
        self.when_ms = when_ms
        self.callback: Callable[[], None] | None = callback
        self._timers = timers

    def cancel(self) -> None:
        """Never call back."""
        self.callback = None
        timers, self._timers = self._timers, None
        if timers is not None:
            timers.forget_one()

    def due(self) -> None:
        """Learn that the time has come: `timers` do not count this one any more."""
        self._timers = None


class Alarm:
    """One timer for whatever comes first of much that is due; `ring` is called when it is.

    `at(when_ms, callback)` sets a timer.
    """

    __slots__ = ("_at", "_ring", "_timer")

    def __init__(
        self, at: Callable[[int, Callable[[], None]], Timer], ring: Callable[[], None]
    ) -> None:
        self._at = at
        self._ring = ring
        self._timer: Timer | None = None

    def set(self, when_ms: int) -> None:
        """Ring at `when_ms`, if nothing is to come earlier; what is later must be set anew then."""
        if self._timer is not None:
            if self._timer.when_ms <= when_ms:
                return
            self._timer.cancel()
        self._timer = self._at(when_ms, self._run)

    def _run(self) -> None:
        self._timer = None
        self._ring()


class Timers:
    """Timers in whole steps of `step_ms`, so that many that are due together cost one wake-up.

    Cancelled timers are swept out when they are more than the others: a client that returns
    again and again to a session of a week must not leave a week of timers behind.
    """

    def __init__(self, step_ms: int = 50) -> None:
        self._step = step_ms
        self._heap: list[int] = []
        self._slots: dict[int, list[Timer]] = {}
        self._count = 0
        self._cancelled = 0

    def __len__(self) -> int:
        return self._count

    def at(self, when_ms: int, callback: Callable[[], None]) -> Timer:
        """Call `callback` at `when_ms` or up to one step later."""
        timer = Timer(when_ms, callback, self)
        self._count += 1
        slot = -(-when_ms // self._step)
        timers = self._slots.get(slot)
        if timers is None:
            self._slots[slot] = [timer]
            heapq.heappush(self._heap, slot)
        else:
            timers.append(timer)
        return timer

    @property
    def next_ms(self) -> int | None:
        """When `run` has something to do next."""
        return self._heap[0] * self._step if self._heap else None

    def run(self, now_ms: int) -> None:
        """Call back everything that is due."""
        while self._heap and self._heap[0] * self._step <= now_ms:
            due = self._slots.pop(heapq.heappop(self._heap))
            self._count -= len(due)
            self._cancelled -= sum(timer.callback is None for timer in due)
            for timer in due:
                timer.due()
            for timer in due:
                callback, timer.callback = timer.callback, None
                if callback is not None:
                    callback()

    def forget_one(self) -> None:
        """Learn that a timer was cancelled."""
        self._cancelled += 1
        if self._cancelled > max(_SWEEP_AT, self._count // 2):
            self._sweep()

    def _sweep(self) -> None:
        slots: dict[int, list[Timer]] = {}
        for slot, timers in self._slots.items():
            left = [timer for timer in timers if timer.callback is not None]
            if left:
                slots[slot] = left
        self._slots = slots
        self._heap = list(slots)
        heapq.heapify(self._heap)
        self._count = sum(map(len, slots.values()))
        self._cancelled = 0
