"""Fetch: batches to read, at once or when there are some."""

from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

from robustmq.broker.catalog_api import Topic
from robustmq.broker.partition_api import Fault, Partition, Read, Wanted
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode, read_error
from robustmq.kafka.fetch_session import FetchSessions, Line, Opened
from robustmq.kafka.messages.fetch import (
    AbortedTransaction,
    FetchableTopicResponse,
    FetchRequest,
    FetchResponse,
    PartitionData,
)
from robustmq.kafka.messages.leaders import LeaderIdAndEpoch
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation
from robustmq.kafka.topic_access import endpoints_of, leader_of, topic_of, topic_with_id

_COMMITTED: Final = 1
_MANY: Final = 0x7FFFFFFF
_ELSEWHERE: Final = {Fault.NOT_LEADER, Fault.FENCED_LEADER_EPOCH}


class _Asked(NamedTuple):
    """What a request asks of the partitions: `lines` beside `wanted`; the others are refused."""

    lines: list[Line]
    wanted: list[Wanted]
    refused: list[tuple[Line, ErrorCode]]


class Fetch:
    """The handler of Fetch 4-17, and the fetch sessions of this core."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        settings = kafka.settings
        self._sessions = FetchSessions(
            settings.max_fetch_sessions,
            settings.max_fetch_session_partitions,
            settings.fetch_session_idle_ms,
            seed=kafka.now_ms + kafka.core,
        )
        self._turn = 0

    def fetch(self, call: Call[FetchRequest]) -> None:
        """Read what a client wants to read."""
        request, settings = call.request, self._kafka.settings
        opened = self._sessions.open(request, call.version, call.principal.identity, call.now_ms)
        if opened.error:
            call.answer(FetchResponse(error_code=opened.error))
            return
        max_bytes = min(max(request.max_bytes, 1), settings.max_fetch_bytes or _MANY)
        asked = self._look_up(call, self._rotated(opened, max_bytes))
        reply = partial(self._answer, call, opened, asked)
        if not asked.wanted:
            reply(())
            return
        wait_ms = min(request.max_wait_ms, settings.max_fetch_wait_ms)
        reading = self._kafka.partitions.read(
            asked.wanted,
            max(min(request.min_bytes, max_bytes), 0),
            max_bytes,
            call.now_ms + wait_ms,
            reply,
        )
        call.abandoned = reading.cancel

    def _rotated(self, opened: Opened, max_bytes: int) -> Sequence[Line]:
        """The lines, so that another one is the first each time when all may be too much.

        In a session who has had something is the last of its next request anyway.
        """
        lines = opened.lines
        if opened.session is not None or len(lines) < 2:
            return lines
        if sum(line.asked.partition_max_bytes for line in lines) <= max_bytes:
            return lines
        self._turn += 1
        first = self._turn % len(lines)
        return [*lines[first:], *lines[:first]]

    def _look_up(self, call: Call[FetchRequest], lines: Sequence[Line]) -> _Asked:
        is_committed = call.request.isolation_level == _COMMITTED
        asked = _Asked([], [], [])
        known: dict[bytes | str, Topic | ErrorCode] = {}
        for line in lines:
            topic = known.get(line.topic)
            if topic is None:
                topic = known[line.topic] = self._topic(call, line.topic)
            if isinstance(topic, ErrorCode):
                asked.refused.append((line, topic))
                continue
            each = line.asked
            asked.lines.append(line)
            asked.wanted.append(
                Wanted(
                    Partition(topic.name, each.partition),
                    each.fetch_offset,
                    max(each.partition_max_bytes, 1),
                    is_committed,
                    each.current_leader_epoch,
                )
            )
        return asked

    def _topic(self, call: Call[FetchRequest], topic: bytes | str) -> Topic | ErrorCode:
        if isinstance(topic, bytes):
            return topic_with_id(self._kafka, call.principal, Operation.READ, topic)
        return topic_of(self._kafka, call.principal, Operation.READ, topic)

    def _answer(
        self, call: Call[FetchRequest], opened: Opened, asked: _Asked, reads: Sequence[Read]
    ) -> None:
        is_committed = call.request.isolation_level == _COMMITTED
        topics: dict[bytes | str, FetchableTopicResponse] = {}
        served: list[Line] = []
        leaders: list[LeaderIdAndEpoch] = []
        for line, error in asked.refused:
            # librdkafka takes records that are null for a broken answer.
            data = PartitionData(
                partition_index=line.asked.partition,
                error_code=error,
                high_watermark=-1,
                records=b"",
            )
            _put(topics, line, data)
        for line, wanted, read in zip(asked.lines, asked.wanted, reads, strict=True):
            if read.batches:
                served.append(line)
            elif not (opened.is_full or read.fault or _has_moved(line, read)):
                continue
            line.high_watermark, line.start_offset = read.high_watermark, read.start_offset
            data = _data(line, read, is_committed)
            if read.fault in _ELSEWHERE:
                data.current_leader = leader_of(self._kafka, wanted.partition)
                leaders.append(data.current_leader)
            _put(topics, line, data)
        response = FetchResponse(responses=list(topics.values()))
        session = opened.session
        if session is not None:
            response.session_id = session.number
            session.served(served)
        if leaders and call.version >= 16:
            response.node_endpoints = endpoints_of(self._kafka, call.listener, leaders)
        call.answer(response)


def _has_moved(line: Line, read: Read) -> bool:
    """Say whether a reader in a session does not know how far a partition reaches."""
    return line.high_watermark != read.high_watermark or line.start_offset != read.start_offset


def _data(line: Line, read: Read, is_committed: bool) -> PartitionData:
    return PartitionData(
        partition_index=line.asked.partition,
        error_code=read_error(read.fault),
        high_watermark=read.high_watermark,
        last_stable_offset=read.stable_offset,
        log_start_offset=read.start_offset,
        aborted_transactions=[
            AbortedTransaction(producer_id=producer_id, first_offset=first)
            for producer_id, first in read.aborted
        ]
        if is_committed
        else None,
        records=read.batches or b"",
    )


def _put(
    topics: dict[bytes | str, FetchableTopicResponse], line: Line, data: PartitionData
) -> None:
    topic = topics.get(line.topic)
    if topic is None:
        topic = topics[line.topic] = FetchableTopicResponse(partitions=[])
        if isinstance(line.topic, bytes):
            topic.topic_id = line.topic
        else:
            topic.topic = line.topic
    topic.partitions.append(data)
