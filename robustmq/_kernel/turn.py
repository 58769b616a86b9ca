"""What everything within one worker's turn shares, compiled where possible."""

from typing import TYPE_CHECKING

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.turn import AckTarget, Turn
else:
    from robustmq._kernel.pure.turn import AckTarget, Turn

__all__ = ["AckTarget", "Turn"]
