"""Numbers of cores: those of other nodes are unlike our own, and tell whose they are."""

import pytest

from robustmq.message.core_number import (
    FIRST_REMOTE,
    NODE_MAX,
    global_core,
    index_of,
    node_of,
)


@pytest.mark.parametrize(("node", "index"), [(0, 0), (0, 63), (7, 5), (NODE_MAX, 63)])
def test_a_global_number_holds_its_node_and_its_index(node: int, index: int) -> None:
    core = global_core(node, index)
    assert core >= FIRST_REMOTE
    assert (node_of(core), index_of(core)) == (node, index)
    assert core < 1 << 16


def test_a_number_of_our_own_names_no_node() -> None:
    assert node_of(63) == -1
    assert index_of(63) == 63
