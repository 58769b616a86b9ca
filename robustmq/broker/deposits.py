"""What other cores have asked this one to keep: each part once, and none of what is owed left out.

Rows: `E` (see `taken`): the last part of each core whose messages are kept.
"""

from typing import Final

from robustmq.broker.frames import Number
from robustmq.broker.state import State
from robustmq.broker.taken import Taken
from robustmq.errors import Refusal, Refused

DEPOSITS: Final = b"E"

REPEATED: Final = Refused(Refusal.INTERNAL, "the part was taken before")
"""The judgement on a part that is to be confirmed and not kept again."""

_HELD_UP: Final = Refused(Refusal.BUSY, "earlier messages of the same core wait for the disk")


class Deposits:
    """Tells parts that are new from those that were taken, by their numbers.

    A core sends again what was not answered, so a number may come twice, but none comes for the
    first time after a higher one; else it would be taken for a repeat. Therefore a part that is
    owed (it may have been acknowledged already, and is asked for until it is taken) holds up
    the later parts of its core while it is refused.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._taken = Taken(state, DEPOSITS)
        self._owed: dict[int, list[Number]] = {}
        self.restore = self._taken.restore
        self.note = self._taken.note
        self.forget = self._taken.forget

    def judge(self, source: int, number: Number, is_owed: bool) -> Refused | None:
        """Say why a part is not to be kept: it is `REPEATED`, or refused; None when it is."""
        if self._taken.has(source, number):
            return REPEATED
        owed = self._owed.get(source, [])
        refused = self._state.refusal
        if owed and number > owed[0]:
            refused = refused or _HELD_UP
        if refused is not None and is_owed and number not in owed:
            self._owed[source] = sorted([*owed, number])
        return refused

    def passed(self, source: int, number: Number) -> None:
        """Learn that no part up to `number` is still to come for the first time.

        What was not for this core when it was sent is not for it when it is sent again.
        """
        if source not in self._owed and not self._taken.has(source, number):
            self._taken.add(source, number, has_rows=False)

    def departed(self, source: int) -> None:
        """A core is gone with its node: it waits for nothing. What was taken stays known."""
        self._owed.pop(source, None)

    def took(self, source: int, number: Number, has_rows: bool) -> None:
        """Learn that a part was kept; `has_rows`: some of it is to be written."""
        self._taken.add(source, number, has_rows)
        owed = self._owed.get(source)
        if owed and owed[0] == number:
            del owed[0]
            if not owed:
                del self._owed[source]
