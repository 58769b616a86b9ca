"""Grants: of what has some, only what they allow; and how they stand to the rules of the file."""

import msgspec
import pytest

from robustmq.meta.records import Grant
from robustmq.policy import grants as g
from robustmq.policy.access import Access
from robustmq.policy.authority import Authority
from robustmq.policy.grants import Verdict, record_name
from robustmq.policy.principal import Principal
from robustmq.settings.access import AccessRule

ALICE = Principal("c1", "alice", "10.0.0.1")
BOB = Principal("c2", "bob", "10.0.0.2")
NOBODY = Principal("c3", None, "10.0.0.3")


def grant(name: str, operation: int = g.READ, user: str = "alice", **changes: object) -> Grant:
    fields: dict[str, object] = {
        "tenant": "default",
        "resource": g.TOPIC,
        "name": name,
        "pattern": g.LITERAL,
        "user": user,
        "host": "*",
        "operation": operation,
        "permission": g.ALLOW,
    }
    return msgspec.convert({**fields, **changes}, Grant)


def access(*grants: Grant, rules: tuple[AccessRule, ...] = (), default: str = "Allow") -> Access:
    made = Access(rules, default)  # type: ignore[arg-type]
    for each in grants:
        made.grants.apply(record_name(each), msgspec.to_builtins(each))
    return made


def reads(made: Access, who: Principal, topic: str) -> bool:
    return made.subscribe(who, topic.encode()) is None


def writes(made: Access, who: Principal, topic: str) -> bool:
    return made.publish(who, topic.encode(), False) is None


def test_what_has_grants_is_for_those_whom_they_allow() -> None:
    made = access(grant("a"), grant("b-", g.WRITE, pattern=g.PREFIXED), grant("c", g.ALL, "*"))
    assert made.denies
    assert reads(made, ALICE, "a")
    assert not writes(made, ALICE, "a")
    assert not reads(made, BOB, "a")
    assert writes(made, ALICE, "b-1")
    assert not writes(made, BOB, "b-1")
    assert reads(made, NOBODY, "c")
    assert reads(made, BOB, "other"), "of what nobody has said anything the default decides"
    assert not reads(access(grant("a"), default="Deny"), BOB, "other")


def test_what_denies_is_stronger_wherever_it_stands() -> None:
    made = access(
        grant("*", g.ALL, "*"),
        grant("secret", user="bob", permission=g.DENY),
        grant("here", host="10.0.0.1"),
    )
    assert reads(made, ALICE, "secret")
    assert not reads(made, BOB, "secret")
    assert writes(made, BOB, "secret"), "only reading is denied"
    assert access(grant("here", host="10.9.9.9")).subscribe(ALICE, b"here") is not None


def test_names_of_clients_without_one_and_of_other_tenants() -> None:
    made = access(grant("a", user="ANONYMOUS"))
    assert reads(made, NOBODY, "a")
    assert not reads(made, ALICE, "a")
    stranger = Principal("c", "alice", tenant="acme")
    assert reads(made, stranger, "a"), "the topic a of acme is another one"


@pytest.mark.parametrize(
    ("topic_filter", "may"),
    [("#", False), ("secret/#", False), ("sec/+", True), ("+/b", False), ("open/#", True)],
)
def test_a_filter_with_a_wildcard_is_denied_what_it_may_meet(topic_filter: str, may: bool) -> None:
    made = access(grant("secret/", user="bob", pattern=g.PREFIXED), grant("a/b", user="bob"))
    assert reads(made, ALICE, topic_filter) is may


def test_all_topics_are_for_whom_all_are_granted() -> None:
    assert reads(access(grant("*"), default="Deny"), ALICE, "a/#")
    assert not reads(access(grant("*"), default="Deny"), BOB, "a/#")


def test_rules_of_the_file_come_between_what_denies_and_what_allows() -> None:
    rules = (
        AccessRule(permission="Allow", resource_type="User", resource_name="bob", topic="a"),
        AccessRule(permission="Deny", topic="b"),
    )
    made = access(grant("a"), grant("b", g.ALL), rules=rules)
    assert reads(made, BOB, "a"), "the file lets bob"
    assert not reads(made, ALICE, "b"), "the file denies it"
    denied = access(grant("a", user="bob", permission=g.DENY), rules=rules)
    assert not reads(denied, BOB, "a")


def test_other_resources_and_operations() -> None:
    made = access(
        grant("g", resource=g.GROUP),
        grant("t", g.ALTER),
        grant("kafka-cluster", g.ALTER, "root", resource=g.CLUSTER),
        grant("x", g.DESCRIBE),
    )
    assert made.allows(ALICE, g.READ, g.GROUP, "g")
    assert made.allows(ALICE, g.DESCRIBE, g.GROUP, "g"), "who may read may describe"
    assert not made.allows(BOB, g.READ, g.GROUP, "g")
    assert made.allows(BOB, g.READ, g.GROUP, "other")
    assert not made.allows(ALICE, g.ALTER, g.CLUSTER, "kafka-cluster")
    assert made.allows(ALICE, g.DESCRIBE, g.TOPIC, "t")
    assert not made.allows(ALICE, g.READ, g.TOPIC, "x")
    assert made.allows(ALICE, g.DESCRIBE, g.TOPIC, "x")
    assert not made.allows(ALICE, g.DELETE, g.TOPIC, "t")
    rules = (AccessRule(permission="Deny", topic="d", action="Publish"),)
    assert not access(rules=rules).allows(ALICE, g.DELETE, g.TOPIC, "d")
    rules = (AccessRule(permission="Allow", topic="d"),)
    shut = access(rules=rules, default="Deny")
    assert shut.allows(ALICE, g.WRITE, g.TOPIC, "d")
    assert not shut.allows(ALICE, g.DELETE, g.TOPIC, "d"), "who may publish may not remove"


def test_a_decision_holds_until_grants_are_others() -> None:
    made = access()
    made.grants.changed = made.forget
    authority = Authority(made, 2)
    assert authority.may(BOB, g.READ, g.TOPIC, "a")
    one = grant("a")
    made.grants.apply(record_name(one), msgspec.to_builtins(one))
    made.grants.settle()
    assert not authority.may(BOB, g.READ, g.TOPIC, "a")
    assert not made.publish(ALICE, b"other", False)
    made.grants.apply(record_name(one), None)
    made.grants.settle()
    assert authority.may(BOB, g.READ, g.TOPIC, "a")
    assert made.grants.judge(BOB, g.READ, g.TOPIC, "a") is Verdict.SILENT
    made.grants.clear()
    made.grants.settle()
    assert len(made.grants) == 0
