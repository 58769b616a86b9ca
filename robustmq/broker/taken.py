"""How far the numbered streams of other cores were taken: what comes again is known by its number.

Rows: a letter and the source (u16) -> the number (epoch, call) of what was taken last from there.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final

from robustmq.broker.frames import Number
from robustmq.broker.state import State
from robustmq.storage.table import Table

_KEY: Final = struct.Struct(">cH")
_VALUE: Final = struct.Struct(">IQ")
_NOTHING: Final = Number(0, 0)


def taken_rows(rows: State | Table, letter: bytes) -> Iterator[tuple[int, Number]]:
    """Yield (source, number) of the rows with a letter."""
    for key, value in rows.walk(letter, bytes((letter[0] + 1,))):
        yield _KEY.unpack(key)[1], Number(*_VALUE.unpack(value))


class Taken:
    """The last number of each source; the rows go with the commit of what was taken.

    A number never comes for the first time after a higher one.
    """

    def __init__(self, state: State, letter: bytes) -> None:
        self._state = state
        self._letter = letter
        self._last: dict[int, Number] = {}
        self._unnoted: set[int] = set()

    def restore(self) -> None:
        """After a restart: take up where the last life was."""
        self._last = dict(taken_rows(self._state, self._letter))

    def has(self, source: int, number: Number) -> bool:
        """Say whether this was taken before."""
        return number <= self._last.get(source, _NOTHING)

    def add(self, source: int, number: Number, has_rows: bool = True) -> None:
        """Learn that this was taken; `has_rows`: some of it is to be written."""
        self._last[source] = number
        if has_rows:
            self._unnoted.add(source)

    def forget(self, sources: Callable[[int], bool]) -> None:
        """Know nothing any more of sources whose disks are gone: their numbers begin anew."""
        for source in [each for each in self._last if sources(each)]:
            del self._last[source]
            self._unnoted.discard(source)
            self._state.delete(_KEY.pack(self._letter, source))

    def note(self) -> None:
        """Before the turn's commit: put how far it is."""
        for source in self._unnoted:
            key = _KEY.pack(self._letter, source)
            self._state.put(key, _VALUE.pack(*self._last[source]))
        self._unnoted.clear()
