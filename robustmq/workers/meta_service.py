"""What the meta process does for its node: it feeds its processes, and asks them to adopt.

A plain object: the process that has the groups and the network calls it.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from robustmq.errors import Refused
from robustmq.meta import commands, data
from robustmq.meta.adoption import Adoption
from robustmq.meta.commands import Change, Expectation
from robustmq.meta.controller import METADATA
from robustmq.meta.data import Data
from robustmq.meta.machine import Groups, Machine, Outcome
from robustmq.meta.metadata import Metadata
from robustmq.meta.offset import Offsets
from robustmq.meta.records import CLUSTER, NODE, Node, node_of
from robustmq.workers import log
from robustmq.workers.feed import Feed, Line
from robustmq.workers.inherited_records import remove, taken_over
from robustmq.workers.meta_messages import Adopt

CHECK_MS: Final = 250
RETRY_MS: Final = 1_000
"""Milliseconds after which something that has not come to be is proposed again."""

MIGRATED: Final = 1_000
"""Records of a file of an earlier version that one command takes over."""

_log = log.EventLog("meta")


class MetaService:
    """Tells the processes of the node what is folded, once it is known what was decided before.

    It takes the file of records of an earlier version over before that. While other nodes are
    fenced or leave it asks workers to adopt what this node is to have of them; when this node comes
    back after a fence, it has the groups give back what nobody has adopted. Until then, and while
    the node `is_isolated`, its processes hear that it serves nobody.

    `number` is the node's own, `made` are the groups' machines by name, `lines` and `life` as in
    `Feed`. Call `turn` after each turn of the groups, and when `next_ms` has come. Raises
    ConfigError when the file of an earlier version cannot be used.
    """

    def __init__(
        self,
        number: int,
        workers: int,
        lines: Sequence[Line],
        made: Mapping[str, Machine],
        groups: Groups,
        *,
        life: int,
        directory: Path,
        now_ms: int,
    ) -> None:
        metadata = made[METADATA]
        assert isinstance(metadata, Metadata)
        self.metadata = metadata
        self.data = {name: each for name, each in made.items() if isinstance(each, Data)}
        self.next_ms = now_ms
        self._number = number
        self._workers = workers
        self._groups = groups
        self._directory = directory
        self._inherited = taken_over(directory)
        offsets = {name: each for name, each in made.items() if isinstance(each, Offsets)}
        self.feed = Feed(
            lines,
            metadata,
            self.data,
            groups,
            life=life,
            number=number,
            workers=workers,
            offsets=offsets,
        )
        self.adoption = Adoption(number, workers, self.data, self.feed.home_of, 2 * RETRY_MS)
        self._lives: dict[int, int] = {}
        self._is_reading = False
        self._nodes: Mapping[int, Node] = {}
        self._nodes_at = -1
        self._proposed: dict[str, int] = {}
        self._now_ms = now_ms

    @property
    def nodes(self) -> Mapping[int, Node]:
        """The nodes of the cluster by number, as this node knows them."""
        if self._nodes_at != self.metadata.index:
            values = (record.value for record in self.metadata.records(NODE))
            found = [node_of(value) for value in values if value is not None]
            self._nodes = {node.number: node for node in found}
            self._nodes_at = self.metadata.index
        return self._nodes

    @property
    def is_member(self) -> bool:
        """Whether the cluster counts this node as live, and its sessions as its own."""
        node = self.nodes.get(self._number)
        return node is not None and node.state == "live" and not [*self._closings(node)]

    def turn(self, now_ms: int, is_isolated: bool) -> None:
        """Do what is due, then tell the processes what was folded."""
        self._now_ms = now_ms
        if now_ms >= self.next_ms:
            self.next_ms = now_ms + CHECK_MS
            if not self.feed.is_current:
                self._catch_up()
            node = self.nodes.get(self._number)
            if node is not None and node.state == "live":
                for group in self._closings(node):
                    self._propose(group, data.encode(data.Close(node.number, node.incarnation)))
        self.feed.stand(is_isolated or not self.is_member)
        self.feed.flush()
        # Who is asked to adopt has heard by then of the nodes that are gone.
        self._adopt()

    def _catch_up(self) -> None:
        """Learn what the cluster has decided before anybody is told anything."""
        if not self._is_reading:
            self._is_reading = True
            self._groups.read(METADATA, self._caught_up)

    def _caught_up(self, refused: Refused | None) -> None:
        self._is_reading = False
        if refused is not None or self.metadata.record(CLUSTER, "") is None:
            return
        if self._inherited:
            self._migrate()
            return
        self.feed.start()
        self.next_ms = self._now_ms

    def _closings(self, node: Node) -> Iterator[str]:
        """Yield the groups in which this node's sessions are open to others still."""
        for name, machine in self.data.items():
            fence = machine.fence(node.number)
            if fence.is_open or 0 < fence.incarnation < node.incarnation:
                yield name

    def _propose(self, group: str, command: bytes) -> None:
        """Propose, unless it was done within `RETRY_MS`; one thing is due of each group."""
        proposed_ms = self._proposed.get(group)
        if proposed_ms is None or self._now_ms - proposed_ms >= RETRY_MS:
            self._proposed[group] = self._now_ms
            self._groups.propose(group, command, self._hurry)

    def _hurry(self, _outcome: Outcome) -> None:
        self._proposed.clear()
        self.next_ms = self._now_ms

    # ------------------------------------------------------------------ sessions of others

    def _adopt(self) -> None:
        workers = self.feed.members[: self._workers]
        for member in workers:
            if self._lives.get(member.endpoint, member.life) != member.life:
                self.adoption.replaced(member.endpoint)
            self._lives[member.endpoint] = member.life
        if not self.is_member or any(map(self.feed.is_untold, workers)):
            # Who does not know yet that a node is gone would not know what it is asked.
            return
        for task in self.adoption.turn(self.nodes, self._now_ms):
            member = self.feed.members[task.core]
            if member.life and member.life == member.line.epoch:
                member.send(Adopt(member.life, task.node, task.sessions, task.is_last))

    # ------------------------------------------------------------------ a file of earlier versions

    def _migrate(self) -> None:
        """Take over what an earlier version kept in a file; what the cluster knows is better."""
        new = (
            record
            for record in self._inherited
            if self.metadata.record(record.kind, record.name) is None
        )
        some = [*islice(new, MIGRATED)]
        if not some:
            remove(self._directory)
            _log.info("the node's records are the cluster's now", count=len(self._inherited))
            self._inherited = []
            self._catch_up()
            return
        expected = [Expectation(record.kind, record.name, 0) for record in some]
        self._propose(METADATA, commands.encode(Change(some, expected)))
