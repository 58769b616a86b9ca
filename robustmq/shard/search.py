"""Looking for a record by its time, exactly."""

from typing import Final, NamedTuple

from robustmq._kernel.batch import records
from robustmq.errors import Corrupt
from robustmq.message.batch import attributes_of, base_of, newest_of
from robustmq.message.compression import decompressed
from robustmq.shard.produced import STAMPED
from robustmq.shard.shard import Shard
from robustmq.storage.log import StoredBatch

_MOST_BYTES: Final = 1 << 28
"""Bytes that the records of a compressed batch may take, to be looked into."""


class Place(NamedTuple):
    """A record's offset and time."""

    offset: int
    timestamp_ms: int


def first_since(shard: Shard, time_ms: int, below: int) -> Place | None:
    """Return the first record of `time_ms` or later, if it lies below an offset.

    The log finds the batch; only where part of that is not kept any more it takes more than one.
    """
    at = 0
    while (at := shard.log.offset_at(time_ms, at)) < below:
        try:
            batches = shard.read(at, 1, below)
        except Corrupt:
            # It has been moved aside and counted; the next read goes on behind it.
            continue
        if not batches:
            return None
        batch = batches[0]
        found = _within(batch, max(at, shard.start_offset), time_ms)
        if found is not None:
            return found if found.offset < below else None
        at = batch.next_offset
    return None


def _within(batch: StoredBatch, start: int, time_ms: int) -> Place | None:
    """Return the first record of a batch from `start` on that is of the time or later."""
    newest_ms = newest_of(batch.data)
    if newest_ms < time_ms:
        return None
    if attributes_of(batch.data) & STAMPED:
        return Place(max(batch.base_offset, start), newest_ms)
    try:
        plain = decompressed(batch.data, _MOST_BYTES)
    except Corrupt:
        # It was taken as it was: its header is all that can be known of it.
        return Place(max(batch.base_offset, start), newest_ms)
    shift = batch.base_offset - base_of(batch.data)
    for _, timestamp_ms, offset, _, _, _ in records(plain):
        if timestamp_ms >= time_ms and offset + shift >= start:
            return Place(offset + shift, timestamp_ms)
    return None
