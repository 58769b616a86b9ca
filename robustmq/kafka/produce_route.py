"""Produce as most clients send it: requests that differ in nothing but their one batch.

What comes before the batch (the header but for its number, acks, the timeout, the topic, the
partition) is decided once and remembered by its bytes; the batch goes to its partition as it lies
in the request, and the answer is written around its offset. Everything else, and whatever is
refused, takes the way of all requests (`handlers/produce`).
"""

import struct
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from robustmq.broker.api import Timer
from robustmq.broker.partition_api import Append, Appended, Fault, Partition
from robustmq.kafka import codec
from robustmq.kafka.api_keys import SPOKEN, ApiKey
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.handlers.produce import fill, wants_more, with_endpoints
from robustmq.kafka.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation
from robustmq.kafka.topic_access import topic_of

if TYPE_CHECKING:
    from robustmq.kafka.connection import Connection

_ROUTES: Final = 4_096
"""Routes of one connection; when there are more, all of them are forgotten."""
_LENGTHS: Final = 8
"""Different lengths of what comes before the batch, likewise."""
_NUMBER_AT: Final = 4
_NAME_AT: Final = 8
"""Where the request's number begins, and what comes behind it."""
_TAGS: Final = b"\0\0\0"
"""What follows the batch in flexible versions: nothing, for the partition, topic and request."""
_SIZE_BYTES: Final = 4
_VARINT_BYTES: Final = 5
_STARTS_SINCE: Final = 5
"""The version since which a response says where the partition starts."""
_MARK: Final = struct.Struct(">qqq").pack(0x5EA5_0FFE_75E7, 0x5EA5_0FFE_75E8, 0x5EA5_0FFE_75E9)
_PLACE: Final = struct.Struct(">qq")
_PLACE_AND_START: Final = struct.Struct(">qqq")


class _Route(NamedTuple):
    """A way to a partition; `head` and `tail` are the response around its numbers."""

    partition: Partition
    append: Append
    name: str
    version: int
    is_flexible: bool
    timeout_ms: int
    head: bytes
    tail: bytes


class BatchSlot:
    """The place of such a request in the order of answers (`connection.Slot`)."""

    __slots__ = ("_routes", "due_ms", "is_done", "number", "pieces", "route", "size")

    api: Final = ApiKey.PRODUCE
    call: Final = None
    is_parked: Final = False

    def __init__(
        self, routes: "ProduceRoutes", route: _Route, number: bytes, size: int, due_ms: int
    ) -> None:
        self._routes = routes
        self.route = route
        self.number = number
        self.size = size
        self.due_ms = due_ms
        self.is_done = False
        self.pieces: list[bytes] | None = None

    def appended(self, outcome: Appended) -> None:
        """Take what became of the batch."""
        if self.is_done:
            return
        fault, base, timestamp_ms, start, _ = outcome
        route = self.route
        if fault:
            self.pieces = self._routes.refusal(route, self.number, outcome)
        else:
            if route.version >= _STARTS_SINCE:
                place = _PLACE_AND_START.pack(base, timestamp_ms, start)
            else:
                place = _PLACE.pack(base, timestamp_ms)
            self.pieces = [b"".join((self.number, route.head, place, route.tail))]
        self.is_done = True
        self._routes.connection.settled(self, 0)


