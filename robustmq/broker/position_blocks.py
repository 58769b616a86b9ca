"""Where the positions of an old core come to lie on a new one."""

from bisect import bisect_left
from typing import Final

BLOCK_BITS: Final = 20
_MASK: Final = (1 << BLOCK_BITS) - 1


class PositionBlocks:
    """A map of positions that keeps their order, and leaves out blocks that have no record.

    Blocks of 2^20 positions are moved as they are; without leaving some out the positions that
    restarts skip would be moved again and again, and once run out. First `mark` all that must
    stay distinct, then `settle`, then `move`.
    """

    def __init__(self) -> None:
        self._marked: set[int] = set()
        self._blocks: list[int] = []
        self._first = 0

    def mark(self, first: int, stop: int) -> None:
        """There is something at the positions from `first` on and below `stop`."""
        block, last = first >> BLOCK_BITS, (stop - 1) >> BLOCK_BITS
        while block <= last:
            self._marked.add(block)
            block += 1

    def settle(self, first: int) -> int:
        """Lay the blocks down from block `first` on; returns the block behind them."""
        self._blocks = sorted(self._marked)
        self._marked.clear()
        self._first = first
        return first + len(self._blocks)

    def move(self, position: int) -> int:
        """The new position; one in a block that was left out goes to the next block's start."""
        block = position >> BLOCK_BITS
        index = bisect_left(self._blocks, block)
        start = (self._first + index) << BLOCK_BITS
        if index < len(self._blocks) and self._blocks[index] == block:
            return start + (position & _MASK)
        return start
