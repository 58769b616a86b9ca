"""Interests against a naive model: every target of every topic, through the lives of the cores."""

from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq._kernel.batch import BatchBuilder, records
from robustmq._kernel.turn import Turn
from robustmq.broker.interests import CORE, DURABLE, Interests
from robustmq.message.record import NO_HEADERS
from robustmq.message.topic import matches
from robustmq.metrics import CELLS

TOPICS = [b"a", b"a/b", b"a/c", b"b/c", b"$x/y"]
FILTERS = [b"a", b"a/b", b"#", b"a/#", b"a/+", b"+/c", b"$x/+"]
CORES = range(4)

cores = st.sampled_from(CORES)
filters = st.sampled_from(FILTERS)
Step: TypeAlias = tuple[object, ...]
steps = st.one_of(
    st.tuples(st.just("want"), cores, filters, st.booleans()),
    st.tuples(st.just("want"), cores, filters, st.booleans()),
    st.tuples(st.just("unwant"), cores, filters),
    st.tuples(st.just("replaced"), cores),
    st.tuples(st.just("told"), cores),
    st.tuples(st.just("publish"), st.lists(st.sampled_from(TOPICS), min_size=1, max_size=8)),
)


class Model:
    """What every core has said, and whether it said so in the life that it is in."""

    def __init__(self) -> None:
        self.said: dict[tuple[int, bytes], tuple[bool, bool]] = {}
        """(core, filter) -> (durable, in this life)."""

    def want(self, core: int, topic_filter: bytes, durable: bool) -> None:
        self.said[core, topic_filter] = durable, True

    def unwant(self, core: int, topic_filter: bytes) -> None:
        self.said.pop((core, topic_filter), None)

    def replaced(self, core: int) -> None:
        for (who, name), (durable, _) in self.said.items():
            if who == core:
                self.said[who, name] = durable, False

    def told(self, core: int) -> None:
        self.said = {key: word for key, word in self.said.items() if key[0] != core or word[1]}

    def targets(self, topic: bytes) -> set[int]:
        """One target for each core that wants the topic, durable if any of its filters is."""
        found: dict[int, bool] = {}
        for (core, topic_filter), (durable, _) in self.said.items():
            if matches(topic_filter, topic):
                found[core] = found.get(core, False) or durable
        return {core | DURABLE if durable else core for core, durable in found.items()}


def batch_of(topics: list[bytes]) -> bytes:
    """A batch whose values number the records."""
    row = memoryview(bytearray(8 * CELLS)).cast("Q")
    builder = BatchBuilder(Turn(row), 0, 1 << 20, None)
    for number, topic in enumerate(topics):
        builder.append(topic, b"%d" % number, NO_HEADERS, 0, 1_000)
    return builder.take()[0]


def check(interests: Interests, model: Model, topics: list[bytes]) -> None:
    """Does every record go to its targets, once and in order, and is the rest named?"""
    parts, unmatched = interests.split(batch_of(topics))
    got = {target: [int(value or b"") for *_, value, _ in records(part)] for target, part in parts}
    assert len(got) == len(parts)
    due: dict[int, list[int]] = {}
    for number, topic in enumerate(topics):
        targets = model.targets(topic)
        assert len({target & CORE for target in targets}) == len(targets)
        for target in targets:
            due.setdefault(target, []).append(number)
    assert got == due
    nobody = [number for start, stop in unmatched for number in range(start, stop)]
    assert nobody == [n for n, topic in enumerate(topics) if not model.targets(topic)]


@settings(max_examples=300)
@given(st.integers(1, 6), st.lists(steps, max_size=60))
def test_every_record_goes_to_whom_the_model_names(route_cache: int, taken: list[Step]) -> None:
    interests, model = Interests(route_cache), Model()
    for name, *arguments in taken:
        if name == "publish":
            (topics,) = arguments
            assert isinstance(topics, list)
            check(interests, model, topics)
        else:
            for one in (interests, model):
                getattr(one, str(name))(*arguments)
    check(interests, model, TOPICS)
    for core in CORES:
        interests.told(core)
        model.told(core)
    check(interests, model, TOPICS)
    # At rest nothing is kept that nobody wants.
    wanted = {topic_filter for _, topic_filter in model.said}
    assert set(interests._filters) == wanted
    assert len(interests._wild) == sum(b"+" in name or b"#" in name for name in wanted)
    assert not interests._unconfirmed


@settings(max_examples=100)
@given(
    st.sets(cores),
    st.lists(st.tuples(st.sampled_from(["told", "replaced"]), cores), max_size=20),
)
def test_all_that_are_awaited_have_to_tell(awaited: set[int], words: list[tuple[str, int]]) -> None:
    interests = Interests(10)
    interests.await_from(awaited)
    for word, core in words:
        getattr(interests, word)(core)
    assert interests.awaited is bool(awaited - {core for word, core in words if word == "told"})
