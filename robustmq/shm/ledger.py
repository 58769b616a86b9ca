"""Numbers that every core keeps for itself and all can add up, in shared memory.

A core is the only writer of its row, so nothing is locked. Numbers are found by their names, whose
places are agreed before the fork. Those of addresses are a sketch: an address is counted in several
places of a table and the least of these sums is taken, so that it is exact unless another address
shares each of its places.
"""

import hashlib
import mmap
from collections.abc import Sequence
from typing import Final

DEPTH: Final = 4
"""Places of one address."""
WIDTH: Final = 65_536
"""Places for each of them."""

_CELL: Final = 8
_KEY_BYTES: Final = 16


class Ledger:
    """The mapping, made before the fork; `seed` keeps strangers from choosing their places."""

    def __init__(self, rows: int, names: Sequence[str], seed: bytes) -> None:
        self._places = {name: place for place, name in enumerate(names)}
        self._seed = seed[:_KEY_BYTES]
        self._size = len(names) + DEPTH * WIDTH
        self._rows = rows
        self._memory = mmap.mmap(-1, max(rows * self._size * _CELL, 1))
        self._cells = memoryview(self._memory).cast("Q")

    def of(self, row: int) -> "LedgerRow":
        """Return one core's view; what an earlier life of it had counted is forgotten."""
        start = row * self._size
        own = self._cells[start : start + self._size]
        # Pages that were never touched stay so.
        for place in range(len(own)) if any(own) else ():
            own[place] = 0
        return LedgerRow(self, own)

    def place(self, name: str) -> int:
        """Return where a name is counted; raises KeyError for one that was not agreed."""
        return self._places[name]

    def places(self, address: str) -> list[int]:
        """Return where an address is counted."""
        digest = hashlib.blake2b(address.encode(), digest_size=2 * DEPTH, key=self._seed).digest()
        start = len(self._places)
        return [
            start + depth * WIDTH + int.from_bytes(digest[2 * depth : 2 * depth + 2], "little")
            for depth in range(DEPTH)
        ]

    def total(self, place: int) -> int:
        """Return the sum of all rows at a place."""
        return sum(self._cells[row * self._size + place] for row in range(self._rows))


class LedgerRow:
    """The numbers as one core sees them: it adds to its own, and reads the sums."""

    def __init__(self, ledger: Ledger, own: memoryview) -> None:
        self._ledger = ledger
        self._own = own

    def add(self, name: str, amount: int) -> None:
        """Add to this core's number."""
        self._own[self._ledger.place(name)] += amount

    def total(self, name: str) -> int:
        """Return the sum over all cores."""
        return self._ledger.total(self._ledger.place(name))

    def add_of(self, address: str, amount: int) -> None:
        """Add to this core's number of an address."""
        for place in self._ledger.places(address):
            self._own[place] += amount

    def total_of(self, address: str) -> int:
        """Return the sum over all cores for an address; never too little."""
        return min(self._ledger.total(place) for place in self._ledger.places(address))
