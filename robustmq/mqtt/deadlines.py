"""When something is due for sessions that are offline: a million of them without a timer each."""

import heapq
from collections import deque
from collections.abc import Callable
from typing import Final

from robustmq.broker.api import Alarm, Broker
from robustmq.mqtt.session import Session

NEAR_MS: Final = 50
"""Sessions are due in steps of this."""

FAR_MS: Final = 65_536
"""What is due later than two of these is only sorted into steps of this until it comes near."""

AT_ONCE: Final = 2_000
"""Sessions that are handled at a time; of a million that are due together the rest waits."""


class Deadlines:
    """Sessions by the time when they are due.

    `when(session)` is that time in ms or None for never: a pure function of the session, which
    does not change while it is in here. `due(session)` is called up to one step later; it must
    bear a session that has left meanwhile.
    """

    def __init__(
        self,
        broker: Broker,
        when: Callable[[Session], int | None],
        due: Callable[[Session], None],
    ) -> None:
        self._broker = broker
        self._when = when
        self._due = due
        # Steps by their number. One that was emptied stays until its time: it may fill again.
        self._near: dict[int, set[Session]] = {}
        self._far: dict[int, set[Session]] = {}
        self._heap: list[int] = []
        self._ready: deque[Session] = deque()
        self._alarm = Alarm(broker.at, self._run)

    def add(self, session: Session) -> None:
        """Call back when the session is due."""
        when_ms = self._when(session)
        if when_ms is None:
            return
        now_ms = self._broker.turn.now_ms
        if when_ms - now_ms > 2 * FAR_MS:
            self._put(self._far, when_ms // FAR_MS, FAR_MS, session)
        else:
            self._put(self._near, -(-max(when_ms, now_ms) // NEAR_MS), NEAR_MS, session)

    def discard(self, session: Session) -> None:
        """The session is not due any more; it may not be in here."""
        when_ms = self._when(session)
        if when_ms is not None:
            self._near.get(-(-when_ms // NEAR_MS), set()).discard(session)
            self._far.get(when_ms // FAR_MS, set()).discard(session)

    def _put(
        self, steps: dict[int, set[Session]], number: int, step_ms: int, session: Session
    ) -> None:
        step = steps.get(number)
        if step is not None:
            step.add(session)
            return
        steps[number] = {session}
        heapq.heappush(self._heap, number * step_ms)
        self._alarm.set(self._heap[0])

    def _run(self) -> None:
        now_ms = self._broker.turn.now_ms
        while self._heap and self._heap[0] <= now_ms:
            at_ms = heapq.heappop(self._heap)
            if at_ms % NEAR_MS == 0:
                self._ready += self._near.pop(at_ms // NEAR_MS, ())
            if at_ms % FAR_MS == 0:
                for session in self._far.pop(at_ms // FAR_MS, ()):
                    self.add(session)
        for _ in range(min(len(self._ready), AT_ONCE)):
            self._due(self._ready.popleft())
        if self._ready:
            self._alarm.set(now_ms)
        elif self._heap:
            self._alarm.set(self._heap[0])
