"""Names whose core is known, who wants them, and what is under way on the links of a fabric."""

from robustmq._kernel.batch import records
from robustmq.broker import frames
from robustmq.broker.frames import Kind
from tests.fabric import Client, Fabric, Node


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


def subscribed(fabric: Fabric, core: int, topic_filter: str = "t/#") -> Client:
    """A subscriber on a core, known to all."""
    client = fabric.nodes[core].client()
    client.subscribe(topic_filter)
    fabric.settle()
    return client


def durable(fabric: Fabric, *cores: int) -> Node:
    """Core 0, which was told that cores must keep "t/#"."""
    for core in cores:
        fabric.nodes[0].core.receive(core, frames.want(0, True, False, b"t/#"))
    return fabric.nodes[0]


def payloads(batches: list[bytes]) -> list[bytes | None]:
    """The values of all records."""
    return [value for batch in batches for *_, value, _ in records(batch)]
