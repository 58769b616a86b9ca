"""Members of classic groups come, stay and go; and who coordinates: FindCoordinator."""

from collections.abc import Callable
from functools import partial

from robustmq.kafka.call import Call
from robustmq.kafka.classic_group import ClassicGroup, refused_join
from robustmq.kafka.coordinator_keys import group_key, transaction_key
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.group import Group
from robustmq.kafka.group_coordinator import GroupCoordinator
from robustmq.kafka.group_members import Asker
from robustmq.kafka.messages.groups import (
    HeartbeatRequest,
    HeartbeatResponse,
    JoinGroupRequest,
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberIdentity,
    MemberResponse,
    SyncGroupRequest,
    SyncGroupResponse,
)
from robustmq.kafka.messages.metadata import (
    Coordinator,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation, Resource

_GROUP = 0
_TRANSACTION = 1
_FIRST_BATCHED = 4
_FIRST_WITH_ID = 4
_FIRST_WITH_SKIP = 9
_FIRST_OF_SEVERAL = 3


class Groups:
    """JoinGroup, SyncGroup, Heartbeat, LeaveGroup."""

    def __init__(self, kafka: Kafka, coordinator: GroupCoordinator) -> None:
        self._kafka = kafka
        self._coordinator = coordinator

    def join_group(self, call: Call[JoinGroupRequest]) -> None:
        """JoinGroup: answered when the next generation begins."""
        request = call.request
        settings = self._kafka.settings.groups
        shortest, longest = settings.min_session_timeout_ms, settings.max_session_timeout_ms
        if not call.fault and not shortest <= request.session_timeout_ms <= longest:
            refused = refused_join(ErrorCode.INVALID_SESSION_TIMEOUT, request.member_id)
            call.answer(refused)
            return
        asker = Asker(
            call.client_id or "",
            f"/{call.principal.address}",
            needs_id=call.version >= _FIRST_WITH_ID,
            can_skip=call.version >= _FIRST_WITH_SKIP,
        )

        def found(group: ClassicGroup | None, error: ErrorCode) -> None:
            if group is None:
                unknown = error or ErrorCode.INCONSISTENT_GROUP_PROTOCOL
                call.answer(refused_join(unknown, request.member_id))
            else:
                group.join(request, asker, call.answer)

        self._find(call, request.group_id, found)

    def sync_group(self, call: Call[SyncGroupRequest]) -> None:
        """SyncGroup: answered when the leader has assigned."""

        def found(group: ClassicGroup | None, error: ErrorCode) -> None:
            if group is None:
                call.answer(SyncGroupResponse(error_code=error or ErrorCode.UNKNOWN_MEMBER_ID))
            else:
                group.sync(call.request, call.answer)

        self._find(call, call.request.group_id, found)

    def heartbeat(self, call: Call[HeartbeatRequest]) -> None:
        """Heartbeat; of a group that never was: UNKNOWN_MEMBER_ID."""
        request = call.request

        def found(group: ClassicGroup | None, error: ErrorCode) -> None:
            if group is not None:
                error = group.heartbeat(
                    request.member_id, request.group_instance_id, request.generation_id
                )
            elif not error:
                error = ErrorCode.UNKNOWN_MEMBER_ID
            call.answer(HeartbeatResponse(error_code=error))

        self._find(call, request.group_id, found)

    def leave_group(self, call: Call[LeaveGroupRequest]) -> None:
        """LeaveGroup: one member up to version 2, several since."""
        request = call.request

        def found(group: ClassicGroup | None, error: ErrorCode) -> None:
            if error:
                call.answer(LeaveGroupResponse(error_code=error))
            elif call.version < _FIRST_OF_SEVERAL:
                call.answer(LeaveGroupResponse(error_code=_leave(group, request.member_id, None)))
            else:
                members = [_left(group, member) for member in request.members]
                call.answer(LeaveGroupResponse(members=members))

        self._find(call, request.group_id, found)

    def _find(
        self,
        call: Call[JoinGroupRequest]
        | Call[SyncGroupRequest]
        | Call[HeartbeatRequest]
        | Call[LeaveGroupRequest],
        group_id: str,
        then: Callable[[ClassicGroup | None, ErrorCode], None],
    ) -> None:
        """Find the classic members; None and NONE: the group has members of the other protocol."""
        if call.fault:
            then(None, ErrorCode(call.fault))
        elif not self._kafka.may(call.principal, Operation.READ, Resource.GROUP, group_id):
            then(None, ErrorCode.GROUP_AUTHORIZATION_FAILED)
        else:
            self._coordinator.find(call.principal.tenant, group_id, partial(_classic, then))


class Coordinators:
    """FindCoordinator."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    def find_coordinator(self, call: Call[FindCoordinatorRequest]) -> None:
        """FindCoordinator: of a group or a transactional id; of several since version 4."""
        request = call.request
        if call.version >= _FIRST_BATCHED:
            found = [self._find(call, key) for key in request.coordinator_keys]
            call.answer(FindCoordinatorResponse(coordinators=found))
            return
        one = self._find(call, request.key)
        call.answer(
            FindCoordinatorResponse(
                error_code=one.error_code,
                error_message=one.error_message,
                node_id=one.node_id,
                host=one.host,
                port=one.port,
            )
        )

    def _find(self, call: Call[FindCoordinatorRequest], name: str) -> Coordinator:
        tenant, kind = call.principal.tenant, call.request.key_type
        cluster = self._kafka.cluster
        resource = Resource.GROUP if kind == _GROUP else Resource.TRANSACTIONAL_ID
        if kind not in {_GROUP, _TRANSACTION}:
            return _unfound(name, ErrorCode.INVALID_REQUEST, "there are keys of type 0 and 1")
        if not self._kafka.may(call.principal, Operation.DESCRIBE, resource, name):
            if kind == _GROUP:
                return _unfound(name, ErrorCode.GROUP_AUTHORIZATION_FAILED)
            return _unfound(name, ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
        key = group_key(tenant, name) if kind == _GROUP else transaction_key(tenant, name)
        place = cluster.coordinator_of(key)
        if place is not None:
            number = cluster.broker_id(*place)
            for broker in cluster.brokers(call.listener):
                if broker.broker_id == number:
                    return Coordinator(key=name, node_id=number, host=broker.host, port=broker.port)
        return _unfound(name, ErrorCode.COORDINATOR_NOT_AVAILABLE, "no node coordinates this now")


def _unfound(name: str, error: ErrorCode, detail: str | None = None) -> Coordinator:
    return Coordinator(
        key=name, node_id=-1, host="", port=-1, error_code=error, error_message=detail
    )


def _classic(
    then: Callable[[ClassicGroup | None, ErrorCode], None], found: Group | ErrorCode
) -> None:
    if isinstance(found, Group):
        then(found.classic(), ErrorCode.NONE)
    else:
        then(None, found)


def _leave(group: ClassicGroup | None, member_id: str, instance_id: str | None) -> ErrorCode:
    if group is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    return group.leave(member_id, instance_id)


def _left(group: ClassicGroup | None, member: MemberIdentity) -> MemberResponse:
    return MemberResponse(
        member_id=member.member_id,
        group_instance_id=member.group_instance_id,
        error_code=_leave(group, member.member_id, member.group_instance_id),
    )
