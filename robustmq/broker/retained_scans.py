"""The retained messages that subscribers have asked a core for, page by page."""

import operator
from collections import deque
from collections.abc import Callable
from typing import Final

from robustmq._kernel.batch import BatchBuilder
from robustmq._kernel.turn import Turn
from robustmq.broker import frames
from robustmq.broker.retained import Retained, RetainedRecord
from robustmq.broker.router import EPOCH_SHIFT, Fabric
from robustmq.message.topic import is_wildcard

_BUDGET: Final = 1_000
"""Retained topics that are looked at in one turn."""

Until = list[tuple[int, int]]
"""For each core: the position up to which its messages are wanted, and the one to wait for."""


class _Scan:
    """The retained messages of a filter on their way to a core."""

    __slots__ = (
        "awaited",
        "call",
        "cursor",
        "cuts",
        "found",
        "of_groups",
        "source",
        "topic_filter",
    )

    def __init__(  # noqa: PLR0917
        self,
        source: int,
        call: int,
        cuts: dict[int, int],
        awaited: list[int],
        topic_filter: bytes,
        of_groups: bool,
    ) -> None:
        self.source = source
        self.call = call
        self.cuts = cuts
        """By core: the position up to which what it has published is wanted."""
        self.awaited = awaited
        """What must be here before: positions by core, or (`of_groups`) indexes by group."""
        self.of_groups = of_groups
        self.topic_filter = topic_filter
        self.cursor: bytes | None = b""
        self.found: deque[RetainedRecord] = deque()


class RetainedScans:
    """Answers scans, a budget each turn, and expires what is over.

    A scan waits for the messages that were on their way here when its subscription was settled;
    those that a core published later are left out, because the subscriber hears them live.
    """

    def __init__(
        self,
        turn: Turn,
        *,
        core: int,
        retained: Retained,
        fabric: Fabric,
        max_batch_bytes: int,
        pressure_bytes: int,
        workers: int,
    ) -> None:
        self._turn = turn
        self._core = core
        self._retained = retained
        self._fabric = fabric
        self._max_batch_bytes = max_batch_bytes
        self._pressure_bytes = pressure_bytes
        self._arrived = [0] * workers
        self._scans: deque[_Scan] = deque()
        self._scratch = Turn(turn.row)
        self.reached: list[int] = []
        """In a cluster: how far each group is known here."""
        self.receive_here: Callable[[bytes], None]

    @property
    def busy(self) -> bool:
        """Whether there is work for another turn although nothing new has arrived."""
        return any(map(self._is_ready, self._scans))

    def arrived(self, source: int, position: int) -> None:
        """What `source` had retained up to a position is here."""
        self._arrived[source] = position

    def ask(self, source: int, call: int, until: Until, topic_filter: bytes) -> None:
        """Core `source` wants the retained messages that match."""
        cuts = {core: position for core, (position, _) in enumerate(until)}
        awaited = [position for _, position in until]
        self._scans.append(_Scan(source, call, cuts, awaited, topic_filter, False))

    def look(self, source: int, frame: bytes) -> None:
        """As `ask`, in a cluster."""
        call, cuts, awaited, topic_filter = frames.read_look(frame)
        self._scans.append(_Scan(source, call, cuts, awaited, topic_filter, True))

    def drop_core(self, source: int) -> None:
        """Core `source` was replaced: its predecessor's questions are void."""
        self._scans = deque(scan for scan in self._scans if scan.source != source)

    def run(self) -> None:
        """Go on with what was asked for, as much as fits into a turn."""
        budget = _BUDGET
        for _ in range(len(self._scans)):
            if budget <= 0:
                break
            scan = self._scans.popleft()
            if self._is_ready(scan):
                budget -= self._page(scan)
            if scan.cursor is not None or scan.found:
                self._scans.append(scan)
        next_ms = self._retained.next_expiry_ms
        if next_ms is not None and next_ms <= self._turn.now_ms:
            self._retained.expire(self._turn.now_ms, _BUDGET)

    def _is_ready(self, scan: _Scan) -> bool:
        """Say whether all is here that has to be, and the asking core can take it."""
        if self._fabric.backlog(scan.source) > self._pressure_bytes // 2:
            return False
        if scan.of_groups:
            return all(map(operator.le, scan.awaited, self.reached))
        return all(
            awaited <= self._arrived[core] or awaited >> EPOCH_SHIFT < self._fabric.epoch(core)
            for core, awaited in enumerate(scan.awaited)
        )

    def _page(self, scan: _Scan) -> int:
        """Send one batch of a scan; returns how much of a turn's budget it took."""
        cost = 1
        if not scan.found and scan.cursor is not None:
            cost = _BUDGET if is_wildcard(scan.topic_filter) else 1
            found, scan.cursor = self._retained.page(scan.topic_filter, scan.cursor, _BUDGET)
            cuts, now_ms = scan.cuts, self._turn.now_ms
            scan.found.extend(
                record
                for record in found
                if record.position <= cuts.get(record.source, record.position)
                and not 0 < record.expires_ms <= now_ms
            )
        builder = BatchBuilder(self._scratch, 0, 0xFFFFFFFF, None)
        while scan.found and builder.size < self._max_batch_bytes:
            record = scan.found.popleft()
            builder.append(
                record.key, record.value, record.headers, record.attributes, record.timestamp
            )
        self._scratch.builders.clear()
        batch = builder.take()[0] if builder.count else b""
        last = scan.cursor is None and not scan.found
        if batch or last:
            frame = frames.retained(scan.call, last, batch)
            if scan.source == self._core:
                self.receive_here(frame)
            else:
                self._fabric.send(scan.source, frame)
        return cost
