"""Where the durable sessions of a core stand in its inbox, and what they are given from there.

Rows: `C` number -> the cursor: all that was kept before that position is acknowledged.
"""

import struct
from collections import deque
from collections.abc import Iterator, Sequence
from heapq import merge
from typing import Final, NamedTuple

from robustmq import metrics
from robustmq._kernel.fanout import Fanout, Route
from robustmq._kernel.turn import Turn
from robustmq._kernel.window import Window
from robustmq.broker import backlogs
from robustmq.broker.api import Options
from robustmq.broker.cursor import Cursor, Guest, Source, Take, Unsent
from robustmq.broker.exchanges import Exchanges, Stage
from robustmq.broker.filter_log import Backlog, FilterLog
from robustmq.broker.inbox import Inbox, Row
from robustmq.broker.overlap import copies
from robustmq.broker.readers import Sweep, with_reader, without_reader
from robustmq.broker.route import group_of, route_to
from robustmq.broker.state import State
from robustmq.config import TopicRule
from robustmq.message.batch import HEADER, count_of, qos_of

CURSOR_KEY: Final = struct.Struct(">cQ")
_AT_ONCE: Final = 1_000
"""Readers of one log that are looked at in one turn."""
_READERS_PER_MS: Final = 50
"""Readers of one log that are looked at in a millisecond, over a long time."""
READ_AHEAD: Final = 1_000
"""Messages that wait in memory for one durable session; what is beyond is read from the inbox."""
READ_AHEAD_BYTES: Final = 1 << 20


class _Fresh(NamedTuple):
    """A row that was kept, to be given to those who have read everything before it."""

    commit: int
    route: Route
    row: Row
    further: Sequence[tuple[Window, Sequence[Options]]] = ()


