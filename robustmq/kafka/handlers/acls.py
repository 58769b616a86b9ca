"""ACLs: listed, made and removed; those of a tenant are for its own users and names."""

import ipaddress
from collections.abc import Sequence
from typing import Final

from robustmq.broker.rights_api import Grant
from robustmq.errors import Refused
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode, refusal_error
from robustmq.kafka.messages.acls import (
    AclCreation,
    AclCreationResult,
    AclDescription,
    CreateAclsRequest,
    CreateAclsResponse,
    DeleteAclsFilter,
    DeleteAclsFilterResult,
    DeleteAclsMatchingAcl,
    DeleteAclsRequest,
    DeleteAclsResponse,
    DescribeAclsRequest,
    DescribeAclsResource,
    DescribeAclsResponse,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import CLUSTER_NAME, Operation, Resource

_USER: Final = "User:"
_UNKNOWN: Final = 0
_ANY: Final = 1
_MATCH: Final = 2
_LITERAL: Final = 3
_PREFIXED: Final = 4
_DENY: Final = 2
_ALLOW: Final = 3
_EVERY: Final = "*"
_NAME_MAX: Final = 512
_MOST_COMPARED: Final = 1_000_000
"""ACLs times filters that one request may ask to be compared."""
_TOO_MANY: Final = "there are too many ACLs for so many filters at once: send fewer"
_NOT_ALLOWED: Final = "it takes ALTER on the cluster to change ACLs"

Filter = DescribeAclsRequest | DeleteAclsFilter


class Acls:
    """The handlers of DescribeAcls, CreateAcls and DeleteAcls 1-3."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    def describe_acls(self, call: Call[DescribeAclsRequest]) -> None:
        """List the ACLs that a filter matches, by what they are for."""
        response = DescribeAclsResponse(error_message=None, resources=[])
        if not self._kafka.may(call.principal, Operation.DESCRIBE, Resource.CLUSTER):
            response.error_code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        elif wrong := _wrong_filter(call.request):
            response.error_code, response.error_message = ErrorCode.INVALID_REQUEST, wrong
        else:
            found: dict[tuple[int, str, int], DescribeAclsResource] = {}
            for grant in self._kafka.rights.grants(call.principal.tenant):
                if not _matches(call.request, grant):
                    continue
                key = (grant.resource, grant.name, grant.pattern)
                if key not in found:
                    found[key] = DescribeAclsResource(
                        resource_type=grant.resource,
                        resource_name=grant.name,
                        pattern_type=grant.pattern,
                        acls=[],
                    )
                found[key].acls.append(_described(grant))
            response.resources = [*found.values()]
        call.answer(response)

    def create_acls(self, call: Call[CreateAclsRequest]) -> None:
        """Make ACLs: those that can be, together."""
        results: list[AclCreationResult] = []
        response = CreateAclsResponse(results=results)
        may_alter = self._kafka.may(call.principal, Operation.ALTER, Resource.CLUSTER)
        grants: list[Grant] = []
        slots: list[AclCreationResult] = []
        for creation in call.request.creations:
            result = AclCreationResult(error_message=None)
            results.append(result)
            if not may_alter:
                result.error_code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
                result.error_message = _NOT_ALLOWED
            elif wrong := _wrong(creation):
                result.error_code, result.error_message = ErrorCode.INVALID_REQUEST, wrong
            else:
                grants.append(_grant(call.principal.tenant, creation))
                slots.append(result)

        def done(refused: Refused | None) -> None:
            for slot in slots if refused is not None else ():
                slot.error_code, slot.error_message = _error(refused)
            call.answer(response)

        if grants:
            self._kafka.rights.grant(grants, done)
        else:
            call.answer(response)

    def delete_acls(self, call: Call[DeleteAclsRequest]) -> None:
        """Remove all ACLs that filters match, together."""
        results: list[DeleteAclsFilterResult] = []
        response = DeleteAclsResponse(filter_results=results)
        may_alter = self._kafka.may(call.principal, Operation.ALTER, Resource.CLUSTER)
        gone: dict[Grant, None] = {}
        slots: list[DeleteAclsMatchingAcl] = []
        known = [*self._kafka.rights.grants(call.principal.tenant)]
        too_many = len(known) * len(call.request.filters) > _MOST_COMPARED
        for wanted in call.request.filters:
            result = DeleteAclsFilterResult(error_message=None, matching_acls=[])
            results.append(result)
            if not may_alter:
                result.error_code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
                result.error_message = _NOT_ALLOWED
            elif wrong := _TOO_MANY if too_many else _wrong_filter(wanted):
                result.error_code, result.error_message = ErrorCode.INVALID_REQUEST, wrong
            else:
                matching = [each for each in known if _matches(wanted, each)]
                gone.update(dict.fromkeys(matching))
                result.matching_acls = [_removed(each) for each in matching]
                slots += result.matching_acls

        def done(refused: Refused | None) -> None:
            for slot in slots if refused is not None else ():
                slot.error_code, slot.error_message = _error(refused)
            call.answer(response)

        if gone:
            self._kafka.rights.revoke([*gone], done)
        else:
            call.answer(response)


def _error(refused: Refused | None) -> tuple[ErrorCode, str]:
    assert refused is not None
    return refusal_error(refused.code), refused.detail


def _matches(wanted: Filter, grant: Grant) -> bool:
    return (
        wanted.resource_type_filter in {_ANY, grant.resource}
        and _matches_name(wanted, grant)
        and wanted.principal_filter in {None, _USER + grant.user}
        and wanted.host_filter in {None, grant.host}
        and wanted.operation in {_ANY, grant.operation}
        and wanted.permission_type in {_ANY, grant.permission}
    )


def _matches_name(wanted: Filter, grant: Grant) -> bool:
    name, pattern = wanted.resource_name_filter, wanted.pattern_type_filter
    if pattern in {_LITERAL, _PREFIXED} and pattern != grant.pattern:
        return False
    if name is None or name == grant.name:
        return True
    if pattern != _MATCH:
        return False
    return name.startswith(grant.name) if grant.pattern == _PREFIXED else grant.name == _EVERY


def _wrong_filter(wanted: Filter) -> str | None:
    numbers = (
        wanted.resource_type_filter,
        wanted.pattern_type_filter,
        wanted.operation,
        wanted.permission_type,
    )
    if _UNKNOWN in numbers:
        return "a kind of resource, pattern, operation or permission is unknown (0)"
    return None


def _wrong(creation: AclCreation) -> str | None:
    """Say what is wrong with an ACL to make; None: nothing."""
    known = {int(each) for each in Resource}
    checks: Sequence[tuple[bool, str]] = (
        (creation.resource_type in known, "ACLs are for topics, groups, the cluster and txn ids"),
        (creation.resource_pattern_type in {_LITERAL, _PREFIXED}, "a name is LITERAL or PREFIXED"),
        (creation.operation in {int(each) for each in Operation}, "the operation is unknown"),
        (creation.permission_type in {_DENY, _ALLOW}, "the permission is neither DENY nor ALLOW"),
        (0 < len(creation.resource_name) <= _NAME_MAX, f"a name has 1 to {_NAME_MAX} characters"),
        (
            creation.resource_type != Resource.CLUSTER or creation.resource_name == CLUSTER_NAME,
            f"the cluster has the name {CLUSTER_NAME}",
        ),
        (
            creation.principal.startswith(_USER) and len(creation.principal) > len(_USER),
            "a principal is User: and a name, or User:* for all",
        ),
        (_is_host(creation.host), "a host is an IP address, or * for any"),
    )
    return next((sentence for holds, sentence in checks if not holds), None)


def _is_host(host: str) -> bool:
    try:
        return host == _EVERY or bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _grant(tenant: str, creation: AclCreation) -> Grant:
    return Grant(
        tenant=tenant,
        resource=creation.resource_type,
        name=creation.resource_name,
        pattern=creation.resource_pattern_type,
        user=creation.principal.removeprefix(_USER),
        host=creation.host,
        operation=creation.operation,
        permission=creation.permission_type,
    )


def _described(grant: Grant) -> AclDescription:
    return AclDescription(
        principal=_USER + grant.user,
        host=grant.host,
        operation=grant.operation,
        permission_type=grant.permission,
    )


def _removed(grant: Grant) -> DeleteAclsMatchingAcl:
    return DeleteAclsMatchingAcl(
        error_message=None,
        resource_type=grant.resource,
        resource_name=grant.name,
        pattern_type=grant.pattern,
        principal=_USER + grant.user,
        host=grant.host,
        operation=grant.operation,
        permission_type=grant.permission,
    )
