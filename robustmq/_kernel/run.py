"""PUBLISH packets of one topic, encoded once and shared, compiled where possible."""

from typing import TYPE_CHECKING

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.run import Run
else:
    from robustmq._kernel.pure.run import Run

__all__ = ["Run"]
