"""Where frames begin and end in a stream, compiled where possible."""

from typing import TYPE_CHECKING

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.framing import Framing
else:
    from robustmq._kernel.pure.framing import Framing

__all__ = ["Framing"]
