"""Retained messages while the cores that publish them are replaced: each once, and none missed.

Each topic has one publishing core, so that "the last" is the same to all. Cores 0, with the
subscribers, and 1, which keeps most topics, live on; the others are killed again and again.
"""

from collections import Counter

from hypothesis import example, given, settings
from hypothesis import strategies as st

from robustmq.broker.api import Options
from tests.books import check_books
from tests.fabric import START_MS, Client, Fabric, Limits, Message

CORES = 4


def kept_at(core: int, number: int) -> str:
    """The `number`th topic that a core keeps."""
    fabric = Fabric(CORES)
    names = (f"{name}/x" for name in range(1_000))
    kept = [n for n in names if fabric.placement.retained_core(n.encode()) == core]
    return kept[number]


TOPICS = {core: [kept_at(1, core), kept_at(3, core)] for core in range(CORES)}
"""The topics of each publishing core: one that survives with core 1, one that may be lost."""

SURVIVING = {topics[0] for topics in TOPICS.values()}
FILTERS = ["#", "+/x", *sorted(SURVIVING)]

cores = st.integers(0, CORES - 1)
operations = st.one_of(
    st.tuples(st.just("turn"), cores, st.integers(1, 3)),
    st.tuples(st.just("turn"), cores, st.integers(1, 3)),
    st.tuples(st.just("turn"), cores, st.just(100)),
    st.tuples(st.just("publish"), cores, st.integers(0, 1), st.integers(0, 2)),
    st.tuples(st.just("publish"), cores, st.just(0), st.integers(0, 2)),
    st.tuples(st.just("subscribe"), st.sampled_from(FILTERS), st.just(0), st.just(0)),
    st.tuples(st.just("replace"), st.integers(2, CORES - 1), st.just(0)),
)


class World:
    """The fabric, its subscribers and how many messages there were."""

    def __init__(self) -> None:
        self.fabric = Fabric(CORES, Limits(max_batch_bytes=150, pressure_bytes=1_000))
        self.subscribers: list[tuple[str, Client]] = []
        self.published = 0

    def turn(self, core: int, frames: int) -> None:
        self.fabric.turn(core, frames)

    def publish(self, core: int, which: int, qos: int) -> None:
        self.published += 1
        # Of messages of one moment the last one is not told from the others by later lives.
        for node in self.fabric.nodes:
            node.turn.now_ms = START_MS + self.published
        topic = TOPICS[core][which]
        self.fabric.nodes[core].publish(topic, str(self.published), qos, True)

    def subscribe(self, topic_filter: str, *_: int) -> None:
        client = self.fabric.nodes[0].client()
        client.subscribe(topic_filter, Options(1), True)
        self.subscribers.append((topic_filter, client))

    def replace(self, core: int, *_: int) -> None:
        self.fabric.replace(core)

    def kept(self, topic_filter: str) -> dict[bytes, bytes]:
        """What core 1 keeps of the topics that survive with it."""
        records, rest = self.fabric.nodes[1].retained.page(topic_filter.encode(), b"", 1_000)
        assert rest is None
        return {record.key: record.value for record in records}


def in_order(messages: list[Message]) -> bool:
    """Is what was published to one topic heard in that order?"""
    last: dict[bytes, int] = {}
    for message in messages:
        number = int(message.payload)
        if last.get(message.topic, 0) >= number:
            return False
        last[message.topic] = number
    return True


WRITTEN_AND_NEVER_SENT: list[tuple[object, ...]] = [
    ("subscribe", "#"),
    ("replace", 2),
    ("turn", 0, 1),
    ("publish", 2, 0, 2),
    ("turn", 2, 1),
    ("turn", 0, 100),
    ("turn", 0, 100),
    ("replace", 2),
]
"""Core 2 answers a subscriber, and dies before it sends what it was given and has on its disk."""


@settings(max_examples=150)
@given(st.lists(operations, min_size=10, max_size=80))
@example(WRITTEN_AND_NEVER_SENT)
def test_each_is_heard_once_and_the_last_one_is_heard(steps: list[tuple[object, ...]]) -> None:
    world = World()
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
    world.fabric.settle()
    for topic_filter, client in world.subscribers:
        assert client.subacks == 1
        client.read()
        counts = Counter(message.payload for message in client.messages)
        assert max(counts.values(), default=0) <= 1
        heard = {(m.topic, m.payload) for m in client.messages}
        assert world.kept(topic_filter).items() <= heard
        assert in_order([m for m in client.messages if m.retain])
        assert in_order([m for m in client.messages if not m.retain])
    check_books(world.fabric)
