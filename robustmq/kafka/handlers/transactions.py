"""Requests of idempotent producers, and of transactions (KIP-98, KIP-360, KIP-447)."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from robustmq.broker.partition_api import Partition
from robustmq.errors import Refused
from robustmq.kafka.call import Call
from robustmq.kafka.coordinator_keys import transaction_key
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.inner import CheckTransactionRequest, CheckTransactionResponse
from robustmq.kafka.messages.transactions import (
    AddOffsetsToTxnRequest,
    AddOffsetsToTxnResponse,
    AddPartitionsToTxnPartitionResult,
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnTopicResult,
    EndTxnRequest,
    EndTxnResponse,
    InitProducerIdRequest,
    InitProducerIdResponse,
)
from robustmq.kafka.producer_ids import ProducerIds
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation, Resource
from robustmq.kafka.transaction import Identity, Transaction
from robustmq.kafka.transaction_coordinator import TransactionCoordinator

ID_BYTES: Final = 249
"""The longest transactional id: as long as a topic's name may be."""

_FENCED_SINCE: Final[Mapping[type, int]] = {
    InitProducerIdRequest: 4,
    AddPartitionsToTxnRequest: 2,
    AddOffsetsToTxnRequest: 2,
    EndTxnRequest: 2,
}
"""The version from which on a client knows PRODUCER_FENCED; before it hears the older code."""


