"""Placement: every process must give the same answers, for ever."""

from robustmq.broker.placement import Placement
from robustmq.message.topic import stable_hash


def test_answers_are_stable() -> None:
    placement = Placement(4)
    for where in (placement.home_of, placement.group_core, placement.retained_core):
        assert where(b"a/b") == stable_hash(b"a/b") % 4
    again = Placement(4)
    assert placement.retained_core(b"a/b") == again.retained_core(b"a/b")


def test_retained_messages_of_a_plain_filter_are_at_one_core_and_of_a_wildcard_at_all() -> None:
    placement = Placement(3)
    assert placement.retained_cores(b"a/b") == [placement.retained_core(b"a/b")]
    assert placement.retained_cores(b"a/+") == [0, 1, 2]
    assert placement.retained_cores(b"#") == [0, 1, 2]


def test_everything_has_a_core_and_all_cores_get_some() -> None:
    placement = Placement(3)
    names = [b"%d" % number for number in range(300)]
    for where in (placement.home_of, placement.group_core, placement.retained_core):
        assert {where(name) for name in names} == {0, 1, 2}
