"""The rows of all cores of a node, moved to another number of cores: tables in, tables out.

Sessions go to their new homes (`departure`), retained messages to the cores that keep their
topics, topic logs likewise (`log_relocation`), delayed messages to core `old core % cores`.
What was to be delivered once and was not confirmed is delivered before (`unconfirmed`), so that no
row `O` or `E` is needed any more; nor `A` or `H`: what was on its way to the members of shared
groups waits for the group again (`group_relocation`).
Counters go on from the highest of all old cores, so that nobody gives a number again.

What is owed to sessions of other nodes (`estates`) is not moved: it must have been taken before.

The old tables are only read. A row of a kind that nobody here knows stops the move.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from heapq import merge
from itertools import pairwise
from typing import Final

from robustmq.broker.catalog import TOPIC_ROWS
from robustmq.broker.departure import Departure, Sessions, Target
from robustmq.broker.estates import ESTATES
from robustmq.broker.group_relocation import GroupRelocation
from robustmq.broker.log_parts import Leaders
from robustmq.broker.log_relocation import Depots, LogRelocation
from robustmq.broker.placement import Placement
from robustmq.broker.position_blocks import BLOCK_BITS
from robustmq.broker.router import HELD
from robustmq.broker.unconfirmed import Unconfirmed
from robustmq.errors import Corrupt
from robustmq.policy.topic_rules import TopicRules
from robustmq.storage.table import Table

KINDS: Final = b"ABCDEFGHKLMNOPQTWXYstu"
"""The first bytes of all rows that a core may have, ascending."""
_END: Final = b"\xff" * 16
_POSITION: Final = b"Nposition"
_LOG: Final = b"Nlog"
_SHARD: Final = b"Nshard"
_DELAYED_KEY: Final = struct.Struct(">cQQ")
_DELAYED: Final = b"D"
_REPORT_ROWS: Final = 1_000

Progress = Callable[[str, int, int], None]
"""Called every so often with (what is being moved, its old core, rows and batches read so far)."""


class Relocation:
    """One move from the tables `old`, one for each core, into `new` ones, which are empty.

    `catalog` knows the topics that were made, `node` is this node's number.
    """

    def __init__(
        self,
        old: Sequence[Table],
        new: Sequence[Target],
        *,
        sessions: Sessions,
        depots: Depots,
        rules: TopicRules,
        progress: Progress,
        catalog: Leaders | None = None,
        node: int = 1,
    ) -> None:
        self._old = old
        self._new = new
        self._sessions = sessions
        self._progress = progress
        self._placement = Placement(len(new))
        self._unconfirmed = Unconfirmed(old, rules, catalog, node)
        self._rows = 0
        # Position 0 stands for none.
        self._blocks = [1] * len(new)
        self._counters = self._read_counters()
        first = self._counters.get(_LOG, 1)
        self._logs = [first] * len(new)
        self._log_relocation = LogRelocation(
            old,
            new,
            depots,
            rules=rules,
            unconfirmed=self._unconfirmed,
            first=self._counters.get(_SHARD, 1),
            tick=partial(self._tick, "topic logs"),
        )

    def run(self) -> None:
        """Move everything, the last commits included.

        Raises Corrupt, also for unknown rows, and Unwritable.
        """
        for core, table in enumerate(self._old):
            check_kinds(core, table)
        for core in range(len(self._old)):
            self._move_sessions(core)
        self._move_groups()
        self._move_retained()
        self._move_delayed()
        self._move_taps()
        self._move_topics()
        self._put_counters(self._log_relocation.move())
        for target in self._new:
            target.flush()

    def _move_sessions(self, core: int) -> None:
        departure = Departure(
            self._old[core],
            self._new,
            sessions=self._sessions,
            home_of=self._placement.home_of,
            late=lambda logs: self._unconfirmed.rows(core, logs),
            count=lambda rows: self._count("sessions", core, rows),
        )
        self._logs, self._blocks = departure.move(self._logs, self._blocks)

    def _move_groups(self) -> None:
        groups = GroupRelocation(
            self._old,
            self._new,
            unconfirmed=self._unconfirmed,
            tick=partial(self._tick, "shared groups"),
        )
        self._logs, self._blocks = groups.move(self._logs, self._blocks)

    def _move_retained(self) -> None:
        for core, table in enumerate(self._old):
            for key, batch in self._count("retained messages", core, table.walk(b"T", b"U")):
                self._new[self._placement.retained_core(key[1:])].put(key, batch)
        for key, batch in self._unconfirmed.retained(Placement(len(self._old))).items():
            target = self._new[self._placement.retained_core(key[1:])]
            if batch:
                target.put(key, batch)
            else:
                target.delete(key)

    def _move_taps(self) -> None:
        """What subscribers were given of a log goes where the log goes, whose offsets stay."""
        for core, table in enumerate(self._old):
            for key, value in self._count("taps", core, table.walk(b"G", b"H")):
                topic, _, number = key[1:].rpartition(b"\0")
                self._new[self._placement.log_core(topic, int(number))].put(key, value)

    def _move_topics(self) -> None:
        """Every core knows all explicit topics."""
        for core, table in enumerate(self._old):
            for key, value in self._count("topics", core, table.walk(*TOPIC_ROWS)):
                for target in self._new:
                    target.put(key, value)

    def _move_delayed(self) -> None:
        """Delayed messages keep their times; those of one time are numbered anew, in order."""
        highest = 0
        for new_core, target in enumerate(self._new):
            cores = range(new_core, len(self._old), len(self._new))
            due, number, pending = -1, 0, 0
            for key, batch in merge(*(self._delayed_of(core) for core in cores)):
                _, due_ms, _ = _DELAYED_KEY.unpack(key)
                number = number + 1 if due_ms == due else 0
                due = due_ms
                highest = max(highest, number)
                target.put(_DELAYED_KEY.pack(_DELAYED, due, number), batch)
                pending += 1
            if pending:
                target.put(_DELAYED, pending.to_bytes(8, "big"))
        for name in self._counters:
            self._counters[name] = max(self._counters[name], highest + 1)

    def _delayed_of(self, core: int) -> Iterator[tuple[bytes, bytes]]:
        # The row that is `D` alone counts the others.
        walk = self._old[core].walk(_DELAYED + b"\0", b"E")
        return self._count("delayed messages", core, walk)

    def _read_counters(self) -> dict[bytes, int]:
        counters: dict[bytes, int] = {}
        for table in self._old:
            for key, value in table.walk(b"N", b"O"):
                counters[key] = max(counters.get(key, 0), int.from_bytes(value, "big"))
        return counters

    def _put_counters(self, shards: list[int]) -> None:
        for core, target in enumerate(self._new):
            own = {_POSITION: self._blocks[core] << BLOCK_BITS, _LOG: self._logs[core]}
            if shards[core] > 1:
                own[_SHARD] = shards[core]
            for key, value in {**self._counters, **own}.items():
                target.put(key, value.to_bytes(8, "big"))

    def _count(
        self, what: str, core: int, rows: Iterator[tuple[bytes, bytes]]
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pass rows on, and say now and then how many there were."""
        for row in rows:
            self._tick(what, core)
            yield row

    def _tick(self, what: str, core: int) -> None:
        self._rows += 1
        if not self._rows % _REPORT_ROWS:
            self._progress(what, core, self._rows)


def check_kinds(core: int, table: Table) -> None:
    """Raise Corrupt when a core has a row of a kind that is not in `KINDS`."""
    bounds = [b"", *(bytes((kind,)) for kind in KINDS)]
    for known, following in pairwise([*bounds, _END]):
        begin = bytes((known[0] + 1,)) if known else b""
        stranger = next(table.walk(begin, following), None)
        if stranger is not None and stranger[0].startswith((ESTATES, HELD)):
            raise Corrupt(
                f"core {core} has messages for sessions that other nodes have: start with as many "
                "workers as before, until mqtt_bequests is 0 and the cluster has its majority"
            )
        if stranger is not None:
            raise Corrupt(f"core {core} has rows of an unknown kind: {stranger[0][:1]!r}")
