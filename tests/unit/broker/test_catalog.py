"""Topics: made, changed and removed by records, found by the names that clients write."""

from robustmq.broker.catalog_api import Leader, Topic
from robustmq.broker.partition_api import Partition
from robustmq.broker.placement import Life
from robustmq.broker.state import State
from robustmq.config import Config, TopicRule
from robustmq.errors import Refusal, Refused
from robustmq.message.core_number import global_core
from robustmq.message.topic import stable_hash
from robustmq.meta import records as meta
from robustmq.meta.records import SHARD, Node, Shard, decoded, encoded
from robustmq.policy.topic_rules import log_name
from robustmq.settings.kafka import KafkaRuntime
from robustmq.storage.memory_table import MemoryTable
from tests.catalogs import Group, Made


def test_a_topic_is_made_changed_and_removed() -> None:
    made = Made(Group())
    catalog = made.catalog
    before = catalog.version
    topic = made.create("orders", 3, retention_ms="1000")
    assert isinstance(topic, Topic)
    assert (topic.partitions, topic.rule.engine, topic.rule.retention_ms) == (3, "segment", 1_000)
    assert catalog.version != before
    assert catalog.by_id(topic.id) == catalog.of(b"orders") == topic
    assert made.rules.of(b"orders").own_shard
    assert log_name(topic.rule, topic.name, 2) == b"torders\x002"
    catalog.grow(topic, 5, made.answers.append)
    assert made.topic("orders").partitions == 5
    catalog.configure(made.topic("orders"), {"cleanup.policy": "compact"}, made.answers.append)
    assert made.topic("orders").rule.compact
    assert made.topic("orders").rule.retention_ms == 0
    assert made.topic("orders").id == topic.id
    catalog.delete(made.topic("orders"), made.answers.append)
    assert made.answers[1:] == [None] * 3
    assert catalog.find("default", "orders") is None
    assert catalog.by_id(topic.id) is None
    assert not made.rules.of(b"orders").own_shard


def test_what_cannot_be_is_refused_with_a_sentence() -> None:
    made = Made(Group())

    def said() -> tuple[Refusal, str]:
        refused = made.answers[-1]
        assert isinstance(refused, Refused)
        return refused.code, refused.detail

    made.create("a/b")
    assert said()[0] is Refusal.TOPIC_INVALID
    made.create("x", 0)
    assert said()[0] is Refusal.QUOTA_EXCEEDED
    made.create("x", retention_msec="1")
    assert said() == (
        Refusal.PAYLOAD_INVALID,
        "there is no topic setting retention.msec; did you mean retention.ms?",
    )
    made.create("x", retention_ms="soon")
    assert said()[1] == "retention.ms = 'soon' must be a whole number"
    made.create("x", 2)
    made.create("x")
    assert said() == (Refusal.CONFLICT, "the topic x exists already")
    made.catalog.grow(made.topic("x"), 2, made.answers.append)
    assert "only more" in said()[1]
    made.catalog.configure(made.topic("x"), {"robustmq.engine": "memory"}, made.answers.append)
    assert "make another topic" in said()[1]


def test_of_two_who_change_a_topic_at_once_one_is_refused() -> None:
    group = Group()
    made, other = Made(group), Made(Group())
    made.create("x")
    topic = made.topic("x")
    # The other core has not heard of the change that comes first.
    other.catalog.apply("default/x", decoded(encoded(_record(topic))), group.index)
    other.catalog.registrar = group
    made.catalog.configure(topic, {"retention.ms": "5"}, made.answers.append)
    other.catalog.configure(other.topic("x"), {"retention.ms": "6"}, other.answers.append)
    assert isinstance(other.answers[-1], Refused)
    assert other.answers[-1].code is Refusal.CONFLICT
    assert made.topic("x").rule.retention_ms == 5


def _record(topic: Topic) -> meta.Topic:
    return meta.Topic(id=topic.id, partition=topic.partitions)


def test_a_rule_of_the_file_says_the_rest_of_what_it_matches() -> None:
    rule = TopicRule(filter="plant/#", engine="rocksdb", retention_ms=7, partitions=2)
    kafka = KafkaRuntime(num_partitions=4, retention_ms=-1, engine="memory")
    made = Made(Group(), config=Config(topic_rules=(rule,), kafka_runtime=kafka))
    made.create("plant.a")
    made.create("other")
    other = made.topic("other")
    assert (other.partitions, other.rule.engine, other.rule.retention_ms) == (4, "memory", 0)
    made.catalog.apply("default/plant/a", {"partition": 2, "storage_type": "rocksdb"}, 9)
    below = made.topic("plant/a")
    assert (below.rule.engine, below.rule.retention_ms, below.rule.own_shard) == (
        "rocksdb",
        7,
        True,
    )
    plan = made.catalog.plan("default", "planted", -1, {})
    assert isinstance(plan, Topic)
    assert plan.partitions == 4


