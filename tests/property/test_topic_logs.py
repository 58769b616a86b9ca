"""Topic logs while cores die and disks refuse: what is acknowledged is there, once, in order."""

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq._kernel.batch import records
from robustmq.config import TopicRule
from robustmq.errors import Refusal, Refused
from robustmq.storage.log import StoredBatch
from tests.fabric import Answer, Fabric, Limits

RULES = (
    TopicRule(filter="own/#", own_shard=True),
    TopicRule(filter="files/#", own_shard=True, engine="segment"),
    TopicRule(filter="shared/#", retention_records=1 << 40),
)
TOPICS = ("own/1", "own/2", "files/1", "files/2", "shared/1", "shared/2")
FULL = Refused(Refusal.QUOTA_EXCEEDED, "full")

cores = st.integers(0, 2)
operations = st.one_of(
    st.tuples(st.just("publish"), cores, st.sampled_from(TOPICS), st.integers(0, 2)),
    st.tuples(st.just("publish"), cores, st.sampled_from(TOPICS), st.integers(1, 2)),
    st.tuples(st.just("turn"), cores, st.sampled_from([0, 1, 100])),
    st.tuples(st.just("turn"), cores, st.just(100)),
    st.tuples(st.just("hold"), cores),
    st.tuples(st.just("release"), cores),
    st.tuples(st.just("refuse"), cores),
    st.tuples(st.just("crash"), cores, st.integers(0, 3)),
    st.tuples(st.just("tick"), cores),
    st.tuples(st.just("settle")),
)


class Published(NamedTuple):
    """A message, by whom it was published in which life, and what came back."""

    core: int
    life: int
    topic: str
    qos: int
    answer: Answer


class World:
    """Some cores with topic logs, and all that was published on them."""

    def __init__(self, count: int) -> None:
        self.fabric = Fabric(count, Limits(topic_rules=RULES))
        self.published: list[Published] = []

    def publish(self, core: int, topic: str, qos: int) -> None:
        node = self.fabric.nodes[core % len(self.fabric.nodes)]
        answer = node.publish(topic, str(len(self.published)), qos)
        self.published.append(Published(node.index, node.links.life, topic, qos, answer))

    def turn(self, core: int, frames: int) -> None:
        self.fabric.turn(core % len(self.fabric.nodes), frames)

    def hold(self, core: int) -> None:
        """What is appended is not safe for a while; all before is."""
        held = self.fabric.nodes[core % len(self.fabric.nodes)].held
        for log in held.logs.values():
            assert log.durable_offset <= log.end_offset
        held.hold = True

    def release(self, core: int) -> None:
        held = self.fabric.nodes[core % len(self.fabric.nodes)].held
        held.hold, held.refused = False, None

    def refuse(self, core: int) -> None:
        self.fabric.nodes[core % len(self.fabric.nodes)].held.refused = FULL

    def crash(self, core: int, lost: int) -> None:
        self.fabric.replace(core % len(self.fabric.nodes), lost)

    def tick(self, core: int) -> None:
        """A second passes on a core: notes are written."""
        node = self.fabric.nodes[core % len(self.fabric.nodes)]
        node.turn.now_ms += 1_000
        node.core.timers.run(node.turn.now_ms)

    def settle(self) -> None:
        self.fabric.settle()

    def finish(self) -> None:
        for core in range(len(self.fabric.nodes)):
            self.release(core)
        for _ in range(3):
            self.settle()
            for core in range(len(self.fabric.nodes)):
                self.tick(core)
        self.settle()

    def kept(self) -> dict[str, list[list[int]]]:
        """What the logs have of each topic, a list for each core that has some."""
        found: dict[str, list[list[int]]] = {topic: [] for topic in TOPICS}
        for node in self.fabric.nodes:
            for topic in TOPICS:
                batches: list[StoredBatch] = node.core.logs.read(topic.encode(), 0, 1 << 30)
                found[topic].append(
                    [
                        int(value or b"")
                        for batch in batches
                        for _, _, _, key, value, _ in records(batch.data)
                        if key == topic.encode()
                    ]
                )
        return found


@settings(max_examples=300)
@given(st.integers(1, 3), st.lists(operations, min_size=20, max_size=80))
def test_what_is_acknowledged_is_in_its_log(count: int, steps: list[tuple[object, ...]]) -> None:
    world = World(count)
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
    world.finish()
    kept = world.kept()
    for topic, logs in kept.items():
        numbers = [number for log in logs for number in log]
        assert len(numbers) == len(set(numbers)), "nothing is there twice"
        for number in numbers:
            assert world.published[number].topic == topic
        for log in logs:
            last: dict[tuple[int, int], int] = {}
            for number in log:
                core, life, _, _, answer = world.published[number]
                if [code for code, _ in answer.got] == [0]:
                    assert last.get((core, life), -1) < number
                    last[core, life] = number
    for number, (core, _, topic, _, answer) in enumerate(world.published):
        assert len(answer.got) <= 1
        if [code for code, _ in answer.got] == [0]:
            # A shared log is on the core that published.
            shared = topic.startswith("shared")
            places = [kept[topic][core]] if shared else kept[topic]
            assert any(number in place for place in places), f"{number} is lost"
