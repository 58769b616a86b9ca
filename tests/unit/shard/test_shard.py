"""The shard: batches once, and the high watermark."""

from array import array

import pytest

from robustmq import metrics
from robustmq._kernel.batch import BatchBuilder
from robustmq._kernel.turn import Turn
from robustmq.errors import Corrupt, Refusal, Refused
from robustmq.message.record import NO_HEADERS
from robustmq.shard.producer_state import own_producer
from robustmq.shard.shard import Shard
from robustmq.storage.log import Unwritable
from robustmq.storage.memory_log import MemoryLog


@pytest.fixture
def builder() -> BatchBuilder:
    turn = Turn(array("Q", bytes(8 * metrics.CELLS)))
    return BatchBuilder(turn, 0, 1 << 20, None)


def batch(builder: BatchBuilder, count: int) -> bytes:
    for _ in range(count):
        builder.append(b"a", b"x", NO_HEADERS, 0, 1_000)
    return builder.take()[0]


def test_appends_move_the_watermark(builder: BatchBuilder) -> None:
    shard = Shard(3, MemoryLog())
    assert [shard.append(batch(builder, count), 1_000) for count in (2, 5)] == [2, 5]
    assert (shard.number, shard.high_watermark, shard.end_offset) == (3, 7, 7)


def test_a_repeat_is_not_stored(builder: BatchBuilder) -> None:
    shard = Shard(0, MemoryLog())
    first, second = numbered(builder, 4, 1, 1, 2), numbered(builder, 4, 1, 2)
    taken = [shard.append(each, 1_000) for each in (first, first, second, first, second)]
    assert taken == [2, 0, 1, 0, 0]
    assert shard.end_offset == 3


def test_a_batch_of_nobody_is_never_a_repeat(builder: BatchBuilder) -> None:
    shard = Shard(0, MemoryLog())
    one = batch(builder, 2)
    assert [shard.append(one, 1_000) for _ in range(2)] == [2, 2]


def test_released_records_leave_the_log(builder: BatchBuilder) -> None:
    log = MemoryLog()
    shard = Shard(0, log)
    shard.append(batch(builder, 2), 1_000)
    shard.append(batch(builder, 2), 1_000)
    shard.release(3)
    assert log.start_offset == 2
    shard.release(shard.high_watermark)
    assert (log.start_offset, log.size_bytes, shard.end_offset) == (4, 0, 4)


def test_a_cut_batch_is_corrupt() -> None:
    with pytest.raises(Corrupt, match="shorter than its header"):
        Shard(0, MemoryLog()).append(bytes(60), 1_000)


class FullLog(MemoryLog):
    """Takes nothing while `full`; what is durable is set by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.durable = 0

    @property
    def durable_offset(self) -> int:
        return self.durable

    def append(self, data: bytes | memoryview, count: int, timestamp_ms: int) -> int:
        if self.full:
            raise Unwritable(Refused(Refusal.QUOTA_EXCEEDED, "full"))
        return super().append(data, count, timestamp_ms)


def numbered(builder: BatchBuilder, core: int, stream: int, call: int, count: int = 1) -> bytes:
    producer = own_producer(core, stream, call)
    builder.producer_id, builder.producer_epoch, builder.sequence = producer
    return batch(builder, count)


def test_what_the_log_refused_is_taken_when_it_comes_again(builder: BatchBuilder) -> None:
    log = FullLog()
    shard = Shard(0, log)
    one = numbered(builder, 1, 1, 1)
    log.full = True
    with pytest.raises(Unwritable):
        shard.append(one, 1_000)
    log.full = False
    later = numbered(builder, 1, 2, 1)
    assert [shard.append(each, 1_000) for each in (later, one, one, later)] == [1, 1, 0, 0]


def test_only_what_is_safe_is_read(builder: BatchBuilder) -> None:
    log = FullLog()
    shard = Shard(0, log)
    for _ in range(3):
        shard.append(batch(builder, 2), 1_000)
    log.durable = 4
    assert [each.base_offset for each in shard.read(1, 1 << 20)] == [0, 2]
    assert shard.read(4, 1 << 20) == []
    assert (shard.start_offset, shard.high_watermark, shard.end_offset) == (0, 4, 6)


@pytest.mark.parametrize("noted", [None, 0, 1, 2, 3])
def test_who_appended_what_is_known_after_a_restart(
    builder: BatchBuilder, noted: int | None
) -> None:
    log = MemoryLog()
    shard = Shard(0, log)
    batches = [numbered(builder, core, 1 << 31, 7) for core in (0, 1, 2)]
    note = shard.note() if noted == 0 else None
    for number, each in enumerate(batches, 1):
        shard.append(each, 1_000)
        if noted == number:
            note = shard.note()
    again = Shard(0, log)
    again.recover(note, 1_000)
    assert [again.append(each, 1_000) for each in batches] == [0, 0, 0]
    assert again.append(numbered(builder, 1, 1 << 31, 8), 1_000) == 1
    assert again.note()[16:] != shard.note()[16:]


def test_a_note_tells_of_what_retention_has_dropped(builder: BatchBuilder) -> None:
    log = MemoryLog()
    shard = Shard(0, log)
    one = numbered(builder, 0, 1, 1)
    shard.append(one, 1_000)
    note = shard.note()
    log.trim(1)
    again = Shard(0, log)
    again.recover(note, 1_000)
    assert again.append(one, 1_000) == 0


def test_a_cut_note_is_corrupt() -> None:
    with pytest.raises(Corrupt, match="cut"):
        Shard(0, MemoryLog()).recover(b"123", 1_000)
