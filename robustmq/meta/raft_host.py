"""All replicated groups of a node on one loop: proposals, reads, and what crosses to its peers.

The process that owns a host calls `receive` with what came from a peer, and `turn` after anything
has happened: calls, parcels, the writer's bell (`fileno`), or the time `next_ms`. One turn does
everything for all groups: one batch for the disk, one parcel for each peer.
"""

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from robustmq.errors import ProtocolError, Refusal, Refused
from robustmq.meta.database import Databases
from robustmq.meta.life import begin_life
from robustmq.meta.machine import Machine, Outcome
from robustmq.meta.peer_message import Chunk, ChunkReply, Forward, decode
from robustmq.meta.raft_group import MachineFactory, RaftGroup
from robustmq.meta.site import Counters, Outbox, Site
from robustmq.meta.store import GroupStore
from robustmq.raft import message as raft_message
from robustmq.raft.journal import Journals
from robustmq.raft.message import Membership
from robustmq.raft.ready import Follower
from robustmq.settings.raft import Raft
from robustmq.storage.files import Files
from robustmq.storage.writer import Writer

_ENDING: Final = Refused(
    Refusal.UNAVAILABLE, "this node is being stopped; it may yet be done, so ask again"
)
_FULL: Final = (
    "the disk is full: nothing that the cluster decides can be kept here until there is room"
)
_ROOM: Final = "the disk has room again: what waited is kept"
_SLACK: Final = 1 << 20
"""Bytes of a parcel beside the longest proposal and what travels with it."""


class Disk(Struct, frozen=True):
    """Where a host keeps what it must: below `folder`, by these files, writer and databases."""

    files: Files
    writer: Writer
    databases: Databases
    folder: str


class GroupStatus(Struct, frozen=True):
    """How a group is, as this node sees it; indices are those of its log."""

    name: str
    term: int
    leader: int | None
    leads: bool
    commit: int
    applied: int
    last: int
    start: int
    position: int
    membership: Membership
    followers: list[Follower]


