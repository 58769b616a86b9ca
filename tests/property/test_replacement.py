"""Cores that die and are replaced at any time: the others forget nothing and miss nothing."""

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq.broker.api import Options
from robustmq.message.topic import matches
from tests.books import check_books
from tests.fabric import Answer, Client, Fabric, Limits

TOPICS = ["a", "a/b", "b/c", "d"]
FILTERS = ["a", "a/b", "#", "a/#", "+/c", "d"]
GROUPS = [("g", "a/#"), ("g", "d"), ("h", "d")]

cores = st.integers(0, 3)
clients = st.integers(0, 5)
turns = st.tuples(st.just("turn"), cores, st.sampled_from([1, 2, 3, 100]))
publishes = st.tuples(
    st.just("publish"), cores, st.sampled_from(TOPICS), st.integers(0, 2), st.booleans()
)
subscribes = st.tuples(st.just("subscribe"), clients, st.sampled_from(FILTERS), st.booleans())
operations = st.one_of(
    turns,
    turns,
    turns,
    publishes,
    publishes,
    subscribes,
    st.tuples(st.just("unsubscribe"), clients, st.sampled_from(FILTERS)),
    st.tuples(st.just("join"), clients, st.sampled_from(GROUPS)),
    st.tuples(st.just("leave"), clients, st.sampled_from(GROUPS)),
    st.tuples(st.just("disconnect"), clients),
    st.tuples(st.just("connect"), clients),
    st.tuples(st.just("replace"), cores),
    st.tuples(st.just("settle")),
)


class Survivor:
    """A client, what it asked for and was answered, and what it must hear."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.asked = 0
        self.generation: dict[str, int] = {}
        self.settled: set[str] = set()
        self.due: dict[str, set[str]] = {}


class World:
    """The fabric, its clients and its publishes."""

    def __init__(self, count: int) -> None:
        self.fabric = Fabric(count, Limits(max_batch_bytes=150))
        self.survivors = [Survivor(self.fabric.nodes[i % count].client()) for i in range(6)]
        self.published: list[tuple[int, int, Answer]] = []

    def turn(self, core: int, frames: int) -> None:
        self.fabric.turn(core % len(self.fabric.nodes), frames)

    def settle(self) -> None:
        self.fabric.settle()

    def publish(self, core: int, topic: str, qos: int, retain: bool) -> None:
        node = self.fabric.nodes[core % len(self.fabric.nodes)]
        payload = f"{len(self.published)}"
        self.published.append((node.index, qos, node.publish(topic, payload, qos, retain)))
        for one in self.survivors:
            for topic_filter in one.settled:
                if qos and matches(topic_filter.encode(), topic.encode()):
                    one.due.setdefault(topic_filter, set()).add(f"{node.index}:{payload}")

    def subscribe(self, who: int, topic_filter: str, retained: bool) -> None:
        one = self.survivors[who]
        one.asked += 1
        generation = one.generation[topic_filter] = one.generation.get(topic_filter, 0) + 1

        def replied() -> None:
            if one.generation[topic_filter] == generation:
                one.settled.add(topic_filter)

        one.client.subscribe(topic_filter, Options(2), retained, replied)

    def unsubscribe(self, who: int, topic_filter: str) -> None:
        one = self.survivors[who]
        one.generation[topic_filter] = one.generation.get(topic_filter, 0) + 1
        one.settled.discard(topic_filter)
        one.due.pop(topic_filter, None)
        one.client.unsubscribe(topic_filter)

    def join(self, who: int, group: tuple[str, str]) -> None:
        self.survivors[who].asked += 1
        self.survivors[who].client.join(*group)

    def leave(self, who: int, group: tuple[str, str]) -> None:
        self.survivors[who].client.leave(*group)

    def disconnect(self, who: int) -> None:
        client = self.survivors[who].client
        if client.outbox is not None:
            client.disconnect()

    def connect(self, who: int) -> None:
        client = self.survivors[who].client
        if client.outbox is None:
            client.connect()

    def replace(self, core: int) -> None:
        """The clients of a core that dies come back as new ones; its publishes are nobody's."""
        index = core % len(self.fabric.nodes)
        node = self.fabric.replace(index)
        for who, one in enumerate(self.survivors):
            if one.client.node.index == index:
                self.survivors[who] = Survivor(node.client())
            else:
                for due in one.due.values():
                    due -= {name for name in due if name.startswith(f"{index}:")}
        self.published = [
            (source, 0 if source == index else qos, answer)
            for source, qos, answer in self.published
        ]


@settings(max_examples=150)
@given(st.sampled_from([2, 2, 3, 4]), st.lists(operations, min_size=30, max_size=80))
def test_the_others_forget_nothing_and_miss_nothing(
    count: int, steps: list[tuple[object, ...]]
) -> None:
    world = World(count)
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
    world.fabric.settle()
    for one in world.survivors:
        # A client that was away reads what was kept for it when it comes back.
        if one.client.outbox is None:
            one.client.connect()
    world.fabric.settle()
    for one in world.survivors:
        assert one.client.subacks == one.asked
        heard = set(one.client.payloads)
        for due in one.due.values():
            assert {name.split(":")[1] for name in due} <= heard
    for _, qos, answer in world.published:
        if qos:
            assert [code for code, _ in answer.got] == [0]
    check_books(world.fabric)
