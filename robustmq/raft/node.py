"""A node: one replica of one Raft group, without I/O.

The host hands in time, messages, proposals and what its disk has done; it takes `ready()` until
there is none, and does with each what Ready says, in order. Nothing here waits, and nothing is
remembered but in the node, its journal and its store.
"""

from collections.abc import Sequence
from heapq import heappop
from typing import Final

from robustmq.errors import Refusal, Refused
from robustmq.raft import quorum
from robustmq.raft.leader import Leader
from robustmq.raft.message import (
    NOBODY,
    HardState,
    Membership,
    Message,
    MessageKind,
    Snapshot,
)
from robustmq.raft.ready import Follower, Read, Ready
from robustmq.raft.replica import Replica, Role

_NOT_LEADING: Final = Refused(Refusal.UNAVAILABLE, "This node does not lead the group.")


class Node(Replica):
    """One replica of one group.

    All times are milliseconds of one clock that never goes back. `chance` gives a number from 0
    to below 1. Tokens of reads never repeat, not even in another life of the process.
    """

    # What may be asked at any time.

    @property
    def term(self) -> int:
        """The current term."""
        return self._term

    @property
    def role(self) -> Role:
        """What this replica is at the moment."""
        return self._role

    @property
    def leader(self) -> int:
        """Who leads in the current term, as far as known; NOBODY otherwise."""
        return self._leader

    @property
    def leads(self) -> bool:
        """Whether this replica leads."""
        return self._office is not None

    @property
    def commit(self) -> int:
        """The last index that is known to be committed."""
        return self._log.commit

    @property
    def handed(self) -> int:
        """The last index that a Ready has given to be applied."""
        return self._log.handed

    @property
    def start(self) -> Snapshot:
        """Where the log starts."""
        return self._log.start

    @property
    def last_index(self) -> int:
        """The index of the last entry of the log."""
        return self._log.last_index

    @property
    def membership(self) -> Membership:
        """The latest membership in the log, committed or not: the one that counts."""
        return self._log.membership

    @property
    def changing(self) -> bool:
        """Whether the latest membership is not committed yet."""
        return self._log.membership_index > self._log.commit

    @property
    def removed(self) -> bool:
        """Whether this replica belongs to the group no more, as far as it has heard."""
        log = self._log
        if self._me in quorum.members(log.membership):
            return self._gone_at > log.membership_index
        return log.was_left_by(self._me) and (
            not self.changing or self._gone_at >= log.membership_index
        )

    @property
    def next_ms(self) -> int:
        """When `tick` has something to do."""
        if self._office is not None:
            return self._office.next_ms
        return self._since_ms + self._patience_ms

    def silent_ms(self, now_ms: int) -> int:
        """Milliseconds without contact with a leader (a leader: with a majority)."""
        heard = self._heard_ms
        if self._office is not None:
            heard = self._office.contact_ms(now_ms)
        return now_ms - heard

    def followers(self) -> list[Follower]:
        """The other replicas as the leader sees them; empty when this one does not lead."""
        return self._office.followers() if self._office is not None else []

    def describe(self, index: int) -> Snapshot:
        """What a snapshot of the store that has applied `index` is; not below the log's start."""
        return self._log.describe(index)

    # Time, proposals, reads.

    def tick(self, now_ms: int) -> None:
        """Time has passed."""
        self._now_ms = now_ms
        if self._office is not None:
            if not self._office.tick(now_ms):
                self._follow(self._term, NOBODY)
        elif now_ms >= self._since_ms + self._patience_ms:
            self._campaign(asks_first=True)

    def propose(self, data: Sequence[bytes], now_ms: int) -> int | Refused:
        """Append commands, an entry each; returns the index of the first, in the current term.

        Refused UNAVAILABLE: not the leader, or on its way out of office. BUSY: too many bytes are
        not committed. Nothing was appended then.
        """
        return self._office.propose(data, now_ms) if self._office is not None else _NOT_LEADING

    def read_index(self, token: int, now_ms: int) -> None:
        """Ask which index must be applied for a read to see all that was answered before now.

        The answer comes with a Ready. A follower asks the leader; when that is never answered,
        nothing comes, and the host's own deadline ends the wait.
        """
        self._now_ms = now_ms
        if self._office is not None:
            if not self._office.reads.add((self._me, token)):
                self._reads.append(Read(token, None))
        elif self._leader != NOBODY:
            self._say(MessageKind.READ, self._leader, context=token)
        else:
            self._reads.append(Read(token, None))

    # Members and the office.

    def add_learner(self, node: int, now_ms: int) -> int | Refused:
        """Let a node learn; returns the index of the change.

        As all changes, Refused when this is not the leader (UNAVAILABLE), or while another one is
        not committed, or before the term's first entry is (BUSY), or when it makes no sense.
        """
        if self._office is None:
            return _NOT_LEADING
        return self._office.change(quorum.with_learner(self._log.membership, node), now_ms)

    def promote(self, node: int, now_ms: int) -> int | Refused:
        """Let a learner vote, one that is heard and has caught up; returns the index."""
        if self._office is None:
            return _NOT_LEADING
        wanted = quorum.promoted(self._log.membership, node)
        if isinstance(wanted, Membership):
            refused = self._office.promotable(node, wanted, now_ms)
            if refused is not None:
                return refused
        return self._office.change(wanted, now_ms)

    def remove(self, node: int, forced: bool, now_ms: int) -> int | Refused:
        """Let a node leave the group; returns the index.

        Refused unless `forced` when the leader does not hear a majority of those who stay, or
        when nobody would vote any more (never, even forced).
        """
        if self._office is None:
            return _NOT_LEADING
        wanted = quorum.without(self._log.membership, node)
        if isinstance(wanted, Membership) and not forced:
            refused = self._office.removable(wanted, now_ms)
            if refused is not None:
                return refused
        return self._office.change(wanted, now_ms)

    def transfer_leadership(self, to: int, now_ms: int) -> Refused | None:
        """Give the office up to another voter; proposals are refused until it has or has not."""
        return self._office.transfer(to, now_ms) if self._office is not None else _NOT_LEADING

    # What the host has done.

    def ready(self) -> Ready | None:
        """What is to be done next; None when there is nothing.

        Raises Corrupt when the journal cannot be read.
        """
        log = self._log
        wanting: Sequence[int] = ()
        if self._office is not None:
            wanting = self._flush(self._office)
        hard = self._take_hard_state()
        snapshot, self._install = self._install, None
        entries = log.take_unwritten()
        number = 0
        if entries or hard is not None or snapshot is not None:
            number = log.fly()
            if hard is not None:
                self._hard_number = number
            if snapshot is not None:
                self._install_number = number
        if self._after:
            self._hold()
        messages, self._outgoing = self._outgoing, []
        committed = log.take_committed(self._settings.apply_bytes)
        reads = self._take_reads() if self._reads or self._readers else ()
        if not (number or messages or committed or reads or wanting):
            return None
        return Ready(number, hard, snapshot, entries, messages, wanting, committed, reads)

    def _flush(self, office: Leader) -> Sequence[int]:
        """Let a leader send what it has; one that was removed leaves office after it."""
        office.flush()
        wanting, office.wanting = office.wanting, []
        if self._me not in self._log.membership.voters and not self.changing:
            self._follow(self._term, NOBODY)
        return wanting

    def _take_hard_state(self) -> HardState | None:
        if self._hard == (self._term, self._vote):
            return None
        self._hard = (self._term, self._vote)
        return HardState(self._term, self._vote, self._log.commit)

    def _hold(self) -> None:
        """Keep what says that something is durable until it is."""
        flying = self._log.flying
        if flying:
            self._held.append((flying, self._after))
        else:
            self._release(self._after)
        self._after = []

    def _release(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.to == self._me:
                self.step(message, self._now_ms)
            else:
                self._outgoing.append(message)

    def _take_reads(self) -> Sequence[Read]:
        """Reads that everything they must see has been handed out for."""
        found, self._reads = self._reads, []
        readers, handed = self._readers, self._log.handed
        if self._install_number > self._durable:
            return found
        while readers and readers[0][0] <= handed:
            index, token = heappop(readers)
            found.append(Read(token, index))
        return found

    def persisted(self, number: int) -> None:
        """All that was to be written by the Ready of that number and earlier ones is durable."""
        self._durable = max(self._durable, number)
        self._log.persisted(number)
        if self._office is not None:
            self._office.count()
        held = self._held
        while held and held[0][0] <= number:
            self._release(held.popleft()[1])

    def snapshot_begins(self, to: int, index: int) -> bool:
        """The host begins to send a follower its snapshot of `index`.

        No: it needs none now, or a newer one, which a Ready asks for. As long as one is under way
        the log is not compacted beyond it.
        """
        return self._office is not None and self._office.snapshot_begins(to, index)

    def snapshot_ended(self, to: int, index: int, arrived: bool) -> None:
        """That snapshot has arrived whole, or was given up (it is asked for again later).

        To be said for whatever Ready asked for, even if nothing was begun.
        """
        if self._office is not None:
            self._office.snapshot_ended(to, index, arrived)

    def unreachable(self, to: int) -> None:
        """What was sent to a replica lately may be lost: its link broke."""
        if self._office is not None:
            self._office.unreachable(to)

    def compact(self, index: int) -> Snapshot:
        """Let the log start at `index` or, where that is not applied yet, below.

        The store must have applied `index` durably. Returns the new start, for the journal to keep
        before it deletes what is up to there.
        """
        index = min(index, self._log.handed, self._log.stable)
        if self._office is not None:
            index = self._office.snapshots_keep(index)
        self._log.compact(index)
        return self._log.start
