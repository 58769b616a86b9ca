"""Counting votes: majorities of a membership, and what may become of it."""

from collections.abc import Iterable

from robustmq.errors import Refusal, Refused
from robustmq.raft.message import Membership


def majority(count: int) -> int:
    """How many of `count` voters are more than half."""
    return count // 2 + 1


def agreed(values: list[int]) -> int:
    """The highest number that a majority has reached: one value per voter, at least one."""
    values.sort()
    return values[(len(values) - 1) >> 1]


def members(membership: Membership) -> Iterable[int]:
    """All replicas, voters first."""
    return (*membership.voters, *membership.learners)


def with_learner(membership: Membership, node: int) -> Membership | Refused:
    """The membership and one more learner."""
    if node in membership.voters or node in membership.learners:
        return Refused(Refusal.BUSY, f"Node {node} belongs to the group already.")
    return Membership(membership.voters, tuple(sorted((*membership.learners, node))))


def promoted(membership: Membership, node: int) -> Membership | Refused:
    """The membership with a learner as a voter."""
    if node not in membership.learners:
        return Refused(Refusal.BUSY, f"Node {node} is no learner of the group.")
    learners = tuple(each for each in membership.learners if each != node)
    return Membership(tuple(sorted((*membership.voters, node))), learners)


def without(membership: Membership, node: int) -> Membership | Refused:
    """The membership without a replica."""
    if node not in membership.voters and node not in membership.learners:
        return Refused(Refusal.BUSY, f"Node {node} does not belong to the group.")
    voters = tuple(each for each in membership.voters if each != node)
    if not voters:
        return Refused(Refusal.BUSY, f"Node {node} is the last voter; it cannot leave the group.")
    return Membership(voters, tuple(each for each in membership.learners if each != node))
