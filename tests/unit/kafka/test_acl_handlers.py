"""ACLs and quotas by Kafka's requests."""

from robustmq.broker.api import Principal
from robustmq.errors import Refusal, Refused
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.acls import (
    AclCreation,
    CreateAclsRequest,
    CreateAclsResponse,
    DeleteAclsFilter,
    DeleteAclsRequest,
    DeleteAclsResponse,
    DescribeAclsRequest,
    DescribeAclsResponse,
)
from robustmq.kafka.messages.quotas import (
    AlterClientQuotasRequest,
    AlterClientQuotasResponse,
    AlterEntryData,
    ComponentData,
    DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
    EntityData,
    OpData,
)
from robustmq.policy.access import Access
from tests.kafka_topics import ALICE, ROOT, Bureau

TOPIC, GROUP, CLUSTER = 2, 3, 4
ANY, MATCH, LITERAL, PREFIXED = 1, 2, 3, 4
READ, WRITE, ALTER = 3, 4, 7
DENY, ALLOW = 2, 3


def acl(name: str, operation: int = READ, **changes: object) -> AclCreation:
    fields: dict[str, object] = {
        "resource_type": TOPIC,
        "resource_name": name,
        "resource_pattern_type": LITERAL,
        "principal": "User:alice",
        "host": "*",
        "operation": operation,
        "permission_type": ALLOW,
    }
    return AclCreation(**{**fields, **changes})  # type: ignore[arg-type]


def created(bureau: Bureau, *acls: AclCreation, who: Principal = ROOT) -> list[int]:
    request = CreateAclsRequest(creations=[*acls])
    response = bureau.ask(ApiKey.CREATE_ACLS, 3, request, CreateAclsResponse, who)
    assert all(bool(each.error_code) == bool(each.error_message) for each in response.results)
    return [each.error_code for each in response.results]


def listed(bureau: Bureau, who: Principal = ROOT, **filters: object) -> list[tuple[str, int]]:
    fields: dict[str, object] = {
        "resource_type_filter": ANY,
        "resource_name_filter": None,
        "pattern_type_filter": ANY,
        "principal_filter": None,
        "host_filter": None,
        "operation": ANY,
        "permission_type": ANY,
    }
    request = DescribeAclsRequest(**{**fields, **filters})  # type: ignore[arg-type]
    response = bureau.ask(ApiKey.DESCRIBE_ACLS, 3, request, DescribeAclsResponse, who)
    assert not response.error_code, response.error_message
    return sorted(
        (each.resource_name, one.operation) for each in response.resources for one in each.acls
    )


def test_acls_are_made_listed_and_removed() -> None:
    bureau = Bureau()
    every = [
        acl("a"),
        acl("a", WRITE),
        acl("b-", resource_pattern_type=PREFIXED),
        acl("*", WRITE, principal="User:bob"),
        acl("g", resource_type=GROUP),
    ]
    assert created(bureau, *every, acl("a")) == [0] * 6
    assert listed(bureau) == [("*", 4), ("a", 3), ("a", 4), ("b-", 3), ("g", 3)]
    assert listed(bureau, resource_name_filter="a", pattern_type_filter=LITERAL) == [
        ("a", 3),
        ("a", 4),
    ]
    assert listed(bureau, resource_name_filter="b-1", pattern_type_filter=MATCH) == [
        ("*", 4),
        ("b-", 3),
    ]
    assert listed(bureau, principal_filter="User:bob") == [("*", 4)]
    assert listed(bureau, resource_type_filter=GROUP) == [("g", 3)]
    assert listed(bureau, permission_type=DENY) == []
    wanted = DeleteAclsFilter(
        resource_type_filter=TOPIC,
        resource_name_filter="a",
        pattern_type_filter=ANY,
        principal_filter=None,
        host_filter=None,
        operation=ANY,
        permission_type=ANY,
    )
    request = DeleteAclsRequest(filters=[wanted])
    response = bureau.ask(ApiKey.DELETE_ACLS, 2, request, DeleteAclsResponse)
    (result,) = response.filter_results
    assert sorted(each.operation for each in result.matching_acls) == [READ, WRITE]
    assert listed(bureau) == [("*", 4), ("b-", 3), ("g", 3)]


