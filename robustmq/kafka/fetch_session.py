"""Incremental fetch sessions (KIP-227): a client names only what has changed of what it reads."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from robustmq.broker.catalog_api import Topic
from robustmq.broker.partition_api import Following
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.fetch import FetchPartition, FetchRequest

_FINAL_EPOCH: Final = -1
_FIRST_EPOCH: Final = 0
_EPOCH_MAX: Final = (1 << 31) - 1
_ID_MAX: Final = (1 << 31) - 1
_STEP: Final = 0x61C88647
"""Odd, so that ids come again only when all were given, and neighbours tell little."""

Key = tuple[bytes | str, int]
"""The topic's id, or its name, and the partition's number."""


class Line:
    """A partition that somebody reads, and how its reader believes it to be.

    `high_watermark` and `start_offset` are what it was told last; -1: nothing yet. In a session
    it has a `place`, and an `error` while it may not be read.
    """

    __slots__ = ("asked", "error", "high_watermark", "place", "start_offset", "topic")

    def __init__(self, topic: bytes | str, asked: FetchPartition) -> None:
        self.topic = topic
        self.asked = asked
        self.place = 0
        self.error = ErrorCode.NONE
        self.high_watermark = -1
        self.start_offset = -1


class Session:
    """What one client reads, by topic and partition, and by place in what `following` reads.

    `topics` are those that were looked up at `looked_ms`, `is_committed` how it reads, `is_busy`:
    a request of it waits.
    """

    __slots__ = (
        "_last", "by_id", "epoch", "following", "is_busy", "is_committed", "lines", "looked_ms",
        "number", "places", "topics", "used_ms", "whose",
    )  # fmt: skip

    def __init__(self, number: int, whose: str, by_id: bool) -> None:
        self.number = number
        self.whose = whose
        self.by_id = by_id
        self.epoch = 1
        self.lines: dict[Key, Line] = {}
        self.places: dict[int, Line] = {}
        self.used_ms = 0
        self.following: Following | None = None
        self.topics: dict[bytes | str, Topic | ErrorCode] = {}
        self.looked_ms = 0
        self.is_committed = False
        self.is_busy = False
        self._last = 0

    def add(self, line: Line) -> None:
        """Read a partition from now on."""
        self.remove((line.topic, line.asked.partition))
        self._last += 1
        line.place = self._last
        self.places[line.place] = line
        self.lines[line.topic, line.asked.partition] = line

    def remove(self, key: Key) -> Line | None:
        """Read a partition no more; returns its line if there was one."""
        line = self.lines.pop(key, None)
        if line is not None:
            del self.places[line.place]
        return line


class Opened(NamedTuple):
    """What a request means to read, in which session (None: in none), or an error."""

    error: ErrorCode
    lines: Sequence[Line] = ()
    session: Session | None = None
    is_full: bool = True
    """Everything is told, and not only what has changed."""
    changed: Sequence[Line] = ()
    """The lines of a session that are new, or read from somewhere else."""
    gone: Sequence[Line] = ()
    """Those that it has no more."""


class FetchSessions:
    """The sessions of one core, at most `most` of `most_lines` partitions together.

    When there are as many, one that was not used for `idle_ms` makes room for another; a client
    that finds no room is given no session, and names everything each time. `seed` makes ids of
    this life others than those of the last.
    """

    def __init__(self, most: int, most_lines: int, idle_ms: int, seed: int) -> None:
        self._most = most
        self._most_lines = most_lines
        self._idle_ms = idle_ms
        self._last = seed
        self._lines = 0
        self._sessions: dict[int, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, request: FetchRequest, version: int, whose: str, now_ms: int) -> Opened:
        """Say what a request means to read."""
        by_id = version >= 13
        if request.session_epoch in {_FINAL_EPOCH, _FIRST_EPOCH}:
            if request.session_id:
                self._close(request.session_id, whose)
            lines = list(_named(request, by_id))
            session = None
            if request.session_epoch == _FIRST_EPOCH and version >= 7:
                session = self._begin(lines, whose, by_id, now_ms)
            return Opened(ErrorCode.NONE, lines, session)
        session = self._sessions.get(request.session_id)
        if session is None or session.whose != whose:
            return Opened(ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
        if session.epoch != request.session_epoch:
            return Opened(ErrorCode.INVALID_FETCH_SESSION_EPOCH)
        if session.by_id != by_id:
            return Opened(ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR)
        return self._go_on(session, request, now_ms)

    def _go_on(self, session: Session, request: FetchRequest, now_ms: int) -> Opened:
        before = len(session.lines)
        gone = [
            line
            for topic in request.forgotten_topics_data
            for number in topic.partitions
            if (line := session.remove((topic.topic_id if session.by_id else topic.topic, number)))
        ]
        changed = []
        for line in _named(request, session.by_id):
            known = session.lines.get((line.topic, line.asked.partition))
            if known is None:
                session.add(line)
                changed.append(line)
            else:
                known.asked = line.asked
                changed.append(known)
        self._lines += len(session.lines) - before
        session.epoch = session.epoch + 1 if session.epoch < _EPOCH_MAX else 1
        self._touch(session, now_ms)
        lines = list(session.lines.values()) if session.is_busy else ()
        opened = Opened(ErrorCode.NONE, lines, session, False, changed, gone)
        if self._lines > self._most_lines:
            # It is served once more, and then begins anew.
            lines = list(session.lines.values())
            self._drop(session)
            session.is_busy = True
            opened = opened._replace(lines=lines)
        return opened

    def _begin(self, lines: Sequence[Line], whose: str, by_id: bool, now_ms: int) -> Session | None:
        if not lines or len(lines) > self._most_lines:
            return None
        while len(self._sessions) >= self._most or self._lines + len(lines) > self._most_lines:
            oldest = next(iter(self._sessions.values()), None)
            if oldest is None or now_ms - oldest.used_ms < self._idle_ms:
                return None
            self._drop(oldest)
        session = Session(self._next_number(), whose, by_id)
        for line in lines:
            session.add(line)
        self._lines += len(session.lines)
        self._sessions[session.number] = session
        self._touch(session, now_ms)
        return session

    def _next_number(self) -> int:
        while True:
            self._last = (self._last + _STEP) & _ID_MAX
            if self._last and self._last not in self._sessions:
                return self._last

    def _touch(self, session: Session, now_ms: int) -> None:
        session.used_ms = now_ms
        self._sessions[session.number] = self._sessions.pop(session.number)

    def _close(self, number: int, whose: str) -> None:
        session = self._sessions.get(number)
        if session is not None and session.whose == whose:
            self._drop(session)

    def _drop(self, session: Session) -> None:
        del self._sessions[session.number]
        self._lines -= len(session.lines)
        if session.following is not None:
            session.following.close()
            session.following = None


def _named(request: FetchRequest, by_id: bool) -> Iterable[Line]:
    for topic in request.topics:
        name = topic.topic_id if by_id else topic.topic
        for asked in topic.partitions:
            yield Line(name, asked)
