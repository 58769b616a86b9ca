"""What the header of a record batch says (Kafka message format v2)."""

import struct
from typing import Final

from robustmq.errors import Corrupt

HEADER: Final = 61
"""Bytes before the first record."""

_TIMESTAMP: Final = struct.Struct(">q")
_TIMESTAMP_AT: Final = 27
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
