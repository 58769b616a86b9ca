"""Batches on their way to the cores that want them, and what each core has not answered."""

from collections.abc import Callable
from typing import NamedTuple

from robustmq._kernel.batch import Acks


class Append:
    """A batch that some cores have not confirmed; `code` is the first refusal among them.

    It is numbered by `epoch` and `call` in this core's stream. `forget` is called at the end.
    What `is_owed` may have been acknowledged in an earlier life: no core may refuse it. What is
    not `stored` (messages of QoS 0) no durable session is owed. What `is_read` was read from a
    log, and goes into none. `whole` is the batch whose publishers wait for this part of it, too.
    """

    __slots__ = (
        "acks", "call", "code", "epoch", "forget", "is_owed", "is_read", "owing", "places",
        "stored", "unmatched", "whole",
    )  # fmt: skip

    def __init__(
        self,
        acks: Acks,
        epoch: int,
        call: int,
        *,
        is_owed: bool = False,
        is_read: bool = False,
        stored: bool = True,
        whole: "Append | None" = None,
    ) -> None:
        self.is_owed = is_owed
        self.is_read = is_read
        self.stored = stored
        self.whole = whole
        self.acks = acks
        self.unmatched: list[tuple[int, int]] = []
        self.places: list[int] | None = None
        """Where the records that are sent stood in what was published; None: nothing is held."""
        self.epoch = epoch
        self.call = call
        self.owing = 1
        self.code = 0
        self.forget: Callable[[], None] | None = None

    @property
    def is_once(self) -> bool:
        """Whether something is to be delivered once of what is answered together with it."""
        return self.forget is not None or (self.whole is not None and self.whole.is_once)

    def confirm(self, code: int) -> None:
        """One core less; the publishers hear of it when it was the last."""
        self.code = self.code or code
        self.owing -= 1
        if self.owing:
            return
        if self.forget is not None:
            self.forget()
        self.acks.settle(self.code, self._unmatched())
        if self.whole is not None:
            self.whole.confirm(self.code)

    def _unmatched(self) -> list[tuple[int, int]]:
        """The records that nobody wanted, by their places in what was published."""
        if self.places is None:
            return self.unmatched
        nobodys = (self.places[start:stop] for start, stop in self.unmatched)
        return [(place, place + 1) for places in nobodys for place in places]


class Call(NamedTuple):
    """A part that waits for its answer, to be sent again when its core is replaced."""

    append: Append
    frame: bytes


class PutOff(NamedTuple):
    """A batch that is written before it is sent (`once`), or that waits behind such a one."""

    append: Append
    batch: bytes
    retained: bool
    once: bool


class Held(NamedTuple):
    """Records of `whole` that are not sent yet; those at the places `once` have the row `key`."""

    whole: Append
    batch: bytes
    retained: bool
    once: list[int]
    key: bytes


class Unanswered:
    """What one core has been asked to keep and has not answered, by call, in order."""

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}
        self.size = 0
        self.retained = 0
        """The position of the retained messages that were sent to it last."""
