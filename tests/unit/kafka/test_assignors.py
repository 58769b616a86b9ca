from collections import Counter
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq.kafka.assignors import ASSIGNORS, Assignment, Subscriber, by_range, uniform

TOPICS = (b"a", b"b", b"c")

groups = st.dictionaries(
    st.sampled_from("mnopqrstu"), st.frozensets(st.sampled_from(TOPICS)), max_size=8
)
sizes = st.dictionaries(st.sampled_from(TOPICS), st.integers(0, 9))


def subscribers(
    wanted: Mapping[str, frozenset[bytes]], before: Assignment | None = None
) -> dict[str, Subscriber]:
    had = before or {}
    return {
        each: Subscriber(each, topics, had.get(each, frozenset()))
        for each, topics in wanted.items()
    }


def check(
    wanted: Mapping[str, frozenset[bytes]], counts: Mapping[bytes, int], of: Assignment
) -> None:
    """Everything that somebody wants is given once, to one who wants it."""
    given_ = Counter(place for places in of.values() for place in places)
    readable = {topic for topics in wanted.values() for topic in topics}
    expected = {(t, n) for t, count in counts.items() if t in readable for n in range(count)}
    assert given_ == Counter(expected)
    assert all(topic in wanted[member] for member, some in of.items() for topic, _ in some)
    assert set(of) == set(wanted)


@settings(max_examples=60, deadline=None)
@given(groups, sizes, groups, sizes)
def test_every_partition_has_one_reader_that_wants_it(
    wanted: dict[str, frozenset[bytes]],
    counts: dict[bytes, int],
    later: dict[str, frozenset[bytes]],
    later_counts: dict[bytes, int],
) -> None:
    for assignor in ASSIGNORS.values():
        before = assignor(subscribers(wanted), counts)
        check(wanted, counts, before)
        after = assignor(subscribers(later, before), later_counts)
        check(later, later_counts, after)
        assert assignor(subscribers(later, after), later_counts) == after


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), sizes, st.integers(1, 9))
def test_uniform_is_even_and_moves_as_little_as_that_takes(
    members: int, counts: dict[bytes, int], later: int
) -> None:
    def wanted(count: int) -> dict[str, frozenset[bytes]]:
        return {f"m{index}": frozenset(TOPICS) for index in range(count)}

    before = uniform(subscribers(wanted(members)), counts)
    after = uniform(subscribers(wanted(later), before), counts)
    loads = [len(places) for places in after.values()]
    assert max(loads) - min(loads) <= 1
    total = sum(counts.values())
    stayed = sum(len(after[each] & before[each]) for each in before if each in after)
    share = total // later
    had = [len(before[each]) for each in before if each in after]
    assert stayed >= sum(min(each, share) for each in had)


def test_uniform_moves_to_whoever_may_have_it() -> None:
    wanted = {"m": frozenset({b"a", b"b"}), "n": frozenset({b"a"}), "o": frozenset({b"b"})}
    before = {"m": frozenset((topic, number) for topic in (b"a", b"b") for number in range(4))}
    after = uniform(subscribers(wanted, before), {b"a": 4, b"b": 4})
    assert sorted(len(places) for places in after.values()) == [2, 3, 3]


def test_range_gives_the_same_numbers_of_topics_to_the_same_member() -> None:
    wanted = {"m": frozenset({b"a", b"b"}), "n": frozenset({b"a", b"b"})}
    found = by_range(subscribers(wanted), {b"a": 3, b"b": 3})
    assert sorted(number for _, number in found["m"]) == [0, 0, 1, 1]
    assert found["n"] == {(b"a", 2), (b"b", 2)}


def test_a_thousand_members_and_ten_thousand_partitions_are_soon_done() -> None:
    wanted = {f"m{index}": frozenset(TOPICS) for index in range(1_000)}
    before = uniform(subscribers(wanted), {b"a": 10_000})
    del wanted["m0"]
    after = uniform(subscribers(wanted, before), {b"a": 10_000})
    assert max(len(places) for places in after.values()) == 11
