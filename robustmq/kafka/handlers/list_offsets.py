"""ListOffsets and OffsetForLeaderEpoch: where in a log something is."""

from collections.abc import Sequence
from typing import Final

from robustmq.broker.partition_api import (
    EARLIEST,
    LATEST,
    NEWEST,
    EpochEnd,
    Found,
    Partition,
    Sought,
)
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode, read_error
from robustmq.kafka.messages.offsets import (
    EpochEndOffset,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderTopicResult,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation
from robustmq.kafka.topic_access import topic_of

_EARLIEST_LOCAL: Final = -4
_TIMES: Final = {LATEST: LATEST, EARLIEST: EARLIEST, NEWEST: NEWEST, _EARLIEST_LOCAL: EARLIEST}
"""What stands for something else than a time: all of a log is local."""


class ListOffsets:
    """The handlers of ListOffsets 1-8 and OffsetForLeaderEpoch 2-4."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    def list_offsets(self, call: Call[ListOffsetsRequest]) -> None:
        """Find offsets by time."""
        request = call.request
        is_committed = request.isolation_level == 1
        response = ListOffsetsResponse(topics=[])
        sought: list[Sought] = []
        slots: list[ListOffsetsPartitionResponse] = []
        for topic in request.topics:
            found = topic_of(self._kafka, call.principal, Operation.DESCRIBE, topic.name)
            answers = ListOffsetsTopicResponse(name=topic.name, partitions=[])
            response.topics.append(answers)
            for each in topic.partitions:
                slot = ListOffsetsPartitionResponse(partition_index=each.partition_index)
                answers.partitions.append(slot)
                time_ms = each.timestamp if each.timestamp >= 0 else _TIMES.get(each.timestamp)
                if isinstance(found, ErrorCode):
                    slot.error_code = found
                elif time_ms is None:
                    slot.error_code = ErrorCode.UNSUPPORTED_VERSION
                else:
                    where = Partition(found.name, each.partition_index)
                    sought.append(Sought(where, time_ms, is_committed, each.current_leader_epoch))
                    slots.append(slot)

        def reply(found: Sequence[Found]) -> None:
            for slot, (fault, offset, timestamp, epoch) in zip(slots, found, strict=True):
                slot.error_code = read_error(fault)
                slot.offset, slot.timestamp, slot.leader_epoch = offset, timestamp, epoch
            call.answer(response)

        self._kafka.partitions.find(sought, reply)

    def epoch_ends(self, call: Call[OffsetForLeaderEpochRequest]) -> None:
        """Say where epochs of leaders ended."""
        response = OffsetForLeaderEpochResponse(topics=[])
        asked: list[tuple[Partition, int, int]] = []
        slots: list[EpochEndOffset] = []
        for topic in call.request.topics:
            found = topic_of(self._kafka, call.principal, Operation.DESCRIBE, topic.topic)
            answers = OffsetForLeaderTopicResult(topic=topic.topic, partitions=[])
            response.topics.append(answers)
            for each in topic.partitions:
                slot = EpochEndOffset(partition=each.partition)
                answers.partitions.append(slot)
                if isinstance(found, ErrorCode):
                    slot.error_code = found
                else:
                    where = Partition(found.name, each.partition)
                    asked.append((where, each.current_leader_epoch, each.leader_epoch))
                    slots.append(slot)

        def reply(ends: Sequence[EpochEnd]) -> None:
            for slot, (fault, epoch, end) in zip(slots, ends, strict=True):
                slot.error_code = read_error(fault)
                slot.leader_epoch, slot.end_offset = epoch, end
            call.answer(response)

        self._kafka.partitions.epoch_ends(asked, reply)
