"""Retained messages of a cluster: proposed to its groups, and kept by each node as these say.

A message carries which core has published it, and its place in that core's stream: so a
subscriber is not sent as retained what it hears live. A topic's group is that of its hash.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from robustmq._kernel.batch import gather
from robustmq.broker.retained import Retained
from robustmq.broker.state import State
from robustmq.message.batch import raw_records
from robustmq.message.record import RETAIN_BIT
from robustmq.message.topic import stable_hash

_HEAD: Final = struct.Struct("<HQ")


class Replication(Protocol):
    """The groups of the cluster that keep what is retained."""

    @property
    def groups(self) -> int:
        """How many there are; it never changes."""

    def retain(
        self,
        group: int,
        rows: Sequence[tuple[bytes, bytes | None]],
        done: Callable[[int, int], None],
    ) -> None:
        """Let a group keep messages by topic, or (None) none any more; `done(code, index)`.

        `code` is 0 or a Refusal, and it comes after a bounded time; `index` is where they are in
        the group. They come back to every node by `Core.applied`.
        """


class _Proposal:
    """Retained records of one batch; so many groups have not decided on them."""

    __slots__ = ("code", "done", "owing", "position", "size")

    def __init__(self, position: int, size: int, done: Callable[[int], None]) -> None:
        self.position = position
        self.size = size
        self.done = done
        self.owing = 0
        self.code = 0


class Proposals:
    """What a core has published (`source`: its global number) and the groups have to decide on."""

    def __init__(self, replication: Replication, source: int) -> None:
        self._replication = replication
        self._source = source
        self._open: dict[int, _Proposal] = {}
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._last = 0
        self.unanswered = 0
        """Bytes that are not decided."""
        self.indexes = [0] * replication.groups
        """For each group: where in it the last is of what was proposed here."""

    def propose(self, position: int, batch: bytes, done: Callable[[int], None]) -> None:
        """Propose what a batch retains; `done(code)` when all of it is decided."""
        groups: dict[int, dict[bytes, bytes | None]] = {}
        for raw, (attributes, _, _, topic, value, _) in raw_records(batch):
            if attributes & RETAIN_BIT and topic is not None:
                head = _HEAD.pack(self._source, position)
                message = head + gather(batch, [raw]) if value else None
                groups.setdefault(group_of(topic, len(self.indexes)), {})[topic] = message
        if not groups:
            done(0)
            return
        proposal = self._open[position] = _Proposal(position, len(batch), done)
        self._last = position
        self.unanswered += len(batch)
        proposal.owing = len(groups)
        for group, rows in groups.items():
            self._propose(proposal, group, list(rows.items()))

    def _propose(
        self, proposal: _Proposal, group: int, rows: list[tuple[bytes, bytes | None]]
    ) -> None:
        def decided(code: int, index: int) -> None:
            self.indexes[group] = max(self.indexes[group], index)
            proposal.code = proposal.code or code
            proposal.owing -= 1
            if not proposal.owing:
                self._end(proposal)

        self._replication.retain(group, rows, decided)

    def _end(self, proposal: _Proposal) -> None:
        del self._open[proposal.position]
        self.unanswered -= proposal.size
        proposal.done(proposal.code)
        first = next(iter(self._open), self._last + 1)
        while self._waiting and self._waiting[0][0] < first:
            self._waiting.popleft()[1]()

    def after(self, callback: Callable[[], None]) -> None:
        """Call back when all that was proposed so far is decided."""
        if self._open:
            self._waiting.append((self._last, callback))
        else:
            callback()


class Copies:
    """What the groups retain of the topics that this core keeps."""

    def __init__(self, retained: Retained, state: State, groups: int) -> None:
        self._retained = retained
        self._state = state
        self._groups = groups
        self._named: dict[int, set[bytes]] = {}
        self.reached = [0] * groups
        """For each group: how far it is known here."""

    def apply(
        self,
        group: int,
        index: int,
        rows: Iterable[tuple[bytes, bytes | None]],
        *,
        is_whole: bool,
        is_last: bool,
    ) -> None:
        """Take what a group has changed; see `Core.applied`."""
        named = self._named.setdefault(group, set()) if is_whole else None
        for topic, message in rows:
            if named is not None:
                named.add(topic)
            if message is None:
                self._retained.clear(topic)
            else:
                source, position = _HEAD.unpack_from(message)
                self._retained.take(message[_HEAD.size :], source, position)
        if not is_last:
            return
        if named is not None:
            self._forget_others(group, named)
        self.reached[group] = max(index, self.reached[group])

    def _forget_others(self, group: int, named: set[bytes]) -> None:
        del self._named[group]
        known = [key[1:] for key, _ in self._state.walk(b"T", b"U")]
        for topic in known:
            if topic not in named and group_of(topic, self._groups) == group:
                self._retained.clear(topic)


def group_of(topic: bytes, groups: int) -> int:
    """The group that keeps what is retained of a topic."""
    return stable_hash(topic) % groups
