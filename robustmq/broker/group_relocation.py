"""What shared groups are owed, moved to the cores that lead them when there is another number.

All that no member has acknowledged waits for the group again, in a log of its new leader: what
waited there before, what was on its way (`A`), what members had, and what was to be delivered
once and was not confirmed. QoS 2 messages that were sent go with their sessions (`departure`).
"""

from collections.abc import Callable, Iterator, Sequence

from robustmq.broker.cursors import CURSOR_KEY
from robustmq.broker.departure import Target
from robustmq.broker.exchanges import EXCHANGE_KEY
from robustmq.broker.filter_log import LAST
from robustmq.broker.handovers import ROW_KEY, TAKEN, decode
from robustmq.broker.inbox import COUNTERS, LOG_KEY, Row, read_row
from robustmq.broker.membership import MEMBER_LOGS, member_of
from robustmq.broker.placement import Placement
from robustmq.broker.position_blocks import BLOCK_BITS
from robustmq.broker.share_leads import GROUP_LOGS, filter_of
from robustmq.broker.taken import taken_rows
from robustmq.broker.unconfirmed import Unconfirmed
from robustmq.message.batch import count_of
from robustmq.message.topic import matches
from robustmq.storage.table import Table


class GroupRelocation:
    """Moves the groups of the tables `old` into `new` ones; `tick(core)` counts what is read."""

    def __init__(
        self,
        old: Sequence[Table],
        new: Sequence[Target],
        *,
        unconfirmed: Unconfirmed,
        tick: Callable[[int], None],
    ) -> None:
        self._old = old
        self._new = new
        self._unconfirmed = unconfirmed
        self._tick = tick
        self._groups: dict[bytes, tuple[int, int] | None] = {}
        """The old core that led a group, and the log there; None when another node led it."""
        self._members: dict[bytes, list[tuple[int, int, int]]] = {}
        self._handed: dict[bytes, list[tuple[int, bytes]]] = {}

    def move(self, logs: Sequence[int], blocks: Sequence[int]) -> tuple[list[int], list[int]]:
        """Move all; gives and returns the next free log number and block of every new core."""
        self._survey()
        logs = [*logs]
        positions = [block << BLOCK_BITS for block in blocks]
        placement = Placement(len(self._new))
        for key in self._groups:
            home = placement.group_core(key)
            target, number = self._new[home], logs[home]
            logs[home] += 1
            target.put(b"F" + GROUP_LOGS + key, number.to_bytes(8, "big"))
            put = size = 0
            for batch in self._owed(key):
                row = LOG_KEY.pack(b"L", number, positions[home])
                target.put(row, COUNTERS.pack(put, size) + batch)
                count = count_of(batch)
                positions[home] += count
                put += count
                size += len(batch)
        return logs, [-(-position >> BLOCK_BITS) for position in positions]

    def _survey(self) -> None:
        """Learn which groups there are, and who has what of theirs."""
        taken = [dict(taken_rows(table, TAKEN)) for table in self._old]
        for core, table in enumerate(self._old):
            for key, value in table.walk(b"F" + GROUP_LOGS, b"F" + _after(GROUP_LOGS)):
                self._groups[key[1 + len(GROUP_LOGS) :]] = core, int.from_bytes(value, "big")
            for key, value in table.walk(b"F" + MEMBER_LOGS, b"F" + _after(MEMBER_LOGS)):
                member, group = member_of(key[1:])
                number = int.from_bytes(value, "big")
                self._members.setdefault(group, []).append((core, member, number))
                self._groups.setdefault(group, None)
            for key, value in table.walk(b"A", b"B"):
                _, epoch, call = ROW_KEY.unpack(key)
                handover = decode(value)
                is_here = handover.core < len(taken)
                # What another node has taken nobody here knows.
                if not (is_here and taken[handover.core].get(core, (0, 0)) >= (epoch, call)):
                    self._handed.setdefault(handover.key, []).append((core, key))
                    self._groups.setdefault(handover.key, None)

    def _owed(self, key: bytes) -> Iterator[bytes]:
        """Yield what the group is owed, in batches of one run."""
        for core, member, number in self._members.get(key, ()):
            yield from self._unacknowledged(core, member, number)
        for core, row in self._handed.get(key, ()):
            value = self._old[core].get(row)
            assert value is not None, "a table that is moved does not change"
            yield decode(value).batch
        led = self._groups[key]
        if led is None:
            return
        leader, log = led
        for each in self._rows(leader, log):
            yield each.batch
        topic_filter = filter_of(key)
        for topic, batch in self._unconfirmed.runs(leader):
            if matches(topic_filter, topic):
                yield batch

    def _unacknowledged(self, core: int, member: int, log: int) -> Iterator[bytes]:
        table = self._old[core]
        first = EXCHANGE_KEY.pack(b"X", member, 0)
        sent = {
            EXCHANGE_KEY.unpack(key)[2]
            for key, _ in table.walk(first, EXCHANGE_KEY.pack(b"X", member, LAST))
        }
        known = table.get(CURSOR_KEY.pack(b"C", member))
        begin = int.from_bytes(known, "big") if known else 0
        for row in self._rows(core, log):
            left = [
                each for each in range(row.position, row.stop) if each >= begin and each not in sent
            ]
            if left:
                yield row.only(left)

    def _rows(self, core: int, log: int) -> Iterator[Row]:
        table = self._old[core]
        first, stop = LOG_KEY.pack(b"L", log, 0), LOG_KEY.pack(b"L", log, LAST)
        for key, value in table.walk(first, stop):
            self._tick(core)
            yield read_row(table, key, value)


def _after(prefix: bytes) -> bytes:
    return prefix[:-1] + bytes((prefix[-1] + 1,))
