"""What a node and its host hand to each other: what was stored, and what is to be done next."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from robustmq.raft.message import Entry, HardState, Message, Snapshot


class Entries(Protocol):
    """The entries of a group that its journal has: behind the log's start, in order."""

    @property
    def last_index(self) -> int:
        """The index of the last entry; the start's when there is none."""

    def read(self, first: int, last: int, most_bytes: int) -> Sequence[Entry]:
        """Entries from `first` on, at most to `last`, about `most_bytes` bytes; at least one.

        Only durable entries are asked for. Raises Corrupt when one of them is damaged.
        """


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica finds on its disk when it starts.

    start: Where its log starts: `Node.compact` has given it, or an installed snapshot, or the
        bootstrap (index 0, the first voters; without voters: a node that waits to be told).
    hard_state: The last one that was durable.
    applied: The last index that the store has applied; at least the start's.
    entries: The journal behind the start.
    """

    start: Snapshot
    hard_state: HardState
    applied: int
    entries: Entries


class Read(msgspec.Struct, frozen=True, gc=False):
    """A read that may be answered now: all that it must see is in this Ready or an earlier one.

    `token` is what `read_index` was given; `index` is None when nobody confirmed it: ask again.
    """

    token: int
    index: int | None


class Ready(msgspec.Struct, frozen=True, gc=False):
    """What the host does next, in this order.

    number: To be given to `Node.persisted`; 0 when nothing is to be written. Several may be under
        way; they become durable in order.
    hard_state: To be written to the journal, or None.
    snapshot: To be installed in the store; then the journal starts anew from it. None mostly.
        Until it is durable nothing is handed out to be applied.
    entries: To be appended to the journal. When the first one's index is not behind the journal's
        end, it and all that follow it there are replaced.
    messages: To be sent, without waiting for the disk. (What must wait comes with a later Ready.)
    snapshots_to: Followers that need a snapshot of the store, one that is not older than the
        log's start; see `Node.snapshot_begins`.
    committed: To be applied, in order; all of them are durable here.
    reads: To be answered after `committed` has been applied.
    """

    number: int
    hard_state: HardState | None
    snapshot: Snapshot | None
    entries: Sequence[Entry]
    messages: Sequence[Message]
    snapshots_to: Sequence[int]
    committed: Sequence[Entry]
    reads: Sequence[Read]


class Follower(msgspec.Struct, frozen=True, gc=False):
    """How a leader sees another replica.

    matched: Its log is the leader's up to here, on its disk.
    heard_ms: When it was last heard.
    snapshot: The index of the snapshot on its way to it; 0: none.
    """

    node: int
    voter: bool
    matched: int
    heard_ms: int
    snapshot: int
