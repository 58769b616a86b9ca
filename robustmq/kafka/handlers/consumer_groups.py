"""Members of groups whose server assigns (KIP-848), and how such groups are."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.assignors import Place
from robustmq.kafka.call import Call
from robustmq.kafka.consumer_group import ConsumerGroup, by_topic, refused
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.group import Group
from robustmq.kafka.group_coordinator import GroupCoordinator
from robustmq.kafka.group_pages import Consumer
from robustmq.kafka.group_spread import Spread
from robustmq.kafka.handlers.group_listing import group_operations
from robustmq.kafka.messages.consumer_groups import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
    ConsumerGroupHeartbeatRequest,
    DescribedAssignment,
    DescribedGroup,
    DescribedTopicPartitions,
    Member,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation, Resource

_CONSUMER: Final = 1
_LONGEST_ID: Final = 256


class ConsumerGroups:
    """ConsumerGroupHeartbeat and ConsumerGroupDescribe."""

    def __init__(self, kafka: Kafka, coordinator: GroupCoordinator) -> None:
        self._kafka = kafka
        self._coordinator = coordinator

    def heartbeat(self, call: Call[ConsumerGroupHeartbeatRequest]) -> None:
        """ConsumerGroupHeartbeat; only whoever joins makes a group."""
        request = call.request
        if call.fault:
            call.answer(refused(ErrorCode(call.fault), ""))
            return
        if not self._kafka.may(call.principal, Operation.READ, Resource.GROUP, request.group_id):
            call.answer(
                refused(ErrorCode.GROUP_AUTHORIZATION_FAILED, "READ on the group is needed")
            )
            return
        wrong = _wrong(request, call.version)
        if wrong:
            call.answer(refused(ErrorCode.INVALID_REQUEST, wrong))
            return
        if not request.member_id:
            request.member_id = self._coordinator.new_id(call.client_id or "")

        def found(group: Group | ErrorCode) -> None:
            if isinstance(group, ErrorCode):
                call.answer(refused(group, ""))
                return
            is_new = not group.exists and request.member_epoch != 0
            members = None if is_new else group.consumer()
            if members is None:
                detail = "there is no such group of this protocol, or it has members of the other"
                call.answer(refused(ErrorCode.GROUP_ID_NOT_FOUND, detail))
                return
            host = f"/{call.principal.address}"
            members.heartbeat(request, call.client_id or "", host, call.answer)

        self._coordinator.find(call.principal.tenant, request.group_id, found)

    def describe(self, call: Call[ConsumerGroupDescribeRequest]) -> None:
        """ConsumerGroupDescribe."""
        request = call.request

        def part(ids: Sequence[str]) -> ConsumerGroupDescribeRequest:
            return ConsumerGroupDescribeRequest(
                group_ids=list(ids),
                include_authorized_operations=request.include_authorized_operations,
            )

        spread = Spread[DescribedGroup](
            self._kafka,
            ApiKey.CONSUMER_GROUP_DESCRIBE,
            1,
            partial(self._describe, call),
            part,
            lambda response: response.groups,
            _undescribed,
        )
        spread.gather(
            call,
            request.group_ids,
            lambda groups: call.answer(ConsumerGroupDescribeResponse(groups=groups)),
        )

    def _describe(
        self,
        call: Call[ConsumerGroupDescribeRequest],
        group_id: str,
        reply: Callable[[DescribedGroup], None],
    ) -> None:
        if not self._kafka.may(call.principal, Operation.DESCRIBE, Resource.GROUP, group_id):
            reply(_undescribed(group_id, ErrorCode.GROUP_AUTHORIZATION_FAILED))
            return

        def found(group: Group | ErrorCode) -> None:
            if isinstance(group, ErrorCode):
                reply(_undescribed(group_id, group))
            elif not group.exists or not isinstance(group.machine, ConsumerGroup):
                reply(_undescribed(group_id, ErrorCode.GROUP_ID_NOT_FOUND))
            else:
                described = _described(group_id, group.machine)
                if call.request.include_authorized_operations:
                    described.authorized_operations = group_operations(
                        self._kafka, call.principal, group_id
                    )
                reply(described)

        self._coordinator.find(call.principal.tenant, group_id, found)


def _wrong(request: ConsumerGroupHeartbeatRequest, version: int) -> str:
    """Say what is wrong with a heartbeat by itself; "": nothing."""
    epoch = request.member_epoch
    if request.instance_id == "" or request.rack_id == "":
        return "an instance id or a rack id is not empty: leave it out"
    if not request.member_id and (version > 0 or epoch != 0):
        return "a member gives itself an id: send one"
    ids = (request.member_id, request.instance_id or "", request.rack_id or "")
    if max(map(len, ids)) > _LONGEST_ID:
        return f"ids have at most {_LONGEST_ID} characters"
    if epoch < 0:
        if epoch == -1 or (epoch == -2 and request.instance_id is not None):
            return ""
        return "a member's epoch is 0, positive, -1, or of a static member -2"
    if epoch > 0:
        return ""
    if request.rebalance_timeout_ms < 0:
        return "whoever joins says its rebalance timeout"
    if request.subscribed_topic_names is None and not request.subscribed_topic_regex:
        return "whoever joins says what it subscribes to"
    if request.topic_partitions:
        return "whoever joins reads nothing yet: its partitions are empty"
    return ""


def _undescribed(group_id: str, error: ErrorCode) -> DescribedGroup:
    detail = None
    if error == ErrorCode.GROUP_ID_NOT_FOUND:
        detail = f"There is no consumer group {group_id}, or its members assign by themselves."
    return DescribedGroup(error_code=error, error_message=detail, group_id=group_id)


def _described(group_id: str, group: ConsumerGroup) -> DescribedGroup:
    def places(some: Iterable[Place]) -> DescribedAssignment:
        topics = [
            DescribedTopicPartitions(
                topic_id=each.topic_id,
                topic_name=group.subscriptions.name(each.topic_id) or "",
                partitions=each.partitions,
            )
            for each in by_topic(some)
        ]
        return DescribedAssignment(topic_partitions=topics)

    def described(member: Consumer) -> Member:
        return Member(
            member_id=member.id,
            instance_id=member.instance_id,
            rack_id=member.rack,
            member_epoch=member.epoch,
            client_id=member.client_id,
            client_host=member.client_host,
            subscribed_topic_names=sorted(member.topics),
            subscribed_topic_regex=member.regex or None,
            assignment=places(member.places),
            target_assignment=places(member.target),
            member_type=_CONSUMER,
        )

    return DescribedGroup(
        group_id=group_id,
        group_state=group.state,
        group_epoch=group.epoch,
        assignment_epoch=group.target_epoch,
        assignor_name=group.assignor,
        members=[described(member) for member in group.members.values()],
    )
