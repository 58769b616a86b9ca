"""Which batches a shard has already taken from whom, so that a repeat is refused (KIP-98)."""

SEQUENCE_SPACE = 1 << 31


class ProducerState:
    """The last epoch and sequence of every producer that appended to one shard."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, int]] = {}

    def is_repeat(self, producer: int, epoch: int, first: int, count: int) -> bool:
        """Say whether this batch was appended before; if not, remember it.

        The batch's header has the producer id (-1: nobody, never a repeat), its epoch, the
        sequence of the first record and the number of records. An older epoch is a repeat too:
        it comes from a process that has been replaced.
        """
        if producer < 0:
            return False
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
