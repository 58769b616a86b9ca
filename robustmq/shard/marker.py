"""Control batches: the markers that end transactions in a log (KIP-98)."""

import struct
from typing import Final, NamedTuple

from robustmq._kernel.batch import records
from robustmq._kernel.crc import crc32c
from robustmq.errors import Corrupt
from robustmq.message.record import NO_HEADERS, zigzag

CONTROL: Final = 0b100000
"""The bit in a batch's attributes that says that its record is a marker."""
TRANSACTIONAL: Final = 0b010000
"""The bit in a batch's attributes that says that it belongs to a transaction."""

_ABORT, _COMMIT = 0, 1
_KEY: Final = struct.Struct(">hh")
"""Version, type."""
_VALUE: Final = struct.Struct(">hi")
"""Version, epoch of the coordinator."""
_HEAD: Final = struct.Struct(">qiibI")
_REST: Final = struct.Struct(">hiqqqhii")


class Mark(NamedTuple):
    """What a marker says of its producer's transaction."""

    is_committed: bool
    coordinator_epoch: int


def control_batch(producer_id: int, producer_epoch: int, mark: Mark, now_ms: int) -> bytes:
    """Return the batch of a marker, of one record, to be appended."""
    key = _KEY.pack(0, _COMMIT if mark.is_committed else _ABORT)
    value = _VALUE.pack(0, mark.coordinator_epoch)
    # No attributes, no distance in time and offset to the batch.
    body = b"\0\0\0" + zigzag(len(key)) + key + zigzag(len(value)) + value + NO_HEADERS
    record = zigzag(len(body)) + body
    attributes = CONTROL | TRANSACTIONAL
    rest = _REST.pack(attributes, 0, now_ms, now_ms, producer_id, producer_epoch, -1, 1) + record
    return _HEAD.pack(0, len(rest) + 9, 0, 2, crc32c(rest)) + rest


def read_mark(batch: bytes) -> Mark | None:
    """Return what a control batch says; None when it is of another kind. Raises Corrupt."""
    found = records(batch)
    if not found:
        return None
    _, _, _, key, value, _ = found[0]
    if key is None or len(key) < _KEY.size or value is None or len(value) < _VALUE.size:
        raise Corrupt("a control batch: its record is cut")
    kind = _KEY.unpack_from(key)[1]
    if kind not in {_ABORT, _COMMIT}:
        return None
    return Mark(kind == _COMMIT, _VALUE.unpack_from(value)[1])
