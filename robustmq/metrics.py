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
KAFKA_TO_MQTT: Final = 102
KAFKA_UNREADABLE: Final = 103
KAFKA_GROUPS: Final = 104
KAFKA_REBALANCES: Final = 105
KAFKA_OFFSET_COMMITS: Final = 106
KAFKA_GROUPS_LOST: Final = 107
KAFKA_TRANSACTIONS_COMMITTED: Final = 108
KAFKA_TRANSACTIONS_ABORTED: Final = 109
KAFKA_TRANSACTIONS_EXPIRED: Final = 110
CLUSTER_MESSAGES_HELD: Final = 111

TABLE: Final[tuple[Metric, ...]] = (
    Metric("mqtt_bytes_received", "counter", "Bytes read from MQTT clients."),
    Metric("mqtt_bytes_sent", "counter", "Bytes written to MQTT clients."),
    Metric("mqtt_packets_received", "counter", "MQTT packets read from clients."),
    Metric("mqtt_packets_sent", "counter", "MQTT packets queued for clients."),
    Metric("mqtt_messages_received", "counter", "PUBLISH packets accepted from clients."),
    Metric("mqtt_messages_sent", "counter", "PUBLISH packets queued for clients."),
    Metric(
        "mqtt_messages_dropped_slow",
        "counter",
        "QoS 0 messages dropped because the subscriber reads too slowly.",
    ),
    Metric(
        "mqtt_messages_dropped_queue",
        "counter",
        "Messages dropped because a session's queue was full.",
    ),
    Metric(
        "mqtt_messages_dropped_expired",
        "counter",
        "Messages dropped because their expiry interval had passed.",
    ),
    Metric(
        "mqtt_messages_dropped_too_large",
        "counter",
        "Messages not sent because they exceed the subscriber's maximum packet size.",
    ),
    Metric("mqtt_messages_dropped_refused", "counter", "Messages refused by admission."),
    Metric("mqtt_messages_unmatched", "counter", "Messages that no subscription matched."),
    Metric("mqtt_connections", "gauge", "MQTT connections that are open now."),
    Metric("mqtt_connections_opened", "counter", "MQTT connections accepted with CONNACK 0."),
    Metric("mqtt_connections_closed", "counter", "MQTT connections that have ended."),
    Metric("mqtt_connections_refused", "counter", "Connections refused before or by CONNACK."),
    Metric(
        "mqtt_connections_handed_over",
        "counter",
        "Sockets handed to the core that is home to the client's session.",
    ),
    Metric("mqtt_protocol_errors", "counter", "Connections ended because the peer broke MQTT."),
    Metric("mqtt_sessions", "gauge", "Sessions on this core, connected or not."),
    Metric("mqtt_sessions_taken_over", "counter", "Sessions taken over by a new connection."),
    Metric("mqtt_sessions_expired", "counter", "Sessions ended by their expiry interval."),
    Metric("mqtt_subscriptions", "gauge", "Subscriptions of the sessions on this core."),
    Metric("mqtt_shared_groups", "gauge", "Shared subscription groups led by this core."),
    Metric("mqtt_retained_messages", "gauge", "Retained messages kept on this core."),
    Metric("mqtt_retained_bytes", "gauge", "Bytes of the retained messages on this core."),
    Metric("mqtt_wills_published", "counter", "Will messages published."),
    Metric("shard_appends", "counter", "Record batches appended to shards of this core."),
    Metric("shard_records", "counter", "Records appended to shards of this core."),
    Metric("shard_bytes", "counter", "Bytes appended to shards of this core."),
    Metric("fabric_frames_sent", "counter", "Frames sent to other cores."),
    Metric("fabric_frames_received", "counter", "Frames received from other cores."),
    Metric("fabric_bytes_sent", "counter", "Bytes of the frames sent to other cores."),
    Metric("fabric_doorbells_rung", "counter", "Times that a sleeping core was woken."),
    Metric("worker_turns", "counter", "Turns that this core has taken."),
    Metric(
        "mqtt_keepalive_timeouts", "counter", "Connections ended by keep-alive (MQTT5 3.1.2.10)."
    ),
    Metric(
        "mqtt_publishers_paused",
        "counter",
        "Times that reading from a publisher stopped because a core was behind.",
    ),
    Metric("mqtt_retained_refused", "counter", "Retained messages refused by a limit."),
    Metric("mqtt_delayed_messages", "gauge", "Delayed messages that are not due on this core."),
    Metric("mqtt_delayed_published", "counter", "Delayed messages published when they were due."),
    Metric("mqtt_sessions_durable", "gauge", "Sessions on this core that survive a restart."),
    Metric(
        "mqtt_inbox_messages",
        "gauge",
        "Messages kept for durable sessions, once for each filter that wants them.",
    ),
    Metric("mqtt_inbox_kept", "counter", "Messages put on disk for durable sessions, by filter."),
    Metric("mqtt_inbox_removed", "counter", "Messages removed that were kept, by filter."),
    Metric("storage_commits", "counter", "Commits written: what a turn had to keep, at once."),
    Metric("storage_rows_written", "counter", "Rows put and deleted by these commits."),
    Metric("storage_syncs", "counter", "Times that what was written was synced to the disk."),
    Metric("storage_write_failures", "counter", "Times that writing failed: disk full or broken."),
    Metric("storage_refusing", "gauge", "1 while this core's disk takes nothing: an alarm."),
    Metric("storage_pending_bytes", "gauge", "Bytes that wait for the disk, since it is behind."),
    Metric(
        "storage_recovery_milliseconds", "gauge", "Milliseconds that the last start spent reading."
    ),
    Metric(
        "storage_recovery_cut_bytes",
        "counter",
        "Bytes cut off at a start: they were being written when the end came.",
    ),
    Metric(
        "storage_damaged",
        "counter",
        "Damaged places found in what was stored, moved aside and not served: an alarm.",
    ),
    Metric(
        "mqtt_connections_relayed",
        "counter",
        "Connections relayed to the core that is home to the client's session.",
    ),
    Metric("mqtt_auth_success", "counter", "Clients whose login was accepted."),
    Metric(
        "mqtt_auth_failed", "counter", "Clients whose login was refused: unknown, or a wrong proof."
    ),
    Metric("mqtt_blacklist_blocked", "counter", "Clients refused because they are banned."),
    Metric("mqtt_flapping_banned", "counter", "Clients banned because they came too often."),
    Metric(
        "mqtt_connections_expelled", "counter", "Connections ended because of a ban that is new."
    ),
    Metric(
        "mqtt_connections_refused_limit",
        "counter",
        "Clients refused because as many were connected as may be.",
    ),
    Metric(
        "mqtt_connections_refused_rate",
        "counter",
        "Clients refused because too many connected at once.",
    ),
    Metric(
        "mqtt_publishers_throttled",
        "counter",
        "Times that reading from a publisher stopped because of a publish rate.",
    ),
    Metric(
        "mqtt_subscriptions_refused_limit",
        "counter",
        "Subscriptions refused because a session had as many as it may.",
    ),
    Metric("mqtt_quic_connections", "gauge", "QUIC connections open or being opened."),
    Metric("mqtt_quic_datagrams_received", "counter", "Datagrams received by QUIC."),
    Metric("mqtt_quic_datagrams_sent", "counter", "Datagrams sent by QUIC."),
    Metric(
        "mqtt_quic_retries", "counter", "QUIC clients that were asked to show their address first."
    ),
    Metric(
        "mqtt_quic_resets",
        "counter",
        "Stateless resets: packets of QUIC connections that this core does not know.",
    ),
    Metric(
        "mqtt_subscriptions_exclusive_count",
        "gauge",
        "Exclusive subscriptions of the sessions on this core.",
    ),
    Metric("mqtt_slow_subscribers", "gauge", "Clients and topics listed as slow."),
    Metric("mqtt_bridges_connected", "gauge", "Bridges whose other broker is connected."),
    Metric("mqtt_bridge_connects", "counter", "Times that a bridge was connected."),
    Metric(
        "mqtt_bridge_messages_dropped",
        "counter",
        "Messages that a bridge did not pass on: they had been here, or belong to no topic of it.",
    ),
    Metric("mqtt_retained_expired", "counter", "Retained messages that have expired."),
    Metric(
        "mqtt_auto_subscriptions_refused",
        "counter",
        "Subscriptions by rule that a client did not get, because they were refused.",
    ),
    Metric(
        "mqtt_acl_success",
        "counter",
        "Decisions by the rules of access that let a client publish or subscribe.",
    ),
    Metric(
        "mqtt_acl_failed",
        "counter",
        "Decisions by the rules of access that refused a client; each holds for many messages.",
    ),
    Metric(
        "mqtt_subscriptions_revoked",
        "counter",
        "Subscriptions ended because the rules of access do not let their client have them.",
    ),
    Metric(
        "cluster_parts_lost",
        "counter",
        "Batches that a core had not confirmed to keep when its node left or was fenced.",
    ),
    Metric("link_connected", "gauge", "Links to cores of other nodes that are connected."),
    Metric("link_connects", "counter", "Times that such a link was connected."),
    Metric("link_refused", "counter", "Connections of other nodes that were turned away."),
    Metric("link_bytes_sent", "counter", "Bytes sent to cores of other nodes."),
    Metric("link_bytes_received", "counter", "Bytes received from cores of other nodes."),
    Metric("link_frames_sent", "counter", "Frames sent to cores of other nodes."),
    Metric("link_frames_received", "counter", "Frames received from cores of other nodes."),
    Metric("link_records_resent", "counter", "Records that a link sent again after it had broken."),
    Metric(
        "link_backlog_bytes",
        "gauge",
        "Bytes for cores of other nodes that were not sent or not acknowledged.",
    ),
    Metric(
        "mqtt_sessions_sought",
        "counter",
        "Clients that other nodes were asked for, whether they had a session.",
    ),
    Metric(
        "mqtt_connections_relayed_to_nodes",
        "counter",
        "Connections relayed to the node that has the client's session.",
    ),
    Metric(
        "mqtt_session_changes",
        "counter",
        "Changes of sessions that the cluster was told.",
    ),
    Metric(
        "mqtt_session_changes_unheard",
        "counter",
        "Such changes of which nothing was heard in time; they are made again.",
    ),
    Metric(
        "mqtt_sessions_adopted",
        "counter",
        "Sessions taken over from nodes that are gone.",
    ),
    Metric(
        "mqtt_sessions_given_up",
        "counter",
        "Sessions that this core had and another node has now.",
    ),
    Metric(
        "mqtt_bequests",
        "gauge",
        "Sessions of other nodes now whose messages are still on this core's disk.",
    ),
    Metric(
        "mqtt_bequests_messages_sent",
        "counter",
        "Messages that the new homes of given up sessions have taken from this core.",
    ),
    Metric(
        "mqtt_bequests_messages_taken",
        "counter",
        "Messages that this core has taken from earlier homes of its sessions.",
    ),
    Metric(
        "mqtt_bequests_void",
        "counter",
        "Sessions that had ended elsewhere before their messages could be handed on.",
    ),
    Metric("kafka_connections", "gauge", "Kafka clients that are connected and known."),
    Metric("kafka_requests", "counter", "Requests of Kafka clients that were taken."),
    Metric("kafka_response_bytes", "counter", "Bytes of the answers to Kafka clients."),
    Metric("kafka_throttled", "counter", "Times that a Kafka client had to wait for its quota."),
    Metric(
        "kafka_requests_forwarded",
        "counter",
        "Requests that another core of the node coordinates: groups and transactions.",
    ),
    Metric(
        "kafka_to_mqtt_messages",
        "counter",
        "Records of Kafka clients that were handed on to subscribers of MQTT.",
    ),
    Metric(
        "kafka_to_mqtt_unreadable",
        "counter",
        "Batches of Kafka clients that subscribers of MQTT did not get: they cannot be read.",
    ),
    Metric("kafka_groups", "gauge", "Consumer groups of Kafka that this core has in memory."),
    Metric("kafka_group_rebalances", "counter", "Generations of groups, and new assignments."),
    Metric("kafka_offset_commits", "counter", "Offsets that groups have committed."),
    Metric(
        "kafka_groups_given_up",
        "counter",
        "Groups that another core has taken over, or of which a change may be lost.",
    ),
    Metric(
        "kafka_transactions_committed", "counter", "Transactions whose end all have heard: commits."
    ),
    Metric("kafka_transactions_aborted", "counter", "Transactions that were aborted, likewise."),
    Metric(
        "kafka_transactions_expired", "counter", "Transactions aborted as they were open too long."
    ),
    Metric(
        "cluster_messages_held",
        "counter",
        "Messages that waited until sessions of a node that was lost had been adopted.",
    ),
)
RAFT_REQUESTS: Final = 0
RAFT_SUCCESS: Final = 1
RAFT_FAILURES: Final = 2
RAFT_APPLIED: Final = 3
RAFT_SNAPSHOTS_SENT: Final = 4
RAFT_SNAPSHOTS_INSTALLED: Final = 5
RAFT_GROUPS_LED: Final = 6
RAFT_APPLY_LAG: Final = 7
RAFT_ISOLATED: Final = 8
CLUSTER_NODES: Final = 9
CLUSTER_CONNECTED: Final = 10
CLUSTER_DROPPED: Final = 11

META_TABLE: Final[tuple[Metric, ...]] = (
    Metric("raft_write_requests", "counter", "Changes proposed by this node to groups."),
    Metric("raft_write_success", "counter", "Proposals of this node that were answered."),
    Metric("raft_write_failures", "counter", "Proposals of this node that were refused, or late."),
    Metric("raft_applied", "counter", "Commands that this node has folded, of all groups."),
    Metric("raft_snapshots_sent", "counter", "Snapshots sent to nodes that were far behind."),
    Metric("raft_snapshots_installed", "counter", "Snapshots that this node has taken."),
    Metric("raft_groups_led", "gauge", "Groups that this node leads."),
    Metric("raft_apply_lag", "gauge", "Committed entries that this node has not applied."),
    Metric("raft_isolated", "gauge", "1 while this node hears of no leader and serves nobody."),
    Metric("cluster_nodes_live", "gauge", "Nodes of the cluster that are live."),
    Metric("cluster_nodes_connected", "gauge", "Other nodes that this one has connected to."),
    Metric("cluster_messages_dropped", "counter", "Messages to nodes that were not there or slow."),
)
"""What the meta process counts, in a row of its own; there is one on a node."""

CELLS: Final = 128
