"""One log of a core's inbox, as it is known in memory; its rows are the inbox's business."""

from collections import deque
from typing import Final, NamedTuple

from robustmq.broker.readers import Readers

LAST: Final = (1 << 64) - 1
"""Behind every position."""
_KNOWN_ROWS: Final = 256
"""Rows of a log that are known without looking; of more, those to be removed are looked up."""
_COUNTED_READERS: Final = 64
"""Readers of which it is known who loses a row; with more, all are counted as losing it."""


class KnownRow(NamedTuple):
    """A row that was put in this life of the core."""

    position: int
    stop: int
    size: int
    shared: bool


class FilterLog:
    """What matches one filter, from `first` on: `messages` of `size` bytes, for `readers`.

    `put` and `put_bytes` count what was ever put into it. `known` are its rows, None when there
    are none, unless they are `many` and have to be looked up.
    """

    # There are millions of logs that are empty: what these do not need costs no object.

    stop = LAST
    """The position behind the last record that it will ever have."""

    __slots__ = (
        "first", "known", "many", "messages", "number", "opened", "put", "put_bytes", "readers",
        "size",
    )  # fmt: skip

    def __init__(self, number: int, is_new: bool) -> None:
        self.number = number
        self.opened = is_new
        self.first = 0
        self.messages = self.size = 0
        self.put = self.put_bytes = 0
        self.known: deque[KnownRow] | None = None
        self.many = not is_new
        self.readers: Readers = ()

    def added(self, row: KnownRow) -> None:
        """A row was put."""
        count = row.stop - row.position
        self.put += count
        self.put_bytes += row.size
        if not self.messages:
            self.many = False
        self.messages += count
        self.size += row.size
        if self.many:
            return
        if self.known is None:
            self.known = deque()
        self.known.append(row)
        if len(self.known) > _KNOWN_ROWS:
            self.forget_rows()

    def behind(self, position: int) -> int:
        """How many sessions lose something when what is below `position` goes."""
        behind = len(self.readers)
        if behind <= _COUNTED_READERS:
            behind = sum(reader.position < position for reader in self.readers)
        return behind

    def forget_rows(self) -> None:
        """The rows are too many, or no longer certain: they are to be looked up."""
        self.known = None
        self.many = True


class Backlog(FilterLog):
    """A log that came with sessions from another core (`backlogs`): nothing is put into it."""

    __slots__ = ("stop",)

    def __init__(self, number: int, stop: int) -> None:
        super().__init__(number, False)
        self.stop = stop


class GroupLog(FilterLog):
    """What a shared group is owed and no member has been given yet; the leader takes it out."""

    __slots__ = ()

    def behind(self, position: int) -> int:
        """The group is one for all its members."""
        del position
        return 1
