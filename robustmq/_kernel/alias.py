"""PUBLISH packets rewritten to carry an alias or other properties, compiled where possible."""

from typing import TYPE_CHECKING

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.alias import with_alias, with_block
else:
    from robustmq._kernel.pure.alias import with_alias, with_block

__all__ = ["with_alias", "with_block"]
