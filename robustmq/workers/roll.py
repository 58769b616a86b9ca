"""Who is in the groups of the cluster, and how that changes: one member at a time."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from robustmq.errors import Refused
from robustmq.meta import commands
from robustmq.meta.raft_host import GroupStatus
from robustmq.meta.records import NODE, Node, node_of
from robustmq.raft.node import Node as Replica
from robustmq.rpc.wire import Unreachable
from robustmq.workers import log
from robustmq.workers.replication import METADATA, Replication, now_ms, result

if TYPE_CHECKING:
    from robustmq.workers.neighbours import Neighbours

Change: TypeAlias = Literal["add", "promote", "remove"]

_STEP_S: Final = 0.02
_log = log.EventLog("meta")


class Joining(Struct, frozen=True):
    """What a node without a cluster asks of one that has one."""

    node: int
    store: str


class Joined(Struct, frozen=True):
    """The cluster, and where its nodes are; `votes`: the node is one of the first, and votes."""

    cluster: str
    votes: bool
    addresses: dict[int, str]


class Changing(Struct, frozen=True):
    """What the leader of a group is asked to do with a node."""

    group: str
    change: Change
    node: int
    force: bool


class Roll:
    """Changes the members of all groups, from whichever node: each group's leader is asked.

    What was begun and not finished, because its leader went away, is done by asking again.
    """

    def __init__(
        self, me: int, replication: Replication, neighbours: "Neighbours | None", seconds: float
    ) -> None:
        self._me = me
        self._replication = replication
        self._neighbours = neighbours
        self._seconds = seconds

    def node(self, number: int) -> Node | None:
        """Return the record of a node, as this one has folded it."""
        found = self._replication.metadata.record(NODE, str(number))
        return node_of(found[1]) if found is not None else None

    def nodes(self) -> dict[int, Node]:
        """Return the records of all nodes, by number."""
        found = (node_of(each.value or b"") for each in self._replication.metadata.records(NODE))
        return {node.number: node for node in found}

    def leader(self) -> int:
        """Return who leads the metadata; raises ValueError when nobody does."""
        leader = self._replication.host.leader(METADATA)
        if leader is None:
            raise ValueError("no node leads the cluster now: is a majority of it running?")
        return leader

    # ------------------------------------------------------------------ what is asked for

    async def join(self, wanted: Joining, cluster: str, addresses: Mapping[int, str]) -> Joined:
        """Take a node into all groups, as one that learns."""
        known = self.node(wanted.node)
        if known is not None and known.store != wanted.store:
            raise ValueError(
                f"the cluster has another node {wanted.node}: choose another broker_id, or have "
                "the old one replaced first"
            )
        before = self._status(METADATA).membership
        votes = known is None and wanted.node in before.voters
        if not votes:
            for group in self._groups():
                await self.change(Changing(group, "add", wanted.node, force=False))
            _log.info("node has joined", node=wanted.node)
        return Joined(cluster, votes, dict(addresses))

    async def promote(self, number: int) -> None:
        """Let a node vote that has learned so far."""
        node = self._known(number)
        if "meta" not in node.roles:
            raise ValueError(f"node {number} has not the role meta: it cannot vote")
        for group in self._groups():
            await self.change(Changing(group, "promote", number, force=False))
        _log.info("node votes", node=number)

    async def leave(self, number: int, *, force: bool) -> None:
        """Let a node go for good: nobody asks it any more, and others take over what it has.

        Raises ValueError when the cluster would lose the majority by it, unless forced.
        """
        self._known(number)
        replica = self._replica(METADATA)
        refused = _lost_majority(replica, number)
        if refused and not force:
            raise ValueError(refused)
        result(await self._replication.folded(METADATA, commands.encode(commands.Leave(number))))
        for group in self._groups():
            await self.change(Changing(group, "remove", number, force))
        _log.info("node leaves", node=number)

    async def replace(self, number: int) -> None:
        """Forget a node that is lost, so that one with an empty data directory has its number."""
        node = self._known(number)
        connected = self._neighbours.lines.connected() if self._neighbours is not None else []
        if number == self._me or (node.state == "live" and number in connected):
            raise ValueError(f"node {number} is there: stop it first, or have it leave")
        await self.leave(number, force=False)

    # ------------------------------------------------------------------ one group

    async def change(self, wanted: Changing) -> None:
        """Have one group's members changed, by its leader; done already is well, too."""
        last = f"nobody leads the group {wanted.group}"
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    leader = self._replication.host.leader(wanted.group)
                    if leader == self._me:
                        reason = await self._change_here(wanted)
                        if reason is None:
                            return
                        last = reason
                    elif leader is not None and self._neighbours is not None:
                        try:
                            body = msgspec.msgpack.encode(wanted)
                            await self._neighbours.lines.call(leader, "change", body, self._seconds)
                        except Unreachable as error:
                            last = str(error)
                        else:
                            return
                    await asyncio.sleep(_STEP_S)
        except TimeoutError:
            raise ValueError(f"the members were not changed: {last}") from None

    async def _change_here(self, wanted: Changing) -> str | None:
        """Change the members of a group that this node leads; None when it is done."""
        replica = self._replica(wanted.group)
        members = replica.membership
        is_voter, is_learner = wanted.node in members.voters, wanted.node in members.learners
        is_done = {
            "add": is_voter or is_learner,
            "promote": is_voter,
            "remove": not is_voter and not is_learner,
        }
        if is_done[wanted.change]:
            return await self._settled(replica, replica.last_index)
        if wanted.change == "promote" and not is_learner:
            raise ValueError(f"node {wanted.node} has not joined the group {wanted.group}")
        if wanted.change == "remove" and members.voters == (wanted.node,):
            raise ValueError(f"node {wanted.node} is the last one that votes")
        index = self._begin(replica, wanted)
        self._replication.wake()
        if isinstance(index, Refused):
            return index.detail
        return await self._settled(replica, index)

    @staticmethod
    def _begin(replica: Replica, wanted: Changing) -> int | Refused:
        match wanted.change:
            case "add":
                return replica.add_learner(wanted.node, now_ms())
            case "promote":
                return replica.promote(wanted.node, now_ms())
            case "remove":
                return replica.remove(wanted.node, wanted.force, now_ms())

    async def _settled(self, replica: Replica, index: int) -> str | None:
        """Wait until a change of the members is committed; a sentence when it is not known."""
        while replica.changing:
            if not replica.leads:
                return "the leader has changed meanwhile"
            await asyncio.sleep(_STEP_S)
        return None if replica.commit >= index or not replica.leads else "it is not committed yet"

    def _known(self, number: int) -> Node:
        node = self.node(number)
        if node is None:
            raise ValueError(f"there is no node {number} in this cluster")
        return node

    def _groups(self) -> list[str]:
        return [each.name for each in self._replication.host.status()]

    def _status(self, group: str) -> GroupStatus:
        return next(each for each in self._replication.host.status() if each.name == group)

    def _replica(self, group: str) -> Replica:
        return self._replication.host.group(group).node


def _lost_majority(replica: Replica, leaving: int) -> str | None:
    """Say why the group would stop when a voter leaves; None when it would not."""
    voters = {*replica.membership.voters}
    if voters == {leaving}:
        return f"node {leaving} is the last one that votes: the cluster would end"
    if leaving not in voters:
        return None
    now = now_ms()
    heard = {
        each.node for each in replica.followers() if each.voter and now - each.heard_ms < _HEARD_MS
    }
    staying = voters - {leaving}
    there = {node for node in staying if node in heard or node not in _others(replica)}
    if len(there) > len(staying) // 2:
        return None
    return (
        f"without node {leaving} the cluster would lose the majority: of the nodes "
        f"{sorted(staying)} that would vote only {sorted(there)} are heard; bring others back "
        'first, or set "force"'
    )


def _others(replica: Replica) -> set[int]:
    return {each.node for each in replica.followers()}


_HEARD_MS: Final = 2_000
