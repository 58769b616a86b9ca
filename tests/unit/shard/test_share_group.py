"""A shared group by example; `tests/property/test_share_group.py` has its laws."""

from robustmq.shard.share_group import ShareGroup, Waiting
from robustmq.shard.share_strategy import RoundRobin


def test_members_take_turns_and_those_that_are_not_ready_are_passed_over() -> None:
    group = ShareGroup(10, RoundRobin())
    for member, ready in ((1, True), (2, False), (3, True)):
        group.join(member, ready)
    assert group.share(b"", [b"a", b"b", b"c"]) == {1: [b"a", b"c"], 3: [b"b"]}
    group.join(2, True)
    assert group.share(b"", [b"d", b"e", b"f"]) == {3: [b"d"], 1: [b"e"], 2: [b"f"]}
    group.join(3, True)
    group.leave(1)
    group.leave(1)
    assert group.share(b"", [b"g", b"h"]) == {3: [b"g"], 2: [b"h"]}
    assert (len(group), 1 in group, group.members) == (2, False, [2, 3])


def test_what_waits_is_taken_when_somebody_is_ready() -> None:
    group = ShareGroup(2, RoundRobin())
    group.join(1, False)
    assert group.share(b"one", [b"a"]) == {}
    assert group.share(b"two", [b"b", b"c"]) == {}
    assert (group.take_waiting(), group.dropped) == ([], 1)
    group.join(1, True)
    assert group.take_waiting() == [Waiting(b"two", b"b"), Waiting(b"two", b"c")]
    assert group.take_waiting() == []
