"""What is known of one session that is given messages from the inbox."""

from collections.abc import Callable
from typing import NamedTuple

from robustmq._kernel.window import Window
from robustmq.broker.api import Options
from robustmq.broker.filter_log import FilterLog

Take = Callable[[bytes, int, int, int], FilterLog | None]
"""A shared group's: (batch, start, stop, count) -> the log in which it wants the run, or None."""


class Source(NamedTuple):
    """A subscription of a durable session: its log, and where in it the subscription began.

    `origin` marks what a member of a shared group is given, so that it can be taken back.
    """

    topic_filter: bytes
    log: FilterLog
    options: Options
    start: int
    origin: object = None


class Cursor:
    """Where one durable session stands: all before `position` is acknowledged, on disk too.

    `exchanges` are the QoS 2 packet ids in flight and their positions; `past` the positions
    from `position` on that must not be given again, whose rows go when the cursor has passed.
    Before `copied` the window has had all copies that are for further subscriptions.
    """

    __slots__ = ("copied", "exchanges", "past", "position", "sources", "window")

    def __init__(self, window: Window, position: int) -> None:
        self.window = window
        self.position = position
        self.sources: tuple[Source, ...] = ()
        self.exchanges: dict[int, int] | None = None
        self.past: set[int] | None = None
        self.copied = 0


class Guest(Cursor):
    """The cursor of a session that ends with its core: only shared groups put something by."""

    __slots__ = ()


class Unsent(NamedTuple):
    """What of a session's positions was never sent: from `first` on all that are not in `sent`.

    `flying` are QoS 2 messages that were sent and that the client has not confirmed.
    """

    first: int
    sent: set[int]
    flying: set[int]
