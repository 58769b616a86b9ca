"""Compaction by key: of the records of a key only the latest stays, a little at a time."""

from typing import Final, Protocol

from robustmq._kernel.batch import cut, records
from robustmq.errors import Corrupt
from robustmq.message.batch import OWN_PRODUCERS, producer_of
from robustmq.message.compression import codec_of, compressed, decompressed
from robustmq.storage.header import HEADER, header_at, rebuilt
from robustmq.storage.log import Stable, StoredBatch
from robustmq.storage.log_settings import LogSettings

BATCH_COST: Final = 4_096
"""Bytes of a budget that a batch counts as besides its own: by the time that it takes."""
_PAGE_BYTES: Final = 16_384
"""Bytes that are read at once: a budget is exceeded by no more batches than these can be."""
_CONTROL: Final = 0b100000
"""Of a batch's attributes: its record is a marker, which ends a transaction."""
_TRANSACTIONAL: Final = 0b010000
_STAMPED: Final = 0b001000
"""All records of the batch have its latest time, which is that of its append."""
_MOST_BYTES: Final = 1 << 28
"""Bytes that the records of a compressed batch may take, to be looked into."""


class Compactable(Protocol):
    """A log that can replace what it has kept."""

    def settled(self) -> tuple[int, int]:
        """The offsets from which and below which nothing will change but by compaction."""

    def read(self, offset: int, max_bytes: int) -> list[StoredBatch]:
        """As of a `Log`."""

    def sweep(self, batch: StoredBatch, kept: bytes | None) -> None:
        """Keep `kept` of a batch, None: nothing; called for every batch in order."""

    def swept(self, target: int) -> None:
        """Everything below `target` has been swept."""

    def unswept(self) -> None:
        """Forget what was swept since the last `swept`: it will not be finished."""


class Compaction:
    """Runs over a log: first the latest offset of each key is learnt, then all others removed.

    A record without a key stays. A record without a value is a deletion: it stays for
    `tombstone_ms` so that every reader sees it. Records of aborted transactions go, markers stay,
    and nothing is touched from the first open transaction on, or that is younger than
    `compact_lag_ms`. A run begins when there are `compact_records` new records and no fewer than
    the last run has kept.
    """

    def __init__(self, log: Compactable, settings: LogSettings) -> None:
        self._log = log
        self._settings = settings
        self._clean_to = 0
        self._kept = 0
        self._latest: dict[bytes, int] = {}
        self._target: int | None = None
        self._sweeping = False
        self._at = 0
        self._count = 0

    def configure(self, settings: LogSettings) -> None:
        """Go by other settings from now on."""
        self._settings = settings

    def restart(self, below: int) -> None:
        """The log was cut at `below`: what was learnt about its end is wrong."""
        if self._target is not None:
            self._end_run()
            self._log.unswept()
        self._clean_to = min(self._clean_to, below)

    def step(self, now_ms: int, budget: int, stable: Stable | None = None) -> bool:
        """Look at about `budget` bytes; says whether the run goes on."""
        start, end = self._log.settled()
        if stable is not None:
            end = max(min(end, stable.stable_offset), start)
        if self._target is None:
            self._clean_to = max(self._clean_to, start)
            if end - self._clean_to < max(self._settings.compact_records, self._kept):
                return False
            self._target, self._at = end, self._clean_to
        while budget > 0 and self._target is not None:
            try:
                batches = self._log.read(max(self._at, start), min(budget, _PAGE_BYTES))
            except Corrupt:
                # It has been moved aside and counted; the next read goes on behind it.
                continue
            budget -= sum(len(batch.data) + BATCH_COST for batch in batches) + HEADER
            for batch in batches:
                if self._is_young(batch, now_ms):
                    self._target = min(self._target, batch.base_offset)
                if batch.base_offset >= self._target:
                    break
                self._take(batch, now_ms, stable)
                self._at = batch.next_offset
            if not batches or batches[-1].next_offset >= self._target:
                self._turn(start)
        return self._target is not None

    def _is_young(self, batch: StoredBatch, now_ms: int) -> bool:
        """Whether a batch that is to be learnt has not lain there for long enough."""
        lag_ms = self._settings.compact_lag_ms
        if not lag_ms or self._sweeping:
            return False
        return header_at(batch.data, 0).newest_ms > now_ms - lag_ms

    def _turn(self, start: int) -> None:
        """From learning to sweeping, or from sweeping to the end of the run."""
        assert self._target is not None
        if self._target <= self._clean_to:
            # All that is new is too young.
            self._end_run()
            return
        if not self._sweeping:
            self._sweeping = True
            self._at = start
            self._count = 0
            return
        self._log.swept(self._target)
        self._clean_to, self._kept = self._target, self._count
        self._end_run()

    def _end_run(self) -> None:
        self._target = None
        self._sweeping = False
        self._latest = {}

    def _take(self, batch: StoredBatch, now_ms: int, stable: Stable | None) -> None:
        attributes = header_at(batch.data, 0).attributes
        if attributes & _CONTROL:
            if self._sweeping:
                self._log.sweep(batch, batch.data)
            return
        is_void = bool(
            attributes & _TRANSACTIONAL
            and stable is not None
            and stable.is_void(producer_of(batch.data), batch.base_offset)
        )
        try:
            plain = decompressed(batch.data, _MOST_BYTES)
        except Corrupt:
            # It was taken as it was: so it stays.
            if self._sweeping:
                self._log.sweep(batch, batch.data)
            return
        if self._sweeping:
            self._log.sweep(batch, None if is_void else self._kept_of(batch, plain, now_ms))
        elif not is_void:
            self._learn(batch, plain)

    def _learn(self, batch: StoredBatch, plain: bytes) -> None:
        shift = batch.base_offset - int.from_bytes(plain[:8], "big")
        for _, _, offset, key, _, _ in records(plain):
            if key is not None:
                self._latest[key] = offset + shift
        if len(self._latest) >= self._settings.compact_keys:
            self._target = batch.next_offset

    def _kept_of(self, batch: StoredBatch, plain: bytes, now_ms: int) -> bytes | None:
        """The batch without what is superseded, compressed as it was; itself when nothing is."""
        kept = self._remaining(batch, plain, now_ms)
        if kept is None or kept is plain:
            return batch.data if kept is plain else None
        kept = compressed(kept, codec_of(batch.data))
        # What compresses worse without some of its records is left as it is.
        return kept if len(kept) <= len(batch.data) else batch.data

    def _remaining(self, batch: StoredBatch, plain: bytes, now_ms: int) -> bytes | None:
        shift = batch.base_offset - int.from_bytes(plain[:8], "big")
        oldest = now_ms - self._settings.tombstone_ms
        # An empty value of a client of Kafka is a value: it has others that delete.
        empty_deletes = self._settings.empty_deletes and producer_of(plain) >= OWN_PRODUCERS
        header = header_at(plain, 0)
        stamp = header.newest_ms if header.attributes & _STAMPED else None
        found = records(plain)
        keep = []
        for number, (_, time_ms, offset, key, value, _) in enumerate(found):
            if key is not None:
                if self._latest.get(key, -1) > offset + shift:
                    continue
                deletes = value is None or (not value and empty_deletes)
                if deletes and (time_ms if stamp is None else stamp) < oldest:
                    continue
            keep.append(number)
        self._count += len(keep)
        if len(keep) == len(found):
            return plain
        if not keep:
            return None
        raw = cut(plain, HEADER, len(found))
        return rebuilt(plain, [raw[number] for number in keep])
