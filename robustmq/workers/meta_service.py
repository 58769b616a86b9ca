"""The meta service of a node above its replicated groups: who is here, what is fenced, who hears.

A plain object: the process that has the groups and the network calls it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from robustmq.errors import Refusal, Refused
from robustmq.meta import commands, data
from robustmq.meta.adoption import Adoption
from robustmq.meta.commands import Change, Command, Expectation, Found, Register
from robustmq.meta.controller import METADATA, Controller
from robustmq.meta.data import Data
from robustmq.meta.machine import Groups, Machine, Outcome, Store
from robustmq.meta.metadata import Metadata
from robustmq.meta.offset import Offsets
from robustmq.meta.records import CLUSTER, NODE, Cluster, Node, node_of
from robustmq.settings.meta import MetaRuntime
from robustmq.workers import log
from robustmq.workers.feed import Feed, Line
from robustmq.workers.inherited_records import remove, taken_over
from robustmq.workers.meta_messages import Adopt

RETRY_MS: Final = 1_000
"""Milliseconds after which something that has not come to be is proposed again."""

MIGRATED: Final = 1_000
"""Records of a file of an earlier version that one command takes over."""

_log = log.EventLog("meta")


class Self(Struct, frozen=True, kw_only=True):
    """What a node registers as; `cluster_name` and `new_cluster` are for a cluster without id."""

    number: int
    store: str
    cluster_name: str = ""
    new_cluster: str = ""
    address: str = ""
    grpc_port: int = 0
    peer_port: int = 0
    http_port: int = 0
    workers: int = 1
    roles: tuple[str, ...] = ("meta", "broker", "engine")
    version: str = ""


def machines(settings: MetaRuntime) -> dict[str, Callable[[Store], Machine]]:
    """Return how the machine of each group is made, in the order that is the same everywhere."""
    found: dict[str, Callable[[Store], Machine]] = {METADATA: Metadata}
    found |= {f"offset_{number}": Offsets for number in range(settings.offset_raft_group_num)}
    found |= {f"data_{number}": Data for number in range(settings.data_raft_group_num)}
    return found


class MetaService:
    """Keeps the node registered, controls the cluster while it leads, and feeds its processes.

    `made` are the groups' machines by name. `beat(node, incarnation)` sends a sign of life to the
    node that leads; `heard` takes them. Call `turn` after each turn of the groups, and when
    `next_ms` has come. `refused(detail)` hears why the cluster does not take this node.
    """

    def __init__(
        self,
        own: Self,
        settings: MetaRuntime,
        lines: Sequence[Line],
        made: Mapping[str, Machine],
        groups: Groups,
        *,
        life: int,
        directory: Path,
        beat: Callable[[int, int], None],
        refused: Callable[[str], None],
        now_ms: int,
    ) -> None:
        metadata = made[METADATA]
        assert isinstance(metadata, Metadata)
        self.metadata = metadata
        self.data = {name: each for name, each in made.items() if isinstance(each, Data)}
        self.next_ms = now_ms
        self._own = own
        self._groups = groups
        self._check_ms = settings.heartbeat_check_time_ms
        self._beat = beat
        self._refused = refused
        self._directory = directory
        self._inherited = taken_over(directory)
        self.feed = Feed(
            lines,
            metadata,
            self.data,
            groups,
            life=life,
            number=own.number,
            workers=own.workers,
            others=[name for name in made if name not in self.data and name != METADATA],
        )
        self.controller = Controller(
            metadata, self.data, timeout_ms=settings.heartbeat_timeout_ms, retry_ms=RETRY_MS
        )
        self.adoption = Adoption(own.number, self.data, self.feed.home_of, 2 * RETRY_MS)
        self._lives: dict[int, int] = {}
        self._leader: int | None = None
        self._leads = False
        self._is_reading = False
        self._is_current = False
        self._nodes: Mapping[int, Node] = {}
        self._nodes_at = -1
        self._open: dict[str, int] = {}
        self._now_ms = now_ms

    @property
    def cluster(self) -> Cluster | None:
        """What cluster this is; None before it was founded."""
        row = self.metadata.record(CLUSTER, "")
        return None if row is None else msgspec.msgpack.decode(row[1], type=Cluster)

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
        node = self.nodes.get(self._own.number)
        return node is not None and node.state == "live" and not [*self._closings(node)]

    def heard(self, number: int, incarnation: int, now_ms: int) -> None:
        """A node has given a sign of life."""
        self.controller.heard(number, incarnation, now_ms)

    def turn(self, now_ms: int, is_isolated: bool) -> None:
        """Do what is due, then tell the processes what was folded."""
        self._now_ms = now_ms
        leader = self._groups.leader(METADATA)
        if now_ms >= self.next_ms or leader != self._leader:
            self._leader = leader
            self.next_ms = now_ms + self._check_ms
            self._look()
        self._adopt()
        self.feed.stand(is_isolated or not self.is_member)
        self.feed.flush()

    # ------------------------------------------------------------------ a few times a second

    def _look(self) -> None:
        leader = self._leader
        self._lead(leader == self._own.number)
        if not self._is_current:
            self._catch_up()
        elif not self._register():
            self._be_here(self.nodes[self._own.number], leader)
        if self._leads:
            own = self.nodes.get(self._own.number)
            if own is not None:
                self.controller.heard(own.number, own.incarnation, self._now_ms)
            for proposal in self.controller.turn(self._now_ms):
                self._groups.propose(proposal.group, proposal.command, _ignore)

    def _be_here(self, node: Node, leader: int | None) -> None:
        """Have what nobody has adopted back, and let the controller hear from here."""
        if node.state == "live":
            for group in self._closings(node):
                command = data.encode(data.Close(node.number, node.incarnation))
                self._propose(group, command, self._hurry)
        if leader is not None and leader != node.number:
            self._beat(leader, node.incarnation)

    def _lead(self, leads: bool) -> None:
        if leads and not self._leads:
            self.controller.lead(self._now_ms)
        elif self._leads and not leads:
            self.controller.resign()
        self._leads = leads
        if leads and self.cluster is None:
            self._decide("found", Found(self._own.new_cluster, self._own.cluster_name), self._hurry)

    def _catch_up(self) -> None:
        """Learn what the cluster has decided before anybody is told anything."""
        if not self._is_reading:
            self._is_reading = True
            self._groups.read(METADATA, self._caught_up)

    def _caught_up(self, refused: Refused | None) -> None:
        self._is_reading = False
        if refused is not None or self.cluster is None:
            return
        if self._inherited:
            self._migrate()
            return
        self._is_current = True
        self.feed.start()
        self.next_ms = self._now_ms

    def _register(self) -> bool:
        """Propose what the cluster should know of this node, unless it does; whether it did."""
        own, cluster = self._own, self.cluster
        node = self.nodes.get(own.number)
        wanted = Register(
            own.number,
            own.store,
            "" if cluster is None else cluster.id,
            own.address,
            own.grpc_port,
            own.peer_port,
            own.http_port,
            own.workers,
            own.roles,
            commands.LEVEL,
            own.version,
        )
        if node is not None and node.state != "fenced" and _is_as(node, wanted):
            return False
        self._decide("register", wanted, self._registered)
        return node is None or node.state != "live"

    def _registered(self, outcome: Outcome) -> None:
        self._open.pop("register", None)
        result = outcome if isinstance(outcome, Refused) else commands.outcome(outcome.result)
        if isinstance(result, Refused):
            if result.code is Refusal.NOT_AUTHORIZED:
                self._refused(result.detail)
        else:
            self.next_ms = self._now_ms

    def _closings(self, node: Node) -> Iterator[str]:
        """Yield the groups in which this node's sessions are open to others still."""
        for name, machine in self.data.items():
            fence = machine.fence(node.number)
            if fence.is_open or 0 < fence.incarnation < node.incarnation:
                yield name

    def _hurry(self, _outcome: Outcome) -> None:
        self.next_ms = self._now_ms

    def _decide(self, key: str, command: Command, done: Callable[[Outcome], None]) -> None:
        self._propose(METADATA, commands.encode(command), done, key)

    def _propose(
        self, group: str, command: bytes, done: Callable[[Outcome], None], key: str = ""
    ) -> None:
        """Propose, unless the same was proposed within `RETRY_MS`."""
        key = key or group
        proposed_ms = self._open.get(key)
        if proposed_ms is None or self._now_ms - proposed_ms >= RETRY_MS:
            self._open[key] = self._now_ms
            self._groups.propose(group, command, done)

    # ------------------------------------------------------------------ sessions of others

    def _adopt(self) -> None:
        for member in self.feed.members[: self._own.workers]:
            if self._lives.get(member.endpoint, member.life) != member.life:
                self.adoption.replaced(member.endpoint)
            self._lives[member.endpoint] = member.life
        if not self.is_member:
            return
        for task in self.adoption.turn(self.nodes, self._now_ms):
            member = self.feed.members[task.core]
            if member.life and member.life == member.line.epoch:
                member.send(Adopt(member.life, task.sessions))

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
        self._decide("migrate", Change(some, expected), self._migrated)

    def _migrated(self, _outcome: Outcome) -> None:
        self._open.pop("migrate", None)
        self.next_ms = self._now_ms


def _ignore(_outcome: Outcome) -> None:
    """Whether it is folded shows in the group's state."""


def _is_as(node: Node, wanted: Register) -> bool:
    names = (
        "address",
        "grpc_port",
        "peer_port",
        "http_port",
        "workers",
        "roles",
        "level",
        "version",
    )
    same = all(getattr(node, name) == getattr(wanted, name) for name in names)
    return same and node.store == wanted.store
