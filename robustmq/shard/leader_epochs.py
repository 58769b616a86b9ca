"""The epochs of a partition's leaders: with which offset each of them began."""

import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

from robustmq.errors import Corrupt

_ROW: Final = struct.Struct(">iQ")


class Begun(NamedTuple):
    """An epoch, and the offset of the first record that its leader could append."""

    epoch: int
    start: int


class LeaderEpochs:
    """The history of one log, ascending in both; before the first that is known it is epoch 0."""

    def __init__(self) -> None:
        self._begun: list[Begun] = []

    def __iter__(self) -> Iterator[Begun]:
        return iter(self._begun)

    @property
    def current(self) -> int:
        """The epoch of what is appended now."""
        return self._begun[-1].epoch if self._begun else 0

    def begin(self, epoch: int, end_offset: int) -> bool:
        """A leader of `epoch` appends from `end_offset` on; says whether that is news."""
        if epoch <= self.current:
            return False
        # A leader that has appended nothing leaves nothing behind.
        while self._begun and self._begun[-1].start >= end_offset:
            self._begun.pop()
        self._begun.append(Begun(epoch, end_offset))
        return True

    def at(self, offset: int) -> int:
        """The epoch of the record with an offset."""
        number = bisect_right(self._begun, offset, key=lambda begun: begun.start)
        return self._begun[number - 1].epoch if number else 0

    def end_of(self, epoch: int, end_offset: int) -> Begun | None:
        """The highest epoch that is not above `epoch`, and the offset at which it ended.

        None when no such epoch is known, because `epoch` is above all (KIP-101, KIP-320).
        """
        if epoch > self.current or epoch < 0:
            return None
        number = bisect_right(self._begun, epoch, key=lambda begun: begun.epoch)
        known = self._begun[number - 1].epoch if number else 0
        end = self._begun[number].start if number < len(self._begun) else end_offset
        return Begun(known, end)

    def encode(self) -> bytes:
        """All that `decode` needs to know it again."""
        return b"".join(_ROW.pack(*begun) for begun in self._begun)

    def decode(self, data: bytes) -> None:
        """Know what was encoded. Raises Corrupt."""
        if len(data) % _ROW.size:
            raise Corrupt("the epochs of a log's leaders: cut")
        self._begun = [Begun(*row) for row in _ROW.iter_unpack(data)]
