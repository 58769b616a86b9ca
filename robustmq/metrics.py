"""Every counter and gauge of a core, in one table.

A process owns one row of u64 cells in shared memory and is its only writer; the position in
`TABLE` is the cell. Kernels and their twins take the row and the constants below.
"""

from typing import Final, Literal, NamedTuple


class Metric(NamedTuple):
    """A row of the table: exposition name, kind, and the sentence that Prometheus shows."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str


BYTES_RECEIVED: Final = 0
BYTES_SENT: Final = 1
PACKETS_RECEIVED: Final = 2
PACKETS_SENT: Final = 3
MESSAGES_RECEIVED: Final = 4
MESSAGES_SENT: Final = 5
MESSAGES_DROPPED_SLOW: Final = 6
MESSAGES_DROPPED_QUEUE: Final = 7
MESSAGES_DROPPED_EXPIRED: Final = 8
MESSAGES_DROPPED_TOO_LARGE: Final = 9
MESSAGES_DROPPED_REFUSED: Final = 10
MESSAGES_UNMATCHED: Final = 11
CONNECTIONS: Final = 12
CONNECTIONS_OPENED: Final = 13
CONNECTIONS_CLOSED: Final = 14
CONNECTIONS_REFUSED: Final = 15
CONNECTIONS_HANDED_OVER: Final = 16
PROTOCOL_ERRORS: Final = 17
SESSIONS: Final = 18
SESSIONS_TAKEN_OVER: Final = 19
SESSIONS_EXPIRED: Final = 20
SUBSCRIPTIONS: Final = 21
SHARED_GROUPS: Final = 22
RETAINED_MESSAGES: Final = 23
RETAINED_BYTES: Final = 24
WILLS_PUBLISHED: Final = 25
SHARD_APPENDS: Final = 26
SHARD_RECORDS: Final = 27
SHARD_BYTES: Final = 28
FRAMES_SENT: Final = 29
FRAMES_RECEIVED: Final = 30
FRAMES_BYTES: Final = 31
DOORBELLS_RUNG: Final = 32
TURNS: Final = 33
KEEPALIVE_TIMEOUTS: Final = 34
PUBLISHERS_PAUSED: Final = 35
RETAINED_REFUSED: Final = 36
DELAYED_MESSAGES: Final = 37
DELAYED_PUBLISHED: Final = 38
SESSIONS_DURABLE: Final = 39
INBOX_MESSAGES: Final = 40
INBOX_KEPT: Final = 41
INBOX_REMOVED: Final = 42
STORAGE_COMMITS: Final = 43
STORAGE_ROWS: Final = 44
STORAGE_SYNCS: Final = 45
STORAGE_FAILURES: Final = 46
STORAGE_REFUSING: Final = 47
STORAGE_PENDING_BYTES: Final = 48
STORAGE_RECOVERY_MS: Final = 49
STORAGE_CUT_BYTES: Final = 50
STORAGE_DAMAGED: Final = 51
CONNECTIONS_RELAYED: Final = 52
LOGINS_ACCEPTED: Final = 53
LOGINS_REFUSED: Final = 54
BLACKLIST_BLOCKED: Final = 55
FLAPPING_BANNED: Final = 56
CONNECTIONS_EXPELLED: Final = 57
CONNECTIONS_OVER_LIMIT: Final = 58
CONNECTIONS_OVER_RATE: Final = 59
PUBLISHERS_THROTTLED: Final = 60
SUBSCRIPTIONS_REFUSED: Final = 61
QUIC_CONNECTIONS: Final = 62
QUIC_DATAGRAMS_RECEIVED: Final = 63
QUIC_DATAGRAMS_SENT: Final = 64
QUIC_RETRIES: Final = 65
QUIC_RESETS: Final = 66
SUBSCRIPTIONS_EXCLUSIVE: Final = 67
SLOW_SUBSCRIBERS: Final = 68
BRIDGES_CONNECTED: Final = 69
BRIDGE_CONNECTS: Final = 70
BRIDGE_DROPPED: Final = 71
RETAINED_EXPIRED: Final = 72
AUTO_SUBSCRIPTIONS_REFUSED: Final = 73
ACL_SUCCESS: Final = 74
ACL_FAILED: Final = 75
SUBSCRIPTIONS_REVOKED: Final = 76
CLUSTER_PARTS_LOST: Final = 77
LINKS_CONNECTED: Final = 78
LINK_CONNECTS: Final = 79
LINKS_REFUSED: Final = 80
LINK_BYTES_SENT: Final = 81
LINK_BYTES_RECEIVED: Final = 82
LINK_FRAMES_SENT: Final = 83
LINK_FRAMES_RECEIVED: Final = 84
LINK_RECORDS_RESENT: Final = 85
LINK_BACKLOG_BYTES: Final = 86
SESSIONS_SOUGHT: Final = 87
SESSIONS_FOLLOWED: Final = 88
SESSION_CHANGES: Final = 89
SESSION_CHANGES_UNHEARD: Final = 90
SESSIONS_ADOPTED: Final = 91
SESSIONS_GIVEN_UP: Final = 92
ESTATES: Final = 93
LEGACIES_SENT: Final = 94
LEGACIES_TAKEN: Final = 95
ESTATES_ENDED: Final = 96
KAFKA_CONNECTIONS: Final = 97
KAFKA_REQUESTS: Final = 98
KAFKA_RESPONSE_BYTES: Final = 99
KAFKA_THROTTLED: Final = 100
KAFKA_FORWARDED: Final = 101
    Metric("kafka_groups", "gauge", "Consumer groups of Kafka that this core has in memory."),
    Metric("kafka_group_rebalances", "counter", "Generations of groups, and new assignments."),
    Metric("kafka_offset_commits", "counter", "Offsets that groups have committed."),
    Metric(
        "kafka_groups_given_up",
        "counter",
        "Groups that another core has taken over, or of which a change may be lost.",
