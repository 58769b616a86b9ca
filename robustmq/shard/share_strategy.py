"""How a shared group chooses who takes a message, of the members that can (MQTT5 4.8.2)."""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from robustmq.message.topic import stable_hash
from robustmq.settings.topics import Strategy

Shares = dict[int, list[bytes]]
"""Records by the member that takes them, each in the order that it came."""

_POINTS: Final = 64
"""Places of a member on the ring of a hash strategy: with more, shares are more alike."""
_BEHIND: Final = 1 << 64
"""Above every member."""


class RoundRobin:
    """One after the other. `key` and `home`, of which others make use, play no part."""

    by: str = ""
    """What the keys are that `divide` needs: "topic", "client", or none."""

    def __init__(self) -> None:
        self._turn: deque[int] = deque()

    def __len__(self) -> int:
        """How many members can take messages."""
        return len(self._turn)

    def add(self, member: int, home: int) -> None:
        """A member, whose session lives on core `home`, can take messages."""
        del home
        self._turn.append(member)

    def remove(self, member: int) -> None:
        """A member cannot take messages any more."""
        self._turn.remove(member)

    def report(self, member: int, received: int, load: int) -> None:
        """Learn that of all that it was given a member has `received` messages.

        `load` of what it has, from here and elsewhere, is not acknowledged.
        """

    def forget(self, member: int) -> None:
        """What is known of a member is void: it, or its core, has another life."""

    def divide(self, raws: Sequence[bytes], keys: Sequence[bytes], home: int) -> Shares:
        """Give each record to a member. `keys` are theirs, `home` is the publisher's core."""
        del keys, home
        shares: Shares = {}
        for raw in raws:
            member = self._turn[0]
            self._turn.rotate(-1)
            shares.setdefault(member, []).append(raw)
        return shares


class Random(RoundRobin):
    """Any of them: `chance(n)` is a number from 0 to n - 1."""

    def __init__(self, chance: Callable[[int], int]) -> None:
        super().__init__()
        self._chance = chance

    def divide(self, raws: Sequence[bytes], keys: Sequence[bytes], home: int) -> Shares:
        """Give each record to somebody."""
        del keys, home
        shares: Shares = {}
        for raw in raws:
            member = self._turn[self._chance(len(self._turn))]
            shares.setdefault(member, []).append(raw)
        return shares


class Sticky(RoundRobin):
    """The same member as long as it can; then whoever has been able to for the longest time."""

    def divide(self, raws: Sequence[bytes], keys: Sequence[bytes], home: int) -> Shares:
        """Give all records to the one."""
        del keys, home
        return {self._turn[0]: list(raws)}


class LeastInflight(RoundRobin):
    """Who has the fewest messages that are not acknowledged; of several, one after the other.

    What a member was given counts until the member's core has seen it and reports.
    """

    def __init__(self) -> None:
        super().__init__()
        self._given: dict[int, int] = {}
        self._load: dict[int, int] = {}

    def add(self, member: int, home: int) -> None:
        """It has what it had when it was heard of last."""
        super().add(member, home)
        self._given.setdefault(member, 0)
        self._load.setdefault(member, 0)

    def forget(self, member: int) -> None:
        """Its counts begin anew."""
        self._given.pop(member, None)
        self._load.pop(member, None)
        if member in self._turn:
            self._given[member] = self._load[member] = 0

    def report(self, member: int, received: int, load: int) -> None:
        """See `RoundRobin.report`; what is on its way to the member is added."""
        if member in self._given:
            self._load[member] = load + max(self._given[member] - received, 0)

    def divide(self, raws: Sequence[bytes], keys: Sequence[bytes], home: int) -> Shares:
        """Give each record to whoever has least."""
        del keys, home
        shares: Shares = {}
        for raw in raws:
            member = min(self._turn, key=self._load.__getitem__)
            self._turn.remove(member)
            self._turn.append(member)
            self._given[member] += 1
            self._load[member] += 1
            shares.setdefault(member, []).append(raw)
        return shares


class Hash(RoundRobin):
    """By a key, on a ring: while the same can, a key is always the same member's.

    When one goes or comes, only its own keys change hands.
    """

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by = by
        self._ring: list[tuple[int, int]] = []

    def add(self, member: int, home: int) -> None:
        """It takes over keys from all the others."""
        super().add(member, home)
        for point in range(_POINTS):
            insort(self._ring, (stable_hash(b"%d/%d" % (member, point)), member))

    def remove(self, member: int) -> None:
        """Its keys go to the others."""
        super().remove(member)
        self._ring = [point for point in self._ring if point[1] != member]

    def divide(self, raws: Sequence[bytes], keys: Sequence[bytes], home: int) -> Shares:
        """Give each record to its key's member."""
        del home
        shares: Shares = {}
        chosen: dict[bytes, int] = {}
        for raw, key in zip(raws, keys, strict=True):
            member = chosen.get(key)
            if member is None:
                place = bisect_right(self._ring, (stable_hash(key), _BEHIND))
                member = chosen[key] = self._ring[place % len(self._ring)][1]
            shares.setdefault(member, []).append(raw)
        return shares


class Local(RoundRobin):
    """Those on the publisher's core one after the other; without one, all likewise."""

    def __init__(self) -> None:
        super().__init__()
        self._homes: dict[int, int] = {}
        self._there: dict[int, RoundRobin] = {}

    def add(self, member: int, home: int) -> None:
        """It goes before others for what is published on its core."""
        super().add(member, home)
        self._homes[member] = home
        self._there.setdefault(home, RoundRobin()).add(member, home)

    def remove(self, member: int) -> None:
        """It goes before nobody."""
        super().remove(member)
        home = self._homes.pop(member)
        self._there[home].remove(member)
        if not self._there[home]:
            del self._there[home]

    def divide(self, raws: Sequence[bytes], keys: Sequence[bytes], home: int) -> Shares:
        """Give the records to members on the core, if there are any."""
        there = self._there.get(home)
        if there is not None:
            return there.divide(raws, keys, home)
        return super().divide(raws, keys, home)


def make(strategy: Strategy, chance: Callable[[int], int]) -> RoundRobin:
    """Make what chooses for one group."""
    if strategy == "random":
        return Random(chance)
    if strategy in {"hash_clientid", "hash_topic"}:
        return Hash("client" if strategy == "hash_clientid" else "topic")
    plain: dict[Strategy, type[RoundRobin]] = {
        "sticky": Sticky,
        "least_inflight": LeastInflight,
        "local": Local,
    }
    return plain.get(strategy, RoundRobin)()
