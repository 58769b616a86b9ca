"""What a producer of Kafka sends: a record batch, checked once before it is appended."""

import struct
from typing import Final, NamedTuple

from robustmq._kernel.batch import survey
from robustmq._kernel.crc import crc32c
from robustmq.errors import Corrupt
from robustmq.message.batch import HEADER, Buffer
from robustmq.message.compression import Codec, UnknownCodec, codec_of, compressed, decompressed
from robustmq.shard.fault import Fault
from robustmq.shard.marker import CONTROL, TRANSACTIONAL
from robustmq.shard.producer_state import is_own

STAMPED: Final = 0b001000
"""The bit in a batch's attributes that says that the time of its records is `newest_ms`."""
NO_TIME: Final = -1
"""The timestamp of a record that has none."""

_CODEC: Final = 0b111
_FIELDS: Final = struct.Struct(">qiibIhiqqqhiI")
_REST: Final = struct.Struct(">hiqq")
_REST_AT: Final = 21
_PRODUCER_AT: Final = 43
_LENGTH_SKIPS: Final = 12
_MAGIC: Final = 2


class Terms(NamedTuple):
    """What a partition takes, in the words of its topic's settings.

    `max_bytes`: max.message.bytes. `stamps`: message.timestamp.type is LogAppendTime; otherwise
    records may be `before_ms` and `after_ms` away from now. `needs_keys`: the topic is compacted.
    `codec`: compression.type, None: the producer's. `checks_compressed`: what is compressed is
    looked into, and may take `most_bytes` (then, and when it is compressed anew).
    """

    max_bytes: int = 1_048_588
    stamps: bool = False
    before_ms: int = 1 << 62
    after_ms: int = 3_600_000
    needs_keys: bool = False
    codec: Codec | None = None
    checks_compressed: bool = True
    most_bytes: int = 1 << 27


