"""Which batches a shard has already taken from whom, so that a repeat is refused.

A batch's header says who made it, by the fields that the v2 layout has (KIP-98): the producer's
id, its epoch, the sequence of the first record. The cores of this node number their batches, and
leave numbers out; so that neither a number nor a life of a core comes round again, they spread
them over these fields (`own_producer`).
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from robustmq.errors import Corrupt
from robustmq.message.batch import OWN_PRODUCERS

SEQUENCE_SPACE: Final = 1 << 31

_OWN: Final = OWN_PRODUCERS
_CORE_BITS: Final = 16
_CORE: Final = (1 << _CORE_BITS) - 1
_STREAM: Final = (1 << 32) - 1
_ROW: Final = struct.Struct(">qIQ")


class Producer(NamedTuple):
    """The fields of a batch's header that say who made it."""

    producer: int
    epoch: int
    first: int


def own_producer(core: int, stream: int, call: int) -> Producer:
    """The fields for batch `call` (46 bits) of a core's life `stream` (32 bits).

    Streams of a core and calls of a stream ascend, not by one.
    """
    return Producer(
        _OWN | stream << _CORE_BITS | core, call // SEQUENCE_SPACE, call % SEQUENCE_SPACE
    )


def is_own(producer: int) -> bool:
    """Say whether a batch's producer id is that of a core of a node: no client ever gets it."""
    return producer >= _OWN


class ProducerState:
    """How far the cores have come that appended to one shard: the last stream and call of each.

    Producers of Kafka, who number what they send one by one, are in `producers`.
    """

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, int]] = {}

    def is_repeat(self, producer: int, epoch: int, first: int) -> bool:
        """Say whether this batch was taken before.

        The batch's header has the producer id (-1: nobody, never a repeat), its epoch and the
        sequence of the first record. What is from an earlier life is a repeat too: it comes from
        a process that has been replaced.
        """
        if not is_own(producer):
            return False
        core, *number = _of_core(producer, epoch, first)
        return tuple(number) <= self._last.get(core, (-1, 0))

    def take(self, producer: int, epoch: int, first: int) -> None:
        """Remember a batch that was appended."""
        if is_own(producer):
            core, *number = _of_core(producer, epoch, first)
            self._last[core] = number[0], number[1]

    def merge(self, other: "ProducerState") -> None:
        """Know also what another knows: of each producer the latest."""
        for key, last in other._last.items():
            self._last[key] = max(last, self._last.get(key, last))

    def forget(self, is_gone: Callable[[int], bool]) -> bool:
        """Forget cores that have left for good, by their numbers; says whether there were any."""
        gone = [key for key in self._last if is_gone(key & _CORE)]
        for key in gone:
            del self._last[key]
        return bool(gone)

    def encode(self) -> bytes:
        """All that `decode` needs to know it again."""
        return b"".join(_ROW.pack(key, *last) for key, last in self._last.items())

    def decode(self, data: bytes) -> None:
        """Know what was encoded. Raises Corrupt."""
        if len(data) % _ROW.size:
            raise Corrupt("a shard's producers: cut")
        self._last = {key: (high, low) for key, high, low in _ROW.iter_unpack(data)}


def _of_core(producer: int, epoch: int, first: int) -> tuple[int, int, int]:
    """Undo `own_producer`: the key of the core, the stream, the call."""
    stream = producer >> _CORE_BITS & _STREAM
    return _OWN | producer & _CORE, stream, epoch * SEQUENCE_SPACE + first
