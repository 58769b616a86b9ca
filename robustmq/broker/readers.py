"""The sessions that read one log: mostly one, at times a million."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from robustmq.broker.cursor import Cursor

Readers: TypeAlias = "tuple[Cursor, ...] | dict[Cursor, None]"
"""Few are a tuple, because there are millions of logs with one; more are the keys of a dict."""

FEW: Final = 8


def with_reader(readers: Readers, cursor: "Cursor") -> Readers:
    """Return the readers and one more; a dict is changed in place."""
    if isinstance(readers, tuple):
        if len(readers) < FEW:
            return (*readers, cursor)
        readers = dict.fromkeys(readers)
    readers[cursor] = None
    return readers


def without_reader(readers: Readers, cursor: "Cursor") -> Readers:
    """Return the readers without one; a dict is changed in place."""
    if isinstance(readers, tuple):
        return tuple(each for each in readers if each is not cursor)
    readers.pop(cursor, None)
    return readers


class Sweep:
    """The lowest position of many readers, found in portions: positions only ever grow.

    Who joins meanwhile stands behind whatever the sweep may find. It begins at `due_ms`.
    """

    def __init__(self, readers: Readers, due_ms: int) -> None:
        self.due_ms = due_ms
        self._left: Iterator[Cursor] = iter(list(readers))
        self.lowest: int | None = None

    def look(self, position: int) -> None:
        """Take notice of where a reader stands."""
        if self.lowest is None or position < self.lowest:
            self.lowest = position

    def take(self, most: int) -> "list[Cursor]":
        """Return the next readers to look at, at most so many; none at the end."""
        return [cursor for _, cursor in zip(range(most), self._left, strict=False)]
