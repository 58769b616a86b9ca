"""The poller as the selector of an asyncio loop: one wait for sockets, rings, timers and tasks."""

import selectors

from robustmq._kernel.poller import Poller


class PollerSelector(selectors.EpollSelector):
    """An epoll selector inside the poller's own epoll.

    asyncio waits in `select`, and `select` is where the data path takes its turns: it returns
    when a descriptor that asyncio registered is ready or when asyncio's next timer is due.
    """

    def __init__(self, poller: Poller) -> None:
        super().__init__()
        self._poller = poller
        self._watch = poller.watch(self.fileno(), poller.interrupt, edge=False)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Take turns for at most `timeout` seconds (None: no limit), then answer asyncio."""
        self._poller.wait(-1 if timeout is None else int(max(timeout, 0) * 1_000 + 0.999))
        return super().select(0)

    def close(self) -> None:
        """Leave the poller."""
        self._watch.cancel()
        super().close()
