"""How much intakes may take before somebody is asked, compiled where possible."""

from typing import TYPE_CHECKING

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.meter import Meter
else:
    from robustmq._kernel.pure.meter import Meter

__all__ = ["Meter"]
