"""What the meta process counts, written into its row of shared memory."""

from robustmq import metrics
from robustmq.meta.raft_host import RaftHost


def count(
    row: memoryview, host: RaftHost, *, isolated: bool, live: int, connected: int, dropped: int
) -> None:
    """Write the counters of a host, and how the cluster is, into a row of u64 cells."""
    counters, groups = host.counters, host.status()
    row[metrics.RAFT_REQUESTS] = counters.proposed
    row[metrics.RAFT_SUCCESS] = counters.answered
    row[metrics.RAFT_FAILURES] = counters.failed
    row[metrics.RAFT_APPLIED] = counters.applied
    row[metrics.RAFT_SNAPSHOTS_SENT] = counters.snapshots_sent
    row[metrics.RAFT_SNAPSHOTS_INSTALLED] = counters.snapshots_installed
    row[metrics.RAFT_GROUPS_LED] = sum(group.leads for group in groups)
    row[metrics.RAFT_APPLY_LAG] = sum(max(group.commit - group.applied, 0) for group in groups)
    row[metrics.RAFT_ISOLATED] = int(isolated)
    row[metrics.CLUSTER_NODES] = live
    row[metrics.CLUSTER_CONNECTED] = connected
    row[metrics.CLUSTER_DROPPED] = dropped
