"""What administrators ask of logs: to forget records, who writes them, how large they are."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from robustmq.broker.partition_api import Found, Partition, Producing, Size
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode, read_error
from robustmq.kafka.messages.offsets import (
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
)
from robustmq.kafka.messages.placement import (
    DescribeLogDirsPartition,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
    DescribeLogDirsTopic,
)
from robustmq.kafka.messages.transaction_listing import (
    DescribeProducersRequest,
    DescribeProducersResponse,
    PartitionResponse,
    ProducerState,
    TopicResponse,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation, Resource
from robustmq.kafka.topic_access import topic_of
from robustmq.message.tenancy import tenant_of

_DIRECTORY: Final = "data"
"""How clients are told of the data directory; where it is concerns nobody there."""


class Records:
    """The handlers of DeleteRecords 0-2, DescribeProducers 0 and DescribeLogDirs 1-4."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    def delete_records(self, call: Call[DeleteRecordsRequest]) -> None:
        """Forget records below an offset; those of topics that are only compacted stay."""
        response = DeleteRecordsResponse(topics=[])
        asked: list[tuple[Partition, int]] = []
        slots: list[DeleteRecordsPartitionResult] = []
        for topic in call.request.topics:
            found = topic_of(self._kafka, call.principal, Operation.DELETE, topic.name)
            if not isinstance(found, ErrorCode):
                policy = found.settings.get("cleanup.policy", "delete")
                if "delete" not in policy.replace(" ", "").split(","):
                    found = ErrorCode.POLICY_VIOLATION
            answers = DeleteRecordsTopicResult(name=topic.name, partitions=[])
            response.topics.append(answers)
            for each in topic.partitions:
                slot = DeleteRecordsPartitionResult(
                    partition_index=each.partition_index, low_watermark=-1
                )
                answers.partitions.append(slot)
                if isinstance(found, ErrorCode):
                    slot.error_code = found
                elif each.offset < -1:
                    slot.error_code = ErrorCode.OFFSET_OUT_OF_RANGE
                else:
                    asked.append((Partition(found.name, each.partition_index), each.offset))
                    slots.append(slot)

        def reply(found: Sequence[Found]) -> None:
            for slot, each in zip(slots, found, strict=True):
                slot.error_code = read_error(each.fault)
                slot.low_watermark = each.offset
            call.answer(response)

        self._kafka.partitions.trim(asked, reply)

    def describe_producers(self, call: Call[DescribeProducersRequest]) -> None:
        """Say who produces to partitions."""
        response = DescribeProducersResponse(topics=[])
        asked: list[tuple[Partition, PartitionResponse]] = []
        for topic in call.request.topics:
            found = topic_of(self._kafka, call.principal, Operation.READ, topic.name)
            answers = TopicResponse(name=topic.name, partitions=[])
            response.topics.append(answers)
            for number in topic.partition_indexes:
                slot = PartitionResponse(partition_index=number)
                answers.partitions.append(slot)
                if isinstance(found, ErrorCode):
                    slot.error_code = found
                else:
                    asked.append((Partition(found.name, number), slot))
        owing = len(asked)

        def reply(slot: PartitionResponse, fault: int, known: Sequence[Producing]) -> None:
            nonlocal owing
            slot.error_code = read_error(fault)
            slot.active_producers = [_state(producing) for producing in known]
            owing -= 1
            if not owing:
                call.answer(response)

        for where, slot in asked:
            self._kafka.partitions.producers(where, partial(reply, slot))
        if not asked:
            call.answer(response)

    def describe_log_dirs(self, call: Call[DescribeLogDirsRequest]) -> None:
        """Say how large logs of this node are, a tenant its own, and the disk (KIP-827)."""
        principal = call.principal
        if not self._kafka.may(principal, Operation.DESCRIBE, Resource.CLUSTER):
            error = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
            call.answer(DescribeLogDirsResponse(error_code=error if call.version >= 3 else 0))
            return
        wanted: dict[str, set[int]] | None = None
        if call.request.topics is not None:
            wanted = {each.topic: set(each.partitions) for each in call.request.topics}

        def reply(sizes: Sequence[Size]) -> None:
            room = self._kafka.room()
            result = DescribeLogDirsResult(
                log_dir=_DIRECTORY, topics=[], total_bytes=room.total, usable_bytes=room.usable
            )
            topics: dict[str, DescribeLogDirsTopic] = {}
            for (name, number), size in sizes:
                topic = self._kafka.catalog.of(name)
                if topic is None or tenant_of(name) != principal.tenant:
                    continue
                written = self._kafka.catalog.written(topic)
                if wanted is not None and number not in wanted.get(written, ()):
                    continue
                if written not in topics:
                    topics[written] = DescribeLogDirsTopic(name=written, partitions=[])
                    result.topics.append(topics[written])
                topics[written].partitions.append(
                    DescribeLogDirsPartition(partition_index=number, partition_size=size)
                )
            call.answer(DescribeLogDirsResponse(results=[result]))

        self._kafka.partitions.sizes(reply)


def _state(producing: Producing) -> ProducerState:
    return ProducerState(
        producer_id=producing.producer_id,
        producer_epoch=producing.producer_epoch,
        last_sequence=producing.last_sequence,
        last_timestamp=producing.last_timestamp_ms,
        coordinator_epoch=producing.coordinator_epoch,
        current_txn_start_offset=producing.open_offset,
    )
