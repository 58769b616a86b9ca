"""The configuration of Raft groups: how soon a leader is missed, and how much may be under way."""

from typing import Annotated

from msgspec import Struct

from robustmq.settings.bounds import GIB, TIB, between


class Raft(Struct, frozen=True, kw_only=True):
    """`[meta_runtime.raft]`: The Raft groups of a node.

    election_timeout_ms: Milliseconds without a leader after which a node asks for votes (it waits
        this long to twice as long, by chance), and without a majority after which a leader stops.
    heartbeat_interval_ms: Milliseconds between two heartbeats of a leader that has nothing to send.
    append_bytes: Bytes of entries in one message to a follower; a single longer entry is sent too.
    inflight_messages: Messages with entries that a follower has not acknowledged.
    inflight_bytes: Bytes of entries that a follower has not acknowledged.
    uncommitted_bytes: Bytes of proposals that are not committed, per group; beyond it they are
        refused.
    apply_bytes: Bytes of committed entries that are applied in one turn of a group.
    pending_reads: Reads that wait at the leader for a majority; beyond it they are refused.
    promote_entries: Entries that a learner may lag behind when it is let vote.
    cache_bytes: Bytes of the newest entries that are kept in memory per group.
    max_proposal_bytes: Bytes of the longest change; a longer one is refused.
    batch_bytes: Bytes of changes that travel in one entry of the log.
    batches_in_flight: Entries that may be on their way before changes wait to travel together.
    pending_bytes: Bytes of changes that a node waits for, per group; beyond it they are refused.
    retry_ms: Milliseconds without an answer after which a change or a part of a snapshot is sent
        again.
    segment_bytes: A file of the log ends at this size; old entries are deleted by files.
    compact_entries: Entries after which the log is cut short: what they did is in the store.
    compact_bytes: Bytes of entries after which it is cut short anyway.
    keep_entries: Entries that are kept even so, for nodes that are a little behind; one that is
        further behind is sent a snapshot.
    snapshot_part_bytes: Bytes of one part of a snapshot.
    snapshot_window: Parts that are on their way at once.
    snapshot_timeout_ms: Milliseconds without progress after which a snapshot is given up.
    store_memory_bytes: Memory of the store of a group: write buffers and cache, together.
    store_wal_bytes: The store's own log, which is read at a start after a crash, grows to this.
    """

    election_timeout_ms: Annotated[int, between(50, 600_000)] = 1_000
    heartbeat_interval_ms: Annotated[int, between(5, 60_000)] = 100
    append_bytes: Annotated[int, between(1_024, 64 << 20)] = 256 << 10
    inflight_messages: Annotated[int, between(1, 65_536)] = 64
    inflight_bytes: Annotated[int, between(1_024, GIB)] = 4 << 20
    uncommitted_bytes: Annotated[int, between(1_024, GIB)] = 16 << 20
    apply_bytes: Annotated[int, between(1_024, GIB)] = 1 << 20
    pending_reads: Annotated[int, between(1, 10_000_000)] = 100_000
    promote_entries: Annotated[int, between(0, 10_000_000)] = 1_000
    cache_bytes: Annotated[int, between(0, GIB)] = 8 << 20
    max_proposal_bytes: Annotated[int, between(1_024, 64 << 20)] = 8 << 20
    batch_bytes: Annotated[int, between(1_024, 64 << 20)] = 256 << 10
    batches_in_flight: Annotated[int, between(1, 1_024)] = 4
    pending_bytes: Annotated[int, between(1_024, GIB)] = 32 << 20
    retry_ms: Annotated[int, between(10, 600_000)] = 1_000
    segment_bytes: Annotated[int, between(1_024, GIB)] = 16 << 20
    compact_entries: Annotated[int, between(1, 1_000_000_000)] = 20_000
    compact_bytes: Annotated[int, between(1_024, TIB)] = 64 << 20
    keep_entries: Annotated[int, between(0, 1_000_000_000)] = 2_000
    snapshot_part_bytes: Annotated[int, between(1_024, 64 << 20)] = 256 << 10
    snapshot_window: Annotated[int, between(1, 1_024)] = 4
    snapshot_timeout_ms: Annotated[int, between(100, 3_600_000)] = 30_000
    store_memory_bytes: Annotated[int, between(1 << 20, TIB)] = 16 << 20
    store_wal_bytes: Annotated[int, between(1 << 20, TIB)] = 64 << 20
