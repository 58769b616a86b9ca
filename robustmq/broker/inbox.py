"""The inbox of a core: what its durable sessions are owed, once per filter, on disk.

Rows: `F` filter -> the number of its log. `L` number, position -> counters, and a run of records
of one topic, or nothing: then the run is in `B` position, because several filters want it.
`K` number: a log that is being removed. A position counts the records that were ever kept on
this core, so it is the order of arrival.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from robustmq import metrics
from robustmq._kernel.batch import slice_of
from robustmq._kernel.turn import Turn
from robustmq.broker.filter_log import LAST, Backlog, FilterLog, KnownRow
from robustmq.broker.state import State
from robustmq.message.batch import count_of, only, timestamp_of
from robustmq.settings.mqtt import MqttInbox
from robustmq.storage.table import Table

LOG_KEY: Final = struct.Struct(">cQQ")
NUMBER_KEY: Final = struct.Struct(">cQ")
COUNTERS: Final = struct.Struct(">QQ")
OWNERS: Final = struct.Struct(">H")
_RESERVED: Final = 1 << 32
"""Positions that are reserved at a time; a restart skips what is left of them."""
_BUDGET: Final = 1_000
"""Rows that are looked up for removal in one turn."""


class Row(NamedTuple):
    """A run of records of one topic: the position of the first, their number, and the batch."""

    position: int
    records: int
    batch: bytes

    @property
    def stop(self) -> int:
        """The position behind the last record."""
        return self.position + self.records

    def only(self, positions: list[int]) -> bytes:
        """Return a batch of just the records that have these positions, ascending."""
        return only(self.batch, [each - self.position for each in positions])


def read_row(rows: State | Table, key: bytes, value: bytes) -> Row:
    """Read a row `L`; its run may be in a row of its own."""
    position = LOG_KEY.unpack(key)[2]
    batch = value[COUNTERS.size :]
    if not batch:
        body = rows.get(NUMBER_KEY.pack(b"B", position))
        assert body is not None, f"the run at position {position} is gone"
        batch = body[OWNERS.size + 8 * OWNERS.unpack_from(body)[0] :]
    return Row(position, count_of(batch), batch)


def owners_of(body: bytes) -> tuple[int, ...]:
    """The logs that shared a row `B` when it was put."""
    return struct.unpack_from(f">{OWNERS.unpack_from(body)[0]}Q", body, OWNERS.size)


class Inbox:
    """The filter logs of a core. What is kept in a turn can be read after its commit."""

    def __init__(self, turn: Turn, state: State, limits: MqttInbox) -> None:
        self._turn = turn
        self._state = state
        self._limits = limits
        self.logs: dict[bytes, FilterLog] = {}
        self._backlogs: dict[int, Backlog] = {}
        self._owners: dict[int, int] = {}
        self._restoring = True
        self._over: dict[FilterLog, None] = {}
        self._trims: dict[FilterLog, int] = {}
        self._counted = 0
        self._positions = state.numbers(b"position", _RESERVED)
        for key, _ in state.walk(b"K", b"L"):
            self._trims[FilterLog(NUMBER_KEY.unpack(key)[1], False)] = LAST

    @property
    def next_position(self) -> int:
        """The position of the record that is kept next."""
        return self._positions.next

    @property
    def busy(self) -> bool:
        """Whether there is something to remove."""
        return bool(self._over or self._trims) and self._state.refusal is None

    def log(self, topic_filter: bytes, kind: type[FilterLog] = FilterLog) -> FilterLog:
        """The log of a filter, made when there is none."""
        log = self.logs.get(topic_filter)
        if log is None:
            # Later the row may be that of a log which is being removed.
            known = self._state.get(b"F" + topic_filter) if self._restoring else None
            if known is None:
                log = kind(self._state.next_number(b"log"), True)
                self._state.put(b"F" + topic_filter, log.number.to_bytes(8, "big"))
            else:
                log = kind(int.from_bytes(known, "big"), False)
            self.logs[topic_filter] = log
        return log

    def remove(self, topic_filter: bytes) -> None:
        """Nobody wants the filter's log any more."""
        log = self.logs.pop(topic_filter)
        self._over.pop(log, None)
        self._state.delete(b"F" + topic_filter)
        self._discard(log)

    def backlog(self, number: int, stop: int) -> Backlog:
        """The backlog of that number, which ends at `stop`."""
        log = self._backlogs.get(number)
        if log is None:
            log = self._backlogs[number] = Backlog(number, stop)
        return log

    def remove_backlog(self, log: Backlog) -> None:
        """Nobody has to read the backlog any more."""
        del self._backlogs[log.number]
        self._discard(log)

    def _discard(self, log: FilterLog) -> None:
        self._state.put(NUMBER_KEY.pack(b"K", log.number), b"")
        log.forget_rows()
        self._trims[log] = LAST
        self._count(-log.messages)

    def _count(self, messages: int) -> None:
        """So many messages more are known to be in the logs that are not being removed."""
        self._counted += messages
        self._turn.row[metrics.INBOX_MESSAGES] = self._counted

    def remove_strays(self) -> None:
        """After a restart: remove the logs that no session has opened."""
        self._restoring = False
        rows = self._state.walk(b"F", b"G")
        strays = [(k[1:], int.from_bytes(v, "big")) for k, v in rows if k[1:] not in self.logs]
        for topic_filter, number in strays:
            self.logs[topic_filter] = FilterLog(number, False)
            self.remove(topic_filter)

    # ------------------------------------------------------------------ keeping

    def keep(
        self, logs: list[FilterLog], batch: bytes, start: int, stop: int, count: int
    ) -> Row | None:
        """Put a run of `count` records into every log; returns it, None when no log has room."""
        for log in logs:
            if not log.opened:
                self._open(log)
        if self._limits.on_full == "refuse_newest":
            logs = self._with_room(logs, count)
            if not logs:
                return None
        position = self._positions.take(count)
        run = slice_of(batch, start, stop, count)
        put = self._state.put
        shared = len(logs) > 1
        if shared:
            numbers = b"".join(log.number.to_bytes(8, "big") for log in logs)
            put(NUMBER_KEY.pack(b"B", position), OWNERS.pack(len(logs)) + numbers + run)
            self._owners[position] = len(logs)
        body = b"" if shared else run
        row = KnownRow(position, position + count, len(run), shared)
        limits = self._limits
        for log in logs:
            counters = COUNTERS.pack(log.put, log.put_bytes)
            put(LOG_KEY.pack(b"L", log.number, position), counters + body)
            log.added(row)
            self._counted += count
            if log.messages > limits.max_messages or log.size > limits.max_bytes:
                self._over[log] = None
        cells = self._turn.row
        cells[metrics.INBOX_KEPT] += count * len(logs)
        cells[metrics.INBOX_MESSAGES] = self._counted
        return Row(position, count, run)

    def _with_room(self, logs: list[FilterLog], count: int) -> list[FilterLog]:
        limits = self._limits
        open_logs = [
            log
            for log in logs
            if log.messages + count <= limits.max_messages and log.size < limits.max_bytes
        ]
        for log in logs:
            if log not in open_logs:
                self._turn.row[metrics.MESSAGES_DROPPED_QUEUE] += count * log.behind(LAST)
        return open_logs

    def _open(self, log: FilterLog) -> None:
        """Learn after a restart what the log has."""
        log.opened = True
        last = self._state.last(*self._range(log, 0, LAST))
        if last is None:
            log.many = False
            return
        row = self._row(*last)
        log.put, log.put_bytes = COUNTERS.unpack_from(last[1])
        log.put += row.records
        log.put_bytes += len(row.batch)
        self._recount(log)
        self._count(log.messages)

    def _recount(self, log: FilterLog) -> None:
        """Set what the log has from the counters of its first row."""
        first = next(iter(self._state.walk(*self._range(log, log.first, LAST))), None)
        if first is None:
            log.messages = log.size = 0
            return
        log.first = LOG_KEY.unpack(first[0])[2]
        before, bytes_before = COUNTERS.unpack_from(first[1])
        log.messages = log.put - before
        log.size = log.put_bytes - bytes_before

    # ------------------------------------------------------------------ reading

    def read(self, log: FilterLog, position: int, until: int) -> Iterator[Row]:
        """Yield the rows that end behind `position` and begin below `until`, ascending.

        To be used up or dropped before the next commit.
        """
        holding = self._state.last(*self._range(log, log.first, position + 1))
        if holding is not None:
            row = self._row(*holding)
            if row.stop > position and row.position < until and not self._is_too_old(row):
                yield row
        for key, value in self._state.walk(*self._range(log, position + 1, until)):
            row = self._row(key, value)
            if not self._is_too_old(row):
                yield row

    def _is_too_old(self, row: Row) -> bool:
        max_age_ms = self._limits.max_age_ms
        if not max_age_ms:
            return False
        return self._turn.now_ms - timestamp_of(row.batch) > max_age_ms

    def _range(self, log: FilterLog, first: int, stop: int) -> tuple[bytes, bytes]:
        return LOG_KEY.pack(b"L", log.number, first), LOG_KEY.pack(b"L", log.number, stop)

    def _row(self, key: bytes, value: bytes) -> Row:
        return read_row(self._state, key, value)

    def names(self, prefix: bytes) -> list[bytes]:
        """The names of all logs that begin so and have been written."""
        first = b"F" + prefix
        stop = first[:-1] + bytes((first[-1] + 1,))
        return [key[1:] for key, _ in self._state.walk(first, stop)]

    def waiting(self, log: FilterLog) -> int:
        """How many messages the log has."""
        if not log.opened:
            self._open(log)
        return log.messages

    def has_room(self, log: FilterLog, count: int) -> bool:
        """Say whether so many messages may be put into a log without that any other goes."""
        waiting = self.waiting(log)
        limits = self._limits
        return not waiting or (
            waiting + count <= limits.max_messages and log.size < limits.max_bytes
        )

    def take(self, log: FilterLog) -> Iterator[Row]:
        """Take the oldest rows out, one by one; to be dropped before the next commit."""
        for key, value in self._state.walk(*self._range(log, log.first, LAST)):
            row = self._row(key, value)
            if log.known and log.known[0].position == row.position:
                log.known.popleft()
            self._remove(log, row, value)
            if self._is_too_old(row):
                self._turn.row[metrics.MESSAGES_DROPPED_EXPIRED] += row.records
            else:
                yield row

    def sift(self, log: FilterLog, stay: Callable[[Row], list[int]]) -> None:
        """Of each row that is written only the records stay whose positions `stay` returns.

        Nothing may be put in this turn that is not written yet.
        """
        counted = log.messages
        log.opened = True
        log.messages = log.size = 0
        first = 0
        rest: list[Row] = []
        for key, value in list(self._state.walk(*self._range(log, log.first, LAST))):
            row = self._row(key, value)
            positions = stay(row)
            if positions:
                first = first or positions[0]
            if len(positions) == row.records:
                log.messages += row.records
                log.size += len(row.batch)
                continue
            self._remove_row(log, row.position, len(value) == COUNTERS.size)
            self._turn.row[metrics.INBOX_REMOVED] += row.records - len(positions)
            log.first = row.stop
            rest += [Row(each, 1, row.only([each])) for each in positions]
        for row in rest:
            counters = COUNTERS.pack(log.put, log.put_bytes)
            self._state.put(LOG_KEY.pack(b"L", log.number, row.position), counters + row.batch)
            log.messages += 1
            log.size += len(row.batch)
        self._count(log.messages - counted)
        log.first = first or log.first
        log.forget_rows()

    # ------------------------------------------------------------------ removing

    def trim(self, log: FilterLog, position: int) -> None:
        """Remove the rows that end at or below `position`: no session stands before it."""
        if log.many:
            self._trims[log] = position
            return
        known = log.known
        while known and known[0].stop <= position:
            row = known.popleft()
            count = row.stop - row.position
            log.messages -= count
            self._removed(count)
            log.size -= row.size
            log.first = row.stop
            self._remove_row(log, row.position, row.shared)
        if not known:
            log.known = None

    def run(self) -> None:
        """After a commit: go on removing, as much as fits into a turn."""
        if self._state.refusal is not None:
            return
        budget = _BUDGET
        for log in list(self._over):
            if budget <= 0:
                return
            budget -= self._drop_oldest(log, budget)
        for log, position in list(self._trims.items()):
            if budget <= 0:
                return
            budget -= self._look_up(log, position, budget)

    def _drop_oldest(self, log: FilterLog, budget: int) -> int:
        """Bring a log down to its limits."""
        limits = self._limits
        removed = 0
        for key, value in self._state.walk(*self._range(log, log.first, LAST)):
            if removed == budget:
                return removed
            if log.messages <= limits.max_messages and log.size <= limits.max_bytes:
                break
            row = self._row(key, value)
            self._turn.row[metrics.MESSAGES_DROPPED_QUEUE] += row.records * log.behind(row.stop)
            if log.known and log.known[0].position == row.position:
                log.known.popleft()
            self._remove(log, row, value)
            removed += 1
        del self._over[log]
        return removed + 1

    def _look_up(self, log: FilterLog, position: int, budget: int) -> int:
        """Remove what `trim` was told to and did not know."""
        removed = 0
        for key, value in self._state.walk(*self._range(log, log.first, position)):
            if removed == budget:
                return removed
            row = self._row(key, value)
            if row.stop > position:
                break
            self._remove(log, row, value)
            removed += 1
        if position != LAST and not log.opened:
            self._open(log)
        if position == LAST:
            key = NUMBER_KEY.pack(b"K", log.number)
            if self._state.get(key) is None:
                # It is not written yet, and so may be rows that were put before it.
                return removed + 1
            self._state.delete(key)
        del self._trims[log]
        return removed + 1

    def _remove(self, log: FilterLog, row: Row, value: bytes) -> None:
        if log.opened:
            log.messages -= row.records
            log.size -= len(row.batch)
        if log.opened and self._trims.get(log) != LAST:
            self._removed(row.records)
        else:
            self._turn.row[metrics.INBOX_REMOVED] += row.records
        log.first = row.stop
        self._remove_row(log, row.position, len(value) == COUNTERS.size)

    def _removed(self, messages: int) -> None:
        self._turn.row[metrics.INBOX_REMOVED] += messages
        self._count(-messages)

    def _remove_row(self, log: FilterLog, position: int, shared: bool) -> None:
        self._state.delete(LOG_KEY.pack(b"L", log.number, position))
        if not shared:
            return
        key = NUMBER_KEY.pack(b"B", position)
        owners = self._owners.pop(position, None)
        if owners is None:
            owners = self._count_owners(key, position)
        if owners > 1:
            self._owners[position] = owners - 1
        else:
            self._state.delete(key)

    def _count_owners(self, key: bytes, position: int) -> int:
        """How many logs still have the run, the one that lets go of it included."""
        body = self._state.get(key)
        if body is None:
            return 0
        return sum(
            self._state.get(LOG_KEY.pack(b"L", number, position)) is not None
            for number in owners_of(body)
        )
