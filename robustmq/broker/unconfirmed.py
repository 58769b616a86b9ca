"""Batches to be delivered once that their core had not heard to be kept, when all cores stopped.

The next life of the same cores would ask again (`router`). When the number of cores changes the
batches are delivered before: to each old core that had not kept them, which its rows `E` tell
exactly, so that nothing is lost and nothing is there twice.
"""

from collections.abc import Iterator, Mapping, Sequence

from robustmq._kernel.batch import gather, records
from robustmq._kernel.trie import Trie
from robustmq.broker.deposits import DEPOSITS
from robustmq.broker.filter_log import LAST
from robustmq.broker.inbox import COUNTERS, LOG_KEY, read_row
from robustmq.broker.log_parts import Leaders, LogParts
from robustmq.broker.placement import Placement
from robustmq.broker.router import ONCE_KEY
from robustmq.broker.taken import taken_rows
from robustmq.message.batch import raw_records
from robustmq.message.record import QOS_BITS, RETAIN_BIT
from robustmq.message.topic import is_wildcard
from robustmq.policy.topic_rules import TopicRules, keeps_log
from robustmq.storage.table import Table


class Unconfirmed:
    """What the rows `O` of all old cores say; `rules` are those by which messages are stored.

    `catalog` and `node` are those of the cores (`LogParts`).
    """

    def __init__(
        self,
        old: Sequence[Table],
        rules: TopicRules,
        catalog: Leaders | None = None,
        node: int = 1,
    ) -> None:
        self._old = old
        self._rules = rules
        self._catalog = catalog
        self._node = node
        self._batches = [
            (source, ONCE_KEY.unpack(key)[1:], batch)
            for source, table in enumerate(old)
            for key, batch in table.walk(b"O", b"P")
        ]

    def rows(self, core: int, logs: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
        """The rows `L`, ascending, that an old core still owes its `logs` (filter -> number)."""
        owed = list(self._owed(core))
        if not owed:
            return []
        table = self._old[core]
        wild: Trie[bytes] = Trie()
        for topic_filter in filter(is_wildcard, logs):
            wild.add(topic_filter, topic_filter)
        known = table.get(b"Nposition")
        position = int.from_bytes(known, "big") if known else 1
        ends: dict[int, tuple[int, int]] = {}
        found = []
        for topic, run in (each for batch in owed for each in self._stored(batch)):
            for topic_filter in (topic, *wild.match(topic)):
                log = logs.get(topic_filter)
                if log is not None:
                    put, put_bytes = ends.get(log) or _end(table, log)
                    ends[log] = put + 1, put_bytes + len(run)
                    key = LOG_KEY.pack(b"L", log, position)
                    found.append((key, COUNTERS.pack(put, put_bytes) + run))
            position += 1
        return sorted(found)

    def runs(self, core: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield (topic, batch of one record) of what an old core still owes to anybody."""
        for batch in self._owed(core):
            yield from self._stored(batch)

    def retained(self, placement: Placement) -> dict[bytes, bytes]:
        """The rows `T` that must be set after all others; an empty value removes the row.

        `placement` is that of the old cores. What was published later is not replaced.
        """
        found: dict[bytes, bytes] = {}
        for _, _, batch in self._batches:
            for raw, (attributes, timestamp, _, topic, value, _) in raw_records(batch):
                if not attributes & RETAIN_BIT or topic is None:
                    continue
                kept = self._old[placement.retained_core(topic)].get(b"T" + topic)
                if kept is None or records(kept)[0][1] <= timestamp:
                    found[b"T" + topic] = gather(batch, [raw]) if value else b""
        return found

    def logged(self, placement: Placement) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield (old core that published, name of a log, batch) of what topic logs may lack.

        `placement` is that of the old cores. A batch has the number by which its log knows it.
        """
        parts = [
            LogParts(self._rules, placement, core, self._catalog, self._node)
            for core in range(len(self._old))
        ]
        for source, (stream, call), batch in self._batches:
            kept = [
                raw
                for raw, (_, _, _, topic, _, _) in raw_records(batch)
                if topic is not None and keeps_log(self._rules.of(topic))
            ]
            if kept:
                for part in parts[source].parts(gather(batch, kept), stream, call):
                    yield source, part.name, part.batch

    def _owed(self, core: int) -> Iterator[bytes]:
        taken = dict(taken_rows(self._old[core], DEPOSITS))
        for source, number, batch in self._batches:
            if number > taken.get(source, (0, 0)):
                yield batch

    def _stored(self, batch: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield (topic, batch of one record) of what durable sessions are owed."""
        for raw, (attributes, _, _, topic, _, _) in raw_records(batch):
            if topic is None:
                continue
            rule = self._rules.of(topic)
            if rule.engine != "memory" and (rule.store_qos0 or attributes & QOS_BITS):
                yield topic, gather(batch, [raw])


def _end(table: Table, log: int) -> tuple[int, int]:
    """The counters of the row that a log gets next."""
    last = table.last(LOG_KEY.pack(b"L", log, 0), LOG_KEY.pack(b"L", log, LAST))
    if last is None:
        return 0, 0
    put, put_bytes = COUNTERS.unpack_from(last[1])
    row = read_row(table, *last)
    return put + row.records, put_bytes + len(row.batch)
