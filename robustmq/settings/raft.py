"""The configuration of Raft groups: how soon a leader is missed, and how much may be under way."""

from typing import Annotated

from msgspec import Struct

from robustmq.settings.bounds import GIB, between


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
