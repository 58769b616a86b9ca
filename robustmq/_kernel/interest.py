"""From an appended batch to the cores that want its records, compiled where possible."""

from typing import TYPE_CHECKING

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.interest import Interest
else:
    from robustmq._kernel.pure.interest import Interest

__all__ = ["Interest"]
