"""The byte ring between two processes, compiled where possible."""

from typing import TYPE_CHECKING

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.ring import FRAME_HEADER_BYTES, RING_HEADER_BYTES, Ring
else:
    from robustmq._kernel.pure.ring import FRAME_HEADER_BYTES, RING_HEADER_BYTES, Ring

__all__ = ["FRAME_HEADER_BYTES", "RING_HEADER_BYTES", "Ring"]
