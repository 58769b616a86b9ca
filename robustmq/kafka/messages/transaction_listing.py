"""Producers and transactions as administrators see them."""

from typing import Annotated

from robustmq.kafka.schema import Int16, Int32, Int64, Message, since


class TopicRequest(Message):
    """The partitions of a topic whose producers are asked for."""

    name: str = ""
    partition_indexes: list[Int32] = []


class DescribeProducersRequest(Message):
    """Ask who produces to these partitions."""

    topics: list[TopicRequest] = []


class ProducerState(Message):
    """An idempotent producer that a partition knows; -1: none."""

    producer_id: Int64 = 0
    producer_epoch: Int32 = 0
    last_sequence: Int32 = -1
    last_timestamp: Int64 = -1
    coordinator_epoch: Int32 = 0
    current_txn_start_offset: Int64 = -1


class PartitionResponse(Message):
    """The producers of a partition."""

    partition_index: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = None
    active_producers: list[ProducerState] = []


class TopicResponse(Message):
    """The producers of a topic."""

    name: str = ""
    partitions: list[PartitionResponse] = []


class DescribeProducersResponse(Message):
    """The producers."""

    throttle_time_ms: Int32 = 0
    topics: list[TopicResponse] = []


class DescribeTransactionsRequest(Message):
    """Ask how these transactions are."""

    transactional_ids: list[str] = []


class TopicData(Message):
    """The partitions of a topic that are in a transaction."""

    topic: str = ""
    partitions: list[Int32] = []


class TransactionState(Message):
    """A transaction, its state and its partitions."""

    error_code: Int16 = 0
    transactional_id: str = ""
    transaction_state: str = ""
    transaction_timeout_ms: Int32 = 0
    transaction_start_time_ms: Int64 = 0
    producer_id: Int64 = 0
    producer_epoch: Int16 = 0
    topics: list[TopicData] = []


class DescribeTransactionsResponse(Message):
    """The transactions."""

    throttle_time_ms: Int32 = 0
    transaction_states: list[TransactionState] = []


class ListTransactionsRequest(Message):
    """Ask for a list of transactions; empty filters let all through, -1 any duration."""

    state_filters: list[str] = []
    producer_id_filters: list[Int64] = []
    duration_filter: Annotated[Int64, since(1)] = -1


class ListedTransactionState(Message):
    """A transaction of the list."""

    transactional_id: str = ""
    producer_id: Int64 = 0
    transaction_state: str = ""


class ListTransactionsResponse(Message):
    """The transactions that this broker coordinates."""

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    unknown_state_filters: list[str] = []
    transaction_states: list[ListedTransactionState] = []