class Transactions:
    """What a core answers to producers that have ids; as the coordinator, if it is that."""

    def __init__(self, kafka: Kafka, coordinator: TransactionCoordinator, ids: ProducerIds) -> None:
        self._kafka = kafka
        self._coordinator = coordinator
        self._ids = ids

    def initialize(self, call: Call[InitProducerIdRequest]) -> None:
        """InitProducerId 0-5. Whoever may connect may have an id: it lets nobody write anything.

        Without a transactional id every producer is a new one, whatever it was before.
        """
        request = call.request
        if request.transactional_id is None:
            self._ids.take(partial(_new_producer, call))
            return

        def reply(outcome: Identity | ErrorCode) -> None:
            if isinstance(outcome, ErrorCode):
                call.answer(InitProducerIdResponse(error_code=_known_to(call, outcome)))
            else:
                call.answer(
                    InitProducerIdResponse(
                        producer_id=outcome.producer_id, producer_epoch=outcome.epoch
                    )
                )

        code = self._refusal(call, request.transactional_id)
        expected = Identity(request.producer_id, request.producer_epoch)
        longest_ms = self._kafka.settings.transactions.max_timeout_ms
        if code:
            reply(code)
        elif (expected.producer_id < 0) != (expected.epoch < 0):
            reply(ErrorCode.INVALID_REQUEST)
        elif not 0 < request.transaction_timeout_ms <= longest_ms:
            reply(ErrorCode.INVALID_TRANSACTION_TIMEOUT)
        else:
            self._coordinator.initialize(
                transaction_key(call.principal.tenant, request.transactional_id),
                None if expected.producer_id < 0 else expected,
                request.transaction_timeout_ms,
                reply,
            )

    def add_partitions(self, call: Call[AddPartitionsToTxnRequest]) -> None:
        """AddPartitionsToTxn 0-3: all partitions become part of the transaction, or none."""
        request = call.request
        transactional_id = request.v3_and_below_transactional_id
        wanted = [
            (topic.name, number)
            for topic in request.v3_and_below_topics
            for number in topic.partitions
        ]
        reply = partial(_answer_partitions, call)
        if code := self._refusal(call, transactional_id):
            reply(dict.fromkeys(wanted, code))
            return
        found: set[Partition] = set()
        faults: dict[tuple[str, int], ErrorCode] = {}
        for name, number in wanted:
            place = self._find(call, name, number)
            if isinstance(place, ErrorCode):
                faults[name, number] = place
            else:
                found.add(place)
        if faults:
            reply({each: faults.get(each, ErrorCode.OPERATION_NOT_ATTEMPTED) for each in wanted})
            return
        self._coordinator.join(
            transaction_key(call.principal.tenant, transactional_id),
            Identity(request.v3_and_below_producer_id, request.v3_and_below_producer_epoch),
            frozenset(found),
            frozenset(),
            lambda code: reply(dict.fromkeys(wanted, code)),
        )

    def add_offsets(self, call: Call[AddOffsetsToTxnRequest]) -> None:
        """AddOffsetsToTxn 0-4: a consumer group becomes part of the transaction."""
        request = call.request

        def reply(code: ErrorCode) -> None:
            call.answer(AddOffsetsToTxnResponse(error_code=_known_to(call, code)))

        may = partial(self._kafka.may, call.principal, Operation.READ, Resource.GROUP)
        if code := self._refusal(call, request.transactional_id):
            reply(code)
        elif not request.group_id or "\0" in request.group_id:
            reply(ErrorCode.INVALID_GROUP_ID)
        elif not may(request.group_id):
            reply(ErrorCode.GROUP_AUTHORIZATION_FAILED)
        else:
            self._coordinator.join(
                transaction_key(call.principal.tenant, request.transactional_id),
                Identity(request.producer_id, request.producer_epoch),
                frozenset(),
                frozenset({request.group_id}),
                reply,
            )

    def end(self, call: Call[EndTxnRequest]) -> None:
        """EndTxn 0-4: answered when the end is decided; those who take part hear of it then."""
        request = call.request

        def reply(code: ErrorCode) -> None:
            call.answer(EndTxnResponse(error_code=_known_to(call, code)))

        if code := self._refusal(call, request.transactional_id):
            reply(code)
        else:
            self._coordinator.end(
                transaction_key(call.principal.tenant, request.transactional_id),
                Identity(request.producer_id, request.producer_epoch),
                request.committed,
                reply,
            )

    def check(self, call: Call[CheckTransactionRequest]) -> None:
        """Say whether partitions and groups are part of a transaction that is open."""
        request = call.request

        def reply(outcome: Transaction | ErrorCode) -> None:
            if isinstance(outcome, ErrorCode):
                call.answer(CheckTransactionResponse(error_code=outcome))
            else:
                call.answer(CheckTransactionResponse(serial=outcome.serial + 1))

        self._coordinator.check(
            transaction_key(request.tenant, request.transactional_id),
            Identity(request.producer_id, request.producer_epoch),
            frozenset(
                Partition(topic.name, number)
                for topic in request.topics
                for number in topic.partitions
            ),
            frozenset(request.group_ids),
            reply,
        )

    def _refusal(self, call: Call[Any], transactional_id: str) -> ErrorCode:
        """Say why a request with a transactional id is not even looked at; NONE: it is."""
        if not transactional_id or "\0" in transactional_id:
            return ErrorCode.INVALID_REQUEST
        if len(transactional_id.encode()) > ID_BYTES:
            return ErrorCode.INVALID_REQUEST
        if not self._kafka.may(
            call.principal, Operation.WRITE, Resource.TRANSACTIONAL_ID, transactional_id
        ):
            return ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        return ErrorCode(call.fault)

    def _find(self, call: Call[Any], name: str, number: int) -> Partition | ErrorCode:
        if not self._kafka.may(call.principal, Operation.WRITE, Resource.TOPIC, name):
            return ErrorCode.TOPIC_AUTHORIZATION_FAILED
        topic = self._kafka.catalog.find(call.principal.tenant, name)
        if topic is None or not 0 <= number < topic.partitions:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return Partition(topic.name, number)


def _new_producer(call: Call[InitProducerIdRequest], number: int | Refused) -> None:
    if isinstance(number, Refused):
        code = ErrorCode.COORDINATOR_NOT_AVAILABLE
        call.answer(InitProducerIdResponse(error_code=code, producer_epoch=-1))
    else:
        call.answer(InitProducerIdResponse(producer_id=number, producer_epoch=0))


def _answer_partitions(
    call: Call[AddPartitionsToTxnRequest], codes: Mapping[tuple[str, int], ErrorCode]
) -> None:
    call.answer(
        AddPartitionsToTxnResponse(
            results_by_topic_v3_and_below=[
                AddPartitionsToTxnTopicResult(
                    name=topic.name,
                    results_by_partition=[
                        AddPartitionsToTxnPartitionResult(
                            partition_index=number,
                            partition_error_code=_known_to(call, codes[topic.name, number]),
                        )
                        for number in topic.partitions
                    ],
                )
                for topic in call.request.v3_and_below_topics
            ]
        )
    )


def _known_to(call: Call[Any], code: ErrorCode) -> ErrorCode:
    """The code as the client's version of the request knows it."""
    if code is ErrorCode.PRODUCER_FENCED and call.version < _FENCED_SINCE[type(call.request)]:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    return code
