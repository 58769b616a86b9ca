"""Groups as administrators see them: ListGroups, DescribeGroups, DeleteGroups."""

from collections.abc import Callable, Sequence
from functools import partial

from robustmq.broker.api import Principal
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.call import Call
from robustmq.kafka.classic_group import ClassicGroup
from robustmq.kafka.coordinator_keys import group_key
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.group import Group
from robustmq.kafka.group_coordinator import GroupCoordinator
from robustmq.kafka.group_pages import ClassicPage, GroupPage, State, state_of
from robustmq.kafka.group_spread import Spread
from robustmq.kafka.messages.group_listing import (
    DeletableGroupResult,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
    DescribedGroup,
    DescribedGroupMember,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
    ListedGroup,
    ListGroupsRequest,
    ListGroupsResponse,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation, Resource
from robustmq.kafka.schema import Message

_AT_ONCE = 64
"""Pages that a ListGroups reads at a time."""

_FIRST_THAT_MISSES = 6
"""From this version of DescribeGroups on a group that is not there is an error."""


class GroupListing:
    """What this node's coordinators know of groups, whichever core is asked."""

    def __init__(self, kafka: Kafka, coordinator: GroupCoordinator) -> None:
        self._kafka = kafka
        self._coordinator = coordinator

    # ------------------------------------------------------------------ ListGroups

    def list_groups(self, call: Call[ListGroupsRequest]) -> None:
        """ListGroups: those that this broker coordinates, which is a node or one core of it."""

        def found(keys: Sequence[str] | ErrorCode) -> None:
            if isinstance(keys, ErrorCode):
                call.answer(ListGroupsResponse(error_code=keys))
                return
            mine, others = self._divide(call, keys)
            _Listing(self._kafka, self._coordinator, call, mine, others)

        self._coordinator.ids(call.principal.tenant, found)

    def _divide(
        self, call: Call[ListGroupsRequest], ids: Sequence[str]
    ) -> tuple[list[str], set[tuple[int, int]]]:
        """The groups of this core, and the other cores of this node that have some."""
        here = (self._kafka.cluster.node, self._kafka.core)
        mine, others = [], set()
        for group_id in ids:
            place = self._kafka.coordinator_of(group_key(call.principal.tenant, group_id))
            if place == here:
                mine.append(group_id)
            elif place is not None and place[0] == here[0]:
                others.add(place)
        if call.is_forwarded or self._kafka.settings.advertise == "core":
            others = set()
        return mine, others

    # ------------------------------------------------------------------ DescribeGroups

    def describe_groups(self, call: Call[DescribeGroupsRequest]) -> None:
        """DescribeGroups: of classic groups; ConsumerGroupDescribe tells of the others."""
        request = call.request

        def part(ids: Sequence[str]) -> DescribeGroupsRequest:
            wants = request.include_authorized_operations
            return DescribeGroupsRequest(groups=list(ids), include_authorized_operations=wants)

        spread = Spread[DescribedGroup](
            self._kafka,
            ApiKey.DESCRIBE_GROUPS,
            call.version,
            partial(self._describe, call),
            part,
            lambda response: response.groups,
            _undescribed,
        )
        spread.gather(
            call,
            request.groups,
            lambda groups: call.answer(DescribeGroupsResponse(groups=groups)),
        )

    def _describe(
        self,
        call: Call[DescribeGroupsRequest],
        group_id: str,
        reply: Callable[[DescribedGroup], None],
    ) -> None:
        if not self._kafka.may(call.principal, Operation.DESCRIBE, Resource.GROUP, group_id):
            reply(_undescribed(group_id, ErrorCode.GROUP_AUTHORIZATION_FAILED))
            return

        def found(group: Group | ErrorCode) -> None:
            if isinstance(group, ErrorCode):
                reply(_undescribed(group_id, group))
                return
            if group.exists and isinstance(group.machine, ClassicGroup):
                described = _described(group_id, group.machine)
            else:
                described = _missing(group_id, call.version)
            if call.request.include_authorized_operations:
                described.authorized_operations = group_operations(
                    self._kafka, call.principal, group_id
                )
            reply(described)

        self._coordinator.find(call.principal.tenant, group_id, found)

    # ------------------------------------------------------------------ DeleteGroups

    def delete_groups(self, call: Call[DeleteGroupsRequest]) -> None:
        """DeleteGroups: those without members, with their offsets."""
        spread = Spread[DeletableGroupResult](
            self._kafka,
            ApiKey.DELETE_GROUPS,
            call.version,
            partial(self._delete, call),
            lambda ids: DeleteGroupsRequest(groups_names=list(ids)),
            lambda response: response.results,
            lambda group_id, error: DeletableGroupResult(group_id=group_id, error_code=error),
        )
        spread.gather(
            call,
            call.request.groups_names,
            lambda results: call.answer(DeleteGroupsResponse(results=results)),
        )

    def _delete(
        self,
        call: Call[DeleteGroupsRequest],
        group_id: str,
        reply: Callable[[DeletableGroupResult], None],
    ) -> None:
        def done(error: ErrorCode) -> None:
            reply(DeletableGroupResult(group_id=group_id, error_code=error))

        def found(group: Group | ErrorCode) -> None:
            if isinstance(group, ErrorCode):
                done(group)
            elif not group.exists:
                done(ErrorCode.GROUP_ID_NOT_FOUND)
            elif not group.machine.is_empty:
                done(ErrorCode.NON_EMPTY_GROUP)
            else:
                self._coordinator.remove(group, done)

        if self._kafka.may(call.principal, Operation.DELETE, Resource.GROUP, group_id):
            self._coordinator.find(call.principal.tenant, group_id, found)
        else:
            done(ErrorCode.GROUP_AUTHORIZATION_FAILED)


class _Listing:
    """One ListGroups that is being answered: pages of this core, one by one, and other cores."""

    def __init__(
        self,
        kafka: Kafka,
        coordinator: GroupCoordinator,
        call: Call[ListGroupsRequest],
        mine: list[str],
        others: set[tuple[int, int]],
    ) -> None:
        self._kafka = kafka
        self._coordinator = coordinator
        self._call = call
        self._found: list[ListedGroup] = []
        self._error = ErrorCode.NONE
        self._open = len(mine) + len(others) + 1
        self._mine = mine
        self._looking = 0
        self._is_asking = False
        for place in others:
            api, newest = ApiKey.LIST_GROUPS, 5
            kafka.coordination.ask(place, api, newest, call.principal, call.request, self._answered)
        self._look()
        self._close_one()

    def _look(self) -> None:
        """Look at the next groups, a few at a time."""
        if self._is_asking:
            return
        self._is_asking = True
        tenant = self._call.principal.tenant
        while self._mine and self._looking < _AT_ONCE:
            group_id = self._mine.pop()
            self._looking += 1
            self._coordinator.look(tenant, group_id, partial(self._looked, group_id))
        self._is_asking = False

    def _looked(self, group_id: str, page: GroupPage | None) -> None:
        self._looking -= 1
        if page is not None and self._is_seen(group_id):
            is_classic = isinstance(page, ClassicPage)
            self._found.append(
                ListedGroup(
                    group_id=group_id,
                    protocol_type=page.protocol_type,
                    group_state=state_of(page),
                    group_type="classic" if is_classic else "consumer",
                )
            )
        self._look()
        self._close_one()

    def _is_seen(self, group_id: str) -> bool:
        may = partial(self._kafka.may, self._call.principal, Operation.DESCRIBE)
        return may(Resource.CLUSTER) or may(Resource.GROUP, group_id)

    def _answered(self, response: Message | None) -> None:
        if not isinstance(response, ListGroupsResponse):
            self._error = ErrorCode.COORDINATOR_NOT_AVAILABLE
        else:
            self._error = self._error or ErrorCode(response.error_code)
            self._found.extend(response.groups)
        self._close_one()

    def _close_one(self) -> None:
        self._open -= 1
        if self._open:
            return
        states = {each.lower() for each in self._call.request.states_filter}
        types = {each.lower() for each in self._call.request.types_filter}
        groups = [
            each
            for each in sorted(self._found, key=lambda each: each.group_id)
            if (not states or each.group_state.lower() in states)
            and (not types or each.group_type in types)
        ]
        self._call.answer(ListGroupsResponse(error_code=self._error, groups=groups))


def group_operations(kafka: Kafka, principal: Principal, group_id: str) -> int:
    """What somebody may do to a group, a bit for each operation."""
    asked = (Operation.READ, Operation.DELETE, Operation.DESCRIBE)
    return sum(
        1 << operation
        for operation in asked
        if kafka.may(principal, operation, Resource.GROUP, group_id)
    )


def _undescribed(group_id: str, error: ErrorCode) -> DescribedGroup:
    return DescribedGroup(error_code=error, group_id=group_id)


def _missing(group_id: str, version: int) -> DescribedGroup:
    described = DescribedGroup(group_id=group_id, group_state=State.DEAD)
    if version >= _FIRST_THAT_MISSES:
        described.error_code = ErrorCode.GROUP_ID_NOT_FOUND
        described.error_message = f"There is no classic group {group_id}."
    return described


def _described(group_id: str, group: ClassicGroup) -> DescribedGroup:
    is_stable = group.state == State.STABLE
    members = [
        DescribedGroupMember(
            member_id=member.id,
            group_instance_id=member.instance_id,
            client_id=member.client_id,
            client_host=member.client_host,
            member_metadata=member.metadata(group.protocol) if is_stable else b"",
            member_assignment=member.assignment if is_stable else b"",
        )
        for member in group.members
    ]
    return DescribedGroup(
        group_id=group_id,
        group_state=group.state,
        protocol_type=group.protocol_type,
        protocol_data=(group.protocol or "") if is_stable else "",
        members=members,
    )
