"""What sessions are owed here that another node has by now: kept until that has taken it.

Row `V` number -> whose session it was, how far it is handed on, where it ends, and what it reads.
The session itself is over here; its number stays with what it is owed. Its logs are those of its
filters, which go on for others: what came behind its end is not its own.
"""

import struct
from collections import deque
from typing import Final

import msgspec

from robustmq import metrics
from robustmq._kernel.turn import Turn
from robustmq._kernel.window import Window
from robustmq.broker.api import Heir, Legacy, Options, Portion
from robustmq.broker.cursor import Cursor, Source
from robustmq.broker.cursors import Cursors
from robustmq.broker.filter_log import LAST, Backlog, FilterLog
from robustmq.broker.inbox import Inbox
from robustmq.broker.readers import with_reader, without_reader
from robustmq.broker.state import State
from robustmq.errors import Corrupt

_KEY: Final = struct.Struct(">cQ")
_END: Final = b"W"
ESTATES: Final = b"V"


class _Part(msgspec.Struct, array_like=True, gc=False):
    """A log that is read from `start` on; `backlog` is the number of one that has no filter."""

    topic_filter: bytes
    options: Options
    start: int
    backlog: int = 0
    stop: int = LAST


class _Row(msgspec.Struct, array_like=True, tag=1, gc=False):
    heir: Heir
    position: int
    stop: int
    skipped: list[int]
    parts: list[_Part]


class Estate(Cursor):
    """The cursor of a session that is over: it reads up to `stop`, without what is `skipped`."""

    __slots__ = ("heir", "skipped", "stop")

    def __init__(self, window: Window, row: _Row) -> None:
        super().__init__(window, row.position)
        self.heir = row.heir
        self.skipped = set(row.skipped)
        self.stop = row.stop
        window.lagging = True
        window.resume = row.position


_PACKER: Final = msgspec.msgpack.Encoder()
_ROWS: Final = msgspec.msgpack.Decoder(_Row)


class Estates:
    """What is owed by this core to sessions of other nodes; `waiting` are those to be looked at.

    Nothing here asks where a session is: whoever does tells how far it was taken there.
    """

    def __init__(self, turn: Turn, state: State, inbox: Inbox, cursors: Cursors) -> None:
        self._turn = turn
        self._state = state
        self._inbox = inbox
        self._cursors = cursors
        self._estates: dict[int, Estate] = {}
        self._begun = LAST
        self.waiting: deque[int] = deque()

    def begin(self) -> None:
        """The node has another life: what a session that others have is owed from now on is there.

        Nobody else has what was kept before.
        """
        self._begun = self._inbox.next_position

    def restore(self) -> None:
        """After a restart, when all sessions are back: take up what is still owed. Raises Corrupt.

        To be said before the logs are removed that nobody reads.
        """
        for key, value in list(self._state.walk(ESTATES, _END)):
            try:
                row = _ROWS.decode(value)
            except msgspec.MsgspecError as error:
                raise Corrupt(f"the row of what a session is owed: {error}") from error
            number = _KEY.unpack(key)[1]
            estate = Estate(self._window(number), row)
            estate.sources = tuple(self._source(part) for part in row.parts)
            self._add(number, estate)

    def _source(self, part: _Part) -> Source:
        log: FilterLog
        if part.backlog:
            log = self._inbox.backlog(part.backlog, part.stop)
        else:
            log = self._inbox.log(part.topic_filter)
        return Source(part.topic_filter, log, part.options, part.start)

    def _window(self, number: int) -> Window:
        window = Window(self._turn, 0, 0, 0)
        window.key = number
        return window

    def _add(self, number: int, estate: Estate) -> None:
        self._estates[number] = estate
        for source in estate.sources:
            source.log.readers = with_reader(source.log.readers, estate)
            self._cursors.unsettle(source.log)
        self.waiting.append(number)
        self._count()

    def _count(self) -> None:
        self._turn.row[metrics.ESTATES] = len(self._estates)

    # ------------------------------------------------------------------ what is left

    def leave(self, window: Window, heir: Heir) -> None:
        """Another node has a durable session, which is about to be dropped: keep what it is owed.

        What it was given of shared groups goes back to these. A QoS 2 message that was sent and
        that the client has not confirmed is owed to it.
        """
        cursor = self._cursors.known(window)
        if cursor is None or window.key in self._estates:
            # It was left before, and what ended it then was not written, or is still to come.
            return
        sources = tuple(each for each in cursor.sources if each.origin is None)
        position = self._cursors.position_of(cursor)
        stop = min(self._begun, self._inbox.next_position)
        if position >= stop or not any(self._inbox.waiting(each.log) for each in sources):
            return
        unsent = self._cursors.unsent(window)
        skipped = sorted(each for each in unsent.sent - unsent.flying if position <= each < stop)
        parts = [_part(each) for each in sources]
        row = _Row(heir, position, stop, skipped, parts)
        estate = Estate(self._window(window.key), row)
        estate.sources = sources
        self._put(window.key, estate)
        self._add(window.key, estate)

    def _put(self, number: int, estate: Estate) -> None:
        parts = [_part(each) for each in estate.sources]
        skipped = sorted(each for each in estate.skipped if each >= estate.position)
        row = _Row(estate.heir, estate.position, estate.stop, skipped, parts)
        self._state.put(_KEY.pack(ESTATES, number), _PACKER.encode(row))

    # ------------------------------------------------------------------ what is taken

    def heir(self, number: int) -> Heir:
        """Whose session it was."""
        return self._estates[number].heir

    def page(self, number: int, max_bytes: int) -> Portion:
        """Read what comes next; one batch may be larger than `max_bytes`."""
        estate = self._estates[number]
        legacies: list[Legacy] = []
        size = 0
        for row, options, _ in self._cursors.rows(estate, estate.position, estate.stop):
            if size >= max_bytes:
                return Portion(legacies, legacies[-1].position)
            first, stop = max(row.position, estate.position), min(row.stop, estate.stop)
            wanted = [each for each in range(first, stop) if each not in estate.skipped]
            if not wanted:
                continue
            batch = row.batch if len(wanted) == row.records else row.only(wanted)
            legacies.append(Legacy(stop, list(options), batch))
            size += len(batch)
        return Portion(legacies, None)

    def passed(self, number: int, position: int | None) -> None:
        """All before `position`, or with None all, is on the disk of the session's new home."""
        estate = self._estates[number]
        estate.position = estate.window.resume = estate.stop if position is None else position
        self._put(number, estate)
        for log in {source.log for source in estate.sources}:
            self._cursors.trim(log)

    def close(self, number: int) -> None:
        """Nothing is owed any more."""
        estate = self._estates.pop(number)
        self._state.delete(_KEY.pack(ESTATES, number))
        for source in estate.sources:
            log = source.log
            log.readers = without_reader(log.readers, estate)
            if log.readers:
                self._cursors.trim(log)
            elif isinstance(log, Backlog):
                self._inbox.remove_backlog(log)
            else:
                self._inbox.remove(source.topic_filter)
        self._count()


def _part(source: Source) -> _Part:
    log = source.log
    if isinstance(log, Backlog):
        return _Part(source.topic_filter, source.options, source.start, log.number, log.stop)
    return _Part(source.topic_filter, source.options, source.start)
