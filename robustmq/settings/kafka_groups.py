"""The configuration of consumer groups: `[kafka_runtime.groups]`."""

from typing import Annotated

from msgspec import Struct

from robustmq.settings.bounds import between

_DAY_MS = 86_400_000


class KafkaGroups(Struct, frozen=True, kw_only=True):
    """`[kafka_runtime.groups]`: Consumer groups of Kafka.

    initial_rebalance_delay_ms: Milliseconds that an empty group waits for more members after the
        first has come, so that a group that starts is not rebalanced with each of them.
    min_session_timeout_ms: The shortest time after which a member may ask to be given up.
    max_session_timeout_ms: The longest one.
    max_members: Members of a group.
    max_page_bytes: Bytes of what is kept of a group beside its offsets: what its members tell each
        other, and their assignments.
    max_groups: Groups that a core knows at a time; those that are not in use do not count.
    max_waiting: Requests that wait until a group has been read; others are asked to come again.
    idle_ms: Milliseconds after which a group that nobody uses leaves the memory.
    offset_metadata_max_bytes: Bytes of what is noted with an offset.
    max_offsets: Partitions that a group has offsets of.
    offsets_retention_minutes: Minutes that offsets are kept after their group is empty, or after
        the commit where there never were members.
    offsets_retention_check_interval_ms: Milliseconds between two looks for such groups.
    consumer_session_timeout_ms: Milliseconds of silence after which a member that the server
        assigns partitions to (group.protocol=consumer) is given up.
    consumer_heartbeat_interval_ms: Milliseconds between two heartbeats of such a member.
    max_regex_bytes: Bytes of a pattern that it subscribes to.
    """

    initial_rebalance_delay_ms: Annotated[int, between(0, 600_000)] = 3_000
    min_session_timeout_ms: Annotated[int, between(1, _DAY_MS)] = 6_000
    max_session_timeout_ms: Annotated[int, between(1, _DAY_MS)] = 1_800_000
    max_members: Annotated[int, between(1, 100_000)] = 1_000
    max_page_bytes: Annotated[int, between(1_024, 8_388_608)] = 1_048_576
    max_groups: Annotated[int, between(1, 10_000_000)] = 100_000
    max_waiting: Annotated[int, between(1, 1_000_000)] = 1_000
    idle_ms: Annotated[int, between(100, _DAY_MS)] = 600_000
    offset_metadata_max_bytes: Annotated[int, between(0, 1_048_576)] = 4_096
    max_offsets: Annotated[int, between(1, 10_000_000)] = 100_000
    offsets_retention_minutes: Annotated[int, between(1, 5_256_000)] = 10_080
    offsets_retention_check_interval_ms: Annotated[int, between(100, _DAY_MS)] = 600_000
    consumer_session_timeout_ms: Annotated[int, between(100, _DAY_MS)] = 45_000
    consumer_heartbeat_interval_ms: Annotated[int, between(10, _DAY_MS)] = 5_000
    max_regex_bytes: Annotated[int, between(1, 65_536)] = 1_024
