"""Numbers of cores: our own are 0 and up; those of other nodes have the node above ten bits."""

from typing import Final

INDEX_BITS: Final = 10
"""Bits of a core's index on its node; a node has at most 64 workers."""
FIRST_REMOTE: Final = 1 << INDEX_BITS
"""Numbers from here on are cores of other nodes."""
NODE_MAX: Final = 62
"""The highest number of a node in a cluster."""

_INDEX: Final = FIRST_REMOTE - 1


def global_core(node: int, index: int) -> int:
    """Return the number by which other nodes know core `index` of a node."""
    return (node + 1) << INDEX_BITS | index


def node_of(core: int) -> int:
    """Return the node of a core that is known by a global number; -1 for a number of our own."""
    return (core >> INDEX_BITS) - 1


def index_of(core: int) -> int:
    """Return the index that a core has on its node."""
    return core & _INDEX
