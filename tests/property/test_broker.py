"""Cores on delaying links against a naive model: what is heard, in which order, how often.

Operations are drawn at random; between them cores take turns in which they see only some of the
frames that are there. At the end everything comes to rest and the books must balance.
"""

from collections import Counter
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq.broker.api import Options
from robustmq.message.topic import matches
from tests.books import check_books
from tests.fabric import Answer, Client, Fabric, Limits, Message

TOPICS = ["a", "a/b", "b/c", "$x/y"]
FILTERS = ["a", "a/b", "#", "a/#", "+/c", "$x/+"]

cores = st.integers(0, 3)
clients = st.integers(0, 4)
counts = st.sampled_from([1, 2, 2, 3, 4])
operations = st.one_of(
    st.tuples(st.just("turn"), cores, st.integers(1, 3)),
    st.tuples(st.just("turn"), cores, st.just(100)),
    st.tuples(st.just("settle")),
    st.tuples(st.just("stall"), cores, cores),
    st.tuples(
        st.just("publish"),
        cores,
        st.sampled_from(TOPICS),
        st.integers(0, 2),
        st.booleans(),
        st.booleans(),
    ),
    st.tuples(st.just("subscribe"), clients, st.sampled_from(FILTERS), st.booleans()),
    st.tuples(st.just("unsubscribe"), clients, st.sampled_from(FILTERS)),
    st.tuples(st.just("read"), clients),
)


class Published(NamedTuple):
    """A publish of the model: when it was asked for, and who had to hear it by then."""

    topic: str
    qos: int
    core: int
    retain: bool
    payload: str
    answer: Answer


