"""The owner's side of a core: appends to its shards, and who wants what passed the watermark."""

from collections import deque
from collections.abc import Callable
from typing import Final

from robustmq import metrics
from robustmq._kernel.batch import BatchBuilder
from robustmq._kernel.interest import Interest
from robustmq._kernel.trie import Trie
from robustmq._kernel.turn import Turn
from robustmq.broker import frames
from robustmq.broker.retained import Retained
from robustmq.broker.router import Fabric
from robustmq.message.topic import matches
from robustmq.shard.shard import Shard

_SCAN_BUDGET: Final = 1_000
_FORGET_ONE_BY_ONE: Final = 256

Answer = Callable[[int, int, int, list[tuple[int, int]]], None]


class Dispatch:
    """Appends batches, delivers them to interested cores, and answers the core that asked.

    While some core is behind by more than `pressure_bytes`, answers are held back: that pauses
    the publishers, whose unanswered bytes are bounded.
    """

    def __init__(
        self,
        turn: Turn,
        core: int,
        shards: dict[int, Shard],
        retained: Retained,
        fabric: Fabric,
        pressure_bytes: int,
        route_cache: int,
    ) -> None:
        self._turn = turn
        self._core = core
        self._shards = shards
        self._retained = retained
        self._fabric = fabric
        self._pressure_bytes = pressure_bytes
        self._interest = Interest(self._resolve, route_cache)
        self._filters: dict[bytes, set[int]] = {}
        self._wild: Trie[bytes] = Trie()
        self._tuples: dict[frozenset[int], tuple[int, ...]] = {}
        self._congested: set[int] = set()
        self._held: list[tuple[int, int, int, list[tuple[int, int]]]] = []
        self._appended: set[Shard] = set()
        self._scans: deque[tuple[int, int, bytes, bytes]] = deque()
        self._scratch = Turn(turn.row)
        self.deliver_here: Callable[[bytes], None]
        self.answer_here: Answer

    @property
    def busy(self) -> bool:
        """Is there work for another turn although nothing new has arrived?"""
        return bool(self._scans)

    def append(self, source: int, call: int, shard: int, retained: bool, batch: bytes) -> None:
        """Append `batch` for core `source`, deliver it, and answer unless `call` is 0."""
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
            half = self._pressure_bytes // 2
            self._congested = {
                core for core in self._congested if self._fabric.backlog(core) > half
            }
            if not self._congested:
                held, self._held = self._held, []
                for answer in held:
                    self._answer(*answer)

    def want(self, source: int, call: int, retained: bool, topic_filter: bytes) -> None:
        """Core `source` wants what matches; it is told, after what is retained."""
        cores = self._filters.setdefault(topic_filter, set())
        if source not in cores:
            cores.add(source)
            if len(cores) == 1 and _is_wildcard(topic_filter):
                self._wild.add(topic_filter, topic_filter)
            self._forget(topic_filter)
        if retained and len(self._retained):
            self._scans.append((source, call, topic_filter, b""))
        else:
            self._fabric.send(source, frames.wanted(call))

    def unwant(self, source: int, topic_filter: bytes) -> None:
        """Core `source` no longer wants what matches."""
        cores = self._filters.get(topic_filter)
        if cores is None or source not in cores:
            return
        cores.discard(source)
        if not cores:
            del self._filters[topic_filter]
            if _is_wildcard(topic_filter):
                self._wild.discard(topic_filter, topic_filter)
        self._forget(topic_filter)

    def drop_core(self, source: int) -> None:
        """Core `source` was replaced: whatever its predecessor wanted is void."""
        for topic_filter in [name for name, cores in self._filters.items() if source in cores]:
            self.unwant(source, topic_filter)
        self._scans = deque(scan for scan in self._scans if scan[0] != source)
        self._held = [answer for answer in self._held if answer[0] != source]

    def scan(self) -> None:
        """Go on with the retained messages that were asked for: a page each turn."""
        if self._scans:
            source, call, topic_filter, cursor = self._scans.popleft()
            found, rest = self._retained.page(topic_filter, cursor, _SCAN_BUDGET)
            builder = BatchBuilder(self._scratch, 0, 0xFFFFFFFF, None)
            for record in found:
                builder.append(
                    record.key, record.value, record.headers, record.attributes, record.timestamp
                )
            if builder.count:
                batch, _ = builder.take()
                self._fabric.send(source, frames.retained(call, batch))
            self._scratch.builders.clear()
            if rest is None:
                self._fabric.send(source, frames.wanted(call))
            else:
                self._scans.append((source, call, topic_filter, rest))
        next_ms = self._retained.next_expiry_ms
        if next_ms is not None and next_ms <= self._turn.now_ms:
            self._retained.expire(self._turn.now_ms, _SCAN_BUDGET)

    def _forget(self, topic_filter: bytes) -> None:
        if not _is_wildcard(topic_filter):
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
        return self._tuples.setdefault(key, tuple(sorted(key)))


def _is_wildcard(topic_filter: bytes) -> bool:
    return b"+" in topic_filter or b"#" in topic_filter
