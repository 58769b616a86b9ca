"""What is published to topics whose logs other cores lead, or nobody now."""

from robustmq._kernel.batch import records
from robustmq.broker.catalog_api import Topic
from robustmq.broker.partition_api import Partition
from robustmq.config import TopicRule
from robustmq.errors import Refusal
from tests.fabric import Fabric, Limits
from tests.unit.broker.links import subscribed


class Leaders:
    """A catalog of topics with one partition, which `core` leads."""

    def __init__(self, core: int | None) -> None:
        self.core = core

    def of(self, topic: bytes) -> Topic | None:
        return Topic(name=topic, id=bytes(16), partitions=1, rule=OWN)

    def core_of(self, partition: Partition) -> int | None:
        assert partition.number == 0
        return self.core


OWN = TopicRule(filter="own/#", own_shard=True)


def led_by(core: int | None) -> tuple[Fabric, Leaders]:
    fabric = Fabric(3, Limits(topic_rules=(OWN,)))
    leaders = Leaders(core)
    for node in fabric.nodes:
        node.parts.log_parts.catalog = leaders
    return fabric, leaders


def logged(fabric: Fabric, core: int, topic: str = "own/a") -> list[str]:
    """What a core has in the log of a topic."""
    found = fabric.nodes[core].core.logs.read(topic.encode(), 0, 1 << 20)
    return [value.decode() for each in found for *_, value, _ in records(each.data) if value]


def test_a_log_is_kept_where_the_catalog_says() -> None:
    fabric, _ = led_by(2)
    answers = [fabric.nodes[0].publish("own/a", str(qos), qos) for qos in range(3)]
    fabric.settle()
    assert [answer.got for answer in answers[1:]] == [[(0, True)], [(0, True)]]
    assert [logged(fabric, core) for core in range(3)] == [[], [], ["0", "1", "2"]]


def test_what_no_node_can_keep_is_refused_and_delivered() -> None:
    fabric, _ = led_by(None)
    client = subscribed(fabric, 1, "own/#")
    node = fabric.nodes[0]
    once = node.publish("own/a", "2", 2)
    assert once.refused is not None
    assert once.refused.code is Refusal.UNAVAILABLE
    assert "own/a" in once.refused.detail
    answer = node.publish("own/a", "1", 1)
    fabric.settle()
    assert answer.got == [(Refusal.UNAVAILABLE, True)]
    assert client.payloads == ["1"]


def test_what_is_kept_once_waits_for_its_leader() -> None:
    fabric, leaders = led_by(2)
    node = fabric.nodes[0]
    answers = []
    for qos in (1, 2):
        answers.append(node.publish("own/a", str(qos), qos))
        fabric.turn(0)
    # Its core is gone with its node: nobody knows whether it has kept them.
    leaders.core = None
    fabric.rings[0, 2].clear()
    node.router.departed(2)
    assert answers[0].got == [(Refusal.UNAVAILABLE, True)]
    fabric.settle()
    assert answers[1].got == []
    node.router.joined(2)
    leaders.core = 2
    node.turn.now_ms += 60_000
    node.core.timers.run(node.turn.now_ms)
    fabric.settle()
    assert answers[1].got == [(0, True)]
    assert logged(fabric, 2) == ["2"]
