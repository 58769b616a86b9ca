"""Strategies by example; `tests/property/test_share_strategy.py` has their laws."""

from collections.abc import Iterator

import pytest

from robustmq.settings.topics import Strategy
from robustmq.shard.share_group import ShareGroup
from robustmq.shard.share_strategy import make


def group(strategy: Strategy, *members: int, chance: Iterator[int] | None = None) -> ShareGroup:
    made = ShareGroup(10, make(strategy, lambda _: next(chance) if chance is not None else 0))
    for member in members:
        made.join(member, True, member % 2)
    return made


def takers(shared: ShareGroup, count: int, home: int = 0) -> list[int]:
    """Who takes each of some messages that come one by one."""
    found = []
    for _ in range(count):
        ((member, raws),) = shared.share(
            b"", [b"x"], [b""] * bool(shared.strategy.by), home
        ).items()
        assert raws == [b"x"]
        found.append(member)
    return found


def test_chance_chooses() -> None:
    shared = group("random", 7, 8, 9, chance=iter([2, 0, 0, 1]))
    assert takers(shared, 4) == [9, 7, 7, 8]


def test_one_has_all_until_it_cannot() -> None:
    shared = group("sticky", 1, 2, 3)
    assert takers(shared, 3) == [1, 1, 1]
    shared.join(1, False)
    assert takers(shared, 2) == [2, 2]
    shared.join(1, True)
    assert takers(shared, 2) == [2, 2]
    shared.leave(2)
    assert takers(shared, 1) == [3]


def test_who_has_least_is_given_more() -> None:
    shared = group("least_inflight", 1, 2, 3)
    assert takers(shared, 6) == [1, 2, 3, 1, 2, 3]
    # One has acknowledged all, two has eight more from elsewhere, three is not heard of.
    shared.strategy.report(1, 2, 0)
    shared.strategy.report(2, 2, 10)
    assert takers(shared, 4) == [1, 1, 3, 1]


def test_what_a_member_has_not_seen_counts_and_a_new_life_begins_with_nothing() -> None:
    shared = group("least_inflight", 1, 2)
    assert takers(shared, 4) == [1, 2, 1, 2]
    shared.strategy.report(1, 1, 0)
    shared.strategy.report(2, 2, 0)
    assert takers(shared, 2) == [2, 1]
    shared.leave(1)
    shared.strategy.report(1, 3, 9)
    shared.join(1, True)
    assert takers(shared, 1) == [1]
    shared.strategy.report(1, 100, 0)
    assert takers(shared, 1) == [1]


def test_a_key_is_a_members() -> None:
    shared = group("hash_topic", 1, 2, 3)
    keys = [b"%d" % number for number in range(300)]

    def owners() -> dict[bytes, int]:
        shares = shared.share(b"", keys, keys)
        return {key: member for member, mine in shares.items() for key in mine}

    before = owners()
    assert owners() == before
    for member in (1, 2, 3):
        assert 50 < list(before.values()).count(member) < 180
    shared.join(2, False)
    without = owners()
    assert all(without[key] == owner for key, owner in before.items() if owner != 2)
    shared.join(2, True)
    assert owners() == before


def test_those_on_the_publishers_core_go_first() -> None:
    shared = group("local", 1, 2, 3, 4)
    assert takers(shared, 4, home=0) == [2, 4, 2, 4]
    assert takers(shared, 3, home=1) == [1, 3, 1]
    shared.leave(1)
    shared.join(3, False)
    assert sorted(takers(shared, 2, home=1)) == [2, 4]
    shared.join(3, True, 1)
    assert takers(shared, 2, home=1) == [3, 3]
    assert sorted(takers(shared, 3, home=-1)) == [2, 3, 4]


@pytest.mark.parametrize(
    ("strategy", "by"),
    [("hash_topic", "topic"), ("hash_clientid", "client"), ("local", ""), ("round_robin", "")],
)
def test_strategies_say_what_they_have_to_know(strategy: Strategy, by: str) -> None:
    assert make(strategy, lambda _: 0).by == by
