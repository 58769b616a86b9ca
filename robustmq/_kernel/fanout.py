"""From a batch of records to every subscriber of this core, compiled where possible."""

from typing import TYPE_CHECKING

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.fanout import Fanout, Group, Route
else:
    from robustmq._kernel.pure.fanout import Fanout, Group, Route

__all__ = ["Fanout", "Group", "Route"]
