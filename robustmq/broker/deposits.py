"""What other cores have asked this one to keep: each part once, and none of what is owed left out.

Rows: `E` source -> the number (epoch, call) of the last part of that core whose messages are kept.
"""

import struct
from typing import Final

from robustmq.broker.frames import Number
from robustmq.broker.state import State
from robustmq.errors import Refusal, Refused

_NUMBER: Final = struct.Struct(">IQ")
_SOURCE: Final = struct.Struct(">cH")

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
        self._last: dict[int, Number] = {}
        self._owed: dict[int, list[Number]] = {}
        self._unnoted: set[int] = set()

    def restore(self) -> None:
        """After a restart: take up where the last life was."""
        for key, value in self._state.walk(b"E", b"F"):
            self._last[_SOURCE.unpack(key)[1]] = Number(*_NUMBER.unpack(value))

    def judge(self, source: int, number: Number, is_owed: bool) -> Refused | None:
        """Say why a part is not to be kept: it is `REPEATED`, or refused; None when it is."""
        if number <= self._last.get(source, Number(0, 0)):
            return REPEATED
        owed = self._owed.get(source, [])
        refused = self._state.refusal
        if owed and number > owed[0]:
            refused = refused or _HELD_UP
        if refused is not None and is_owed and number not in owed:
            self._owed[source] = sorted([*owed, number])
        return refused

    def took(self, source: int, number: Number, has_rows: bool) -> None:
        """Learn that a part was kept; `has_rows`: some of it is to be written."""
        self._last[source] = number
        if has_rows:
            self._unnoted.add(source)
        owed = self._owed.get(source)
        if owed and owed[0] == number:
            del owed[0]
            if not owed:
                del self._owed[source]

    def note(self) -> None:
        """Before the turn's commit: put what was taken beside the messages."""
        for source in self._unnoted:
            self._state.put(_SOURCE.pack(b"E", source), _NUMBER.pack(*self._last[source]))
        self._unnoted.clear()
