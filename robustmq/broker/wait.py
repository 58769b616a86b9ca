"""A subscription that is not settled: some cores have not said that they know it."""

from collections.abc import Callable

from robustmq._kernel.window import Window
from robustmq.broker.api import Kept


class Wait:
    """An interest that waits for cores to know it; they are `owing` an answer.

    `window` is the subscriber's, None when a shared group wants the filter.
    """

    __slots__ = ("kept", "owing", "reply", "retained", "topic_filter", "window")

    def __init__(
        self,
        topic_filter: bytes,
        owing: list[int],
        window: Window | None,
        retained: bool,
        reply: Callable[[list[Kept]], None],
    ) -> None:
        self.topic_filter = topic_filter
        self.owing = set(owing)
        self.window = window
        self.retained = retained
        self.reply = reply
        self.kept: list[Kept] = []
