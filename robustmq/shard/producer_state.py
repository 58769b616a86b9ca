"""Which batches a shard has already taken from whom, so that a repeat is refused (KIP-98)."""

from robustmq.errors import Corrupt

SEQUENCE_SPACE = 1 << 31
_HEADER = 61


class ProducerState:
    """The last epoch and sequence of every producer that appended to one shard."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, int]] = {}

    def is_repeat(self, batch: bytes) -> bool:
        """Say whether this batch was appended before; if not, remember it.

        The batch's header has the producer id (-1: nobody, never a repeat), its epoch and the
        sequence of the first record. An older epoch is a repeat too: it comes from a process
        that has been replaced.
        """
        if len(batch) < _HEADER:
            raise Corrupt("record batch: shorter than its header")
        producer = int.from_bytes(batch[43:51], "big", signed=True)
        if producer < 0:
            return False
        epoch = int.from_bytes(batch[51:53], "big")
        first = int.from_bytes(batch[53:57], "big")
        count = int.from_bytes(batch[57:61], "big")
        known = self._last.get(producer)
        if known is not None:
            known_epoch, next_sequence = known
            behind = (next_sequence - first) % SEQUENCE_SPACE
            if epoch < known_epoch:
                return True
            if epoch == known_epoch and 0 < behind < SEQUENCE_SPACE // 2:
                return True
        self._last[producer] = (epoch, (first + count) % SEQUENCE_SPACE)
        return False
