"""Who of a group reads which partitions, decided by the server: `uniform` and `range` (KIP-848)."""

import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

Place: TypeAlias = tuple[bytes, int]
"""A partition: the topic's id and the number."""

Assignment: TypeAlias = dict[str, frozenset[Place]]
"""What each member is to have."""

_ROUNDS: Final = 16
"""How often all members are looked at for partitions that others should have; two do, mostly."""


class Subscriber(NamedTuple):
    """A member as an assignor sees it: its topics, what it is meant to have so far, its order.

    `rank` is the same for a static member whatever its id is now.
    """

    rank: str
    topics: frozenset[bytes]
    places: frozenset[Place] = frozenset()


Assignor: TypeAlias = Callable[[Mapping[str, Subscriber], Mapping[bytes, int]], Assignment]
"""From the members by id and the number of partitions of each topic to what everyone gets.

Each partition of a topic that somebody wants is given to exactly one who wants it.
"""


def by_range(members: Mapping[str, Subscriber], partitions: Mapping[bytes, int]) -> Assignment:
    """Give each member a run of each topic: those who want the same topics get the same numbers."""
    given: dict[str, set[Place]] = {member: set() for member in members}
    ordered = sorted(members, key=lambda member: (members[member].rank, member))
    for topic, count in partitions.items():
        readers = [member for member in ordered if topic in members[member].topics]
        if not readers:
            continue
        share, rest = divmod(count, len(readers))
        first = 0
        for index, member in enumerate(readers):
            stop = first + share + (index < rest)
            given[member].update((topic, number) for number in range(first, stop))
            first = stop
    return {member: frozenset(places) for member, places in given.items()}


def uniform(members: Mapping[str, Subscriber], partitions: Mapping[bytes, int]) -> Assignment:
    """Give everyone as many partitions as the others, and move as few as that takes."""
    return _Balance(members, partitions).assignment()


ASSIGNORS: Final[Mapping[str, Assignor]] = {"uniform": uniform, "range": by_range}
"""The assignors by name, the one first that is taken when no member asks for another."""


class _Balance:
    """A sticky assignment on its way: first what is kept, then what is free, then what moves."""

    def __init__(self, members: Mapping[str, Subscriber], partitions: Mapping[bytes, int]) -> None:
        self._readers: dict[bytes, tuple[str, ...]] = {
            topic: tuple(sorted(m for m in members if topic in members[m].topics))
            for topic in partitions
        }
        self._given: dict[str, set[Place]] = {member: set() for member in sorted(members)}
        self._free: list[Place] = []
        self._keep(members, partitions)

    def assignment(self) -> Assignment:
        """Return what everyone gets."""
        self._give_free()
        for _ in range(_ROUNDS):
            if not self._move():
                break
        return {member: frozenset(places) for member, places in self._given.items()}

    def _keep(self, members: Mapping[str, Subscriber], partitions: Mapping[bytes, int]) -> None:
        owners: dict[Place, str] = {}
        for member, subscriber in members.items():
            for place in subscriber.places:
                topic, number = place
                if topic in subscriber.topics and number < partitions.get(topic, 0):
                    owners.setdefault(place, member)
        for place, member in owners.items():
            self._given[member].add(place)
        for topic, count in partitions.items():
            if self._readers[topic]:
                places = ((topic, number) for number in range(count))
                self._free.extend(place for place in places if place not in owners)

    def _give_free(self) -> None:
        """Give what nobody has to whoever has least; what few may have goes first."""
        self._free.sort(key=lambda place: (len(self._readers[place[0]]), place))
        pools = _Pools(self._given)
        for place in self._free:
            member = pools.least(self._readers[place[0]])
            self._given[member].add(place)

    def _move(self) -> bool:
        """Take from whoever has most, as long as another who may have it has two less.

        False: there was nothing to take.
        """
        has_moved = False
        pools = _Pools(self._given)
        spare = {member: self._spare(member) for member in self._given}
        heap = [(-len(places), member) for member, places in self._given.items()]
        heapq.heapify(heap)
        while heap:
            _, member = heapq.heappop(heap)
            for place in spare[member]:
                other = pools.least(self._readers[place[0]])
                if len(self._given[member]) - len(self._given[other]) >= 2:
                    self._given[member].discard(place)
                    self._given[other].add(place)
                    pools.note(member)
                    heapq.heappush(heap, (-len(self._given[member]), member))
                    has_moved = True
                    break
        return has_moved

    def _spare(self, member: str) -> Iterator[Place]:
        """Yield what a member has, of all its topics in turn."""
        by_topic: dict[bytes, list[Place]] = defaultdict(list)
        for place in sorted(self._given[member]):
            by_topic[place[0]].append(place)
        for places in itertools.zip_longest(*map(reversed, by_topic.values())):
            yield from (place for place in places if place is not None)


class _Pools:
    """Finds who has least among the readers of a topic; topics of the same readers share a heap.

    A heap's entries may be old; who is looked at is put in anew with what it has now.
    """

    def __init__(self, given: Mapping[str, set[Place]]) -> None:
        self._given = given
        self._heaps: dict[tuple[str, ...], list[tuple[int, str]]] = {}
        self._members: dict[tuple[str, ...], frozenset[str]] = {}

    def least(self, readers: tuple[str, ...]) -> str:
        """Return who has least of some, of several the first by name."""
        heap = self._heaps.get(readers)
        if heap is None:
            heap = [(len(self._given[member]), member) for member in readers]
            heapq.heapify(heap)
            self._heaps[readers] = heap
            self._members[readers] = frozenset(readers)
        while True:
            count, member = heap[0]
            actual = len(self._given[member])
            if actual <= count:
                return member
            heapq.heapreplace(heap, (actual, member))

    def note(self, member: str) -> None:
        """A member has less than before."""
        entry = (len(self._given[member]), member)
        for readers, heap in self._heaps.items():
            if member in self._members[readers]:
                heapq.heappush(heap, entry)
