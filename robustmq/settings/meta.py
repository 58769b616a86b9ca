"""The configuration of the meta service: `[meta_runtime]`."""

from typing import Annotated

from msgspec import Struct, field

from robustmq.settings.bounds import between
from robustmq.settings.raft import Raft


class MetaRuntime(Struct, frozen=True, kw_only=True):
    """`[meta_runtime]`: What the nodes of a cluster know together; see docs/cluster.md.

    heartbeat_timeout_ms: Milliseconds without a sign of life after which a node counts as gone:
        others take over what it had.
    heartbeat_check_time_ms: Milliseconds between two looks whether that is so, and between two
        signs of life.
    raft_write_timeout_sec: Seconds that a change may take; then it is refused as unavailable.
    offset_raft_group_num: Groups that keep offsets; the same on every node, and never changed.
    data_raft_group_num: Groups that keep sessions and retained messages; likewise.
    """

    heartbeat_timeout_ms: Annotated[int, between(100, 600_000)] = 6_000
    heartbeat_check_time_ms: Annotated[int, between(10, 60_000)] = 250
    raft_write_timeout_sec: Annotated[int, between(1, 600)] = 10
    offset_raft_group_num: Annotated[int, between(1, 64)] = 1
    data_raft_group_num: Annotated[int, between(1, 64)] = 1
    raft: Raft = field(default_factory=Raft)

    @property
    def lease_ms(self) -> int:
        """Milliseconds without a word of the meta process after which workers serve nobody.

        By then the node is not given up yet.
        """
        return self.heartbeat_timeout_ms * 2 // 3
