"""Placement: every process must give the same answers, for ever."""

from robustmq.broker.placement import Life, Placement
from robustmq.message.core_number import FIRST_REMOTE, index_of, node_of
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


NAMES = [b"name/%d" % number for number in range(600)]


def placement(node: int, **nodes: Life) -> Placement:
    known = {int(name[1:]): life for name, life in nodes.items()}
    made = Placement(known[node].workers, node)
    made.update(known)
    return made


def leaders(of: Placement) -> list[tuple[int, int]]:
    """Who leads each name, as (node, core)."""
    assert of.node is not None
    found = []
    for name in NAMES:
        core = of.group_core(name)
        assert of.exclusive_core(name) == core
        assert of.is_live(core)
        found.append((of.node if core < FIRST_REMOTE else node_of(core), index_of(core)))
    return found


def test_a_node_that_is_alone_in_its_cluster_leads_as_one_without_a_cluster() -> None:
    alone = Placement(3)
    clustered = placement(5, n5=Life(9, 3))
    for name in NAMES:
        assert clustered.group_core(name) == alone.group_core(name) == stable_hash(name) % 3
    assert clustered.cores == alone.cores == (0, 1, 2)
    assert alone.digest == 0 != clustered.digest


def test_all_nodes_agree_on_who_leads() -> None:
    nodes = {"n0": Life(1, 2), "n1": Life(4, 3), "n62": Life(1, 1)}
    answers = [leaders(placement(node, **nodes)) for node in (0, 1, 62)]
    assert answers[0] == answers[1] == answers[2]
    assert {node for node, _ in answers[0]} == {0, 1, 62}
    digests = {placement(node, **nodes).digest for node in (0, 1, 62)}
    assert len(digests) == 1
    assert placement(0, **{**nodes, "n1": Life(5, 3)}).digest not in digests


def test_cores_of_other_nodes_have_numbers_beyond_the_own_ones() -> None:
    made = placement(1, n0=Life(1, 2), n1=Life(1, 2), n62=Life(1, 1))
    assert list(made.cores) == [0, 1, 1_024, 1_025, 63 << 10]
    assert list(made.remote) == [1_024, 1_025, 63 << 10]
    assert made.is_live(1)
    assert not made.is_live(1_026)
    made.update({1: Life(2, 2), 62: Life(1, 1)})
    assert list(made.cores) == [0, 1, 63 << 10]
    assert [made.is_live(core) for core in (1, 1_024, 63 << 10)] == [True, False, True]


def test_only_what_a_node_led_moves_when_it_goes_and_only_to_it_when_it_comes() -> None:
    three = leaders(placement(0, n0=Life(1, 2), n1=Life(1, 2), n2=Life(1, 4)))
    two = leaders(placement(0, n0=Life(1, 2), n1=Life(7, 2)))
    moved = [(before, after) for before, after in zip(three, two, strict=True) if before != after]
    assert moved
    assert {node for (node, _), _ in moved} == {2}
    assert all(before[0] == 2 or before == after for before, after in zip(three, two, strict=True))
    counts = [sum(node == each for node, _ in three) for each in range(3)]
    assert min(counts) > len(NAMES) / 5