class RaftHost:
    """The groups of one node, in the order of `groups`, which is the same on every node.

    me: The node's number. voters: The first voters of a group that has no log yet; none: the node
    waits until a leader tells it. send: Takes a parcel for a peer, in order; it may be lost.
    timeout_ms: How long a proposal or a read may take. chance: A number from 0 to below 1. wall_s:
    Seconds since 1970. report: Hears of what an administrator should know.
    Raises Corrupt when what is stored cannot be used, OSError.
    """

    def __init__(
        self,
        *,
        me: int,
        groups: Mapping[str, MachineFactory],
        voters: Membership,
        settings: Raft,
        timeout_ms: int,
        disk: Disk,
        send: Callable[[int, bytes], None],
        chance: Callable[[], float],
        report: Callable[[str], None],
        wall_s: int,
        now_ms: int,
    ) -> None:
        self.counters = Counters()
        self._send = send
        self._timeout_ms = timeout_ms
        self._now_ms = now_ms
        self._answers: list[Callable[[], None]] = []
        self._is_due = True
        """Whether something has come since the last turn."""
        self._most_bytes = 2 * max(settings.max_proposal_bytes, settings.append_bytes) + _SLACK
        self._writer = disk.writer
        life = begin_life(disk.files, disk.folder, wall_s)
        log, state = f"{disk.folder}/log", f"{disk.folder}/state"
        self._journals = Journals(disk.files, disk.writer, log, settings.segment_bytes)
        self._outbox = Outbox(settings.append_bytes)
        site = Site(
            me,
            life,
            settings,
            self._journals,
            self._outbox,
            chance,
            self._answers.append,
            report,
            self.counters,
        )
        self._me = me
        self._report = report
        self._was_full = False
        self._groups: dict[str, RaftGroup] = {}
        for number, (name, make) in enumerate(groups.items()):
            store = GroupStore(disk.files, disk.databases, f"{state}/{name}")
            self._groups[name] = RaftGroup(
                number, name, site, store=store, make=make, voters=voters, now_ms=now_ms
            )
        self._by_number = list(self._groups.values())

    # ------------------------------------------------------------------ for who uses the groups

    def propose(self, group: str, command: bytes, done: Callable[[Outcome], None]) -> None:
        """Have a command folded on every node, in the order of proposing.

        `done` is called once, at the end of some turn: Applied when it is folded here; Refused
        BUSY, TOO_LARGE, INTERNAL (it failed), or UNAVAILABLE when its time is over: then nobody
        knows whether it will be folded.
        """
        self._is_due = True
        self._groups[group].propose(command, done, self._now_ms + self._timeout_ms)

    def read(self, group: str, done: Callable[[Refused | None], None]) -> None:
        """Call `done(None)` when this node has folded all that anybody knew to be committed."""
        self._is_due = True
        self._groups[group].read(done, self._now_ms + self._timeout_ms)

    def leader(self, group: str) -> int | None:
        """Return the number of the node that leads; None: nobody is known to."""
        return self._groups[group].leader

    def machine(self, group: str) -> Machine:
        """Return a group's machine."""
        return self._groups[group].machine

    def group(self, group: str) -> RaftGroup:
        """Return a group, whose `node` takes changes of its members; a turn is due after one."""
        return self._groups[group]

    @property
    def silent_ms(self) -> int:
        """Milliseconds in which the first group had no contact with a leader."""
        return self._by_number[0].node.silent_ms(self._now_ms)

    def status(self) -> list[GroupStatus]:
        """Return how all groups are."""
        return [
            GroupStatus(
                name=each.name,
                term=each.node.term,
                leader=each.leader,
                leads=each.node.leads,
                commit=each.node.commit,
                applied=each.position.index,
                last=each.node.last_index,
                start=each.node.start.index,
                position=each.position.commands,
                membership=each.node.membership,
                followers=each.node.followers(),
            )
            for each in self._by_number
        ]

    # ------------------------------------------------------------------ for who drives it

    def fileno(self) -> int:
        """Return what is readable when the disk has done something: a turn is due."""
        return self._writer.fileno()

    def receive(self, peer: int, data: bytes) -> None:
        """A parcel has come from a peer. Raises ProtocolError: its link must end."""
        self._is_due = True
        parcel = decode(data, self._most_bytes)
        now_ms, groups = self._now_ms, self._by_number
        for message in raft_message.decode(parcel.raft, self._most_bytes) if parcel.raft else ():
            if message.sender != peer or message.to != self._me:
                raise ProtocolError(0, f"Node {peer} sent a Raft message that is not its own.")
            if message.group < len(groups):
                groups[message.group].step(message, now_ms)
        for other in parcel.others:
            if other.group >= len(groups):
                continue
            group = groups[other.group]
            if isinstance(other, Forward):
                group.forwarded(other, peer)
            elif isinstance(other, Chunk):
                group.chunk(other, peer, now_ms)
            elif isinstance(other, ChunkReply):
                group.chunk_reply(other, peer, now_ms)

    def unreachable(self, peer: int) -> None:
        """The link to a peer broke: what was sent lately may be lost."""
        self._is_due = True
        for group in self._by_number:
            group.unreachable(peer)

    def turn(self, now_ms: int) -> None:
        """Do all that can be done now.

        Raises Fatal when the disk has failed, Corrupt when what is stored is damaged, OSError:
        the process must end, and say so.
        """
        self._now_ms = max(now_ms, self._now_ms)
        self._is_due = False
        self._journals.collect()
        if self._journals.is_full != self._was_full:
            self._was_full = self._journals.is_full
            self._report(_FULL if self._was_full else _ROOM)
        for group in self._by_number:
            group.turn(self._now_ms)
        self._journals.commit()
        self._outbox.flush(self._send)
        self._answer()

    @property
    def next_ms(self) -> int:
        """When the next turn is due although nothing happens; at once if something has."""
        if self._is_due:
            return self._now_ms
        return min(group.next_ms(self._now_ms) for group in self._by_number)

    def close(self) -> None:
        """Write what is gathered, answer what waits, and let go of everything. Raises Fatal."""
        self._journals.close()
        for group in self._by_number:
            group.close(_ENDING)
        self._answer()

    def _answer(self) -> None:
        """Call who waits; what they propose in turn is due with the next turn."""
        answers = self._answers[:]
        self._answers.clear()
        for answer in answers:
            answer()
