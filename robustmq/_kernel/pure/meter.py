"""How much one or several intakes may take before somebody is asked: readable twin."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from robustmq._kernel.pure.intake import Intake


class Meter:
    """What may be taken before its owner is asked again: PUBLISH packets, and bytes of them.

    `refill(intake)` is called when either is used up: it grants more by setting `messages` and
    `size` above 0, or throttles the intake.
    """

    __slots__ = ("messages", "refill", "size")

    def __init__(self, refill: Callable[[Intake], object]) -> None:
        self.refill = refill
        self.messages = 0
        self.size = 0

    def charge(self, intake: Intake, messages: int, size: int) -> None:
        """Take from what is granted; the last packet may exceed it."""
        self.messages -= messages
        self.size -= size
        self.check(intake)

    def check(self, intake: Intake) -> None:
        """Ask for more if there is nothing left."""
        if (self.messages <= 0 or self.size <= 0) and not intake.throttled:
            self.refill(intake)
