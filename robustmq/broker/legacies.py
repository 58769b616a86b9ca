"""What the sessions of this core were owed on other nodes, which had them before: taken over once.

It lies in logs of the inbox that only its session reads: row `F` NUL `b` number, options -> such
a log. Row `W` number, source, estate -> how far was taken what that core has to hand on.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from robustmq import metrics
from robustmq._kernel.turn import Turn
from robustmq._kernel.window import Window
from robustmq.broker import backlogs
from robustmq.broker.api import Legacy, Options
from robustmq.broker.cursors import Cursors
from robustmq.broker.filter_log import FilterLog
from robustmq.broker.inbox import Inbox
from robustmq.broker.route import route_to
from robustmq.broker.state import State
from robustmq.message.batch import count_of

LEGACY_LOGS: Final = b"\0b"
"""The names of these logs begin so, which no filter does."""

_KEY: Final = struct.Struct(">cQHQ")
_NAME: Final = struct.Struct(">2sQB")
_END: Final = b"X"
_NO_LOCAL: Final = 4
_AS_PUBLISHED: Final = 8


def name_of(number: int, options: Options) -> bytes:
    """The name of the log of what session `number` wants so."""
    flags = options.qos | _NO_LOCAL * options.no_local | _AS_PUBLISHED * options.retain_as_published
    return _NAME.pack(LEGACY_LOGS, number, flags) + options.identifier


def read_name(name: bytes) -> tuple[int, Options]:
    """Return the session's number and the options by a log's name."""
    _, number, flags = _NAME.unpack_from(name)
    no_local, as_published = bool(flags & _NO_LOCAL), bool(flags & _AS_PUBLISHED)
    return number, Options(flags & 3, no_local, as_published, name[_NAME.size :])


class Legacies:
    """Takes what other cores hand on, each batch once and in their order."""

    def __init__(self, turn: Turn, state: State, inbox: Inbox, cursors: Cursors) -> None:
        self._turn = turn
        self._state = state
        self._inbox = inbox
        self._cursors = cursors
        self._logs: dict[int, dict[bytes, FilterLog]] = {}
        self._taken: dict[int, dict[tuple[int, int], int]] = {}

    def restore(self, windows: Mapping[int, Window]) -> None:
        """After a restart: know what was taken, for the durable sessions by their numbers.

        To be said before the logs are removed that nobody reads.
        """
        for name in sorted({*self._inbox.names(LEGACY_LOGS), *self._moved()}):
            number, options = read_name(name)
            if number in windows:
                self._log(windows[number], name, options)
        for key, value in list(self._state.walk(b"W", _END)):
            _, number, source, estate = _KEY.unpack(key)
            if number in windows:
                taken = self._taken.setdefault(number, {})
                taken[source, estate] = int.from_bytes(value, "big")
            else:
                self._state.delete(key)

    def _moved(self) -> Iterator[bytes]:
        """The names of logs that came from another core of this node."""
        for _, value in self._state.walk(b"M", b"N"):
            for part in backlogs.decode(value):
                if part.topic_filter.startswith(LEGACY_LOGS):
                    yield part.topic_filter

    def forget(self, sources: Callable[[int], bool]) -> None:
        """Know nothing any more of sources whose disks are gone: their numbers begin anew."""
        for number, taken in self._taken.items():
            for source, estate in [each for each in taken if sources(each[0])]:
                del taken[source, estate]
                self._state.delete(_KEY.pack(b"W", number, source, estate))

    def _log(self, window: Window, name: bytes, options: Options) -> FilterLog:
        logs = self._logs.setdefault(window.key, {})
        if name not in logs:
            logs[name] = self._cursors.subscribe(window, name, options, 0)
        return logs[name]

    def take(self, window: Window, source: int, estate: int, legacies: list[Legacy]) -> bool:
        """Keep what core `source` hands on; False: not now, all of it is to come again.

        It is kept, and will not be taken again, when all that was put so far is durable.
        """
        if self._state.refusal is not None:
            return False
        taken = self._taken.setdefault(window.key, {})
        reached = taken.get((source, estate), 0)
        new = [each for each in legacies if each.position > reached]
        wanted: dict[FilterLog, int] = {}
        logs = [
            [self._log(window, name_of(window.key, each), each) for each in legacy.options]
            for legacy in new
        ]
        for some, legacy in zip(logs, new, strict=True):
            for log in some:
                wanted[log] = wanted.get(log, 0) + count_of(legacy.batch)
        if not all(self._inbox.has_room(log, count) for log, count in wanted.items()):
            return False
        for some, legacy in zip(logs, new, strict=True):
            # As the reader of these logs would be given it.
            first, *rest = legacy.options
            route = route_to(window, first)
            self._cursors.keep_for(route, some, legacy.batch, [(window, rest)] if rest else ())
            self._turn.row[metrics.LEGACIES_TAKEN] += count_of(legacy.batch)
        if new:
            reached = taken[source, estate] = new[-1].position
            key = _KEY.pack(b"W", window.key, source, estate)
            self._state.put(key, reached.to_bytes(8, "big"))
        return True

    def end(self, window: Window, source: int, estate: int) -> None:
        """Core `source` has nothing more of that estate."""
        if self._taken.get(window.key, {}).pop((source, estate), None) is not None:
            self._state.delete(_KEY.pack(b"W", window.key, source, estate))

    def dropped(self, window: Window) -> None:
        """The session ends."""
        for source, estate in self._taken.pop(window.key, {}):
            self._state.delete(_KEY.pack(b"W", window.key, source, estate))
        for name in self._logs.pop(window.key, {}):
            self._cursors.unsubscribe(window, name)
