"""Ids of producers, taken from the ledger in blocks, and given one by one."""

from collections import deque
from collections.abc import Callable
from typing import Final

from robustmq.broker.ledger_api import Ledger
from robustmq.errors import Refusal, Refused

_WAITING: Final = 10_000
_BUSY: Final = Refused(Refusal.BUSY, "too many producers ask for an id at once: ask again")


class ProducerIds:
    """The ids that this core may give; what is left of a block when it ends is given to nobody."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._left = iter(range(0))
        self._waiting: deque[Callable[[int | Refused], None]] = deque()

    def take(self, reply: Callable[[int | Refused], None]) -> None:
        """Give an id that nobody was ever given."""
        if not self._waiting and (number := next(self._left, None)) is not None:
            reply(number)
        elif len(self._waiting) >= _WAITING:
            reply(_BUSY)
        else:
            self._waiting.append(reply)
            if len(self._waiting) == 1:
                self._ledger.producer_ids(self._taken)

    def _taken(self, block: range | Refused) -> None:
        waiting, self._waiting = self._waiting, deque()
        if isinstance(block, Refused):
            for reply in waiting:
                reply(block)
            return
        self._left = iter(block)
        for reply in waiting:
            self.take(reply)