def test_an_acl_that_means_nothing_is_refused_and_the_others_are_made() -> None:
    bureau = Bureau()
    codes = created(
        bureau,
        acl("good"),
        acl("a", resource_type=7),
        acl("a", resource_pattern_type=2),
        acl("a", 99),
        acl("a", permission_type=1),
        acl(""),
        acl("a", resource_type=CLUSTER),
        acl("a", principal="alice"),
        acl("a", host="somewhere"),
    )
    assert codes == [0] + [ErrorCode.INVALID_REQUEST] * 8
    request = DescribeAclsRequest()
    response = bureau.ask(ApiKey.DESCRIBE_ACLS, 1, request, DescribeAclsResponse)
    assert response.error_code == ErrorCode.INVALID_REQUEST
    bureau.group.refusal = Refused(Refusal.UNAVAILABLE, "nobody leads")
    assert created(bureau, acl("late")) == [ErrorCode.REQUEST_TIMED_OUT]


def test_acls_of_a_tenant_are_its_own_and_take_the_right_to_alter() -> None:
    bureau = Bureau(access=Access((), "Deny"))
    acme = Principal("c", "boss", tenant="acme", superuser=True)
    assert created(bureau, acl("a"), who=acme) == [0]
    assert listed(bureau) == []
    assert listed(bureau, acme) == [("a", 3)]
    assert created(bureau, acl("a"), who=ALICE) == [ErrorCode.CLUSTER_AUTHORIZATION_FAILED]
    right = acl("kafka-cluster", ALTER, resource_type=CLUSTER)
    assert created(bureau, right) == [0]
    assert created(bureau, acl("a"), who=ALICE) == [0]


def limited(bureau: Bureau, entity: dict[str, str | None], *ops: tuple[str, float | None]) -> int:
    entry = AlterEntryData(
        entity=[EntityData(entity_type=kind, entity_name=name) for kind, name in entity.items()],
        ops=[OpData(key=key, value=rate or 0.0, remove=rate is None) for key, rate in ops],
    )
    request = AlterClientQuotasRequest(entries=[entry])
    response = bureau.ask(ApiKey.ALTER_CLIENT_QUOTAS, 1, request, AlterClientQuotasResponse)
    return response.entries[0].error_code


def limits(bureau: Bureau, *components: ComponentData, strict: bool = False) -> list[object]:
    request = DescribeClientQuotasRequest(components=[*components], strict=strict)
    response = bureau.ask(ApiKey.DESCRIBE_CLIENT_QUOTAS, 1, request, DescribeClientQuotasResponse)
    return [
        (
            {part.entity_type: part.entity_name for part in each.entity},
            {one.key: one.value for one in each.values},
        )
        for each in response.entries or []
    ]


def test_quotas_are_set_listed_and_removed() -> None:
    bureau = Bureau()
    alice: dict[str, str | None] = {"user": "alice"}
    both: dict[str, str | None] = {"user": "alice", "client-id": None}
    assert limited(bureau, alice, ("producer_byte_rate", 5.0), ("consumer_byte_rate", 6.0)) == 0
    assert limited(bureau, both, ("request_percentage", 50.0)) == 0
    assert limited(bureau, alice, ("producer_byte_rate", None)) == 0
    named = ComponentData(entity_type="user", match_type=0, match="alice")
    assert limits(bureau, named, strict=True) == [(alice, {"consumer_byte_rate": 6.0})]
    assert len(limits(bureau, named)) == 2
    default = ComponentData(entity_type="client-id", match_type=1, match=None)
    assert limits(bureau, default) == [(both, {"request_percentage": 50.0})]
    assert limited(bureau, alice, ("consumer_byte_rate", None)) == 0
    assert limits(bureau, named, strict=True) == []


def test_a_quota_that_means_nothing_is_refused() -> None:
    bureau = Bureau()
    alice: dict[str, str | None] = {"user": "alice"}
    assert limited(bureau, alice, ("beer", 1.0)) == ErrorCode.INVALID_REQUEST
    assert limited(bureau, alice, ("producer_byte_rate", -1.0)) == ErrorCode.INVALID_REQUEST
    assert limited(bureau, {"ip": "x"}, ("producer_byte_rate", 1.0)) == ErrorCode.INVALID_REQUEST
    odd = ComponentData(entity_type="ip", match_type=0, match="x")
    request = DescribeClientQuotasRequest(components=[odd])
    response = bureau.ask(ApiKey.DESCRIBE_CLIENT_QUOTAS, 0, request, DescribeClientQuotasResponse)
    assert response.error_code == ErrorCode.INVALID_REQUEST
    tenant = Principal("c", "boss", tenant="acme")
    request = DescribeClientQuotasRequest()
    response = bureau.ask(
        ApiKey.DESCRIBE_CLIENT_QUOTAS, 0, request, DescribeClientQuotasResponse, tenant
    )
    assert response.error_code == ErrorCode.CLUSTER_AUTHORIZATION_FAILED
