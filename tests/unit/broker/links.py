"""Names whose core is known, and what is under way on the links of a fabric."""

from robustmq.broker.frames import Kind
from tests.fabric import Fabric


def topic_of(fabric: Fabric, core: int, prefix: str = "t") -> str:
    """A topic whose retained message is kept by a core."""
    return next(
        name
        for name in (f"{prefix}/{number}" for number in range(1_000))
        if fabric.placement.retained_core(name.encode()) == core
    )


def under_way(fabric: Fabric, source: int, target: int, kind: Kind) -> list[bytes]:
    """The frames of one kind between two cores that the target's present life will see."""
    life = fabric.lives[target]
    return [
        frame.data
        for frame in fabric.rings[source, target]
        if frame.data[0] == kind and frame.target_life == life
    ]


def kinds(fabric: Fabric, source: int, target: int) -> list[int]:
    """The kinds of the frames on a link."""
    return [frame.data[0] for frame in fabric.rings[source, target]]
