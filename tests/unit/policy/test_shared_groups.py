"""Which strategy a shared group has."""

from robustmq.policy.shared_groups import SharedGroups
from robustmq.settings.mqtt import MqttShared
from robustmq.settings.topics import SharedGroup


def test_the_first_rule_that_fits_holds() -> None:
    groups = SharedGroups(
        MqttShared(
            strategy="local",
            groups=(
                SharedGroup(name="work-?", strategy="sticky"),
                SharedGroup(name="work-*", strategy="random"),
                SharedGroup(name="$queue", strategy="hash_topic"),
            ),
        )
    )
    names = (b"work-1", b"work-12", b"$queue", b"Work-1", "grün".encode())
    assert [groups.strategy(name) for name in names] == [
        "sticky",
        "random",
        "hash_topic",
        "local",
        "local",
    ]
    assert not groups.choose_by_client


def test_some_group_may_have_to_know_who_published() -> None:
    assert SharedGroups(MqttShared(strategy="hash_clientid")).choose_by_client
    rule = SharedGroup(name="a", strategy="hash_clientid")
    assert SharedGroups(MqttShared(groups=(rule,))).choose_by_client
    assert SharedGroups(MqttShared()).strategy(b"a") == "round_robin"
