"""A node: one replica of one Raft group, without I/O.

The host hands in time, messages, proposals and what its disk has done; it takes `ready()` until
there is none, and does with each what Ready says, in order. Nothing here waits, and nothing is
remembered but in the node, its journal and its store.
"""

from collections.abc import Callable, Sequence

from robustmq.errors import Refused
from robustmq.raft.message import Membership, Message, Snapshot
from robustmq.raft.ready import Follower, Ready, Stored
from robustmq.settings.raft import Raft


class Node:
    """One replica of one group.

    All times are milliseconds of one clock that never goes back. `chance` gives a number from 0
    to below 1. Tokens of reads never repeat, not even in another life of the process.
    """

    def __init__(
        self,
        me: int,
        group: int,
        settings: Raft,
        stored: Stored,
        *,
        chance: Callable[[], float],
        now_ms: int,
    ) -> None:
        """Raises Corrupt when what is stored does not fit together."""
        raise NotImplementedError

    # What may be asked at any time.

    @property
    def term(self) -> int:
        """The current term."""
        raise NotImplementedError

    @property
    def leader(self) -> int:
        """Who leads in the current term, as far as known; NOBODY otherwise."""
        raise NotImplementedError

    @property
    def leads(self) -> bool:
        """Whether this replica leads."""
        raise NotImplementedError

    @property
    def commit(self) -> int:
        """The last index that is known to be committed."""
        raise NotImplementedError

    @property
    def handed(self) -> int:
        """The last index that a Ready has given to be applied."""
        raise NotImplementedError

    @property
    def start(self) -> Snapshot:
        """Where the log starts."""
        raise NotImplementedError

    @property
    def last_index(self) -> int:
        """The index of the last entry of the log."""
        raise NotImplementedError

    @property
    def membership(self) -> Membership:
        """The latest membership in the log, committed or not: the one that counts."""
        raise NotImplementedError

    @property
    def changing(self) -> bool:
        """Whether the latest membership is not committed yet."""
        raise NotImplementedError

    @property
    def next_ms(self) -> int:
        """When `tick` has something to do."""
        raise NotImplementedError

    def isolated(self, now_ms: int) -> bool:
        """Whether there was no contact with a leader (a leader: a majority) for its timeout."""
        raise NotImplementedError

    def followers(self) -> list[Follower]:
        """The other replicas as the leader sees them; empty when this one does not lead."""
        raise NotImplementedError

    def describe(self, index: int) -> Snapshot:
        """What a snapshot of the store that has applied `index` is; not below the log's start."""
        raise NotImplementedError

    # What happens.

    def tick(self, now_ms: int) -> None:
        """Time has passed."""
        raise NotImplementedError

    def step(self, message: Message, now_ms: int) -> None:
        """A message for this replica has come; whatever it says, nothing is raised."""
        raise NotImplementedError

    def propose(self, data: Sequence[bytes], now_ms: int) -> int | Refused:
        """Append commands, an entry each; returns the index of the first, in the current term.

        Refused UNAVAILABLE: not the leader, or on its way out of office. BUSY: too many bytes are
        not committed. Nothing was appended then.
        """
        raise NotImplementedError

    def read_index(self, token: int, now_ms: int) -> None:
        """Ask which index must be applied for a read to see all that was answered before now.

        The answer comes with a Ready. A follower asks the leader; when that is never answered,
        nothing comes, and the host's own deadline ends the wait.
        """
        raise NotImplementedError

    def add_learner(self, node: int) -> int | Refused:
        """Let a node learn; returns the index of the change.

        As all changes, Refused when this is not the leader (UNAVAILABLE), or while another one is
        not committed, or before the term's first entry is (BUSY), or when it makes no sense.
        """
        raise NotImplementedError

    def promote(self, node: int, now_ms: int) -> int | Refused:
        """Let a learner vote, one that is heard and has caught up; returns the index."""
        raise NotImplementedError

    def remove(self, node: int, forced: bool, now_ms: int) -> int | Refused:
        """Let a node leave the group; returns the index.

        Refused unless `forced` when the leader does not hear a majority of those who stay, or
        when nobody would vote any more (never, even forced).
        """
        raise NotImplementedError

    def transfer_leadership(self, to: int, now_ms: int) -> Refused | None:
        """Give the office up to another voter; proposals are refused until it has or has not."""
        raise NotImplementedError

    # What the host has done.

    def ready(self) -> Ready | None:
        """What is to be done next; None when there is nothing."""
        raise NotImplementedError

    def persisted(self, number: int) -> None:
        """All that was to be written by the Ready of that number and earlier ones is durable."""
        raise NotImplementedError

    def snapshot_begins(self, to: int, index: int) -> bool:
        """The host begins to send a follower its snapshot of `index`; no: it needs none now."""
        raise NotImplementedError

    def snapshot_ended(self, to: int, index: int, arrived: bool) -> None:
        """That snapshot has arrived whole, or was given up (it is asked for again later)."""
        raise NotImplementedError

    def unreachable(self, to: int) -> None:
        """What was sent to a replica lately may be lost: its link broke."""
        raise NotImplementedError

    def compact(self, index: int) -> Snapshot:
        """Let the log start at `index` or, where that is not applied yet, below.

        Returns the new start, for the journal to keep before it deletes what is up to there.
        """
        raise NotImplementedError