class Subscriber:
    """A client, and what it must and may hear."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.acknowledged: dict[str, int] = {}
        self.due: dict[str, set[str]] = {}
        self.asked: Counter[str] = Counter()

    def must_hear(self, topic: str, payload: str) -> None:
        """Note a message for every subscription that had its SUBACK."""
        for topic_filter in self.acknowledged:
            if matches(topic_filter.encode(), topic.encode()):
                self.due.setdefault(topic_filter, set()).add(payload)


class World:
    """The fabric, and the model beside it."""

    def __init__(self, count: int, limits: Limits) -> None:
        self.fabric = Fabric(count, limits)
        self.subscribers = [Subscriber(self.fabric.nodes[i % count].client()) for i in range(5)]
        self.published: dict[str, Published] = {}
        self.subscribes = 0

    def publish(self, core: int, topic: str, qos: int, retain: bool, empty: bool = False) -> None:
        node = self.fabric.nodes[core % len(self.fabric.nodes)]
        number = len(self.published)
        payload = "" if empty and retain else f"{number}"
        answer = node.publish(topic, payload, qos, retain)
        name = payload or f"empty {number}"
        self.published[name] = Published(topic, qos, node.index, retain, payload, answer)
        if payload:
            for subscriber in self.subscribers:
                subscriber.must_hear(topic, payload)

    def subscribe(self, who: int, topic_filter: str, retained: bool) -> None:
        subscriber = self.subscribers[who]
        subscriber.asked[topic_filter] += 1
        self.subscribes += 1
        generation = subscriber.asked[topic_filter]

        def replied() -> None:
            # An UNSUBSCRIBE that came meanwhile has ended what this answer began.
            if subscriber.asked[topic_filter] == generation:
                subscriber.acknowledged[topic_filter] = generation

        subscriber.client.subscribe(topic_filter, Options(2), retained, replied)

    def unsubscribe(self, who: int, topic_filter: str) -> None:
        subscriber = self.subscribers[who]
        subscriber.asked[topic_filter] += 1
        subscriber.acknowledged.pop(topic_filter, None)
        subscriber.due.pop(topic_filter, None)
        subscriber.client.unsubscribe(topic_filter)

    def stall(self, source: int, target: int) -> None:
        """Let no frame into a link any more, or let them again."""
        count = len(self.fabric.nodes)
        self.fabric.stalled ^= {(source % count, target % count)}

    def run(self, steps: list[tuple[object, ...]]) -> None:
        for name, *arguments in steps:
            if name == "turn":
                index, frames = arguments
                assert isinstance(index, int)
                assert isinstance(frames, int)
                self.fabric.turn(index % len(self.fabric.nodes), frames)
            elif name == "settle":
                self.fabric.settle()
            elif name == "read":
                (who,) = arguments
                assert isinstance(who, int)
                self.subscribers[who].client.read()
            else:
                getattr(self, str(name))(*arguments)
        self.fabric.stalled.clear()
        self.fabric.settle()

    def check_rest(self) -> None:
        """Every call is answered once, and nothing is left behind that nobody needs."""
        for published in self.published.values():
            assert len(published.answer.got) == (1 if published.qos else 0)
        assert sum(one.client.subacks for one in self.subscribers) == self.subscribes
        check_books(self.fabric)


def live(messages: list[Message]) -> list[str]:
    return [m.payload.decode() for m in messages if not m.retain and m.payload]


@settings(max_examples=120)
@given(counts, st.lists(operations, min_size=20, max_size=80))
def test_nothing_is_missed_doubled_or_out_of_order(
    count: int, steps: list[tuple[object, ...]]
) -> None:
    world = World(count, Limits(max_batch_bytes=150, pressure_bytes=300))
    world.run(steps)
    for subscriber in world.subscribers:
        client = subscriber.client
        client.read()
        heard = live(client.messages)
        assert max(Counter(heard).values(), default=0) <= 1
        for due in subscriber.due.values():
            assert due <= set(heard)
        for topic_filter in FILTERS:
            assert in_order(world, topic_filter, client.messages)
    world.check_rest()


def in_order(world: World, topic_filter: str, messages: list[Message]) -> bool:
    """Is what one core published to one topic heard in that order?"""
    last: dict[tuple[int, str], int] = {}
    for message in messages:
        if message.retain or not message.payload:
            continue
        published = world.published[message.payload.decode()]
        if matches(topic_filter.encode(), message.topic):
            lane = published.core, published.topic
            number = int(published.payload)
            if last.get(lane, -1) >= number:
                return False
            last[lane] = number
    return True


retained_operations = st.one_of(
    st.tuples(st.just("turn"), cores, st.integers(1, 3)),
    st.tuples(st.just("turn"), cores, st.just(100)),
    st.tuples(st.just("settle")),
    st.tuples(
        st.just("publish"),
        cores,
        st.sampled_from(TOPICS),
        st.integers(0, 2),
        st.just(True),
        st.booleans(),
    ),
    st.tuples(st.just("subscribe_once"), clients, st.sampled_from(FILTERS)),
)


class Watching(World):
    """Every client subscribes once, and keeps a picture of what is retained.

    Cores do not race with each other for a topic: then it is open whose message is the last one.
    """

    def __init__(self, count: int, limits: Limits) -> None:
        super().__init__(count, limits)
        self.watched: dict[int, str] = {}
        self.publishers: dict[str, int] = {}

    def publish(self, core: int, topic: str, qos: int, retain: bool, empty: bool = False) -> None:
        core %= len(self.fabric.nodes)
        if self.publishers.setdefault(topic, core) != core:
            stalled, self.fabric.stalled = self.fabric.stalled, set()
            self.fabric.settle()
            self.fabric.stalled = stalled
            self.publishers[topic] = core
        super().publish(core, topic, qos, retain, empty)

    def subscribe_once(self, who: int, topic_filter: str) -> None:
        if who not in self.watched:
            self.watched[who] = topic_filter
            self.subscribe(who, topic_filter, True)


@settings(max_examples=120)
@given(counts, st.lists(retained_operations, min_size=20, max_size=80))
def test_whoever_subscribes_has_the_picture_that_is_retained(
    count: int, steps: list[tuple[object, ...]]
) -> None:
    world = Watching(count, Limits(max_batch_bytes=150, pressure_bytes=300))
    world.run(steps)
    kept: dict[bytes, bytes] = {}
    for node in world.fabric.nodes:
        for name in ("#", "$x/#"):
            records, rest = node.retained.page(name.encode(), b"", 1_000)
            assert rest is None
            kept.update((record.key, record.value) for record in records)
    for who, topic_filter in world.watched.items():
        client = world.subscribers[who].client
        client.read()
        # A message arrives once: from what was retained before, or as it is published.
        counts = Counter(m.payload for m in client.messages if m.payload)
        assert max(counts.values(), default=0) <= 1
        picture = {m.topic: m.payload for m in client.messages}
        assert {topic: value for topic, value in picture.items() if value} == {
            topic: value for topic, value in kept.items() if matches(topic_filter.encode(), topic)
        }
    world.check_rest()


@settings(max_examples=60)
@given(st.integers(1, 3), st.lists(st.tuples(cores, st.sampled_from(TOPICS), st.booleans())))
def test_what_is_retained_equals_a_dict(count: int, publishes: list[tuple[int, str, bool]]) -> None:
    fabric = Fabric(count)
    model: dict[str, str] = {}
    for number, (core, topic, empty) in enumerate(publishes):
        payload = "" if empty else str(number)
        fabric.nodes[core % count].publish(topic, payload, 1, True)
        fabric.settle()
        model[topic] = payload
    client = fabric.nodes[0].client()
    client.subscribe("#", Options(1), True)
    client.subscribe("$x/#", Options(1), True)
    fabric.settle()
    client.read()
    found = {m.topic.decode(): m.payload.decode() for m in client.messages}
    assert found == {topic: value for topic, value in model.items() if value}
    assert len(client.messages) == len(found)
    assert all(message.retain for message in client.messages)
