"""The groups of a simulated cluster that retain messages: what is decided is known later."""

from collections.abc import Callable, Sequence
from random import Random

from robustmq.broker.core import Core
from robustmq.errors import Refusal
from robustmq.message.topic import stable_hash

Row = tuple[bytes, bytes | None]


class Groups:
    """What the groups have decided, each in its order."""

    def __init__(self, count: int) -> None:
        self.entries: list[list[Row]] = [[] for _ in range(count)]


class Replica:
    """The groups as one life of one core knows them; a `replicas.Replication`."""

    def __init__(
        self, groups: Groups, index: int, workers: int, reaches: Callable[[], bool]
    ) -> None:
        self.groups = len(groups.entries)
        self._groups = groups
        self._index = index
        self._workers = workers
        self._reaches = reaches
        self._known: list[int | None] = [None] * self.groups
        self._decided: list[Callable[[], None]] = []

    def retain(self, group: int, rows: Sequence[Row], done: Callable[[int, int], None]) -> None:
        """Let a group decide at once; the core hears of it in another turn."""
        entries = self._groups.entries[group]
        code = 0
        if self._reaches():
            entries += rows
        else:
            code = int(Refusal.UNAVAILABLE)
        index = len(entries)
        self._decided.append(lambda: done(code, index))

    def turn(self, core: Core, rng: Random, most: int) -> bool:
        """Tell a core some of what it has not heard; says whether there was anything."""
        found = bool(self._decided)
        now, self._decided = self._decided, []
        for decided in now:
            decided()
        for group, entries in enumerate(self._groups.entries):
            known = self._known[group]
            if known is None:
                rows = list(dict(entries).items())
                self._known[group] = len(entries)
                core.applied(group, len(entries), self._mine(rows), is_whole=True)
                found = True
            elif known < len(entries) and most:
                until = min(len(entries), known + rng.randint(1, most))
                self._known[group] = until
                core.applied(group, until, self._mine(entries[known:until]))
                found = True
        return found

    @property
    def rests(self) -> bool:
        """Whether all is told."""
        told = all(
            known == len(entries)
            for known, entries in zip(self._known, self._groups.entries, strict=True)
        )
        return told and not self._decided

    def _mine(self, rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if stable_hash(row[0]) % self._workers == self._index]
