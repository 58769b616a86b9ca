"""A session's outgoing messages, compiled where possible: in flight, then queued."""

from typing import TYPE_CHECKING

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.window import Run, Window
else:
    from robustmq._kernel.pure.window import Run, Window

__all__ = ["Run", "Window"]
