"""Groups as administrators see them."""

from typing import Annotated

from robustmq.kafka.schema import Int16, Int32, Message, since


class DescribeGroupsRequest(Message):
    """Ask how these groups are."""

    groups: list[str] = []
    include_authorized_operations: Annotated[bool, since(3)] = False


class DescribedGroupMember(Message):
    """A member of a group."""

    member_id: str = ""
    group_instance_id: Annotated[str | None, since(4)] = None
    client_id: str = ""
    client_host: str = ""
    member_metadata: bytes = b""
    member_assignment: bytes = b""


class DescribedGroup(Message):
    """A group, its state and its members."""

    error_code: Int16 = 0
    error_message: Annotated[str | None, since(6)] = None
    group_id: str = ""
    group_state: str = ""
    protocol_type: str = ""
    protocol_data: str = ""
    members: list[DescribedGroupMember] = []
    authorized_operations: Annotated[Int32, since(3)] = -2147483648


class DescribeGroupsResponse(Message):
    """The groups."""

    throttle_time_ms: Annotated[Int32, since(1)] = 0
    groups: list[DescribedGroup] = []


class ListGroupsRequest(Message):
    """Ask for a list of groups; empty filters let all through."""

    states_filter: Annotated[list[str], since(4)] = []
    types_filter: Annotated[list[str], since(5)] = []


class ListedGroup(Message):
    """A group of the list."""

    group_id: str = ""
    protocol_type: str = ""
    group_state: Annotated[str, since(4)] = ""
    group_type: Annotated[str, since(5)] = ""


class ListGroupsResponse(Message):
    """The groups that this broker coordinates."""

    throttle_time_ms: Annotated[Int32, since(1)] = 0
    error_code: Int16 = 0
    groups: list[ListedGroup] = []


class DeleteGroupsRequest(Message):
    """Groups to remove."""

    groups_names: list[str] = []


class DeletableGroupResult(Message):
    """Whether a group was removed."""

    group_id: str = ""
    error_code: Int16 = 0


class DeleteGroupsResponse(Message):
    """What became of the groups."""

    throttle_time_ms: Int32 = 0
    results: list[DeletableGroupResult] = []
