"""What coordinators ask each other; no client may ask it."""

from robustmq.kafka.schema import Int16, Int32, Int64, Message


class CheckedTopic(Message):
    """Partitions of a topic, by the node's name of it (`message.tenancy`)."""

    name: bytes = b""
    partitions: list[Int32] = []


class CheckTransactionRequest(Message):
    """Ask whether all these are part of a producer's open transaction (KIP-890).

    Partitions that are hear of it once more.
    """

    tenant: str = ""
    transactional_id: str = ""
    producer_id: Int64 = 0
    producer_epoch: Int16 = 0
    topics: list[CheckedTopic] = []
    group_ids: list[str] = []


class CheckTransactionResponse(Message):
    """Whether they are, and the number that the end of the transaction will have."""

    error_code: Int16 = 0
    serial: Int32 = 0


class SettleOffsetsRequest(Message):
    """Tell a group that a transaction is over: its offsets count, or are forgotten."""

    tenant: str = ""
    group_id: str = ""
    producer_id: Int64 = 0
    serial: Int32 = 0
    committed: bool = False


class SettleOffsetsResponse(Message):
    """Whether the group has kept that."""

    error_code: Int16 = 0
