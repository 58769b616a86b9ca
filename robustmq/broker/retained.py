"""The retained messages of the topics that a core keeps (MQTT5 3.3.1.3)."""

import heapq
from collections.abc import Iterable
from typing import Final, NamedTuple

from robustmq import metrics
from robustmq._kernel.batch import gather, records
from robustmq.broker.state import State
from robustmq.message.batch import raw_records
from robustmq.message.record import NO_HEADERS, RETAIN_BIT, expires_at
from robustmq.message.topic_map import TopicMap
from robustmq.settings.mqtt import MqttRetained

_SPARE_EXPIRIES: Final = 1_024
"""Times of records that were replaced, beside one for each topic, before they are swept."""


class RetainedRecord(NamedTuple):
    """The last retained record of a topic; `expires_ms` is 0 for never.

    `position` is its place in the stream of the core `source`, on which it was published.
    """

    attributes: int
    timestamp: int
    key: bytes
    value: bytes
    headers: bytes
    expires_ms: int
    source: int
    position: int

    @property
    def size(self) -> int:
        """Bytes that count against the limit."""
        return len(self.key) + len(self.value) + len(self.headers)


class Retained:
    """One record per topic, within the `limits`; `cells` is the counter row.

    On disk a record is the batch in row `T` topic. How long one is kept that does not say it
    itself, is not on the disk: what is configured holds for those of earlier lives too.
    """

    def __init__(self, state: State, limits: MqttRetained, cells: memoryview) -> None:
        self._state = state
        self._topics: TopicMap[RetainedRecord] = TopicMap()
        self._expiries: list[tuple[int, bytes]] = []
        self._bytes = 0
        self._max_messages = limits.max_messages
        self._max_bytes = limits.max_bytes
        self._expiry_ms = limits.expiry_seconds * 1_000
        self._cells = cells

    def __len__(self) -> int:
        return len(self._topics)

    def restore(self) -> None:
        """After a restart: take what is on the disk."""
        for _, batch in self._state.walk(b"T", b"U"):
            ((attributes, timestamp, _, key, value, headers),) = records(batch)
            assert key is not None
            assert value is not None
            expires_ms = self._deadline(key, timestamp, headers)
            self._put(RetainedRecord(attributes, timestamp, key, value, headers, expires_ms, 0, 0))
        self._count()

    def apply(self, batch: bytes, source: int, position: int, is_late: bool = False) -> None:
        """Keep, replace or (with an empty payload) remove what the batch retains.

        What `is_late` changes nothing where something newer is kept, or it itself: its place in
        the stream of an earlier life is what subscribers were told of.
        """
        for raw, (attributes, timestamp, _, key, value, headers) in raw_records(batch):
            if not attributes & RETAIN_BIT or key is None:
                continue
            known = self._topics.get(key) if is_late else None
            if known is not None:
                same = known[:5] == (attributes, timestamp, key, value, headers)
                if same or known.timestamp > timestamp:
                    continue
            if not value:
                self._remove(key)
                continue
            expires_ms = self._deadline(key, timestamp, headers)
            kept = RetainedRecord(
                attributes, timestamp, key, value, headers, expires_ms, source, position
            )
            if self._put(kept):
                self._state.put(b"T" + key, gather(batch, [raw]))
        self._count()

    def take(self, batch: bytes, source: int, position: int) -> None:
        """Keep the one record of a batch that is to be retained."""
        ((attributes, timestamp, _, key, value, headers),) = records(batch)
        if key is None or not value:
            return
        expires_ms = self._deadline(key, timestamp, headers)
        kept = RetainedRecord(
            attributes, timestamp, key, value, headers, expires_ms, source, position
        )
        if self._put(kept):
            self._state.put(b"T" + key, batch)
        self._count()

    def clear(self, topic: bytes) -> None:
        """Retain nothing of a topic any more."""
        self._remove(topic)
        self._count()

    def page(
        self, topic_filter: bytes, cursor: bytes, budget: int
    ) -> tuple[Iterable[RetainedRecord], bytes | None]:
        """The next records that match, and the cursor to go on with (see `TopicMap.page`)."""
        return self._topics.page(topic_filter, cursor, budget)

    def expire(self, now_ms: int, budget: int) -> None:
        """Remove at most `budget` records whose time has come."""
        while budget and self._expiries and self._expiries[0][0] <= now_ms:
            deadline, topic = heapq.heappop(self._expiries)
            if self._is_current(deadline, topic):
                self._remove(topic)
                self._cells[metrics.RETAINED_EXPIRED] += 1
            budget -= 1
        self._count()

    @property
    def next_expiry_ms(self) -> int | None:
        """When the next record expires."""
        return self._expiries[0][0] if self._expiries else None

    def _put(self, record: RetainedRecord) -> bool:
        """Keep a record; False when it exceeds a limit, and then the topic has none."""
        known = self._topics.get(record.key)
        grown = self._bytes + record.size - (known.size if known else 0)
        if (known is None and len(self._topics) >= self._max_messages) or grown > self._max_bytes:
            self._cells[metrics.RETAINED_REFUSED] += 1
            self._remove(record.key)
            return False
        self._topics.put(record.key, record)
        self._bytes = grown
        if record.expires_ms:
            heapq.heappush(self._expiries, (record.expires_ms, record.key))
            if len(self._expiries) > 2 * len(self._topics) + _SPARE_EXPIRIES:
                self._forget_replaced()
        return True

    def _forget_replaced(self) -> None:
        """Keep only the times of records that are there: a topic may be retained for ever anew."""
        self._expiries = [entry for entry in set(self._expiries) if self._is_current(*entry)]
        heapq.heapify(self._expiries)

    def _is_current(self, deadline: int, topic: bytes) -> bool:
        record = self._topics.get(topic)
        return record is not None and record.expires_ms == deadline

    def _remove(self, topic: bytes) -> None:
        known = self._topics.pop(topic)
        if known is not None:
            self._bytes -= known.size
            self._state.delete(b"T" + topic)

    def _count(self) -> None:
        self._cells[metrics.RETAINED_MESSAGES] = len(self._topics)
        self._cells[metrics.RETAINED_BYTES] = self._bytes

    def _deadline(self, topic: bytes, timestamp: int, headers: bytes) -> int:
        said = 0 if headers == NO_HEADERS else expires_at(headers)
        if said or not self._expiry_ms or topic.startswith(b"$SYS/"):
            return said
        return timestamp + self._expiry_ms
