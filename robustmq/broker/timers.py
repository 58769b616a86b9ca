"""What is due when: callbacks by time, for a shell that arms one clock."""

import heapq
from collections.abc import Callable


class Timer:
    """One callback that is due at `when_ms`; `cancel` forgets it."""

    __slots__ = ("callback", "when_ms")

    def __init__(self, when_ms: int, callback: Callable[[], None]) -> None:
        self.when_ms = when_ms
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never call back."""
        self.callback = None


class Timers:
    """Timers in whole steps of `step_ms`, so that many that are due together cost one wake-up."""

    def __init__(self, step_ms: int = 50) -> None:
        self._step = step_ms
        self._heap: list[int] = []
        self._slots: dict[int, list[Timer]] = {}

    def at(self, when_ms: int, callback: Callable[[], None]) -> Timer:
        """Call `callback` at `when_ms` or up to one step later."""
        timer = Timer(when_ms, callback)
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
            for timer in self._slots.pop(heapq.heappop(self._heap)):
                callback, timer.callback = timer.callback, None
                if callback is not None:
                    callback()
