"""Real record batches for tests, made by the kernel."""

from array import array

from robustmq import metrics
from robustmq._kernel.batch import BatchBuilder
from robustmq._kernel.turn import Turn
from robustmq.message.batch import OWN_PRODUCERS
from robustmq.message.record import NO_HEADERS


def batch(count: int, value: bytes = b"x", time_ms: int = 1_000, key: bytes = b"k") -> bytes:
    """A batch of `count` equal records of one time."""
    return keyed([(key, value)] * count, time_ms)


def keyed(
    pairs: list[tuple[bytes, bytes]], time_ms: int = 1_000, producer: int = OWN_PRODUCERS
) -> bytes:
    """A batch of these keys and values, of a core of ours unless told."""
    turn = Turn(array("Q", bytes(8 * metrics.CELLS)))
    builder = BatchBuilder(turn, 0, 1 << 30, None)
    builder.producer_id, builder.producer_epoch = producer, 0
    for key, value in pairs:
        builder.append(key, value, NO_HEADERS, 0, time_ms)
    return bytes(builder.take()[0])
