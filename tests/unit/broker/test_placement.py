"""Placement: every process must give the same answers, for ever."""

from robustmq.broker.placement import Placement


def test_answers_are_stable() -> None:
    placement = Placement(4, 12)
    assert placement.shard_of(b"a/b") == Placement(4, 12).shard_of(b"a/b")
    assert placement.owner_of(b"a/b") == placement.core_of(placement.shard_of(b"a/b"))
    assert [placement.core_of(shard) for shard in range(12)] == [0, 1, 2, 3] * 3


def test_a_plain_filter_concerns_the_owner_and_a_wildcard_all() -> None:
    placement = Placement(3, 3)
    assert placement.cores_of_filter(b"a/b") == [placement.owner_of(b"a/b")]
    assert placement.cores_of_filter(b"a/+") == [0, 1, 2]
    assert placement.cores_of_filter(b"#") == [0, 1, 2]


def test_everything_has_a_core_and_all_cores_get_some() -> None:
    placement = Placement(3, 6)
    names = [b"%d" % number for number in range(300)]
    for where in (placement.owner_of, placement.group_core, placement.home_of):
        assert {where(name) for name in names} == {0, 1, 2}
