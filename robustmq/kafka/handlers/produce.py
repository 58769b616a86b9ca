"""Produce: batches to append, answered together when all may be acknowledged."""

from functools import partial
from typing import Final

from robustmq.broker.api import Timer
from robustmq.broker.catalog_api import Topic
from robustmq.broker.partition_api import Appended, Fault, Partition
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode, write_error
from robustmq.kafka.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation, Resource
from robustmq.kafka.topic_access import endpoints_of, leader_of, topic_of
from robustmq.kafka.transactional_append import TransactionalAppends

_ALL: Final = -1
_LEADERS_SINCE: Final = 10
"""The version since which a response says who leads instead."""
_REFUSALS: Final = {
    ErrorCode.TOPIC_AUTHORIZATION_FAILED: "not allowed to write to this topic",
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: "there is no such topic; make it, or have it made by "
    "kafka_runtime.auto_create_topics_enable",
    ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "not allowed to use this transactional id",
    ErrorCode.INVALID_REQUIRED_ACKS: "acks must be 0, 1 or -1",
    ErrorCode.NOT_ENOUGH_REPLICAS: "min.insync.replicas of the topic asks for more replicas than "
    "the one that there is; lower it, or produce with acks=1",
}


class _Produce:
    """A request some of whose batches are not answered; 1 of `owing` is the request itself."""

    __slots__ = ("_call", "_kafka", "_owing", "_timer", "_transactional", "response")

    def __init__(
        self, kafka: Kafka, transactional: TransactionalAppends, call: Call[ProduceRequest]
    ) -> None:
        self._kafka = kafka
        self._transactional = transactional
        self._call = call
        self._owing = 1
        self._timer: Timer | None = None
        self.response = ProduceResponse(responses=[])

    def append(self, topic: Topic, data: PartitionProduceData) -> PartitionProduceResponse:
        """Append the batch of a partition; returns the answer, which is filled in later."""
        # Until it is known what became of it.
        slot = PartitionProduceResponse(
            index=data.index, error_code=ErrorCode.REQUEST_TIMED_OUT, base_offset=-1
        )
        self._owing += 1
        where = Partition(topic.name, data.index)
        batch, reply = data.records or b"", partial(self._appended, where, slot)
        name = self._call.request.transactional_id
        if name is None:
            self._kafka.partitions.append(where, batch, reply)
        else:
            tenant = self._call.principal.tenant
            self._transactional.append(tenant, name, where, batch, reply)
        return slot

    def _appended(
        self, where: Partition, slot: PartitionProduceResponse, outcome: Appended
    ) -> None:
        fill(self._kafka, self._call.version, where, slot, outcome)
        self.settle()

    def settle(self) -> None:
        """One less is owed; answer with the last."""
        self._owing -= 1
        if not self._owing and not self._call.is_answered:
            if self._timer is not None:
                self._timer.cancel()
            self._answer()

    def wait(self, timeout_ms: int) -> None:
        """Wait no longer than this for what is owed."""
        if self._owing:
            self._timer = self._kafka.at(self._call.now_ms + max(timeout_ms, 0), self._answer)

    def _answer(self) -> None:
        call = self._call
        if not call.request.acks:
            call.answer(None)
            self._hang_up()
            return
        with_endpoints(self._kafka, call.version, call.listener, self.response)
        call.answer(self.response)

    def _hang_up(self) -> None:
        """Whoever wants no answers learns of an error by the end of its connection.

        It asks for the metadata then, without which it would go on to produce to the wrong node.
        """
        for topic in self.response.responses:
            for slot in topic.partition_responses:
                if slot.error_code:
                    name = ErrorCode(slot.error_code).name
                    where = f"partition {slot.index} of {topic.name}"
                    self._call.hang_up(f"{where} refused with {name} what wants no answer (acks=0)")
                    return


class Produce:
    """The handler of Produce 3-11.

    With acks=1 and acks=all it is answered when the batches lie below the high watermark.
    """

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._transactional = TransactionalAppends(kafka)

    def produce(self, call: Call[ProduceRequest]) -> None:
        """Append what a client has produced."""
        request = call.request
        whole = self._refused(call)
        pending = _Produce(self._kafka, self._transactional, call)
        for data in request.topic_data:
            topic = whole or topic_of(self._kafka, call.principal, Operation.WRITE, data.name)
            if not isinstance(topic, ErrorCode) and request.acks == _ALL and wants_more(topic):
                topic = ErrorCode.NOT_ENOUGH_REPLICAS
            if isinstance(topic, ErrorCode):
                slots = _refuse(data, topic)
            else:
                slots = [pending.append(topic, each) for each in data.partition_data]
            pending.response.responses.append(
                TopicProduceResponse(name=data.name, partition_responses=slots)
            )
        pending.settle()
        pending.wait(request.timeout_ms)

    def _refused(self, call: Call[ProduceRequest]) -> ErrorCode | None:
        """Why nothing of a request is done."""
        request = call.request
        if not _ALL <= request.acks <= 1:
            return ErrorCode.INVALID_REQUIRED_ACKS
        name = request.transactional_id
        if name is not None and not self._kafka.may(
            call.principal, Operation.WRITE, Resource.TRANSACTIONAL_ID, name
        ):
            return ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        return None


def fill(
    kafka: Kafka,
    version: int,
    where: Partition,
    slot: PartitionProduceResponse,
    outcome: Appended,
) -> None:
    """Write what became of a batch into the answer of its partition."""
    fault, slot.base_offset, slot.log_append_time_ms, slot.log_start_offset, detail = outcome
    slot.error_code = write_error(fault)
    if fault:
        slot.error_message = detail or None
        if fault == Fault.NOT_LEADER and version >= _LEADERS_SINCE:
            slot.current_leader = leader_of(kafka, where)


def with_endpoints(kafka: Kafka, version: int, listener: str, response: ProduceResponse) -> None:
    """Tell with an answer where the leaders are that it names (KIP-951)."""
    if version < _LEADERS_SINCE:
        return
    leaders = [
        slot.current_leader
        for topic in response.responses
        for slot in topic.partition_responses
        if slot.current_leader is not None
    ]
    if leaders:
        response.node_endpoints = endpoints_of(kafka, listener, leaders)


def wants_more(topic: Topic) -> bool:
    """Say whether a topic wants more replicas in sync than there are."""
    return topic.settings.get("min.insync.replicas", "1") not in {"1", "0"}


def _refuse(data: TopicProduceData, error: ErrorCode) -> list[PartitionProduceResponse]:
    return [
        PartitionProduceResponse(
            index=each.index,
            error_code=error,
            base_offset=-1,
            error_message=_REFUSALS.get(error),
        )
        for each in data.partition_data
    ]
