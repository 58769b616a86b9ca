"""The topic logs of all cores of a node, moved to another number of cores.

A log of a topic's own goes to the core that keeps the topic now, the log of a rule to core `old
core % cores`. One that comes alone keeps its offsets, also where something is missing; where logs
of several cores meet, each keeps its order, and their batches are sorted by time. What was to be
delivered once and was not confirmed comes last, unless its log knows it.
"""

from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from typing import Final, NamedTuple, Protocol

from robustmq.broker import log_rows
from robustmq.broker.departure import Target
from robustmq.broker.log_rows import Listed
from robustmq.broker.placement import Placement
from robustmq.broker.topic_logs import LogStore
from robustmq.broker.unconfirmed import Unconfirmed
from robustmq.config import Engine, TopicRule
from robustmq.errors import Corrupt
from robustmq.message.batch import count_of, timestamp_of
from robustmq.policy.topic_rules import TopicRules, own_log
from robustmq.shard.shard import Shard
from robustmq.storage.log import Log, StoredBatch, gap, since
from robustmq.storage.table import Table

_PAGE_BYTES: Final = 1 << 20
_NO_TIME: Final = 0
"""A producer whose last batch is in no note was there when its log is opened."""
_MOST_OFFSETS: Final = 1 << 30
"""Offsets that one batch without records spans at most."""


class Depot(LogStore, Protocol):
    """A `LogStore` whose logs can be let go of: there may be more than can be open at once."""

    def release(self, number: int, engine: Engine, *, was_changed: bool) -> None:
        """A log that was opened is not used any more; it was only read unless `was_changed`."""


class Depots(NamedTuple):
    """The engines of the old cores, and of the new ones."""

    old: Sequence[Depot]
    new: Sequence[Depot]


class _Home(NamedTuple):
    """Where a log comes to lie: on which new core, under which name."""

    core: int
    name: bytes


class _Source(NamedTuple):
    """A log of an old core, and its shard, which knows who has appended what."""

    core: int
    listed: Listed
    shard: Shard


class LogRelocation:
    """One move of logs; `first` is the lowest number that no core has given to a log.

    `tick` is called with the old core for every batch that was read.
    """

    def __init__(
        self,
        old: Sequence[Table],
        new: Sequence[Target],
        depots: Depots,
        *,
        rules: TopicRules,
        unconfirmed: Unconfirmed,
        first: int,
        tick: Callable[[int], object],
    ) -> None:
        self._old = old
        self._new = new
        self._depots = depots
        self._rules = rules
        self._unconfirmed = unconfirmed
        self._tick = tick
        self._placement = Placement(len(new))
        self._numbers = [first] * len(new)

    def move(self) -> list[int]:
        """Move all; returns the next free number of every new core. Raises Corrupt, Unwritable."""
        listed: dict[_Home, list[tuple[int, Listed]]] = {}
        for core, table in enumerate(self._old):
            for key, value in table.walk(b"Q", b"R"):
                row = log_rows.decode_listed(value)
                listed.setdefault(self._home_of(key[1:], core), []).append((core, row))
        late: dict[_Home, list[bytes]] = {}
        for core, name, batch in self._unconfirmed.logged(Placement(len(self._old))):
            late.setdefault(self._home_of(name, core), []).append(batch)
        for home in {**listed, **late}:
            self._move(home, listed.get(home, []), late.get(home, []))
        return self._numbers

    def _home_of(self, name: bytes, core: int) -> _Home:
        """Where a log of an old core goes."""
        own = own_log(name)
        if own is None:
            return _Home(core % self._placement.workers, name)
        return _Home(self._placement.log_core(*own), name)

    def _move(self, home: _Home, listed: list[tuple[int, Listed]], late: list[bytes]) -> None:
        rule = self._rules.of_log(home.name)
        engine = listed[0][1].engine if listed else rule.engine
        if engine == "memory":
            return
        number = self._numbers[home.core]
        self._numbers[home.core] += 1
        target, depot = self._new[home.core], self._depots.new[home.core]
        shard = Shard(number, depot.open(number, engine, rule))
        sources = [self._open(core, row, rule) for core, row in listed]
        if len(sources) == 1:
            self._copy(sources[0], shard.log, target)
            # Its offsets are the same: so is what is known of them.
            shard.recover(sources[0].shard.note(), _NO_TIME)
        else:
            self._merge(sources, shard.log, target)
            for source in sources:
                shard.adopt(source.shard)
        for batch in late:
            if shard.append(batch, timestamp_of(batch)):
                target.wrote(len(batch))
        row = log_rows.encode_listed(number, engine)
        if len(listed) == 1:
            row = log_rows.encode_listed(*listed[0][1]._replace(number=number))
        target.put(log_rows.listed_key(home.name), row)
        target.put(log_rows.note_key(number), shard.note())
        depot.release(number, engine, was_changed=True)
        for source in sources:
            depot = self._depots.old[source.core]
            depot.release(source.listed.number, source.listed.engine, was_changed=False)

    def _open(self, core: int, listed: Listed, rule: TopicRule) -> _Source:
        log = self._depots.old[core].open(listed.number, listed.engine, rule)
        shard = Shard(listed.number, log)
        shard.epochs.decode(listed.epochs)
        shard.recover(self._old[core].get(log_rows.note_key(listed.number)), _NO_TIME)
        return _Source(core, listed, shard)

    def _copy(self, source: _Source, log: Log, target: Target) -> None:
        """Take over a log with its offsets; where it lacks some there are batches without records.

        They stand for what compaction has removed, or for damage.
        """
        start, end = source.shard.start_offset, source.shard.end_offset
        empty, time_ms = True, 0
        for base, span, data in self._batches(source):
            if empty and min(base, start):
                log.reset(min(base, start))
            empty = False
            _fill(log, base, time_ms)
            time_ms = timestamp_of(data)
            log.append(data, span, time_ms)
            target.wrote(len(data))
        if empty and start:
            log.reset(start)
        _fill(log, end, time_ms)
        log.trim(start)

    def _merge(self, sources: list[_Source], log: Log, target: Target) -> None:
        """Put logs together; who was sorted by time before stays so."""
        streams = (self._batches(source) for source in sources)
        for _, span, data in merge(*streams, key=lambda batch: timestamp_of(batch.data)):
            log.append(data, span, timestamp_of(data))
            target.wrote(len(data))

    def _batches(self, source: _Source) -> Iterator[StoredBatch]:
        """Yield the batches that have records which are kept."""
        log = source.shard.log
        start = at = log.start_offset
        while at < log.end_offset:
            try:
                found = log.read(at, _PAGE_BYTES)
            except Corrupt:
                # It has been moved aside and counted; the next read goes on behind it.
                continue
            if not found:
                return
            for batch in found:
                self._tick(source.core)
                at = batch.next_offset
                kept = since(batch, start) if batch.base_offset < start else batch
                if count_of(kept.data):
                    yield kept


def _fill(log: Log, end: int, timestamp_ms: int) -> None:
    """Have a log end where there is a gap in what it is made from."""
    while (at := log.end_offset) < end:
        _, span, data = gap(at, min(end, at + _MOST_OFFSETS), timestamp_ms)
        log.append(data, span, timestamp_ms)
