"""Which sessions of nodes that are gone this node is to adopt, and until when it is asked to."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final, NamedTuple

from robustmq.message.session_record import SessionRecord
from robustmq.meta.data import Data
from robustmq.meta.placement import brokers, rendezvous
from robustmq.meta.records import Node

ROWS: Final = 1_000
"""Sessions that are looked at for one turn."""

OPEN: Final = 500
"""Sessions of one node and group that the workers are asked to adopt at once."""


class Task(NamedTuple):
    """A worker is to adopt these sessions of `node`: to propose that this node has them now.

    With `is_last` this node's whole share of that node's sessions is adopted.
    """

    core: int
    node: int
    sessions: list[SessionRecord]
    is_last: bool = False


class _Walk:
    """How far the sessions of one node in one group were looked at."""

    def __init__(self, incarnation: int, live: Collection[int]) -> None:
        self.incarnation = incarnation
        self.live = live
        self.position: str | None = ""
        self.asked: dict[str, int] = {}
        """Sessions that are being adopted, with the core that is asked to."""
        self.asked_ms = 0

    @property
    def is_done(self) -> bool:
        """Whether all of this node's share is adopted."""
        return self.position is None and not self.asked


class Adoption:
    """Shares the sessions of each node that was fenced or leaves among the live ones.

    All nodes agree on who takes which, by rendezvous, as long as they see the same live nodes;
    where they differ, a session's generation lets one of them have it. `number` is this node's,
    `workers` how many it has; `home_of` says which of them is home to an identity. What is not
    adopted within `retry_ms` is asked for again.
    """

    def __init__(
        self,
        number: int,
        workers: int,
        groups: Mapping[str, Data],
        home_of: Callable[[str], int],
        retry_ms: int,
    ) -> None:
        self._number = number
        self._workers = workers
        self._groups = groups
        self._home_of = home_of
        self._retry_ms = retry_ms
        self._walks: dict[tuple[int, str], _Walk] = {}
        self._told: dict[int, set[int]] = {}
        """By node that is gone: the workers that know that all was adopted here."""

    def turn(self, nodes: Mapping[int, Node], now_ms: int) -> list[Task]:
        """Return what workers are to be asked now.

        To be called when a group has folded, and a few times a second while a node is gone.
        """
        live = brokers(nodes.values())
        gone = [] if self._number not in live else [n for n in nodes if n not in live]
        walks, self._walks = self._walks, {}
        self._told = {number: told for number, told in self._told.items() if number in gone}
        tasks: list[Task] = []
        for number in gone:
            parts: dict[int, list[SessionRecord]] = {}
            is_done = True
            for name, machine in self._groups.items():
                fence = machine.fence(number)
                if not fence.is_open:
                    is_done = False
                    continue
                walk = walks.get((number, name))
                if walk is None or (walk.incarnation, walk.live) != (fence.incarnation, live):
                    walk = _Walk(fence.incarnation, live)
                    self._told.pop(number, None)
                self._walks[number, name] = walk
                for session in self._look(walk, number, machine, now_ms):
                    core = walk.asked[session.identity]
                    parts.setdefault(core, []).append(session)
                is_done = is_done and walk.is_done
            tasks += [Task(core, number, some) for core, some in sorted(parts.items())]
            if is_done:
                tasks += self._tell(number)
        return tasks

    def _tell(self, number: int) -> list[Task]:
        told = self._told.setdefault(number, set())
        untold = [core for core in range(self._workers) if core not in told]
        told.update(untold)
        return [Task(core, number, [], is_last=True) for core in untold]

    def replaced(self, core: int) -> None:
        """A worker's life has begun: what its predecessor was asked it is asked too."""
        for told in self._told.values():
            told.discard(core)
        for walk in self._walks.values():
            if core in walk.asked.values():
                walk.position, walk.asked = "", {}

    def _look(
        self, walk: _Walk, number: int, machine: Data, now_ms: int
    ) -> Iterator[SessionRecord]:
        for identity in [*walk.asked]:
            row = machine.session(identity)
            if row is None or row.owner != number:
                del walk.asked[identity]
        if walk.asked and now_ms - walk.asked_ms >= self._retry_ms:
            walk.position, walk.asked = "", {}
        if walk.asked or walk.position is None:
            return
        walk.asked_ms = now_ms
        position, walk.position = walk.position, None
        for looked, session in enumerate(machine.owned(number, position)):
            if looked >= ROWS or len(walk.asked) >= OPEN:
                walk.position = session.identity
                return
            if rendezvous(session.identity.encode(), walk.live) == self._number:
                walk.asked[session.identity] = self._home_of(session.identity)
                yield session
