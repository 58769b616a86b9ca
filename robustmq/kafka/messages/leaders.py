"""Where a partition is led now, as produce and fetch answers say beside a refusal (KIP-951)."""

from robustmq.kafka.schema import Int32, Message


class LeaderIdAndEpoch(Message):
    """Who leads a partition; -1 is not known."""

    leader_id: Int32 = -1
    leader_epoch: Int32 = -1


class NodeEndpoint(Message):
    """Where a broker is reached that the answer names as a leader."""

    node_id: Int32 = 0
    host: str = ""
    port: Int32 = 0
    rack: str | None = None
