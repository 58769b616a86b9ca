"""Topics of rules are topics for readers of logs on all cores as soon as one keeps a log."""

from robustmq.broker.partition_api import Partition
from robustmq.config import TopicRule
from tests.fabric import Fabric, Limits

OWN = TopicRule(filter="own/#", own_shard=True)
ALL = TopicRule(filter="#", retention_records=5)


def known(fabric: Fabric) -> list[list[bytes]]:
    return [[each.name for each in node.parts.catalog.walk("default")] for node in fabric.nodes]


def test_a_topic_is_there_with_its_log_on_every_core() -> None:
    fabric = Fabric(3, Limits(topic_rules=(OWN, ALL)))
    assert known(fabric) == [[], [], []]
    for number, name in enumerate(["own/a", "own/b", "shared"]):
        fabric.nodes[number].publish(name, "x", 1)
    fabric.settle()
    assert known(fabric) == [[b"own/a", b"own/b"]] * 3
    catalogs = [node.parts.catalog for node in fabric.nodes]
    owner = {catalog.core_of(Partition(b"own/a")) for catalog in catalogs}
    assert len(owner) == 1
    assert [catalog.find("default", "own.a") for catalog in catalogs] == [
        catalogs[0].of(b"own/a")
    ] * 3


def test_a_core_that_was_replaced_tells_and_is_told_again() -> None:
    fabric = Fabric(2, Limits(topic_rules=(OWN,)))
    for name in "abcdefgh":
        fabric.nodes[0].publish(f"own/{name}", "x", 1)
    fabric.settle()
    everything = known(fabric)
    assert len(everything[0]) == 8
    fabric.replace(1)
    fabric.settle()
    assert known(fabric) == everything


def test_a_topic_is_gone_with_its_log() -> None:
    fabric = Fabric(2, Limits(topic_rules=(OWN,)))
    fabric.nodes[0].publish("own/a", "x", 1)
    fabric.settle()
    logs = [node.parts.logs for node in fabric.nodes]
    kept = next(each for each in logs if each.find(b"town/a") is not None)
    log = kept.find(b"town/a")
    assert log is not None
    kept.remove(log)
    fabric.settle()
    assert known(fabric) == [[], []]
