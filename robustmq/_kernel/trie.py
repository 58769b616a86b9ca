"""The subscription trie, compiled where possible: from a topic to the keys of its filters."""

from typing import TYPE_CHECKING

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.trie import Trie
else:
    from robustmq._kernel.pure.trie import Trie

__all__ = ["Trie"]
