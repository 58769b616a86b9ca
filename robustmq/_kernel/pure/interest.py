"""From an appended batch to the cores that want its records: readable twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from robustmq._kernel.pure.batch import HEADER, count_of, read_record, with_records
from robustmq.errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Callable


class _Range(NamedTuple):
    """Consecutive records for the same cores: their indices, and their bytes."""

    cores: tuple[int, ...]
    start: int
    stop: int
    first: int
    last: int


class Interest:
    """Which cores want which topic, decided once per topic and kept until it is forgotten.

    `resolve(topic)` returns a tuple of core numbers, the same tuple object for equal answers.
    `targets` are the answers kept, at most `max_targets`; all are dropped beyond that.
    """

    __slots__ = ("_max_targets", "_resolve", "targets")

    def __init__(self, resolve: Callable[[bytes], tuple[int, ...]], max_targets: int) -> None:
        self._resolve = resolve
        self._max_targets = max_targets
        self.targets: dict[bytes, tuple[int, ...]] = {}

    def forget(self, topic: bytes | None = None) -> None:
        """Learn that the interest in `topic` (or in everything) has changed."""
        if topic is None:
            self.targets.clear()
        else:
            self.targets.pop(topic, None)

    def split(self, batch: bytes) -> tuple[list[tuple[int, bytes]], list[tuple[int, int]]]:
        """Return `([(core, batch), …], [(start, stop), …])`: what goes where, and what nowhere.

        The second list are the ranges of records that no core wants, ascending; a record
        without a key is one of them. When all records go to the same cores, those get `batch`
        itself; else each gets a batch of just its records, with their offset deltas kept and
        no CRC (it never leaves this machine's memory). Raises Corrupt when damaged.
        """
        ranges = self._ranges(batch)
        if len(ranges) == 1:
            only = ranges[0]
            if only.cores:
                return [(core, batch) for core in only.cores], []
            return [], [(0, only.stop)]
        parts: dict[int, list[bytes]] = {}
        counts: dict[int, int] = {}
        unmatched = []
        for cores, start, stop, first, last in ranges:
            if not cores:
                unmatched.append((start, stop))
            for core in cores:
                parts.setdefault(core, []).append(batch[first:last])
                counts[core] = counts.get(core, 0) + stop - start
        out = []
        for core, pieces in parts.items():
            whole = with_records(batch, pieces)
            whole[57:61] = counts[core].to_bytes(4, "big")
            out.append((core, bytes(whole)))
        return out, unmatched

    def _ranges(self, batch: bytes) -> list[_Range]:
        """Return the records of `batch` as ranges for which `_find` gives the same object."""
        total = count_of(batch)
        end = len(batch)
        at = HEADER
        ranges: list[_Range] = []
        for i in range(total):
            view = read_record(batch, at, end)
            if view is None:
                raise Corrupt(f"record batch: record {i} of {total}")
            at = view.end
            cores = self._find(view.key)
            if ranges and ranges[-1].cores is cores:
                ranges[-1] = ranges[-1]._replace(stop=i + 1, last=at)
            else:
                ranges.append(_Range(cores, i, i + 1, view.start, at))
        return ranges

    def _find(self, topic: bytes | None) -> tuple[int, ...]:
        if topic is None:
            return ()
        cores = self.targets.get(topic)
        if cores is None:
            cores = self._resolve(topic)
            if len(self.targets) >= self._max_targets:
                self.targets.clear()
            self.targets[topic] = cores
        return cores
