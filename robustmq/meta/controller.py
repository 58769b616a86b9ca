"""The controller: what the leader of the metadata group sees to, without a clock of its own."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from robustmq.meta import commands, data
from robustmq.meta.commands import Change, Expectation, Fence, Forget
from robustmq.meta.data import Data
from robustmq.meta.metadata import Metadata
from robustmq.meta.placement import ShardPlacement, schedules
from robustmq.meta.records import (
    CONNECTOR,
    NODE,
    SCHEDULE,
    SHARD,
    Node,
    Record,
    Schedule,
    encoded,
    node_of,
    shard_of,
)

METADATA: Final = "metadata"
BATCH: Final = 500
"""Records that one command of the controller changes at most."""

_schedules: Final = msgspec.msgpack.Decoder(Schedule)


class Proposal(NamedTuple):
    """A command for a group; whether it is folded shows in the group's state."""

    group: str
    command: bytes


class _Sign(NamedTuple):
    incarnation: int
    at_ms: int


class Controller:
    """Fences nodes that are not heard, opens what they had to others, and places what is to run.

    It looks at the groups as this node has folded them. What it proposes is conditional: an old
    controller beside a new one, or a command twice, does no harm. What has not come to be within
    `retry_ms` is proposed again.
    """

    def __init__(
        self, metadata: Metadata, groups: Mapping[str, Data], *, timeout_ms: int, retry_ms: int
    ) -> None:
        self._metadata = metadata
        self._groups = groups
        self._timeout_ms = timeout_ms
        self._retry_ms = retry_ms
        self._signs: dict[int, _Sign] = {}
        self._proposed: dict[bytes, int] = {}
        self._is_leading = False
        self._looked_ms = 0
        self._index = -1

    def lead(self, now_ms: int) -> None:
        """Lead from now on: whatever was heard before, every node has its time."""
        self._is_leading = True
        self._signs = {}
        self._proposed = {}
        self._looked_ms = now_ms
        self._index = -1

    def resign(self) -> None:
        """Another node leads."""
        self._is_leading = False

    def heard(self, number: int, incarnation: int, now_ms: int) -> None:
        """A node has given a sign of life; one of an earlier incarnation is none."""
        sign = self._signs.get(number)
        if sign is not None and sign.incarnation <= incarnation:
            self._signs[number] = _Sign(incarnation, now_ms)

    def turn(self, now_ms: int) -> list[Proposal]:
        """Look at everything; return what to propose now. To be called a few times a timeout."""
        if not self._is_leading:
            return []
        nodes = {node.number: node for node in self._nodes()}
        wanted = [*self._fences(nodes, now_ms), *self._openings(nodes), *self._ends(nodes)]
        if self._metadata.index != self._index:
            # Nothing of it depends on anything but records.
            placed = [*self._shards(nodes), *self._connectors(nodes)]
            if not placed:
                self._index = self._metadata.index
            wanted += placed
        return self._new(wanted, now_ms)

    def _new(self, wanted: list[Proposal], now_ms: int) -> list[Proposal]:
        """Of what is wanted, what was not proposed just now."""
        before, self._proposed = self._proposed, {}
        found: list[Proposal] = []
        for proposal in wanted:
            key = proposal.group.encode() + b"\0" + proposal.command
            proposed_ms = before.get(key)
            if proposed_ms is None or now_ms - proposed_ms >= self._retry_ms:
                proposed_ms = now_ms
                found.append(proposal)
            self._proposed[key] = proposed_ms
        return found

    # ------------------------------------------------------------------ nodes

    def _nodes(self) -> Iterator[Node]:
        for record in self._metadata.records(NODE):
            assert record.value is not None
            yield node_of(record.value)

    def _fences(self, nodes: Mapping[int, Node], now_ms: int) -> Iterator[Proposal]:
        # The time for which nobody listened here is nobody's silence.
        missed_ms = now_ms - self._looked_ms - self._timeout_ms // 2
        self._looked_ms = now_ms
        signs, self._signs = self._signs, {}
        for number, node in nodes.items():
            if node.state != "live":
                continue
            sign = signs.get(number)
            if sign is None or sign.incarnation < node.incarnation:
                sign = _Sign(node.incarnation, now_ms)
            elif missed_ms > 0:
                sign = _Sign(sign.incarnation, min(sign.at_ms + missed_ms, now_ms))
            self._signs[number] = sign
            if now_ms - sign.at_ms >= self._timeout_ms:
                yield Proposal(METADATA, commands.encode(Fence(number, node.incarnation)))

    def _openings(self, nodes: Mapping[int, Node]) -> Iterator[Proposal]:
        for number, node in nodes.items():
            if node.state == "live":
                continue
            for group, machine in self._groups.items():
                fence = machine.fence(number)
                if fence.incarnation < node.incarnation:
                    yield Proposal(group, data.encode(data.Open(number, node.incarnation)))

    def _ends(self, nodes: Mapping[int, Node]) -> Iterator[Proposal]:
        """Forget who is leaving and has nothing any more."""
        for number, node in nodes.items():
            if node.state != "leaving" or self._has_shards(number):
                continue
            if all(
                machine.fence(number) == data.Fence(node.incarnation, True)
                and next(machine.owned(number), None) is None
                for machine in self._groups.values()
            ):
                yield Proposal(METADATA, commands.encode(Forget(number, node.incarnation)))

    def _has_shards(self, number: int) -> bool:
        shards = (record.value for record in self._metadata.records(SHARD))
        return any(number in shard_of(value).replicas for value in shards if value is not None)

    # ------------------------------------------------------------------ what is placed

    def _shards(self, nodes: Mapping[int, Node]) -> Iterator[Proposal]:
        shards = {
            record.name: shard_of(record.value)
            for record in self._metadata.records(SHARD)
            if record.value is not None
        }
        if shards:
            found = ShardPlacement(shards, nodes).changes()
            yield from self._changes(
                Record(SHARD, name, encoded(shard)) for name, shard in found.items()
            )

    def _connectors(self, nodes: Mapping[int, Node]) -> Iterator[Proposal]:
        wanted = [record.name for record in self._metadata.records(CONNECTOR)]
        known = {
            record.name: _schedules.decode(record.value)
            for record in self._metadata.records(SCHEDULE)
            if record.value is not None
        }
        if wanted or known:
            found = schedules(wanted, known, nodes)
            yield from self._changes(
                Record(SCHEDULE, name, None if at is None else encoded(at))
                for name, at in sorted(found.items())
            )

    def _changes(self, records: Iterator[Record]) -> Iterator[Proposal]:
        """Change records as they are seen here: who has changed one meanwhile comes first."""
        while some := [*islice(records, BATCH)]:
            expected = [Expectation(each.kind, each.name, self._changed(each)) for each in some]
            yield Proposal(METADATA, commands.encode(Change(some, expected)))

    def _changed(self, record: Record) -> int:
        known = self._metadata.record(record.kind, record.name)
        return 0 if known is None else known[0]
