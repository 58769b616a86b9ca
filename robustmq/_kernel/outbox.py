"""The bytes that wait for one connection's next send, compiled where possible."""

from typing import TYPE_CHECKING

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.outbox import Outbox
else:
    from robustmq._kernel.pure.outbox import Outbox

__all__ = ["Outbox"]
