"""Offsets that groups commit, read and remove: OffsetCommit, OffsetFetch, OffsetDelete."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from robustmq import metrics
from robustmq.broker.ledger_api import Kept
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.group import Group
from robustmq.kafka.group_coordinator import GroupCoordinator
from robustmq.kafka.group_ledger import GroupLedger, Position, plain, stamped
from robustmq.kafka.group_spread import Spread
from robustmq.kafka.messages.group_offsets import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation, Resource

_FIRST_OF_SEVERAL: Final = 8
_FIRST_WITH_ERROR: Final = 2
_FIRST_OF_CONSUMERS: Final = 9
_SPREAD_VERSION: Final = 9


class Offsets:
    """How far groups have read."""

    def __init__(self, kafka: Kafka, coordinator: GroupCoordinator) -> None:
        self._kafka = kafka
        self._coordinator = coordinator

    # ------------------------------------------------------------------ OffsetCommit

    def offset_commit(self, call: Call[OffsetCommitRequest]) -> None:
        """OffsetCommit: what it names and may be committed is, all of it or nothing."""
        request, principal = call.request, call.principal
        if call.fault:
            call.answer(_uncommitted(request, ErrorCode(call.fault)))
        elif self._kafka.may(principal, Operation.READ, Resource.GROUP, request.group_id):
            self._coordinator.find(principal.tenant, request.group_id, partial(self._commit, call))
        else:
            call.answer(_uncommitted(request, ErrorCode.GROUP_AUTHORIZATION_FAILED))

    def _commit(self, call: Call[OffsetCommitRequest], group: Group | ErrorCode) -> None:
        request = call.request
        if isinstance(group, ErrorCode):
            call.answer(_uncommitted(request, group))
            return
        error = group.may_commit(
            request.member_id,
            request.group_instance_id,
            request.generation_id_or_member_epoch,
            knows_epochs=call.version >= _FIRST_OF_CONSUMERS,
        )
        if error:
            call.answer(_uncommitted(request, error))
            return
        accepted: dict[Position, Kept | None] = {}
        topics = []
        for topic in request.topics:
            name = topic.name
            topic_id, denied = self._check_topic(call, name)
            partitions = []
            for each in topic.partitions:
                error = denied or self._check(group.ledger, name, each)
                if not error:
                    note, epoch = each.committed_metadata or "", each.committed_leader_epoch
                    kept = Kept(each.committed_offset, note, call.now_ms, epoch)
                    accepted[name, each.partition_index] = stamped(kept, topic_id)
                partitions.append(
                    OffsetCommitResponsePartition(
                        partition_index=each.partition_index, error_code=error
                    )
                )
            topics.append(OffsetCommitResponseTopic(name=name, partitions=partitions))

        def committed(error: ErrorCode) -> None:
            if error:
                call.answer(_uncommitted(request, error))
            else:
                self._kafka.broker.turn.row[metrics.KAFKA_OFFSET_COMMITS] += len(accepted)
                call.answer(OffsetCommitResponse(topics=topics))

        if accepted:
            group.ledger.commit(accepted, committed)
        else:
            committed(ErrorCode.NONE)

    def _check_topic(self, call: Call[OffsetCommitRequest], name: str) -> tuple[bytes, ErrorCode]:
        """The id of a topic that offsets may be committed in, or what is wrong with it."""
        if not self._kafka.may(call.principal, Operation.READ, Resource.TOPIC, name):
            return b"", ErrorCode.TOPIC_AUTHORIZATION_FAILED
        topic = self._kafka.catalog.find(call.principal.tenant, name)
        if topic is None:
            return b"", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return topic.id, ErrorCode.NONE

    def _check(
        self, ledger: GroupLedger, name: str, partition: OffsetCommitRequestPartition
    ) -> ErrorCode:
        settings = self._kafka.settings.groups
        note = partition.committed_metadata or ""
        if len(note.encode()) > settings.offset_metadata_max_bytes:
            return ErrorCode.OFFSET_METADATA_TOO_LARGE
        is_new = (name, partition.partition_index) not in ledger.offsets
        if is_new and len(ledger.offsets) >= settings.max_offsets:
            return ErrorCode.INVALID_COMMIT_OFFSET_SIZE
        return ErrorCode.NONE

    # ------------------------------------------------------------------ OffsetFetch

    def offset_fetch(self, call: Call[OffsetFetchRequest]) -> None:
        """OffsetFetch: of one group up to version 7, of several since; -1 where there is none."""
        request = call.request
        groups = request.groups
        if call.version < _FIRST_OF_SEVERAL:
            groups = [_as_group(request)]
        asked = {group.group_id: group for group in groups}

        def part(ids: Sequence[str]) -> OffsetFetchRequest:
            return OffsetFetchRequest(
                groups=[asked[each] for each in ids], require_stable=request.require_stable
            )

        spread = Spread[OffsetFetchResponseGroup](
            self._kafka,
            ApiKey.OFFSET_FETCH,
            _SPREAD_VERSION,
            lambda group_id, reply: self._fetch(call, asked[group_id], reply),
            part,
            lambda response: response.groups,
            lambda group_id, error: OffsetFetchResponseGroup(group_id=group_id, error_code=error),
        )

        def gathered(found: list[OffsetFetchResponseGroup]) -> None:
            if call.version < _FIRST_OF_SEVERAL:
                call.answer(_as_one(request, found[0], call.version))
            else:
                call.answer(OffsetFetchResponse(groups=found))

        ids = [group.group_id for group in groups]
        if call.fault:
            error = ErrorCode(call.fault)
            gathered([OffsetFetchResponseGroup(group_id=each, error_code=error) for each in ids])
        else:
            spread.gather(call, ids, gathered)

    def _fetch(
        self,
        call: Call[OffsetFetchRequest],
        asked: OffsetFetchRequestGroup,
        reply: Callable[[OffsetFetchResponseGroup], None],
    ) -> None:
        def refused(error: ErrorCode) -> None:
            reply(OffsetFetchResponseGroup(group_id=asked.group_id, error_code=error))

        def found(group: Group | ErrorCode) -> None:
            if isinstance(group, ErrorCode):
                refused(group)
                return
            error = group.may_fetch(asked.member_id, asked.member_epoch)
            if error:
                refused(error)
                return
            topics = [
                self._topic(call, group.ledger, name, numbers)
                for name, numbers in self._asked(call, asked, group.ledger)
            ]
            reply(OffsetFetchResponseGroup(group_id=asked.group_id, topics=topics))

        principal = call.principal
        if self._kafka.may(principal, Operation.DESCRIBE, Resource.GROUP, asked.group_id):
            self._coordinator.find(principal.tenant, asked.group_id, found)
        else:
            refused(ErrorCode.GROUP_AUTHORIZATION_FAILED)

    def _asked(
        self,
        call: Call[OffsetFetchRequest],
        asked: OffsetFetchRequestGroup,
        ledger: GroupLedger,
    ) -> Iterator[tuple[str, list[int]]]:
        if asked.topics is not None:
            for topic in asked.topics:
                yield topic.name, topic.partition_indexes
            return
        known: dict[str, list[int]] = {}
        unstable = (position for each in ledger.pending.values() for position in each.offsets)
        for name, number in sorted({*ledger.offsets, *unstable}):
            known.setdefault(name, []).append(number)
        for name, numbers in known.items():
            if self._kafka.may(call.principal, Operation.DESCRIBE, Resource.TOPIC, name):
                yield name, numbers

    def _topic(
        self, call: Call[OffsetFetchRequest], ledger: GroupLedger, name: str, numbers: list[int]
    ) -> OffsetFetchResponseTopics:
        error = ErrorCode.NONE
        if not self._kafka.may(call.principal, Operation.DESCRIBE, Resource.TOPIC, name):
            error = ErrorCode.TOPIC_AUTHORIZATION_FAILED
        topic = self._kafka.catalog.find(call.principal.tenant, name)
        partitions = []
        for number in numbers:
            position = (name, number)
            wrong = error
            if not wrong and call.request.require_stable and ledger.is_unstable(position):
                wrong = ErrorCode.UNSTABLE_OFFSET_COMMIT
            partition = OffsetFetchResponsePartitions(
                partition_index=number, committed_offset=-1, error_code=wrong
            )
            kept = None if wrong else ledger.offsets.get(position)
            if kept is not None:
                stamp, note = plain(kept)
                if topic is None or topic.id == stamp:
                    partition.committed_offset, partition.metadata = kept.offset, note
                    partition.committed_leader_epoch = kept.leader_epoch
            partitions.append(partition)
        return OffsetFetchResponseTopics(name=name, partitions=partitions)

    # ------------------------------------------------------------------ OffsetDelete

    def offset_delete(self, call: Call[OffsetDeleteRequest]) -> None:
        """OffsetDelete: of topics that no member of the group subscribes to."""
        request, principal = call.request, call.principal
        if call.fault:
            call.answer(OffsetDeleteResponse(error_code=call.fault))
        elif self._kafka.may(principal, Operation.DELETE, Resource.GROUP, request.group_id):
            self._coordinator.find(principal.tenant, request.group_id, partial(self._delete, call))
        else:
            call.answer(OffsetDeleteResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED))

    def _delete(self, call: Call[OffsetDeleteRequest], group: Group | ErrorCode) -> None:
        if isinstance(group, Group) and not group.exists:
            group = ErrorCode.GROUP_ID_NOT_FOUND
        subscribed = None if isinstance(group, ErrorCode) else group.subscribed
        if isinstance(group, ErrorCode) or subscribed is None:
            error = group if isinstance(group, ErrorCode) else ErrorCode.NON_EMPTY_GROUP
            call.answer(OffsetDeleteResponse(error_code=error))
            return
        gone: dict[Position, Kept | None] = {}
        topics = []
        for topic in call.request.topics:
            error = ErrorCode.NONE
            if not self._kafka.may(call.principal, Operation.READ, Resource.TOPIC, topic.name):
                error = ErrorCode.TOPIC_AUTHORIZATION_FAILED
            elif topic.name in subscribed:
                error = ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
            numbers = [each.partition_index for each in topic.partitions]
            if not error:
                positions = [(topic.name, number) for number in numbers]
                gone.update((each, None) for each in positions if each in group.ledger.offsets)
            partitions = [
                OffsetDeleteResponsePartition(partition_index=number, error_code=error)
                for number in numbers
            ]
            topics.append(OffsetDeleteResponseTopic(name=topic.name, partitions=partitions))

        def done(error: ErrorCode) -> None:
            call.answer(OffsetDeleteResponse(error_code=error, topics=[] if error else topics))

        if gone:
            group.ledger.commit(gone, done)
        else:
            done(ErrorCode.NONE)


def _uncommitted(request: OffsetCommitRequest, error: ErrorCode) -> OffsetCommitResponse:
    topics = [
        OffsetCommitResponseTopic(
            name=topic.name,
            partitions=[
                OffsetCommitResponsePartition(
                    partition_index=each.partition_index, error_code=error
                )
                for each in topic.partitions
            ],
        )
        for topic in request.topics
    ]
    return OffsetCommitResponse(topics=topics)


def _as_group(request: OffsetFetchRequest) -> OffsetFetchRequestGroup:
    """What a version of one group asks for, as later versions ask."""
    topics = None
    if request.topics is not None:
        topics = [
            OffsetFetchRequestTopics(name=each.name, partition_indexes=each.partition_indexes)
            for each in request.topics
        ]
    return OffsetFetchRequestGroup(group_id=request.group_id, topics=topics)


def _as_one(
    request: OffsetFetchRequest, found: OffsetFetchResponseGroup, version: int
) -> OffsetFetchResponse:
    """The answer for a version of one group; the first has errors at partitions only."""
    if found.error_code and version < _FIRST_WITH_ERROR:
        topics = [
            OffsetFetchResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetFetchResponsePartition(
                        partition_index=number, committed_offset=-1, error_code=found.error_code
                    )
                    for number in topic.partition_indexes
                ],
            )
            for topic in request.topics or ()
        ]
        return OffsetFetchResponse(topics=topics)
    topics = [
        OffsetFetchResponseTopic(
            name=topic.name,
            partitions=[
                OffsetFetchResponsePartition(
                    partition_index=each.partition_index,
                    committed_offset=each.committed_offset,
                    committed_leader_epoch=each.committed_leader_epoch,
                    metadata=each.metadata,
                    error_code=each.error_code,
                )
                for each in topic.partitions
            ],
        )
        for topic in found.topics
    ]
    return OffsetFetchResponse(topics=topics, error_code=found.error_code)
