"""Catalogs that fold the same records know the same topics, whichever way the records came."""

from hypothesis import given
from hypothesis import strategies as st

from robustmq.broker.catalog_api import Topic
from robustmq.broker.partition_api import Partition
from robustmq.config import Config, TopicRule
from robustmq.errors import Refused
from robustmq.meta.records import decoded, encoded
from tests.catalogs import Group, Made

CONFIG = Config(topic_rules=(TopicRule(filter="a/#", own_shard=True, engine="rocksdb"),))
NAMES = st.sampled_from(["a", "b", "a.b"])
SETTINGS = st.sampled_from([{}, {"retention.ms": "5"}, {"cleanup.policy": "compact"}])
STEPS = st.lists(
    st.tuples(st.sampled_from(["create", "grow", "configure", "delete"]), NAMES, SETTINGS),
    max_size=25,
)


@given(STEPS, st.integers(0, 25))
def test_two_cores_and_one_that_comes_late_know_the_same(
    steps: list[tuple[str, str, dict[str, str]]], late: int
) -> None:
    group = Group()
    cores = [Made(group, config=CONFIG), Made(group, config=CONFIG)]
    joined = Made(Group(), config=CONFIG)
    answers: list[Topic | Refused | None] = []
    ids: list[bytes] = []
    for number, (what, name, settings) in enumerate(steps):
        catalog = cores[number % 2].catalog
        topic = catalog.find("default", name)
        if what == "create":
            before = len(answers)
            catalog.create("default", name, -1, settings, answers.append)
            answer = answers[before]
            assert isinstance(answer, Refused) == (
                topic is not None and topic.name == name.encode()
            )
            if isinstance(answer, Topic):
                ids.append(answer.id)
        elif topic is None:
            continue
        elif what == "grow":
            catalog.grow(topic, topic.partitions + 1, answers.append)
        elif what == "configure":
            catalog.configure(topic, settings, answers.append)
        else:
            catalog.delete(topic, answers.append)
        if number == late:
            snapshot(cores[0], joined)
    snapshot(cores[0], joined)
    assert content(cores[0]) == content(cores[1]) == content(joined)
    assert len(set(ids)) == len(ids)
    for made in (*cores, joined):
        for known in made.catalog.walk("default"):
            assert made.catalog.by_id(known.id) == known
            assert made.rules.of(known.name) == known.rule
            for number in range(known.partitions):
                assert made.catalog.leader(Partition(known.name, number)) is not None
            assert made.catalog.leader(Partition(known.name, known.partitions)) is None


def content(made: Made) -> list[Topic]:
    return [*made.catalog.walk("default")]


def snapshot(source: Made, target: Made) -> None:
    """Let one know what the other knows, as a snapshot of the records does."""
    target.catalog.clear()
    for name, (changed, value) in source.catalog._raw.items():
        copy = decoded(encoded(value))
        target.catalog.apply(f"default/{name.decode()}", copy, changed)
    target.catalog.settle()
