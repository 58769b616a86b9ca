"""What a journal holds, in memory: where each entry lies, the terms, and the hard state."""

from bisect import bisect_right
from typing import Final

from robustmq.errors import Corrupt
from robustmq.raft.message import HardState, Snapshot

_PLACE_BITS: Final = 32


class JournalIndex:
    """The entries behind `base`, whose term is `base_term`.

    `base` is where the log starts; but for the time in which a journal is read whose first
    segments are gone, and the START that said so has not come yet.
    """

    def __init__(self) -> None:
        self.hard_state = HardState()
        self.start = Snapshot()
        self.base = 0
        self.base_term = 0
        self._places: list[int] = []
        self._runs: list[tuple[int, int]] = []
        """Where each term begins: (first index, term), ascending."""

    @property
    def last(self) -> int:
        """The index of the last entry, `base` when there is none."""
        return self.base + len(self._places)

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self._runs[-1][1] if self._runs else self.base_term

    def term(self, index: int) -> int | None:
        """Return the term of an entry, or that of `base`; None when neither is here."""
        if not self.base <= index <= self.last:
            return None
        run = bisect_right(self._runs, index, key=lambda each: each[0])
        return self._runs[run - 1][1] if run else self.base_term

    def place(self, index: int) -> tuple[int, int]:
        """Return the segment of an entry and where it lies in it."""
        place = self._places[index - self.base - 1]
        return place >> _PLACE_BITS, place & (1 << _PLACE_BITS) - 1

    def add(self, index: int, term: int, before: int, sequence: int, at: int) -> None:
        """An entry lies at a place; it replaces what had its index, and all behind.

        `before` is the term of the entry before it. Raises Corrupt when it does not fit.
        """
        if index <= self.base:
            # What came before it was in segments that are gone, since nobody needs it.
            self._empty(index - 1, before)
        elif index <= self.last:
            self._cut(index)
        if index != self.last + 1 or before != self.last_term or term < before:
            raise Corrupt(
                f"entry {index} of term {term} behind one of term {before} does not follow "
                f"{self.last} of term {self.last_term}"
            )
        if term != self.last_term or not self._runs:
            self._runs.append((index, term))
        self._places.append(sequence << _PLACE_BITS | at)

    def begin(self, start: Snapshot, anew: bool) -> None:
        """The log starts at a snapshot; nothing behind it counts when it begins `anew`."""
        self.start = start
        if anew:
            self._empty(start.index, start.term)
        elif start.index > self.last or self.term(start.index) not in {start.term, None}:
            raise Corrupt(f"the log cannot start at {start.index} of term {start.term}")
        else:
            self._drop(start.index)

    def open(self, last: int, last_term: int) -> None:
        """The first segment that is left begins behind an entry."""
        self._empty(last, last_term)

    def _empty(self, index: int, term: int) -> None:
        self.base, self.base_term = index, term
        self._places.clear()
        self._runs.clear()

    def _drop(self, index: int) -> None:
        """Let go of the entries up to an index that is here."""
        if index <= self.base:
            return
        term = self.term(index)
        assert term is not None
        del self._places[: index - self.base]
        self.base, self.base_term = index, term
        run = bisect_right(self._runs, index, key=lambda each: each[0])
        # The run that holds the index goes on behind it, if anything does.
        rest = self._runs[run:]
        if self._places and (not rest or rest[0][0] > index + 1):
            rest.insert(0, (index + 1, self._runs[run - 1][1]))
        self._runs = rest

    def _cut(self, index: int) -> None:
        """Let go of the entries from an index on."""
        del self._places[index - self.base - 1 :]
        while self._runs and self._runs[-1][0] >= index:
            self._runs.pop()
