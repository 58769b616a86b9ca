"""What a record batch says, and batches of some of its records (Kafka message format v2)."""

import struct
from collections.abc import Iterator
from typing import Final, TypeAlias

from robustmq._kernel.batch import cut, gather, records
from robustmq.errors import Corrupt
from robustmq.message.record import QOS_BITS

HEADER: Final = 61
"""Bytes before the first record."""

Fields: TypeAlias = tuple[int, int, int, bytes | None, bytes | None, bytes]
"""Attributes, timestamp, offset, key, value, header block (see `_kernel.batch.records`)."""

Buffer: TypeAlias = bytes | memoryview
"""A batch as it lies somewhere: of its own, or as part of what it came in."""

OWN_PRODUCERS: Final = 1 << 62
"""Producer ids from here on are those of cores (`shard.producer_state`); no client gets one."""

_PRODUCER: Final = struct.Struct(">q")
_PRODUCER_AT: Final = 43
_TIMESTAMP: Final = struct.Struct(">q")
_TIMESTAMP_AT: Final = 27
_NEWEST_AT: Final = 35
_COUNT: Final = struct.Struct(">I")
_COUNT_AT: Final = 57


def count_of(batch: bytes) -> int:
    """The number of records; Corrupt when the header is cut."""
    if len(batch) < HEADER:
        raise Corrupt("record batch: shorter than its header")
    return int(_COUNT.unpack_from(batch, _COUNT_AT)[0])


def timestamp_of(batch: bytes) -> int:
    """The time of the first record that the batch was built with, in ms since 1970."""
    return int(_TIMESTAMP.unpack_from(batch, _TIMESTAMP_AT)[0])


def producer_of(batch: bytes) -> int:
    """The id of the producer that a batch with a whole header names; -1: none."""
    return int(_PRODUCER.unpack_from(batch, _PRODUCER_AT)[0])


def attributes_of(batch: bytes) -> int:
    """The attributes of a batch with a whole header."""
    return int.from_bytes(batch[21:23], "big")


def qos_of(batch: bytes, start: int) -> int:
    """The QoS of the record that begins at `start`: its attributes are behind its length."""
    while batch[start] & 0x80:
        start += 1
    return batch[start + 1] & QOS_BITS


def newest_of(batch: bytes) -> int:
    """The latest time of the records of a batch with a whole header, in ms since 1970."""
    return int(_TIMESTAMP.unpack_from(batch, _NEWEST_AT)[0])


def base_of(batch: bytes) -> int:
    """The base offset in a batch; where that lies in a log, only the log may know."""
    return int(_TIMESTAMP.unpack_from(batch)[0])


def raw_records(batch: bytes) -> Iterator[tuple[bytes, Fields]]:
    """Yield each record as its bytes, which `gather` takes, and its fields."""
    return zip(cut(batch, HEADER, count_of(batch)), records(batch), strict=True)


def only(batch: bytes, places: list[int]) -> bytes:
    """Return a batch of just the records at these places, ascending."""
    raws = cut(batch, HEADER, count_of(batch))
    return gather(batch, [raws[place] for place in places])


def merged(batch: bytes, other: bytes) -> bytes:
    """Return a batch of the records of two parts of one batch, in the order that they had."""
    both = sorted([*raw_records(batch), *raw_records(other)], key=lambda each: each[1][2])
    return gather(batch, [raw for raw, _ in both])
