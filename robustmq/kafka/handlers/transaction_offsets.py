"""Offsets of consumer groups that are committed with a transaction (KIP-98, KIP-447).

They are kept with the group, and count when its coordinator hears that the transaction is
committed. A group takes them only while it is part of the transaction, so that none is left over.
"""

from collections.abc import Callable, Mapping
from functools import partial

from robustmq.broker.ledger_api import Kept
from robustmq.kafka import transaction_link
from robustmq.kafka.call import Call
from robustmq.kafka.coordinator_keys import group_key
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.group_coordinator import GroupCoordinator, Reader
from robustmq.kafka.group_ledger import Position
from robustmq.kafka.messages.inner import (
    SettleOffsetsRequest,
    SettleOffsetsResponse,
)
from robustmq.kafka.messages.transactions import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation, Resource
from robustmq.kafka.transaction import Identity

_FINAL = frozenset({ErrorCode.INVALID_TXN_STATE, ErrorCode.INVALID_PRODUCER_ID_MAPPING})


class TransactionOffsets:
    """What the coordinator of groups answers to transactional producers and their coordinators."""

    def __init__(self, kafka: Kafka, groups: GroupCoordinator) -> None:
        self._kafka = kafka
        self._groups = groups

    def commit(self, call: Call[TxnOffsetCommitRequest]) -> None:
        """TxnOffsetCommit 0-4: keep offsets until the transaction ends; all of them, or none."""
        request = call.request
        reply = partial(_answer, call)
        if code := self._refusal(call):
            reply(code, {})
            return
        offsets: dict[Position, Kept] = {}
        faults: dict[Position, ErrorCode] = {}
        for topic in request.topics:
            denied = self._denied(call, topic.name)
            for each in topic.partitions:
                position = topic.name, each.partition_index
                note = each.committed_metadata or ""
                if denied:
                    faults[position] = denied
                elif len(note.encode()) > self._kafka.settings.groups.offset_metadata_max_bytes:
                    faults[position] = ErrorCode.OFFSET_METADATA_TOO_LARGE
                else:
                    offsets[position] = Kept(
                        each.committed_offset, note, call.now_ms, each.committed_leader_epoch
                    )
        if not offsets:
            reply(ErrorCode.NONE, faults)
            return
        transaction_link.check(
            self._kafka,
            call.principal.tenant,
            request.transactional_id,
            Identity(request.producer_id, request.producer_epoch),
            [],
            [request.group_id],
            partial(self._pend, call, offsets, lambda code: reply(code, faults)),
        )

    def _pend(
        self,
        call: Call[TxnOffsetCommitRequest],
        offsets: Mapping[Position, Kept],
        reply: Callable[[ErrorCode], None],
        code: ErrorCode,
        serial: int,
    ) -> None:
        request = call.request
        if code is ErrorCode.NONE:
            reader = Reader(request.member_id, request.group_instance_id, request.generation_id)
            producing = request.producer_id, serial
            tenant = call.principal.tenant
            self._groups.pend(tenant, request.group_id, reader, producing, offsets, reply)
        elif code is ErrorCode.PRODUCER_FENCED:
            reply(ErrorCode.INVALID_PRODUCER_EPOCH)
        else:
            # That the transaction's coordinator is gone must not look as if the group's was.
            reply(code if code in _FINAL else ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)

    def settle(self, call: Call[SettleOffsetsRequest]) -> None:
        """A transaction is over: its offsets in this group count, or are forgotten."""
        request = call.request

        def reply(code: ErrorCode) -> None:
            call.answer(SettleOffsetsResponse(error_code=code))

        if self._kafka.coordinates(group_key(request.tenant, request.group_id)):
            ended = request.producer_id, request.serial
            self._groups.settle(request.tenant, request.group_id, ended, request.committed, reply)
        else:
            reply(ErrorCode.NOT_COORDINATOR)

    def _refusal(self, call: Call[TxnOffsetCommitRequest]) -> ErrorCode:
        request, principal = call.request, call.principal
        may = partial(self._kafka.may, principal)
        if not may(Operation.WRITE, Resource.TRANSACTIONAL_ID, request.transactional_id):
            return ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        if not may(Operation.READ, Resource.GROUP, request.group_id):
            return ErrorCode.GROUP_AUTHORIZATION_FAILED
        if not request.group_id or "\0" in request.group_id:
            return ErrorCode.INVALID_GROUP_ID
        return ErrorCode(call.fault)

    def _denied(self, call: Call[TxnOffsetCommitRequest], name: str) -> ErrorCode:
        if not self._kafka.may(call.principal, Operation.READ, Resource.TOPIC, name):
            return ErrorCode.TOPIC_AUTHORIZATION_FAILED
        if self._kafka.catalog.find(call.principal.tenant, name) is None:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return ErrorCode.NONE


def _answer(
    call: Call[TxnOffsetCommitRequest], code: ErrorCode, faults: Mapping[Position, ErrorCode]
) -> None:
    topics = [
        TxnOffsetCommitResponseTopic(
            name=topic.name,
            partitions=[
                TxnOffsetCommitResponsePartition(
                    partition_index=each.partition_index,
                    error_code=faults.get((topic.name, each.partition_index), code),
                )
                for each in topic.partitions
            ],
        )
        for topic in call.request.topics
    ]
    call.answer(TxnOffsetCommitResponse(topics=topics))
