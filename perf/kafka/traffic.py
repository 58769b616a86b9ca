"""The bytes that the load is made of: record batches, Produce and Fetch requests, and answers."""

import struct
import time
from typing import Final, NamedTuple

from robustmq._kernel.crc import crc32c
from robustmq.kafka import codec
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from robustmq.kafka.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)

PRODUCE_VERSION: Final = 7
FETCH_VERSION: Final = 11
TOPIC: Final = "perf"
_SIZE: Final = struct.Struct(">i")
_BATCH: Final = struct.Struct(">qiibIhiqqqhii")
_CHECKED_AT: Final = 21
_FETCH_BYTES: Final = 4 << 20
_PARTITION_BYTES: Final = 1 << 20
_WAIT_MS: Final = 500


class Answer(NamedTuple):
    """What an answer says: whether there was an error, and of a Fetch the batches' bytes."""

    errors: int
    bytes: int = 0


def _varint(value: int) -> bytes:
    """A number as it is written in records: zigzag, 7 bits a byte."""
    number = value << 1 ^ value >> 63
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def batch(records: int, value_bytes: int) -> bytes:
    """A record batch (magic 2) of records without keys and headers, as librdkafka makes it.

    It has the present time: a broker that keeps records for a week drops older ones.
    """
    body = bytearray()
    value = bytes(index * 31 + (index >> 3) & 255 for index in range(value_bytes))
    for index in range(records):
        record = b"".join((b"\0\0", _varint(index), b"\1", _varint(len(value)), value, b"\0"))
        body += _varint(len(record)) + record
    length = _BATCH.size - 12 + len(body)
    now_ms = time.time_ns() // 1_000_000
    fields = (0, length, -1, 2, 0, 0, records - 1, now_ms, now_ms, -1, -1, -1, records)
    whole = bytearray(_BATCH.pack(*fields) + body)
    struct.pack_into(">I", whole, 17, crc32c(bytes(whole[_CHECKED_AT:])))
    return bytes(whole)


def _framed(pieces: list[bytes]) -> bytes:
    request = b"".join(pieces)
    return _SIZE.pack(len(request)) + request


def produce(payload: bytes, partition: int, acks: int) -> bytes:
    """A Produce request of one batch, with its size in front."""
    data = PartitionProduceData(index=partition, records=payload)
    topic = TopicProduceData(name=TOPIC, partition_data=[data])
    request = ProduceRequest(acks=acks, timeout_ms=30_000, topic_data=[topic])
    return _framed(codec.encode_request(ApiKey.PRODUCE, PRODUCE_VERSION, 1, "perf", request))


def fetch(offsets: dict[int, int]) -> bytes:
    """A Fetch request for some partitions, with its size in front."""
    partitions = [
        FetchPartition(partition=number, fetch_offset=at, partition_max_bytes=_PARTITION_BYTES)
        for number, at in offsets.items()
    ]
    request = FetchRequest(
        max_wait_ms=_WAIT_MS,
        min_bytes=1,
        max_bytes=_FETCH_BYTES,
        topics=[FetchTopic(topic=TOPIC, partitions=partitions)],
    )
    return _framed(codec.encode_request(ApiKey.FETCH, FETCH_VERSION, 1, "perf", request))


def produced(answer: bytes | bytearray) -> Answer:
    """Read the answer to a Produce of one batch; its size is not in front any more."""
    name = struct.unpack_from(">h", answer, 8)[0]
    error = struct.unpack_from(">h", answer, 10 + name + 4 + 4)[0]
    return Answer(int(error != 0))


def fetched(answer: bytes | bytearray, offsets: dict[int, int]) -> Answer:
    """Read the answer to a Fetch, and move the offsets on behind what has come."""
    view = memoryview(answer)
    at = 4 + 4 + 2 + 4 + 4
    errors = size = 0
    name = struct.unpack_from(">h", view, at)[0]
    at += 2 + name
    (partitions,) = struct.unpack_from(">i", view, at)
    at += 4
    for _ in range(partitions):
        number, error, *_ = struct.unpack_from(">ihqqq", view, at)
        at += 30
        (aborted,) = struct.unpack_from(">i", view, at)
        at += 4 + 16 * max(aborted, 0) + 4
        (length,) = struct.unpack_from(">i", view, at)
        at += 4
        end = at + max(length, 0)
        errors += error != 0
        size += max(length, 0)
        while at < end:
            base, rest = struct.unpack_from(">qi", view, at)
            (delta,) = struct.unpack_from(">i", view, at + 23)
            offsets[number] = base + delta + 1
            at += 12 + rest
    return Answer(errors, size)
