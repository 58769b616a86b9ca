"""The sessions of one old core, on their way to their new homes with what they are owed.

A session keeps its number, and so its rows; only positions change. What the sessions that go from
here to the same new core are owed, and no more, goes with them as logs that only they read
(`backlogs`), in the order that it had here. Its positions there lie behind those of the sessions
that have come from other cores, and before all that the new core will keep.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import groupby
from typing import NamedTuple, Protocol

from robustmq.broker import backlogs
from robustmq.broker.backlogs import Part
from robustmq.broker.cursors import CURSOR_KEY
from robustmq.broker.exchanges import EXCHANGE_KEY
from robustmq.broker.filter_log import LAST
from robustmq.broker.inbox import COUNTERS, LOG_KEY, NUMBER_KEY, OWNERS, owners_of, read_row
from robustmq.broker.legacies import LEGACY_LOGS, read_name
from robustmq.broker.membership import MEMBER_LOGS, member_of
from robustmq.broker.position_blocks import PositionBlocks
from robustmq.storage.table import Table

_TARGET_BYTES = 1 << 20
"""Bytes that are put into a new table between two commits."""
_UNMADE = 1 << 62
"""The first number of logs that a core had not made yet; no log of a core gets so far."""
Rows = Iterator[tuple[bytes, bytes]]


class Sessions(Protocol):
    """What a move must know of a protocol's rows.

    `s` client id -> a session; `t` and `u` number -> what belongs to one.
    """

    def client(self, key: bytes, value: bytes) -> tuple[bytes, int]:
        """The client id and the number of the session in a row `s`."""

    def subscription(self, key: bytes, value: bytes) -> tuple[bytes, int] | None:
        """The filter and the start of the subscription in a row `t`; None when it keeps nothing."""

    def starting(self, value: bytes, start: int) -> bytes:
        """The value of a row `t` with another start."""


class Target:
    """A table that is being filled; `commit` writes what was put, and waits until it is written."""

    def __init__(self, table: Table, commit: Callable[[], object]) -> None:
        self._table = table
        self._commit = commit
        self._size = 0

    def put(self, key: bytes, value: bytes) -> None:
        """Set a row."""
        self._table.put(key, value)
        self.wrote(len(key) + len(value))

    def wrote(self, size: int) -> None:
        """Count what waits for a commit, also what was appended to a log of that core."""
        self._size += size
        if self._size >= _TARGET_BYTES:
            self.flush()

    def delete(self, key: bytes) -> None:
        """Remove a row; it may be missing."""
        self._table.delete(key)

    def flush(self) -> None:
        """Commit."""
        self._size = 0
        self._commit()


class _Lane(NamedTuple):
    """A log of this core on its way to a new one."""

    log: int
    home: int


class _Backlog(NamedTuple):
    """What becomes of a lane: a log, of what lies from `first` on and below `stop` here."""

    number: int
    first: int
    stop: int


class _Debt(NamedTuple):
    """What a session needs of a log of this core: all from `position` on."""

    topic_filter: bytes
    log: int
    position: int


class Departure:
    """One old core's sessions; `late` gives the rows that its logs (by filter) lack still."""

    def __init__(
        self,
        old: Table,
        new: Sequence[Target],
        *,
        sessions: Sessions,
        home_of: Callable[[bytes], int],
        late: Callable[[Mapping[bytes, int]], list[tuple[bytes, bytes]]],
        count: Callable[[Rows], Rows],
    ) -> None:
        self._old = old
        self._new = new
        self._sessions = sessions
        self._home_of = home_of
        self._count = count
        self._homes: dict[int, int] = {}
        self._logs = {
            key[1:]: int.from_bytes(value, "big") for key, value in self._walk(b"F", b"G")
        }
        self._number_unmade_logs()
        self._late = late(self._logs)
        self._cursors = {
            CURSOR_KEY.unpack(key)[1]: int.from_bytes(value, "big")
            for key, value in self._walk(b"C", b"D")
        }
        self._parts = {
            backlogs.number_of(key): backlogs.decode(value) for key, value in self._walk(b"M", b"N")
        }
        self._legacies = self._find_legacies()
        self._blocks = [PositionBlocks() for _ in new]
        self._backlogs: dict[_Lane, _Backlog] = {}

    def move(self, logs: Sequence[int], blocks: Sequence[int]) -> tuple[list[int], list[int]]:
        """Move all; gives and returns the next free log number and block of every new core."""
        self._move_clients()
        logs = self._survey([*logs])
        blocks = [each.settle(first) for each, first in zip(self._blocks, blocks, strict=True)]
        self._copy_logs()
        self._copy_shared()
        logs = self._copy_sent([*logs])
        self._move_subscriptions()
        self._move_numbered()
        self._put_parts()
        return [*logs], blocks

    def _walk(self, first: bytes, stop: bytes) -> Rows:
        return self._count(self._old.walk(first, stop))

    def _number_unmade_logs(self) -> None:
        """Number the logs of filters that have subscribers and no log.

        A core that was killed right after a move has not made any, and is owed something already.
        """
        for key, value in self._walk(b"t", b"u"):
            subscription = self._sessions.subscription(key, value)
            if subscription is not None and subscription[0] not in self._logs:
                self._logs[subscription[0]] = _UNMADE + len(self._logs)

    def _move_clients(self) -> None:
        for key, value in self._walk(b"s", b"t"):
            client_id, number = self._sessions.client(key, value)
            home = self._homes[number] = self._home_of(client_id)
            self._new[home].put(key, value)

    def _find_legacies(self) -> dict[int, list[_Debt]]:
        """What sessions have from other nodes lies in logs that no subscription names."""
        logs = [*self._logs.items()]
        logs += [(part.topic_filter, part.log) for each in self._parts.values() for part in each]
        found: dict[int, list[_Debt]] = {}
        for name, log in logs:
            if name.startswith(LEGACY_LOGS):
                number, _ = read_name(name)
                debt = _Debt(name, log, self._cursors.get(number, LAST))
                found.setdefault(number, []).append(debt)
        return found

    def _debts(self) -> Iterator[tuple[int, int, list[_Debt]]]:
        """Yield number, home and debts of every session."""
        seen: set[int] = set()
        for number, home, debts in self._subscribed():
            seen.add(number)
            yield number, home, [*debts, *self._legacies.get(number, ())]
        for number, debts in self._legacies.items():
            if number in self._homes and number not in seen:
                yield number, self._homes[number], debts

    def _subscribed(self) -> Iterator[tuple[int, int, list[_Debt]]]:
        """Yield number, home and debts of the sessions that have subscriptions."""
        for number, rows in groupby(self._walk(b"t", b"u"), lambda row: _number(row[0])):
            home = self._homes.get(number)
            debts = []
            for key, value in rows:
                subscription = self._sessions.subscription(key, value)
                if subscription is None:
                    continue
                topic_filter, start = subscription
                # A session without a cursor is owed what comes next.
                position = max(start, self._cursors.get(number, LAST))
                logs = [
                    part.log
                    for part in self._parts.get(number, ())
                    if part.topic_filter == topic_filter
                ]
                if topic_filter in self._logs:
                    logs.append(self._logs[topic_filter])
                debts += [_Debt(topic_filter, log, position) for log in logs]
            if home is not None:
                yield number, home, debts

    def _log_rows(self) -> Rows:
        return merge(self._walk(b"L", b"M"), iter(self._late))

    def _survey(self, numbers: list[int]) -> list[int]:
        """See which rows are owed to whom, number the backlogs and lay down the positions."""
        lowest: dict[_Lane, int] = {}
        for _, home, debts in self._debts():
            for debt in debts:
                lane = _Lane(debt.log, home)
                lowest[lane] = min(debt.position, lowest.get(lane, LAST))
        for log, rows in groupby(self._log_rows(), lambda row: LOG_KEY.unpack(row[0])[1]):
            lanes = [lane for home in range(len(self._new)) if (lane := _Lane(log, home)) in lowest]
            if not lanes:
                continue
            for key, value in rows:
                row = read_row(self._old, key, value)
                for lane in lanes:
                    if row.stop <= lowest[lane]:
                        continue
                    self._blocks[lane.home].mark(row.position, row.stop)
                    known = self._backlogs.get(lane)
                    if known is None:
                        known = _Backlog(numbers[lane.home], row.position, row.stop)
                        numbers[lane.home] += 1
                    self._backlogs[lane] = known._replace(stop=row.stop)
        for key, _ in self._walk(b"X", b"Y"):
            _, number, position = EXCHANGE_KEY.unpack(key)
            if number in self._homes:
                # Two that are in flight may not come to lie on the same position.
                self._blocks[self._homes[number]].mark(position, position + 1)
        return numbers

    def _copy_logs(self) -> None:
        for key, value in self._log_rows():
            _, log, position = LOG_KEY.unpack(key)
            for home, target in enumerate(self._new):
                backlog = self._backlogs.get(_Lane(log, home))
                if backlog is not None and position >= backlog.first:
                    moved = self._blocks[home].move(position)
                    target.put(LOG_KEY.pack(b"L", backlog.number, moved), value)

    def _copy_shared(self) -> None:
        """Runs that several logs share, as far as those that have moved still have them."""
        for key, body in self._walk(b"B", b"C"):
            position = NUMBER_KEY.unpack(key)[1]
            owners = [
                log
                for log in owners_of(body)
                if self._old.get(LOG_KEY.pack(b"L", log, position)) is not None
            ]
            run = body[OWNERS.size + 8 * OWNERS.unpack_from(body)[0] :]
            for home, target in enumerate(self._new):
                backlogs_there = (self._backlogs.get(_Lane(log, home)) for log in owners)
                numbers = [
                    e.number for e in backlogs_there if e is not None and position >= e.first
                ]
                if numbers:
                    moved = NUMBER_KEY.pack(b"B", self._blocks[home].move(position))
                    listed = b"".join(each.to_bytes(8, "big") for each in numbers)
                    target.put(moved, OWNERS.pack(len(numbers)) + listed + run)

    def _copy_sent(self, numbers: list[int]) -> list[int]:
        """QoS 2 messages of shared groups that were sent stay with their sessions.

        What else members had goes back to the group (`group_relocation`).
        """
        for name, log in self._logs.items():
            if not name.startswith(MEMBER_LOGS):
                continue
            member, _ = member_of(name)
            home = self._homes.get(member)
            if home is None:
                continue
            first = EXCHANGE_KEY.pack(b"X", member, 0)
            exchanges = self._old.walk(first, EXCHANGE_KEY.pack(b"X", member, LAST))
            found = 0
            for position in (EXCHANGE_KEY.unpack(key)[2] for key, _ in exchanges):
                batch = self._record(log, position)
                if batch is not None:
                    moved = self._blocks[home].move(position)
                    key = LOG_KEY.pack(b"L", numbers[home], moved)
                    self._new[home].put(key, COUNTERS.pack(found, 0) + batch)
                    found += 1
            if found:
                self._new[home].put(b"F" + name, numbers[home].to_bytes(8, "big"))
                numbers[home] += 1
        return numbers

    def _record(self, log: int, position: int) -> bytes | None:
        """A batch of the one record at a position; None when the log has it not."""
        first, stop = LOG_KEY.pack(b"L", log, 0), LOG_KEY.pack(b"L", log, position + 1)
        last = self._old.last(first, stop)
        row = read_row(self._old, *last) if last is not None else None
        return row.only([position]) if row is not None and position < row.stop else None

    def _move_subscriptions(self) -> None:
        for key, value in self._walk(b"t", b"u"):
            home = self._homes.get(_number(key))
            if home is None:
                continue
            moved = value
            subscription = self._sessions.subscription(key, value)
            if subscription is not None:
                start = self._blocks[home].move(subscription[1])
                moved = self._sessions.starting(value, start)
            self._new[home].put(key, moved)

    def _move_numbered(self) -> None:
        for key, value in self._walk(b"u", b"v"):
            home = self._homes.get(_number(key))
            if home is not None:
                self._new[home].put(key, value)
        for key, value in self._walk(b"W", b"X"):
            home = self._homes.get(_number(key))
            if home is not None:
                self._new[home].put(key, value)
        for number, position in self._cursors.items():
            home = self._homes.get(number)
            if home is not None:
                moved = self._blocks[home].move(position)
                self._new[home].put(CURSOR_KEY.pack(b"C", number), moved.to_bytes(8, "big"))
        for key, value in self._walk(b"X", b"Y"):
            _, number, position = EXCHANGE_KEY.unpack(key)
            home = self._homes.get(number)
            if home is not None:
                moved = self._blocks[home].move(position)
                self._new[home].put(EXCHANGE_KEY.pack(b"X", number, moved), value)

    def _put_parts(self) -> None:
        for number, home, debts in self._debts():
            parts = []
            for debt in debts:
                backlog = self._backlogs.get(_Lane(debt.log, home))
                if backlog is not None and debt.position < backlog.stop:
                    stop = self._blocks[home].move(backlog.stop - 1) + 1
                    parts.append(Part(debt.topic_filter, backlog.number, stop))
            if parts:
                self._new[home].put(backlogs.row_key(number), backlogs.encode(parts))


def _number(key: bytes) -> int:
    """The number of the session that a row `t`, `u` or `W` belongs to."""
    return int.from_bytes(key[1:9], "big")
