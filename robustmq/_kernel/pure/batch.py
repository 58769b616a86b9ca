"""Building and walking record batches (Kafka message format v2): readable twin."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from robustmq._kernel.pure.crc import crc32c
from robustmq._kernel.pure.turn import AckTarget
from robustmq.errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Callable

    from robustmq._kernel.pure.turn import Turn

HEADER: Final = 61
"""Bytes of a batch before its first record."""
_U64: Final = (1 << 64) - 1
_HEAD: Final = struct.Struct(">qiibI")
"""Base offset, batch length, leader epoch, magic, CRC."""
_REST: Final = struct.Struct(">hIqqqhII")
"""Attributes, last offset delta, base and last timestamp, producer id, epoch, sequence, count."""


def _signed(value: int) -> int:
    """Wrap `value` to 64 bits with a sign."""
    return ((value + (1 << 63)) & _U64) - (1 << 63)


def varint(value: int) -> bytes:
    """Return `value` as a zigzag varint, as in protocol buffers."""
    value = value << 1 if value >= 0 else (-value << 1) - 1
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, at: int, end: int) -> tuple[int, int] | None:
    """Return a zigzag varint and the position behind it, or None when it is cut or too long."""
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            value &= _U64
            return value >> 1 ^ -(value & 1), at
        shift += 7
    return None


class RecordView(NamedTuple):
    """A record: where it begins and ends in its batch, and its fields."""

    start: int
    end: int
    attributes: int
    timestamp_delta: int
    offset_delta: int
    key: bytes | None
    value: bytes | None
    headers: bytes


def read_record(data: bytes, start: int, end: int) -> RecordView | None:
    """Return the record at `start` of what ends at `end`, or None when it is damaged.

    The header block is not looked into: it is what follows the value, at least one byte.
    """
    field = read_varint(data, start, end)
    if field is None or not 1 <= field[0] <= end - field[1]:
        return None
    length, at = field
    end = at + length
    attributes = data[at]
    timestamp_delta = read_varint(data, at + 1, end)
    if timestamp_delta is None:
        return None
    offset_delta = read_varint(data, timestamp_delta[1], end)
    if offset_delta is None:
        return None
    key = _read_field(data, offset_delta[1], end)
    if key is None:
        return None
    value = _read_field(data, key[1], end)
    if value is None or value[1] >= end:
        return None
    deltas = timestamp_delta[0], offset_delta[0]
    return RecordView(start, end, attributes, *deltas, key[0], value[0], data[value[1] : end])


def _read_field(data: bytes, at: int, end: int) -> tuple[bytes | None, int] | None:
    """Return a key or value and the position behind it, or None when it is cut."""
    field = read_varint(data, at, end)
    if field is None or field[0] > end - field[1]:
        return None
    length, at = field
    return (data[at : at + length], at + length) if length >= 0 else (None, at)


def count_of(batch: bytes) -> int:
    """Return how many records the header of `batch` promises; Corrupt when it is cut."""
    if len(batch) < HEADER:
        raise Corrupt("record batch: shorter than its header")
    return int.from_bytes(batch[57:61], "big")


def with_records(batch: bytes, raw: list[bytes]) -> bytearray:
    """Return the header of `batch` with its length, and no CRC, before the records `raw`."""
    whole = bytearray(b"".join((batch[:HEADER], *raw)))
    whole[8:12] = (len(whole) - 12).to_bytes(4, "big")
    whole[17:21] = bytes(4)
    return whole


class Acks:
    """Who must be told when a batch has been appended, in the order of its records."""

    __slots__ = ("_expected",)

    def __init__(self) -> None:
        self._expected: list[tuple[AckTarget | Callable[[int, bool], object], int, int]] = []

    def __len__(self) -> int:
        return len(self._expected)

    def _add(
        self, target: AckTarget | Callable[[int, bool], object], ticket: int, index: int
    ) -> None:
        self._expected.append((target, ticket, index))

    def settle(self, code: int, unmatched: list[tuple[int, int]]) -> None:
        """Tell everybody once: `code` is 0 or a Refusal.

        `unmatched` are ascending (start, stop) ranges of the records that nobody wanted. An
        AckTarget gets `settle(ticket, code, matched)`, anything else is called with `(code,
        matched)`.
        """
        expected, self._expected = self._expected, []
        start = stop = position = 0
        for target, ticket, index in expected:
            while index >= stop and position < len(unmatched):
                start, stop = unmatched[position]
                position += 1
            matched = not start <= index < stop
            if isinstance(target, AckTarget):
                target.settle(ticket, code, matched)
            else:
                target(code, matched)


class BatchBuilder:
    """The turn's batch for one shard: records in, one v2 batch out.

    The first record puts the builder into `turn.builders`. `on_full(builder)` is called by
    `settle_if_full` when the batch has `max_bytes` or more. `blocked` is set by whoever wants
    publishers to wait; `retained` says that the batch has a record with the retain bit, `qos`
    is the highest QoS of its records; `shard` is the owner's business. With a `producer_id` of
    0 or more the batches carry `producer_epoch` and a running base sequence (`sequence` is the
    next one, of 31 bits).
    """

    __slots__ = (
        "_acks", "_base_timestamp", "_last_timestamp", "_max_bytes", "_records", "_turn",
        "blocked", "count", "on_full", "producer_epoch", "producer_id", "qos", "retained",
        "sequence", "shard", "size",
    )  # fmt: skip

    def __init__(
        self,
        turn: Turn,
        shard: object,
        max_bytes: int,
        on_full: Callable[[BatchBuilder], object] | None,
    ) -> None:
        self._turn = turn
        self._max_bytes = max_bytes
        self._acks = Acks()
        self._records: list[bytes] = []
        self._base_timestamp = self._last_timestamp = 0
        self.shard = shard
        self.on_full = on_full
        self.blocked = False
        self.retained = False
        self.qos = 0
        self.count = 0
        self.size = HEADER
        self.producer_id = -1
        self.producer_epoch = -1
        self.sequence = 0

    def append(
        self, key: bytes, value: bytes, headers: bytes, attributes: int, timestamp: int
    ) -> int:
        r"""Add a record and return its index in the batch.

        `headers` is its header block, the count included (`b"\0"` for none); `attributes` its
        byte: MQTT QoS in bits 0-1, retain in bit 2; `timestamp` in milliseconds.
        """
        if not headers:
            raise ValueError("a header block has at least its count")
        index = self.count
        if index == 0:
            self._base_timestamp = self._last_timestamp = timestamp
            self._turn.builders.append(self)
        self._last_timestamp = max(self._last_timestamp, timestamp)
        body = b"".join(
            (
                bytes((attributes,)),
                varint(_signed(timestamp - self._base_timestamp)),
                varint(index),
                varint(len(key)),
                key,
                varint(len(value)),
                value,
                headers,
            )
        )
        record = varint(len(body)) + body
        self._records.append(record)
        self.size += len(record)
        self.count += 1
        if attributes & 4:
            self.retained = True
        self.qos = max(self.qos, attributes & 3)
        return index

    def expect(self, target: AckTarget | Callable[[int, bool], object], ticket: int) -> None:
        """Let `target` wait for the record appended last; ValueError when there is none."""
        if not self.count:
            raise ValueError("there is no record to wait for")
        self._acks._add(target, ticket, self.count - 1)

    def settle_if_full(self) -> None:
        """Hand the batch over at once when it has reached its limit."""
        if self.size >= self._max_bytes and self.on_full is not None:
            self.on_full(self)

    def take(self) -> tuple[bytes, Acks]:
        """Return `(batch, acks)`; the builder is empty afterwards. CRC and lengths are final.

        Raises ValueError when the builder is empty.
        """
        if not self.count:
            raise ValueError("an empty batch cannot be taken")
        checked = b"".join(
            (
                _REST.pack(
                    0,
                    self.count - 1,
                    self._base_timestamp,
                    self._last_timestamp,
                    self.producer_id,
                    self.producer_epoch,
                    self.sequence if self.producer_id >= 0 else 0xFFFFFFFF,
                    self.count,
                ),
                *self._records,
            )
        )
        batch = _HEAD.pack(0, self.size - 12, 0, 2, crc32c(checked)) + checked
        acks, self._acks = self._acks, Acks()
        self.sequence = (self.sequence + self.count) & 0x7FFFFFFF
        self._records.clear()
        self.count = 0
        self.size = HEADER
        self.retained = False
        self.qos = 0
        return batch, acks


def records(batch: bytes) -> list[tuple[int, int, int, bytes | None, bytes | None, bytes]]:
    """Return every record as `(attributes, timestamp, offset, key, value, headers)`.

    Timestamps are in milliseconds. A key or value is None when its length is negative. Raises
    Corrupt when the structure is damaged; the CRC is not looked at.
    """
    count = count_of(batch)
    base_offset = int.from_bytes(batch[:8], "big", signed=True)
    base_timestamp = int.from_bytes(batch[27:35], "big", signed=True)
    out = []
    at = HEADER
    for i in range(count):
        view = read_record(batch, at, len(batch))
        if view is None:
            raise Corrupt(f"record batch: record {i} of {count}")
        timestamp = _signed(base_timestamp + view.timestamp_delta)
        offset = _signed(base_offset + view.offset_delta)
        out.append((view.attributes, timestamp, offset, view.key, view.value, view.headers))
        at = view.end
    return out


def cut(batch: bytes, start: int, count: int) -> list[bytes]:
    """Return the raw bytes of the `count` records that begin at byte `start` of `batch`.

    Raises Corrupt when they are damaged or `start` lies outside of the batch.
    """
    if not HEADER <= start <= len(batch):
        raise Corrupt("record batch: a record outside of it")
    out = []
    for i in range(count):
        view = read_record(batch, start, len(batch))
        if view is None:
            raise Corrupt(f"record batch: record {i} of {count}")
        out.append(batch[view.start : view.end])
        start = view.end
    return out


def gather(batch: bytes, raw: list[bytes]) -> bytes:
    """Return a batch of records cut from `batch`: its header, their count, no CRC.

    It never leaves this machine's memory. Raises Corrupt when `batch` has no whole header.
    """
    count_of(batch)
    whole = with_records(batch, raw)
    whole[57:61] = len(raw).to_bytes(4, "big")
    return bytes(whole)


def slice_of(batch: bytes, start: int, stop: int, count: int) -> bytes:
    """Return a batch of the `count` consecutive records in the bytes `start` … `stop - 1`.

    It has the header of `batch` with their count and length and, unless it is `batch` itself
    since they are all of it, no CRC. Their structure is not looked at. Raises Corrupt when
    they lie outside of the batch.
    """
    total = count_of(batch)
    if not HEADER <= start <= stop <= len(batch):
        raise Corrupt("record batch: a record outside of it")
    if start == HEADER and stop == len(batch) and count == total:
        return batch
    whole = with_records(batch, [batch[start:stop]])
    whole[57:61] = count.to_bytes(4, "big")
    return bytes(whole)


def max_qos(batch: bytes) -> int:
    """Return the highest QoS bits of the records of `batch`; Corrupt when it is damaged."""
    count = count_of(batch)
    highest = 0
    at = HEADER
    for i in range(count):
        view = read_record(batch, at, len(batch))
        if view is None:
            raise Corrupt(f"record batch: record {i} of {count}")
        highest = max(highest, view.attributes & 3)
        at = view.end
    return highest


def survey(batch: bytes | memoryview) -> tuple[int, int, int]:
    """Walk all records of `batch`; return `(oldest, newest, keyless)`.

    The first two are the earliest and the latest timestamp in milliseconds, of those that are
    not -1, and -1 when there is none; then, how many records have no key. Raises Corrupt unless
    the records are numbered from 0 on and they and their header blocks fill the batch exactly;
    the CRC is not looked at.
    """
    batch = bytes(batch)
    count = count_of(batch)
    base_timestamp = int.from_bytes(batch[27:35], "big", signed=True)
    oldest = newest = -1
    keyless = 0
    at = HEADER
    for i in range(count):
        view = read_record(batch, at, len(batch))
        if view is None or not _are_headers(view.headers):
            raise Corrupt(f"record batch: record {i} of {count}")
        if view.offset_delta != i:
            raise Corrupt(f"record batch: record {i} of {count} has number {view.offset_delta}")
        timestamp = _signed(base_timestamp + view.timestamp_delta)
        if timestamp != -1:
            oldest = timestamp if oldest == -1 else min(oldest, timestamp)
            newest = timestamp if newest == -1 else max(newest, timestamp)
        keyless += view.key is None
        at = view.end
    if at != len(batch):
        raise Corrupt(f"record batch: {len(batch) - at} bytes behind the last record")
    return oldest, newest, keyless


def _are_headers(block: bytes) -> bool:
    """Say whether a header block is whole: a count, then names and values, and nothing else."""
    end = len(block)
    field = read_varint(block, 0, end)
    if field is None or field[0] < 0:
        return False
    count, at = field
    for _ in range(count):
        name = read_varint(block, at, end)
        if name is None or not 0 <= name[0] <= end - name[1]:
            return False
        value = read_varint(block, name[0] + name[1], end)
        if value is None or value[0] > end - value[1]:
            return False
        at = value[1] + max(value[0], 0)
    return at == end
