"""Produce: batches to append."""

from typing import Annotated

from robustmq.kafka.messages.leaders import LeaderIdAndEpoch, NodeEndpoint
from robustmq.kafka.schema import Int16, Int32, Int64, Message, Records, since, tagged


class PartitionProduceData(Message):
    """The record batches for one partition, as their producer made them."""

    index: Int32 = 0
    records: Records = None


class TopicProduceData(Message):
    """The batches for one topic."""

    name: str = ""
    partition_data: list[PartitionProduceData] = []


class ProduceRequest(Message):
    """Batches to append; `acks` is 0 (no answer), 1, or -1 (all replicas in sync)."""

    transactional_id: str | None = None
    acks: Int16 = 0
    timeout_ms: Int32 = 0
    topic_data: list[TopicProduceData] = []


class BatchIndexAndErrorMessage(Message):
    """A record that made its batch refused."""

    batch_index: Int32 = 0
    batch_index_error_message: str | None = None


class PartitionProduceResponse(Message):
    """What became of a partition's batches; `log_append_time_ms` -1: the producer's time holds."""

    index: Int32 = 0
    error_code: Int16 = 0
    base_offset: Int64 = 0
    log_append_time_ms: Int64 = -1
    log_start_offset: Annotated[Int64, since(5)] = -1
    record_errors: Annotated[list[BatchIndexAndErrorMessage], since(8)] = []
    error_message: Annotated[str | None, since(8)] = None
    current_leader: Annotated[LeaderIdAndEpoch | None, since(10), tagged(0)] = None


class TopicProduceResponse(Message):
    """What became of a topic's batches."""

    name: str = ""
    partition_responses: list[PartitionProduceResponse] = []


class ProduceResponse(Message):
    """What became of the batches."""

    responses: list[TopicProduceResponse] = []
    throttle_time_ms: Int32 = 0
    node_endpoints: Annotated[list[NodeEndpoint], since(10), tagged(0)] = []
