"""The shard: batches once, and the high watermark."""

from array import array

import pytest

from robustmq import metrics
from robustmq._kernel.batch import BatchBuilder
from robustmq._kernel.turn import Turn
from robustmq.errors import Corrupt
from robustmq.message.record import NO_HEADERS
from robustmq.shard.shard import Shard
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
    builder.producer_id, builder.producer_epoch = 4, 1
    first, second = batch(builder, 2), batch(builder, 1)
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