class ProduceRoutes:
    """The routes of one connection, and which of its batches are not answered.

    They hold while topics, leaders, rights and quotas are what they were.
    """

    __slots__ = ("_due_ms", "_kafka", "_lengths", "_pending", "_routes", "_stamp", "_timer",
                 "connection")  # fmt: skip

    def __init__(self, connection: "Connection", kafka: Kafka) -> None:
        self.connection = connection
        self._kafka = kafka
        self._stamp = connection.front.stamp
        self._routes: dict[bytes, _Route] = {}
        self._lengths: list[int] = []
        self._pending: deque[BatchSlot] = deque()
        self._timer: Timer | None = None
        self._due_ms = 0

    @staticmethod
    def suits(request: ProduceRequest) -> bool:
        """Say whether those like it may take this way."""
        topics = request.topic_data
        is_single = len(topics) == 1 and len(topics[0].partition_data) == 1
        return is_single and request.transactional_id is None and request.acks in {1, -1}

    def learn(self, header: codec.RequestHeader, frame: bytes, request: ProduceRequest) -> None:
        """Remember a request that `suits` and was let through."""
        (data,) = request.topic_data
        (batch,) = data.partition_data
        principal, version = self.connection.principal, header.version
        assert principal is not None, "nobody else's request is let through"
        topic = topic_of(self._kafka, principal, Operation.WRITE, data.name)
        if isinstance(topic, ErrorCode) or wants_more(topic) or batch.records is None:
            return
        is_flexible = SPOKEN[ApiKey.PRODUCE].is_flexible(version)
        length = _prefix(len(frame), len(batch.records), is_flexible=is_flexible)
        if frame[:length] != _plain(header, request):
            # Something is in it, or behind it, that the messages do not show.
            return
        self._look()
        is_new = length not in self._lengths
        if len(self._routes) >= _ROUTES or (is_new and len(self._lengths) >= _LENGTHS):
            self.forget()
        where = Partition(topic.name, batch.index)
        head, tail = _response(version, data.name, batch.index)
        route = _Route(
            where, self._kafka.partitions.appender(where), data.name, version, is_flexible,
            max(request.timeout_ms, 0), head, tail,
        )  # fmt: skip
        self._routes[_key(frame, length)] = route
        if length not in self._lengths:
            self._lengths.append(length)

    def take(self, frame: bytes) -> bool:
        """Take a request if its way is known."""
        self._look()
        for length in self._lengths:
            route = self._routes.get(_key(frame, length))
            if route is not None:
                break
        else:
            return False
        end = len(frame)
        if route.is_flexible:
            end -= len(_TAGS)
            begin = _behind_varint(frame, length, end)
            if not begin or frame[end:] != _TAGS:
                return False
        else:
            begin = length + _SIZE_BYTES
            if int.from_bytes(frame[length:begin], "big") != end - begin:
                return False
        due_ms = self._kafka.now_ms + route.timeout_ms
        slot = BatchSlot(self, route, frame[_NUMBER_AT:_NAME_AT], len(frame), due_ms)
        self.connection.place(slot)
        pending = self._pending
        while pending and pending[0].is_done:
            pending.popleft()
        pending.append(slot)
        if self._timer is None or due_ms < self._due_ms:
            self._wait(due_ms)
        route.append(memoryview(frame)[begin:end], slot.appended)
        return True

    def close(self) -> None:
        """Nobody is there any more."""
        self._pending.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def refusal(self, route: _Route, number: bytes, outcome: Appended) -> list[bytes]:
        """The response that says why a batch was not appended."""
        kafka, version = self._kafka, route.version
        slot = PartitionProduceResponse(index=route.partition.number)
        fill(kafka, version, route.partition, slot, outcome)
        topic = TopicProduceResponse(name=route.name, partition_responses=[slot])
        response = ProduceResponse(responses=[topic])
        with_endpoints(kafka, version, self.connection.peer.listener, response)
        correlation_id = int.from_bytes(number, "big", signed=True)
        return codec.encode_response(ApiKey.PRODUCE, version, correlation_id, response)

    def _look(self) -> None:
        """Forget the routes when something else may hold by now."""
        stamp = self.connection.front.stamp
        if stamp != self._stamp:
            self._stamp = stamp
            self.forget()

    def forget(self) -> None:
        """Decide all anew; what is under way stays so."""
        self._routes.clear()
        self._lengths.clear()

    def _wait(self, due_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due_ms = due_ms
        self._timer = self._kafka.at(due_ms, self._expire)

    def _expire(self) -> None:
        """Answer what has taken too long; whether it is kept is not known."""
        self._timer = None
        now_ms = self._kafka.now_ms
        for slot in list(self._pending):
            if slot.due_ms <= now_ms:
                slot.appended(Appended(Fault.UNAVAILABLE))
        self._pending = deque(slot for slot in self._pending if not slot.is_done)
        if self._pending:
            # The answers may have let others begin, which wait until later than these.
            self._wait(min(slot.due_ms for slot in self._pending))


def _key(frame: bytes, length: int) -> bytes:
    """All that comes before the batch's size but for the request's number."""
    return frame[:_NUMBER_AT] + frame[_NAME_AT:length]


def _plain(header: codec.RequestHeader, request: ProduceRequest) -> bytes:
    """What comes before the batch's size in such a request as clients write it."""
    (data,) = request.topic_data
    (batch,) = data.partition_data
    alone = PartitionProduceData(index=batch.index, records=b"")
    topic = TopicProduceData(name=data.name, partition_data=[alone])
    empty = ProduceRequest(acks=request.acks, timeout_ms=request.timeout_ms, topic_data=[topic])
    number, client_id = header.correlation_id, header.client_id
    pieces = codec.encode_request(ApiKey.PRODUCE, header.version, number, client_id, empty)
    # A size of four bytes, or one of one byte and the tags.
    return b"".join(pieces)[:-_SIZE_BYTES]


def _prefix(size: int, batch: int, *, is_flexible: bool) -> int:
    """Where in a request of one batch the batch's size is written."""
    if not is_flexible:
        return size - batch - _SIZE_BYTES
    # One more is written than there is: 0 stands for null.
    varint = max(-(-(batch + 1).bit_length() // 7), 1)
    return size - len(_TAGS) - batch - varint


def _behind_varint(frame: bytes, at: int, end: int) -> int:
    """Where the batch begins whose size is written at `at`, if it ends at `end`; else 0."""
    value = shift = 0
    for place in range(at, min(at + _VARINT_BYTES, end)):
        byte = frame[place]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            begin = place + 1
            return begin if value - 1 == end - begin else 0
    return 0


def _response(version: int, name: str, index: int) -> tuple[bytes, bytes]:
    """What stands in a response before and behind the numbers of its one batch."""
    marks = _PLACE_AND_START.unpack(_MARK)
    slot = PartitionProduceResponse(
        index=index, base_offset=marks[0], log_append_time_ms=marks[1], log_start_offset=marks[2]
    )
    topic = TopicProduceResponse(name=name, partition_responses=[slot])
    response = ProduceResponse(responses=[topic])
    whole = b"".join(codec.encode_response(ApiKey.PRODUCE, version, 0, response))
    mark = _MARK if version >= _STARTS_SINCE else _MARK[: _PLACE.size]
    # The last one: a topic may be called like it.
    at = whole.rindex(mark)
    return whole[_NUMBER_AT:at], whole[at + len(mark) :]
