"""The rules of access: whom a rule is for, what it is for, and that the first one decides."""

import array

import msgspec
import pytest

from robustmq import metrics
from robustmq.errors import Refusal, Refused
from robustmq.policy.access import Access
from robustmq.policy.principal import Principal
from robustmq.settings.access import AccessRule

ALICE = Principal("c1", "alice", "10.1.2.3")
NOBODY = Principal("c2", None, "192.168.0.9")


def rule(text: str, **fields: str) -> AccessRule:
    """`Deny Publish a/#` and further fields as a rule."""
    permission, action, topic = text.split(" ", 2)
    row = {"permission": permission, "action": action, "topic": topic, **fields}
    return msgspec.convert(row, AccessRule)


def publishes(access: Access, who: Principal, topic: str, retain: bool = False) -> bool:
    refused = access.publish(who, topic.encode(), retain)
    assert refused is None or refused.code is Refusal.NOT_AUTHORIZED
    return refused is None


def subscribes(access: Access, who: Principal, topic_filter: str) -> bool:
    return access.subscribe(who, topic_filter.encode()) is None


def test_without_rules_the_default_decides_and_superusers_are_free() -> None:
    assert not Access().denies
    assert publishes(Access(), ALICE, "a")
    closed = Access((), "Deny")
    assert closed.denies
    assert not publishes(closed, ALICE, "a")
    assert not subscribes(closed, ALICE, "a")
    root = msgspec.structs.replace(ALICE, superuser=True)
    assert publishes(closed, root, "a")
    assert subscribes(closed, root, "#")


def test_the_first_rule_that_is_for_it_decides() -> None:
    access = Access([rule("Allow All a/b"), rule("Deny All a/#"), rule("Allow All *")], "Deny")
    assert publishes(access, ALICE, "a/b")
    assert not publishes(access, ALICE, "a/c")
    assert publishes(access, ALICE, "b")
    assert publishes(access, ALICE, "$else")


@pytest.mark.parametrize(
    ("fields", "alice", "nobody"),
    [
        ({}, True, True),
        ({"resource_name": "c1"}, True, False),
        ({"resource_name": "c?"}, True, True),
        ({"resource_name": "c[12]"}, False, False),
        ({"resource_type": "User"}, True, False),
        ({"resource_type": "User", "resource_name": "alice"}, True, False),
        ({"resource_type": "User", "resource_name": "c1"}, False, False),
        ({"ip": "10.0.0.0/8"}, True, False),
        ({"ip": "192.168.0.9"}, False, True),
        ({"tenant": "acme"}, False, False),
    ],
)
def test_whom_a_rule_is_for(fields: dict[str, str], alice: bool, nobody: bool) -> None:
    access = Access([rule("Allow All *", **fields)], "Deny")
    assert (publishes(access, ALICE, "x"), publishes(access, NOBODY, "x")) == (alice, nobody)


def test_an_address_may_be_mapped_or_missing() -> None:
    access = Access([rule("Allow All *", ip="10.0.0.0/8")], "Deny")
    mapped = msgspec.structs.replace(ALICE, address="::ffff:10.1.2.3")
    local = msgspec.structs.replace(ALICE, address="")
    assert (publishes(access, mapped, "x"), publishes(access, local, "x")) == (True, False)


@pytest.mark.parametrize(
    ("action", "may"),
    [
        ("All", (True, True, True)),
        ("PubSub", (True, True, True)),
        ("Publish", (True, True, False)),
        ("Subscribe", (False, False, True)),
        ("Retain", (False, True, False)),
    ],
)
def test_what_a_rule_is_for(action: str, may: tuple[bool, bool, bool]) -> None:
    access = Access([rule(f"Allow {action} t")], "Deny")
    done = (publishes(access, ALICE, "t"), publishes(access, ALICE, "t", retain=True))
    assert (*done, subscribes(access, ALICE, "t")) == may


def test_a_subscription_is_allowed_whole_and_denied_for_any_part() -> None:
    access = Access([rule("Deny Subscribe secret/#"), rule("Allow Subscribe a/#")], "Deny")
    assert subscribes(access, ALICE, "a/+/b")
    assert not subscribes(access, ALICE, "+/b")
    open_else = Access([rule("Deny Subscribe secret/#")])
    asked = ("secret", "secret/x", "+/x", "#", "public/#")
    assert [subscribes(open_else, ALICE, each) for each in asked] == [False] * 4 + [True]


def test_eq_is_for_one_filter() -> None:
    access = Access([rule("Deny All eq #")])
    assert not subscribes(access, ALICE, "#")
    assert subscribes(access, ALICE, "+/#")
    assert publishes(access, ALICE, "x")


def test_names_of_the_client_stand_in_topics() -> None:
    access = Access([rule("Allow All ${username}/${clientid}/#")], "Deny")
    assert publishes(access, ALICE, "alice/c1/x")
    assert not publishes(access, ALICE, "alice/c2/x")
    assert not publishes(access, NOBODY, "/c2/x")
    sly = Principal("#", "+")
    assert not publishes(access, sly, "alice/c1/x")
    assert not subscribes(access, sly, "+/#/#")


def test_a_refusal_names_its_rule() -> None:
    named = Access([rule("Deny All a", name="no a")])
    assert named.publish(ALICE, b"a", False) == Refused(
        Refusal.NOT_AUTHORIZED, "c1 may not publish to a: a rule of [[acl]], no a, denies it"
    )
    refused = Access((), "Deny").subscribe(ALICE, b"a")
    assert refused is not None
    assert refused.detail.endswith("lets it (mqtt_runtime.auth.default_permission)")


def test_decisions_are_kept_counted_and_forgotten() -> None:
    cells = memoryview(array.array("Q", bytes(8 * metrics.CELLS)))
    access = Access([rule("Deny Publish a")], remembered=2, cells=cells)
    for _ in range(3):
        assert not publishes(access, ALICE, "a")
        assert publishes(access, ALICE, "b")
    assert (cells[metrics.ACL_SUCCESS], cells[metrics.ACL_FAILED]) == (1, 1)
    assert publishes(access, ALICE, "c")
    assert not publishes(access, ALICE, "a")
    assert cells[metrics.ACL_FAILED] == 2
    assert not access.replace([rule("Deny Publish a")], "Allow")
    assert access.replace([rule("Deny Publish b")], "Allow")
    assert (publishes(access, ALICE, "a"), publishes(access, ALICE, "b")) == (True, False)


def test_a_thousand_rules_for_others_cost_nothing() -> None:
    rules = [rule("Deny All *", resource_name=f"other-{number}") for number in range(1_000)]
    access = Access([*rules, rule("Deny All mine", resource_name="c1"), rule("Allow All *")])
    assert not publishes(access, ALICE, "mine")
    assert not publishes(access, msgspec.structs.replace(ALICE, client_id="other-999"), "x")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"topic": "a/#/b"}, "its topic is no topic filter"),
        ({"topic": "$share/g/a"}, "leave it out"),
        ({"topic": "${nobody}/a"}, "stands for nothing"),
        ({"topic": "eq a/#/b"}, "its topic is no topic filter"),
        ({"ip": "10.0.0.1/8"}, "its ip is no address"),
        ({"permission": "Maybe"}, "Maybe"),
        ({"action": "Qos"}, "Qos"),
    ],
)
def test_what_cannot_be_a_rule(fields: dict[str, str], reason: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=reason):
        msgspec.convert({"permission": "Deny", **fields}, AccessRule)
