"""Fetch: batches to read, at once or when there are some."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from robustmq.broker.catalog_api import Topic
from robustmq.broker.partition_api import Fault, Following, Partition, Read, Wanted
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode, read_error
from robustmq.kafka.fetch_session import FetchSessions, Line, Opened, Session
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
_LOOK_MS: Final = 1_000
_ELSEWHERE: Final = {Fault.NOT_LEADER, Fault.FENCED_LEADER_EPOCH}


class _Asked(NamedTuple):
    """What a request asks of the partitions: `lines` beside `wanted`; the others are refused."""

    lines: list[Line]
    wanted: list[Wanted]
    refused: list[Line]


class _Bounds(NamedTuple):
    """How much is read, and until when it may wait."""

    min_bytes: int
    max_bytes: int
    until_ms: int


class Fetch:
    """The handler of Fetch 4-17, and the fetch sessions of this core.

    In a session only partitions of which there may be something new are looked at. Whether its
    client may still read a topic is looked at every `_LOOK_MS`.
    """

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
        wait_ms = min(request.max_wait_ms, settings.max_fetch_wait_ms)
        min_bytes = max(min(request.min_bytes, max_bytes), 0)
        bounds = _Bounds(min_bytes, max_bytes, call.now_ms + wait_ms)
        session = opened.session
        if session is None or session.is_busy:
            self._read(call, opened, bounds)
        else:
            self._read_on(call, opened, session, bounds)

    # ------------------------------------------------------------------ without a session

    def _read(self, call: Call[FetchRequest], opened: Opened, bounds: _Bounds) -> None:
        """Read everything that is named, or that a session has which is busy with another read."""
        asked = self._look_up(call, self._rotated(opened.lines, bounds.max_bytes))

        def reply(reads: Sequence[Read]) -> None:
            self._answer(call, opened, asked.refused, zip(asked.lines, reads, strict=True))

        if asked.wanted:
            reading = self._kafka.partitions.read(asked.wanted, *bounds, reply)
            call.abandoned = reading.cancel
        else:
            reply(())

    def _rotated(self, lines: Sequence[Line], max_bytes: int) -> Sequence[Line]:
        """The lines, so that another one is the first each time when all may be too much."""
        if len(lines) < 2 or sum(line.asked.partition_max_bytes for line in lines) <= max_bytes:
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
                line.error = topic
                asked.refused.append(line)
                continue
            asked.lines.append(line)
            asked.wanted.append(_wanted(line, topic, is_committed))
        return asked

    def _topic(self, call: Call[FetchRequest], topic: bytes | str) -> Topic | ErrorCode:
        if isinstance(topic, bytes):
            return topic_with_id(self._kafka, call.principal, Operation.READ, topic)
        return topic_of(self._kafka, call.principal, Operation.READ, topic)

    # ------------------------------------------------------------------ in a session

    def _read_on(
        self, call: Call[FetchRequest], opened: Opened, session: Session, bounds: _Bounds
    ) -> None:
        """Read what may be new in a session."""
        following = self._follow(call, opened, session)
        refused = [line for line in session.places.values() if line.error]

        def reply(reads: Mapping[int, Read]) -> None:
            session.is_busy = False
            found = [
                (session.places[at], read) for at, read in reads.items() if at in session.places
            ]
            self._answer(call, opened, refused, found)

        if len(refused) == len(session.places):
            reply({})
            return
        session.is_busy = True
        reading = following.read(*bounds, reply)

        def abandoned() -> None:
            session.is_busy = False
            reading.cancel()

        call.abandoned = abandoned

    def _follow(self, call: Call[FetchRequest], opened: Opened, session: Session) -> Following:
        """Let a session follow what its request has changed, and what has changed otherwise."""
        is_committed = call.request.isolation_level == _COMMITTED
        changed: Iterable[Line] = opened.changed
        if session.following is None or is_committed != session.is_committed:
            session.is_committed = is_committed
            changed = session.places.values()
        following = session.following = session.following or self._kafka.partitions.follow()
        for line in opened.gone:
            following.want(line.place, None)
        if call.now_ms - session.looked_ms >= _LOOK_MS:
            changed = [*changed, *self._looked_again(call, session)]
        for line in changed:
            if line.place not in session.places:
                continue
            topic = session.topics.get(line.topic)
            if topic is None:
                topic = session.topics[line.topic] = self._topic(call, line.topic)
            line.error = topic if isinstance(topic, ErrorCode) else ErrorCode.NONE
            following.want(
                line.place,
                None if isinstance(topic, ErrorCode) else _wanted(line, topic, is_committed),
            )
        return following

    def _looked_again(self, call: Call[FetchRequest], session: Session) -> list[Line]:
        """Look up the topics of a session anew; returns the lines of which there is other news."""
        session.looked_ms = call.now_ms
        topics = {name: self._topic(call, name) for name in session.topics}
        others = {name for name, topic in topics.items() if topic != session.topics[name]}
        session.topics = topics
        return [line for line in session.places.values() if line.topic in others] if others else []

    # ------------------------------------------------------------------ answers

    def _answer(
        self,
        call: Call[FetchRequest],
        opened: Opened,
        refused: Sequence[Line],
        found: Iterable[tuple[Line, Read]],
    ) -> None:
        is_committed = call.request.isolation_level == _COMMITTED
        topics: dict[bytes | str, FetchableTopicResponse] = {}
        leaders: list[LeaderIdAndEpoch] = []
        for line in refused:
            data = PartitionData(
                partition_index=line.asked.partition, error_code=line.error, high_watermark=-1
            )
            _put(topics, line, data)
        for line, read in found:
            if not (read.batches or opened.is_full or read.fault or _has_moved(line, read)):
                continue
            line.high_watermark, line.start_offset = read.high_watermark, read.start_offset
            data = _data(line, read, is_committed)
            if read.fault in _ELSEWHERE:
                data.current_leader = self._leader(call, line)
                leaders.append(data.current_leader)
            _put(topics, line, data)
        response = FetchResponse(responses=list(topics.values()))
        if opened.session is not None:
            response.session_id = opened.session.number
        if leaders and call.version >= 16:
            response.node_endpoints = endpoints_of(self._kafka, call.listener, leaders)
        call.answer(response)

    def _leader(self, call: Call[FetchRequest], line: Line) -> LeaderIdAndEpoch:
        topic = self._topic(call, line.topic)
        if isinstance(topic, ErrorCode):
            return LeaderIdAndEpoch()
        return leader_of(self._kafka, Partition(topic.name, line.asked.partition))


def _wanted(line: Line, topic: Topic, is_committed: bool) -> Wanted:
    asked = line.asked
    return Wanted(
        Partition(topic.name, asked.partition),
        asked.fetch_offset,
        max(asked.partition_max_bytes, 1),
        is_committed,
        asked.current_leader_epoch,
    )


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
