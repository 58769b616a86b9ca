"""Which topics have a log somewhere on this node: what its cores tell each other of that."""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from robustmq.broker import partition_frames as frames
from robustmq.broker.catalog import Catalog
from robustmq.broker.placement import Placement
from robustmq.broker.router import Fabric
from robustmq.message.core_number import FIRST_REMOTE

_PAGE: Final = 500
"""Topics that one frame names."""


class KeptLogs:
    """The logs of core `core` that a topic has to itself, and the others' of the same node.

    A topic that a rule of the file gives a log is one for readers of logs as soon as it has one.
    """

    def __init__(self, core: int, placement: Placement, fabric: Fabric, catalog: Catalog) -> None:
        self._core = core
        self._placement = placement
        self._fabric = fabric
        self._catalog = catalog
        self._own: dict[bytes, None] = {}
        self._has_told = False

    def kept(self, topic: bytes, is_there: bool) -> None:
        """A log of this core is there, or is gone; the other cores hear it when they may."""
        if is_there:
            self._own[topic] = None
        else:
            self._own.pop(topic, None)
        self._catalog.keeps(topic, is_there)
        if self._has_told:
            for core in range(self._placement.workers):
                if core != self._core:
                    self._fabric.send(core, frames.kept(is_there, [topic]))

    def tell(self, core: int) -> None:
        """Tell a core of this node all logs that are here, and from then on what changes."""
        self._has_told = True
        if core >= FIRST_REMOTE:
            return
        names: Iterator[bytes] = iter([*self._own])
        while page := [*islice(names, _PAGE)]:
            self._fabric.send(core, frames.kept(True, page))

    def on_kept(self, source: int, frame: bytes) -> None:
        """Another core has logs, or has them no more."""
        del source
        is_there, topics = frames.read_kept(frame)
        for topic in topics:
            self._catalog.keeps(topic, is_there)
