"""Record batches as producers of Kafka make them."""

import struct

from robustmq._kernel.crc import crc32c
from robustmq.message.record import NO_HEADERS, zigzag

TRANSACTIONAL = 0b10000
START_MS = 1_700_000_000_000


def record(
    number: int,
    key: bytes | None,
    value: bytes | None,
    time_delta: int = 0,
    headers: bytes = NO_HEADERS,
) -> bytes:
    """One record of a batch."""
    body = b"\0" + zigzag(time_delta) + zigzag(number)
    for field in (key, value):
        body += zigzag(-1) if field is None else zigzag(len(field)) + field
    body += headers
    return zigzag(len(body)) + body


def produced(
    *values: bytes | None,
    producer: int = -1,
    epoch: int = -1,
    first: int = -1,
    attributes: int = 0,
    times: tuple[int, ...] = (),
    key: bytes | None = b"k",
) -> bytes:
    """A batch of these values at `times`, in ms since 1970; a key for all."""
    times = times or (START_MS,) * len(values)
    records = b"".join(
        record(number, key, value, time - times[0])
        for number, (value, time) in enumerate(zip(values, times, strict=True))
    )
    return sealed(
        records, len(values), (attributes, times[0], max(times)), (producer, epoch, first)
    )


def sealed(
    records: bytes, count: int, head: tuple[int, int, int], producer: tuple[int, int, int]
) -> bytes:
    """A batch of encoded records; `head` is attributes, base and latest time."""
    attributes, base_ms, newest_ms = head
    rest = struct.pack(">hiqqqhii", attributes, count - 1, base_ms, newest_ms, *producer, count)
    rest += records
    return struct.pack(">qiibI", 0, len(rest) + 9, -1, 2, crc32c(rest)) + rest


def restated(batch: bytes, at: int, data: bytes) -> bytes:
    """A batch with other bytes at a place, and its checksum."""
    rest = (batch[:at] + data + batch[at + len(data) :])[21:]
    return batch[:17] + crc32c(rest).to_bytes(4, "big") + rest
