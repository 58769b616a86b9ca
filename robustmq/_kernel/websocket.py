"""The frames of a WebSocket client, compiled where possible: unmasked and taken apart."""

from typing import TYPE_CHECKING

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.websocket import FrameReader
else:
    from robustmq._kernel.pure.websocket import FrameReader

__all__ = ["FrameReader"]
