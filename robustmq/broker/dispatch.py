"""The owner's side of a core: appends to its shards, and who wants what passed the watermark."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from robustmq import metrics
from robustmq._kernel.batch import BatchBuilder
from robustmq._kernel.interest import Interest
from robustmq._kernel.trie import Trie
from robustmq._kernel.turn import Turn
from robustmq.broker import frames
from robustmq.broker.retained import Retained, RetainedRecord
from robustmq.broker.router import Fabric
from robustmq.message.topic import is_wildcard, matches
from robustmq.shard.shard import Shard

_SCAN_BUDGET: Final = 1_000
"""Retained topics that are looked at for subscribers in one turn."""

_MOST_TUPLES: Final = 4_096
"""Sets of cores that are kept as one tuple each, so that equal answers are the same object."""

_FORGET_ONE_BY_ONE: Final = 256

Answer = Callable[[int, int, int, list[tuple[int, int]]], None]


class _Scan:
    """The retained messages of a filter on their way to a core, up to a position."""

    __slots__ = ("call", "cursor", "found", "position", "source", "topic_filter")

    def __init__(self, source: int, call: int, position: int, topic_filter: bytes) -> None:
        self.source = source
        self.call = call
        self.position = position
        self.topic_filter = topic_filter
        self.cursor: bytes | None = b""
        self.found: deque[RetainedRecord] = deque()


class Dispatch:
    """Appends batches, delivers them to interested cores, and answers the core that asked.

    While some core is behind by more than `pressure_bytes`, answers are held back: that pauses
    the publishers, whose unanswered bytes are bounded. A core that replaces another takes no
    append before all the others have told what they want, so that nobody misses it.
    """

    def __init__(
        self,
        turn: Turn,
        *,
        core: int,
        shards: dict[int, Shard],
        retained: Retained,
        fabric: Fabric,
        max_batch_bytes: int,
        pressure_bytes: int,
        route_cache: int,
    ) -> None:
        self._turn = turn
        self._core = core
        self._shards = shards
        self._retained = retained
        self._fabric = fabric
        self._max_batch_bytes = max_batch_bytes
        self._pressure_bytes = pressure_bytes
        self._interest = Interest(self._resolve, route_cache)
        self._filters: dict[bytes, set[int]] = {}
        self._wild: Trie[bytes] = Trie()
        self._tuples: dict[frozenset[int], tuple[int, ...]] = {}
        self._congested: set[int] = set()
        self._held: list[tuple[int, int, int, list[tuple[int, int]]]] = []
        self._appended: set[Shard] = set()
        self._awaited: set[int] = set()
        self._early: list[tuple[int, int, int, bool, bytes]] = []
        self._scans: deque[_Scan] = deque()
        self._scratch = Turn(turn.row)
        self.deliver_here: Callable[[bytes], None]
        self.answer_here: Answer
        self.receive_here: Callable[[bytes], None]

    @property
    def busy(self) -> bool:
        """Whether there is work for another turn although nothing new has arrived."""
        if self._congested and all(map(self._has_caught_up, self._congested)):
            return True
        return any(self._has_caught_up(scan.source) for scan in self._scans)

    def await_interests(self, cores: Iterable[int]) -> None:
        """Keep appends until each of these cores has told what it wants (`told`)."""
        self._awaited = set(cores)

    def told(self, core: int) -> None:
        """Core `core` has told all that it wants."""
        self._awaited.discard(core)
        if not self._awaited:
            early, self._early = self._early, []
            for append in early:
                self.append(*append)

    def append(self, source: int, call: int, shard: int, retained: bool, batch: bytes) -> None:
        """Append `batch` for core `source`, deliver it, and answer unless `call` is 0."""
        if self._awaited:
            self._early.append((source, call, shard, retained, batch))
            return
        owner = self._shards[shard]
        unmatched: list[tuple[int, int]] = []
        count = owner.append(batch, self._turn.now_ms)
        if count:
            cells = self._turn.row
            cells[metrics.SHARD_APPENDS] += 1
            cells[metrics.SHARD_RECORDS] += count
            cells[metrics.SHARD_BYTES] += len(batch)
            unmatched = self._deliver(batch)
            if retained:
                self._retained.apply(batch)
            self._appended.add(owner)
        if call and self._congested:
            self._held.append((source, call, 0, unmatched))
        elif call:
            self._answer(source, call, 0, unmatched)

    def _deliver(self, batch: bytes) -> list[tuple[int, int]]:
        parts, unmatched = self._interest.split(batch)
        for core, part in parts:
            if core == self._core:
                self.deliver_here(part)
                continue
            self._fabric.send(core, frames.DELIVER_HEAD + part)
            if self._fabric.backlog(core) > self._pressure_bytes:
                self._congested.add(core)
        for start, stop in unmatched:
            self._turn.row[metrics.MESSAGES_UNMATCHED] += stop - start
        return unmatched

    def _answer(self, source: int, call: int, code: int, unmatched: list[tuple[int, int]]) -> None:
        if source == self._core:
            self.answer_here(source, call, code, unmatched)
        else:
            self._fabric.send(source, frames.appended(call, code, unmatched))

    def relieve(self) -> None:
        """Forget what everybody has, and answer what was held back when all have caught up."""
        if self._appended:
            for shard in self._appended:
                shard.release(shard.high_watermark)
            self._appended.clear()
        if self._congested:
            self._congested = {core for core in self._congested if not self._has_caught_up(core)}
            if not self._congested:
                held, self._held = self._held, []
                for answer in held:
                    self._answer(*answer)

    def _has_caught_up(self, core: int) -> bool:
        return core == self._core or self._fabric.backlog(core) <= self._pressure_bytes // 2

    def _send(self, core: int, frame: bytes) -> None:
        # What concerns deliveries keeps their order, and those for this core take no detour.
        if core == self._core:
            self.receive_here(frame)
        else:
            self._fabric.send(core, frame)

    def want(self, source: int, call: int, retained: bool, topic_filter: bytes) -> None:
        """Core `source` wants what matches; it is told how far the retained messages are."""
        cores = self._filters.setdefault(topic_filter, set())
        if source not in cores:
            cores.add(source)
            if len(cores) == 1 and is_wildcard(topic_filter):
                self._wild.add(topic_filter, topic_filter)
            self._forget(topic_filter)
        position = self._retained.position if retained and len(self._retained) else 0
        self._send(source, frames.wanted(call, position))

    def unwant(self, source: int, topic_filter: bytes) -> None:
        """Core `source` no longer wants what matches."""
        cores = self._filters.get(topic_filter)
        if cores is None or source not in cores:
            return
        cores.discard(source)
        if not cores:
            del self._filters[topic_filter]
            if is_wildcard(topic_filter):
                self._wild.discard(topic_filter, topic_filter)
        self._forget(topic_filter)

    def drop_core(self, source: int) -> None:
        """Core `source` was replaced: whatever its predecessor wanted is void."""
        for topic_filter in [name for name, cores in self._filters.items() if source in cores]:
            self.unwant(source, topic_filter)
        self._scans = deque(scan for scan in self._scans if scan.source != source)
        self._held = [answer for answer in self._held if answer[0] != source]
        self._early = [append for append in self._early if append[0] != source]
        self.told(source)

    def ask(self, source: int, call: int, position: int, topic_filter: bytes) -> None:
        """Core `source` wants the retained messages that match, of those up to `position`."""
        self._scans.append(_Scan(source, call, position, topic_filter))

    def scan(self) -> None:
        """Go on with the retained messages that were asked for, as much as fits into a turn."""
        budget = _SCAN_BUDGET
        for _ in range(len(self._scans)):
            if budget <= 0:
                break
            scan = self._scans.popleft()
            if self._has_caught_up(scan.source):
                budget -= self._scan_page(scan)
            if scan.cursor is not None or scan.found:
                self._scans.append(scan)
        next_ms = self._retained.next_expiry_ms
        if next_ms is not None and next_ms <= self._turn.now_ms:
            self._retained.expire(self._turn.now_ms, _SCAN_BUDGET)

    def _scan_page(self, scan: _Scan) -> int:
        """Send one batch of a scan; returns how much of a turn's budget it took."""
        cost = 1
        if not scan.found and scan.cursor is not None:
            cost = _SCAN_BUDGET if is_wildcard(scan.topic_filter) else 1
            found, scan.cursor = self._retained.page(scan.topic_filter, scan.cursor, _SCAN_BUDGET)
            scan.found.extend(record for record in found if record.position <= scan.position)
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
            self._send(scan.source, frames.retained(scan.call, last, batch))
        return cost

    def _forget(self, topic_filter: bytes) -> None:
        if not is_wildcard(topic_filter):
            self._interest.forget(topic_filter)
        elif len(self._interest.targets) > _FORGET_ONE_BY_ONE:
            self._interest.forget()
        else:
            for topic in [t for t in self._interest.targets if matches(topic_filter, t)]:
                self._interest.forget(topic)

    def _resolve(self, topic: bytes) -> tuple[int, ...]:
        cores = set(self._filters.get(topic, ()))
        for topic_filter in self._wild.match(topic):
            cores |= self._filters[topic_filter]
        key = frozenset(cores)
        if len(self._tuples) >= _MOST_TUPLES:
            self._tuples.clear()
        return self._tuples.setdefault(key, tuple(sorted(key)))