class Unfit(Exception):
    """A batch that a partition does not take: the Fault, and why."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


class Produced(NamedTuple):
    """A batch that may be appended: its bytes, and what its header says.

    `timestamp_ms` is the time that all of its records were stamped with; -1: they have their own.
    """

    data: Buffer
    records: int
    producer_id: int
    epoch: int
    first: int
    is_transactional: bool
    timestamp_ms: int


def checked(batch: Buffer, terms: Terms, now_ms: int) -> Produced:
    """Check a batch as its producer made it, and give it the time and codec that the topic wants.

    Nothing is copied of a batch that stays as it is. Raises Unfit.
    """
    if len(batch) < HEADER:
        raise Unfit(Fault.CORRUPT, "the batch is shorter than its header")
    (
        _, length, _, magic, crc, attributes, delta, base_ms, newest_ms, producer_id, epoch,
        first, count,
    ) = _FIELDS.unpack_from(batch)  # fmt: skip
    _check_frame(batch, length + _LENGTH_SKIPS, magic, crc, terms)
    if count == 0 or delta != count - 1:
        sentence = f"the batch has {count} records and says that the last is number {delta}"
        raise Unfit(Fault.INVALID_RECORD, sentence)
    _check_producer(attributes, producer_id, epoch, first)
    try:
        codec = codec_of(bytes(batch[:HEADER])) if attributes & _CODEC else Codec.NONE
        plain = _looked_into(batch, codec, terms)
    except UnknownCodec as error:
        raise Unfit(Fault.UNSUPPORTED_COMPRESSION, error.where) from error
    except Corrupt as error:
        raise Unfit(Fault.CORRUPT, error.where) from error
    newest = newest_ms
    if plain is not None:
        newest = _check_records(plain, attributes, terms, now_ms)
        if terms.codec is not None and terms.codec is not codec:
            batch = compressed(bytes(plain), terms.codec)
            attributes = attributes & ~_CODEC | terms.codec
    elif not terms.stamps:
        _check_times(base_ms, newest_ms, attributes, terms, now_ms)
    stamp = NO_TIME
    if terms.stamps:
        attributes |= STAMPED
        newest = stamp = now_ms
    if newest != newest_ms or terms.stamps:
        batch = _restated(batch, attributes, delta, base_ms, newest)
    transactional = attributes & TRANSACTIONAL != 0
    return Produced(batch, count, producer_id, epoch, first, transactional, stamp)


def _check_frame(batch: Buffer, size: int, magic: int, crc: int, terms: Terms) -> None:
    if magic != _MAGIC:
        raise Unfit(Fault.INVALID_RECORD, f"record format {magic} is not taken, only {_MAGIC}")
    if HEADER <= size < len(batch):
        raise Unfit(Fault.INVALID_RECORD, "there is more than one batch for the partition")
    if size != len(batch):
        sentence = f"the batch says that it has {size} bytes, and has {len(batch)}"
        raise Unfit(Fault.CORRUPT, sentence)
    if size > terms.max_bytes:
        sentence = f"the batch has {size} bytes; the topic takes {terms.max_bytes}"
        raise Unfit(Fault.TOO_LARGE, f"{sentence} (max.message.bytes)")
    if crc32c(memoryview(batch)[_REST_AT:]) != crc:
        raise Unfit(Fault.CORRUPT, "the checksum of the batch is wrong")


def _check_producer(attributes: int, producer_id: int, epoch: int, first: int) -> None:
    reason = ""
    if attributes & CONTROL:
        reason = "control batches are written by the broker alone"
    elif producer_id >= 0 and is_own(producer_id):
        reason = f"no client was given the producer id {producer_id}"
    elif producer_id >= 0 and (epoch < 0 or first < 0):
        reason = f"producer epoch {epoch} and sequence {first} belong to no idempotent producer"
    elif producer_id < 0 and attributes & TRANSACTIONAL:
        reason = "a transactional batch names its producer"
    if reason:
        raise Unfit(Fault.INVALID_RECORD, reason)


def _looked_into(batch: Buffer, codec: Codec, terms: Terms) -> Buffer | None:
    """The batch as it is without compression; None when it need not be looked into."""
    if codec is Codec.NONE:
        return batch
    if not terms.checks_compressed and terms.codec in {None, codec} and not terms.needs_keys:
        return None
    return decompressed(bytes(batch), terms.most_bytes)


def _check_records(plain: Buffer, attributes: int, terms: Terms, now_ms: int) -> int:
    """Look at every record; returns the latest time of them."""
    try:
        oldest_ms, newest_ms, keyless = survey(plain)
    except Corrupt as error:
        raise Unfit(Fault.INVALID_RECORD, error.where) from error
    if terms.needs_keys and keyless:
        sentence = f"{keyless} records have no key, which a compacted topic needs"
        raise Unfit(Fault.INVALID_RECORD, sentence)
    if not terms.stamps:
        _check_times(oldest_ms, newest_ms, attributes, terms, now_ms)
    return newest_ms


def _check_times(
    oldest_ms: int, newest_ms: int, attributes: int, terms: Terms, now_ms: int
) -> None:
    if attributes & STAMPED:
        sentence = "a batch for a topic with CreateTime says that it has the time of its append"
        raise Unfit(Fault.INVALID_TIMESTAMP, sentence)
    if oldest_ms != NO_TIME and now_ms - oldest_ms > terms.before_ms:
        sentence = f"a record is {now_ms - oldest_ms} ms old; the topic takes {terms.before_ms}"
        raise Unfit(Fault.INVALID_TIMESTAMP, f"{sentence} (message.timestamp.before.max.ms)")
    if newest_ms - now_ms > terms.after_ms:
        sentence = f"a record is {newest_ms - now_ms} ms ahead; the topic takes {terms.after_ms}"
        raise Unfit(Fault.INVALID_TIMESTAMP, f"{sentence} (message.timestamp.after.max.ms)")


def _restated(batch: Buffer, attributes: int, delta: int, base_ms: int, newest_ms: int) -> bytes:
    """The batch with other attributes and another latest time, and its checksum."""
    fields = _REST.pack(attributes, delta, base_ms, newest_ms)
    view = memoryview(batch)
    crc = crc32c(view[_PRODUCER_AT:], crc32c(fields))
    return b"".join((view[:17], crc.to_bytes(4, "big"), fields, view[_PRODUCER_AT:]))