def test_names_are_found_as_clients_write_them() -> None:
    made = Made(Group(), TopicRule(filter="own/#", own_shard=True))
    made.catalog.keeps(b"own/a", True)
    assert made.topic("own.a").name == b"own/a"
    assert made.catalog.written(made.topic("own.a")) == "own/a"
    assert made.catalog.find("acme", "own.a") is None
    made.create("own.a")
    assert made.topic("own.a").name == b"own.a"
    made.create("mine", tenant="acme")
    assert made.catalog.find("default", "$\x01acme\x01/mine") is None
    assert made.topic("mine", "acme").name == b"$\x01acme\x01/mine"
    assert [made.catalog.written(each) for each in made.catalog.walk("acme")] == ["mine"]
    assert [each.name for each in made.catalog.walk("default")] == [b"own.a", b"own/a"]
    made.catalog.keeps(b"own/a", False)
    assert made.catalog.of(b"own/a") is None


def test_shared_logs_of_a_named_rule_are_one_topic_with_a_partition_for_each_core() -> None:
    rule = TopicRule(filter="sensor/#", retention_ms=5, kafka_topic="sensors")
    made = Made(Group(), rule)
    topic = made.topic("sensors")
    assert (topic.is_shared, topic.partitions, topic.rule) == (True, 4, rule)
    assert made.catalog.by_id(topic.id) == topic
    assert [made.catalog.core_of(Partition(b"sensors", n)) for n in range(5)] == [0, 1, 2, 3, None]
    made.create("sensors")
    assert isinstance(made.answers[-1], Refused)


def test_partitions_follow_each_other_over_the_cores_of_a_node_alone() -> None:
    made = Made(Group())
    made.create("x", 6)
    first = stable_hash(b"x")
    cores = [made.catalog.core_of(Partition(b"x", number)) for number in range(6)]
    assert cores == [(first + number) % 4 for number in range(6)]
    assert made.catalog.leader(Partition(b"x", 0)) == Leader(1, first % 4, 0)
    assert made.catalog.leader(Partition(b"x", 6)) is None


def test_partitions_of_a_cluster_are_led_where_their_records_say() -> None:
    group = Group()
    made = Made(group, node=1)
    nodes = {n: Node(number=n, store="s", workers=4) for n in (1, 2)}
    made.catalog.leaders.nodes = nodes
    made.placement.update({1: Life(1, 4), 2: Life(1, 4)})
    made.create("x", 4)
    leaders = [made.catalog.leader(Partition(b"x", number)) for number in range(4)]
    assert sorted(each.node for each in leaders if each is not None) == [1, 1, 2, 2]
    number = next(n for n, each in enumerate(leaders) if each is not None and each.node == 2)
    index = (stable_hash(b"x") + number) % 4
    assert made.catalog.core_of(Partition(b"x", number)) == global_core(2, index)
    version = made.catalog.version
    made.placement.update({1: Life(1, 4)})
    assert made.catalog.leader(Partition(b"x", number)) is None
    assert made.catalog.version != version
    shard = Shard(topic="default/x", number=number, replicas=(2,), leader=1, leader_epoch=7)
    made.catalog.leaders.apply(f"default/x/{number}", decoded(encoded(shard)))
    assert made.catalog.leader(Partition(b"x", number)) == Leader(1, index, 7)
    made.catalog.delete(made.topic("x"), made.answers.append)
    assert not [key for key in group.rows if key[0] == SHARD]


def test_a_snapshot_removes_what_it_does_not_hold() -> None:
    made = Made(Group())
    heard: list[tuple[bytes, bool]] = []
    made.catalog.changed.append(lambda name, _, after: heard.append((name, after is not None)))
    made.create("a")
    made.create("b")
    record = decoded(encoded(_record(made.topic("b"))))
    made.catalog.clear()
    made.catalog.apply("default/b", record, 2)
    assert made.catalog.find("default", "a") is not None
    made.catalog.settle()
    assert made.catalog.find("default", "a") is None
    assert heard[-1] == (b"a", False)


def test_topics_are_known_after_a_restart_before_the_metadata_is_heard() -> None:
    table = MemoryTable()
    first = Made(Group())
    first.catalog.restore(State(table))
    first.create("a", retention_ms="9")
    first.create("b")
    first.catalog.delete(first.topic("b"), first.answers.append)
    table.commit()
    second = Made(Group())
    second.catalog.restore(State(table))
    assert second.topic("a") == first.topic("a")
    assert second.rules.of(b"a").retention_ms == 9
    assert second.catalog.find("default", "b") is None
