"""PUBLISH packets rewritten to carry a topic alias, compiled where possible."""

from typing import TYPE_CHECKING

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.alias import with_alias
else:
    from robustmq._kernel.pure.alias import with_alias

__all__ = ["with_alias"]