class Cursors:
    """The cursors of a core.

    A window that has everything gets new rows from memory, the others read them from the inbox
    as they have room (`Window.lagging`).
    """

    def __init__(
        self, turn: Turn, state: State, inbox: Inbox, fanout: Fanout, *, separate: bool = False
    ) -> None:
        self._turn = turn
        self._state = state
        self._inbox = inbox
        self._fanout = fanout
        self._exchanges = Exchanges(state)
        self._separate = separate
        self._cursors: dict[Window, Cursor] = {}
        self._guests = 0
        self._fresh: deque[_Fresh] = deque()
        self._pumps: list[Window] = []
        self._skipping: dict[Window, None] = {}
        self._sweeps: dict[FilterLog, Sweep] = {}
        self._backlogs = {
            backlogs.number_of(key): backlogs.decode(value) for key, value in state.walk(b"M", b"N")
        }
        self._tail = inbox.next_position

    def log_of(self, topic_filter: bytes) -> FilterLog | None:
        """The log of what durable sessions are owed by a filter; None when they have it not."""
        return self._inbox.logs.get(topic_filter)

    def __contains__(self, window: Window) -> bool:
        """Say whether the window is that of a durable session."""
        return type(self._cursors.get(window)) is Cursor

    # ------------------------------------------------------------------ sessions

    def add(self, window: Window, position: int | None) -> None:
        """Keep for a session what it is owed, from `position` on; None: from where it stood."""
        key = CURSOR_KEY.pack(b"C", window.key)
        known = self._state.get(key) if position is None else None
        if known is not None:
            position = int.from_bytes(known, "big")
        else:
            position = position or self._inbox.next_position
            self._state.put(key, position.to_bytes(8, "big"))
        window.max_queued = READ_AHEAD
        window.max_queued_bytes = READ_AHEAD_BYTES
        window.lagging = True
        window.resume = position
        self._cursors[window] = Cursor(window, position)
        self._count()

    def _count(self) -> None:
        self._turn.row[metrics.SESSIONS_DURABLE] = len(self._cursors) - self._guests

    def admit(self, window: Window) -> None:
        """A session that is not durable is put something by, from now on."""
        if window not in self._cursors:
            self._cursors[window] = Guest(window, self._inbox.next_position)
            self._guests += 1

    def drop(self, window: Window) -> None:
        """The session has ended; its subscriptions have been removed."""
        cursor = self._cursors.pop(window, None)
        if cursor is None:
            return
        self._guests -= isinstance(cursor, Guest)
        self._count()
        for source in cursor.sources:
            source.log.readers = without_reader(source.log.readers, cursor)
        self._state.delete(CURSOR_KEY.pack(b"C", window.key))
        self._exchanges.drop(cursor)

    def subscribe(
        self,
        window: Window,
        topic_filter: bytes,
        options: Options,
        start: int,
        origin: object = None,
    ) -> FilterLog:
        """Give the session what its filter's log has from `start` on; returns the log."""
        cursor = self._cursors[window]
        log = self._inbox.log(topic_filter)
        sources = tuple(each for each in cursor.sources if each.topic_filter != topic_filter)
        known = [each for each in cursor.sources if each.topic_filter == topic_filter]
        if not known:
            parts = self._backlogs.get(window.key, ())
            mine = [part for part in parts if part.topic_filter == topic_filter]
            logs = [log, *(self._inbox.backlog(part.log, part.stop) for part in mine)]
            for each in logs:
                each.readers = with_reader(each.readers, cursor)
            known = [Source(topic_filter, each, options, start, origin) for each in logs]
        cursor.sources = (*sources, *(each._replace(options=options) for each in known))
        return log

    def unsubscribe(self, window: Window, topic_filter: bytes) -> None:
        """Give it no more of this filter; the last one takes the log with it."""
        cursor = self._cursors.get(window)
        if cursor is None:
            return
        self._leave(cursor, [each for each in cursor.sources if each.topic_filter == topic_filter])

    def _leave(self, cursor: Cursor, sources: list[Source]) -> None:
        """Read these no more; who was the last reader takes the log with it."""
        left = {source.log for source in sources}
        cursor.sources = tuple(each for each in cursor.sources if each.log not in left)
        for topic_filter, log, *_ in sources:
            log.readers = without_reader(log.readers, cursor)
            if isinstance(log, Backlog):
                self._end_part(cursor.window.key, log)
                if not log.readers:
                    self._inbox.remove_backlog(log)
            elif not log.readers:
                self._inbox.remove(topic_filter)
            if log.readers:
                self.trim(log)

    def unsettle(self, log: FilterLog) -> None:
        """Somebody has come to a log's readers who stands anywhere: a sweep would not see him."""
        self._sweeps.pop(log, None)

    def known(self, window: Window) -> Cursor | None:
        """The cursor of a durable session; None when it is none."""
        return self._cursors.get(window) if window in self else None

    def _end_part(self, number: int, log: Backlog) -> None:
        """The session has read a backlog, or does not want it any more."""
        parts = [part for part in self._backlogs[number] if part.log != log.number]
        if parts:
            self._backlogs[number] = parts
            self._state.put(backlogs.row_key(number), backlogs.encode(parts))
        else:
            del self._backlogs[number]
            self._state.delete(backlogs.row_key(number))

    def restore(self) -> None:
        """After a restart, when all sessions are back: what was in flight at QoS 2 is again."""
        by_number = {cursor.window.key: cursor for cursor in self._cursors.values()}
        for exchange in list(self._exchanges.rows()):
            cursor = by_number.get(exchange.number)
            if cursor is None:
                self._exchanges.discard(exchange)
                continue
            is_open = exchange.stage is not Stage.DONE
            if exchange.stage is Stage.RELEASED:
                cursor.window.release(exchange.packet_id)
            elif is_open:
                is_open = self._send_again(cursor, exchange.position, exchange.packet_id)
            self._exchanges.take_up(cursor, exchange, is_open)
        self._inbox.remove_strays()
        # What all had acknowledged may not have been removed any more.
        for log in {source.log for cursor in self._cursors.values() for source in cursor.sources}:
            self._inbox.trim(log, min(reader.position for reader in log.readers))

    def _send_again(self, cursor: Cursor, position: int, packet_id: int) -> bool:
        """Restore a message in flight; False when it is not there any more."""
        for row, (options, *_), _ in self.rows(cursor, position, position + 1):
            # The subscription may have another QoS by now.
            group = group_of(cursor.window, options._replace(qos=2))
            batch = row.only([position])
            run = self._fanout.encode(group, batch, position, packet_id)
            if run is not None:
                cursor.window.restore(run)
                return True
        return False

    # ------------------------------------------------------------------ giving

    def keep(  # noqa: PLR0917
        self,
        route: Route,
        further: Sequence[tuple[Window, Sequence[Options]]],
        logs: list[FilterLog],
        takes: list[Take],
        deaf: list[Window],
        rule: TopicRule,
        batch: bytes,
        start: int,
        stop: int,
        count: int,
    ) -> None:
        """Keep a run, and give it to the windows of `route` when it is durable.

        `further` are copies for more subscriptions of these; `takes` are the shared groups that
        want it; `deaf` are windows that read one of the logs and are not to hear this run.
        """
        if not (rule.store_qos0 or qos_of(batch, start)):
            return
        if rule.flush == "always":
            self._state.demand_sync()
        if takes:
            wanted = (take(batch, start, stop, count) for take in takes)
            logs = [*logs, *(log for log in wanted if log is not None)]
            if not logs:
                return
        row = self._inbox.keep(logs, batch, start, stop, count)
        if row is None:
            return
        for window in deaf:
            self._exchanges.skip(self._cursors[window], range(row.position, row.stop))
            self._skipping[window] = None
        self._fresh.append(_Fresh(self._state.next_commit, route, row, further))

    def keep_for(
        self,
        route: Route,
        logs: list[FilterLog],
        batch: bytes,
        further: Sequence[tuple[Window, Sequence[Options]]] = (),
    ) -> None:
        """Keep a batch of one run for the one window of `route`, and `further` copies for it."""
        row = self._inbox.keep(logs, batch, HEADER, len(batch), count_of(batch))
        if row is not None:
            self._fresh.append(_Fresh(self._state.next_commit, route, row, further))

    def unsent(self, window: Window) -> Unsent:
        """What was not sent to a session so far."""
        cursor = self._cursors[window]
        exchanges = cursor.exchanges or {}
        released = set(window.exchanges())
        first = (window.resume or self._tail) if window.lagging else self._tail
        flying = {each for packet_id, each in exchanges.items() if packet_id not in released}
        return Unsent(first, {*(cursor.past or ()), *exchanges.values()}, flying)

    def durable_windows(self) -> dict[int, Window]:
        """The windows of the durable sessions by their numbers."""
        return {window.key: window for window in self._cursors if window in self}

    def settle(self) -> None:
        """After a commit: give out what has become durable, then what the hungry have room for."""
        durable = self._state.durable
        fresh = self._fresh
        while fresh and fresh[0].commit <= durable:
            _, route, row, further = fresh.popleft()
            self._fanout.deliver_to(route, row.batch, row.position)
            for window, copies_for in further:
                self._give_further(window, copies_for, row, row.position)
            self._tail = row.stop
        if not fresh:
            self._tail = self._inbox.next_position
            while self._skipping:
                self.caught_up(self._skipping.popitem()[0])
        if self._pumps:
            pumps, self._pumps = self._pumps, []
            for window in pumps:
                window.pump()
        if self._sweeps:
            self._sweep()
        hungry = self._turn.hungry
        if hungry:
            windows = hungry[:]
            hungry.clear()
            for window in windows:
                self._feed(window)

    @property
    def busy(self) -> bool:
        """Whether some window is to be given more."""
        if self._pumps or self._turn.hungry:
            return True
        return any(sweep.due_ms <= self._turn.now_ms for sweep in self._sweeps.values())

    @property
    def is_active(self) -> bool:
        """Whether there is anything for `settle` or `note_exchanges`."""
        return self.busy or bool(self._fresh or self._turn.exact)

    def pump(self, window: Window) -> None:
        """Let a window send on, when what it sends can still be noted before it leaves."""
        if window in self._cursors:
            self._pumps.append(window)
        else:
            window.pump()

    def note_exchanges(self) -> None:
        """Before the sockets are flushed: put the ids of the QoS 2 packets that will leave."""
        for window, position, packet_id in self._turn.exact:
            cursor = self._cursors.get(window)
            if cursor is not None:
                self._exchanges.sent(cursor, packet_id, position)
        self._turn.exact.clear()

    def released(self, window: Window, packet_id: int) -> None:
        """The client has the QoS 2 message (PUBREC): it must not be sent again."""
        cursor = self._cursors.get(window)
        if cursor is not None:
            self._exchanges.released(cursor, packet_id)

    def completed(self, window: Window, packet_id: int) -> None:
        """The exchange is over (PUBCOMP, or refused): its packet id is free."""
        cursor = self._cursors.get(window)
        if cursor is not None:
            self._exchanges.completed(cursor, packet_id)

    def _feed(self, window: Window) -> None:
        """Give a window what it has room for; it says itself when that is all (`lagging`)."""
        window.fed()
        cursor = self._cursors.get(window)
        if cursor is None:
            window.lagging = False
            return
        if not window.lagging or window.outbox is None or window.queued:
            return
        window.lagging = False
        past = cursor.past
        for row, (options, *further), origin in self.rows(cursor, window.resume, self._tail):
            batch, position = row.batch, row.position
            route = route_to(window, options, origin)
            first = max(window.resume, position)
            if first > position or (past and not past.isdisjoint(range(position, row.stop))):
                wanted = set(range(first, row.stop)) - (past or set())
                if not wanted:
                    continue
                for each in sorted(wanted):
                    self._fanout.deliver_to(route, row.only([each]), each)
            else:
                self._fanout.deliver_to(route, batch, position)
            if further:
                self._give_further(window, further, row, first)
            if window.lagging:
                return
        if past:
            # Of what must not be given again nothing may be left to acknowledge.
            self._note([cursor])

    def _give_further(
        self, window: Window, further: Sequence[Options], row: Row, first: int
    ) -> None:
        """Give the copies for further subscriptions of what a window was given of a row.

        They live in memory only: where the window stands is noted by the first copy.
        """
        cursor = self._cursors.get(window)
        if cursor is None:
            return
        until = min(window.resume, row.stop) if window.lagging else row.stop
        past = cursor.past or ()
        places = [p for p in range(max(first, cursor.copied), until) if p not in past]
        cursor.copied = max(cursor.copied, until)
        if places:
            batch = row.only(places)
            for options in further:
                self._fanout.deliver_to(route_to(window, options), batch)

    def rows(
        self, cursor: Cursor, position: int, until: int
    ) -> Iterator[tuple[Row, Sequence[Options], object]]:
        """Yield the session's rows in order, each once, with the options of each copy of it.

        And with the origin of its source.
        """
        sources = cursor.sources
        if len(sources) == 1:
            (source,) = sources
            for row in self._inbox.read(source.log, max(position, source.start), until):
                yield row, (source.options,), source.origin
            return
        rows = merge(*(self._labelled(each, position, until) for each in sources))
        pending: tuple[Row, list[Options], object] | None = None
        for at, _, row, source in rows:
            if pending is not None and pending[0].position == at:
                pending[1].append(source.options)
                continue
            if pending is not None:
                yield pending[0], copies(pending[1], self._separate), pending[2]
            pending = row, [source.options], source.origin
        if pending is not None:
            yield pending[0], copies(pending[1], self._separate), pending[2]

    def _labelled(
        self, source: Source, position: int, until: int
    ) -> Iterator[tuple[int, int, Row, Source]]:
        for row in self._inbox.read(source.log, max(position, source.start), until):
            yield row.position, source.log.number, row, source

    # ------------------------------------------------------------------ acknowledgements

    def detached(self, window: Window) -> None:
        """The session's client has gone: it goes on from what comes next, if it had everything."""
        cursor = self._cursors.get(window)
        if cursor is None:
            return
        if not window.resume:
            window.resume = self._tail
        self._note([cursor])

    def caught_up(self, window: Window) -> None:
        """The session's subscription is settled: what came before for others is not for it."""
        cursor = self._cursors.get(window)
        if cursor is not None:
            self._note([cursor])

    def position_of(self, cursor: Cursor) -> int:
        """The position before which the session has acknowledged everything."""
        window = cursor.window
        upto = window.resume if window.lagging else self._tail
        # After a restart a QoS 2 message in flight may lie behind what is still to be read.
        return min(window.oldest, upto) if window.oldest else upto

    def note(self) -> None:
        """Write down how far those have come who have acknowledged since the last time."""
        acknowledged = self._turn.acknowledged
        if not acknowledged:
            return
        windows = acknowledged[:]
        acknowledged.clear()
        for window in windows:
            window.noted()
        known = map(self._cursors.get, windows)
        self._note([cursor for cursor in known if cursor is not None])

    def _note(self, cursors: list[Cursor]) -> None:
        trimmed: dict[FilterLog, None] = {}
        for cursor in cursors:
            position = self.position_of(cursor)
            if position > cursor.position:
                self._advance(cursor, position)
                trimmed.update((source.log, None) for source in cursor.sources)
        for log in trimmed:
            self.trim(log)

    def trim(self, log: FilterLog) -> None:
        """Remove what all readers have; when they are many, as soon as all were looked at."""
        if len(log.readers) <= _AT_ONCE:
            self._inbox.trim(log, min(map(self.position_of, log.readers)))
        elif log not in self._sweeps:
            # A pass costs as much as there are readers: the more, the longer the pause before it.
            due_ms = self._turn.now_ms + len(log.readers) // _READERS_PER_MS
            self._sweeps[log] = Sweep(log.readers, due_ms)

    def _sweep(self) -> None:
        """Look at some of the readers of one log that has many."""
        log, sweep = next(iter(self._sweeps.items()))
        if sweep.due_ms > self._turn.now_ms:
            return
        some = sweep.take(_AT_ONCE)
        for cursor in some:
            sweep.look(self.position_of(cursor))
        if not some:
            del self._sweeps[log]
            if sweep.lowest is not None and log.readers:
                self._inbox.trim(log, sweep.lowest)

    def _advance(self, cursor: Cursor, position: int) -> None:
        number = cursor.window.key
        cursor.position = position
        if type(cursor) is Cursor:
            self._state.put(CURSOR_KEY.pack(b"C", number), position.to_bytes(8, "big"))
        if number in self._backlogs:
            self._leave(cursor, [each for each in cursor.sources if each.log.stop <= position])
        self._exchanges.passed(cursor, position)
