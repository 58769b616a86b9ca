"""A listening socket, and the door behind it that looks whose plain connection it is."""

import os
import socket
from collections.abc import Callable
from typing import Final, Protocol

from robustmq._kernel.poller import Poller, Watch, accept, peek

_BATCH: Final = 64
_RETRY_MS: Final = 200


class Clock(Protocol):
    """What calls back later."""

    def at(self, when_ms: int, callback: Callable[[], None]) -> object:
        """Call back at a time of the turn's clock."""


class Acceptor:
    """Accepts the connections of one listening socket until it is shut.

    `met(fd)` takes each. `full()` says that no more may come in; `refused()` counts what was
    turned away.
    """

    def __init__(
        self,
        poller: Poller,
        *,
        clock: Clock,
        now_ms: Callable[[], int],
        listener: socket.socket,
        met: Callable[[int], None],
        full: Callable[[], bool],
        refused: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._now_ms = now_ms
        self._listener = listener
        self._met = met
        self._full = full
        self._refused = refused
        self._watch: Watch | None = poller.watch(listener.fileno(), self._ready)

    def shut(self) -> None:
        """Accept no more."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._listener.close()

    def _ready(self) -> None:
        while self._watch is not None:
            try:
                arrived = accept(self._listener.fileno(), _BATCH)
            except OSError:
                # Out of descriptors: those who wait stay in the backlog until some are free.
                self._clock.at(self._now_ms() + _RETRY_MS, self._ready)
                return
            for fd in arrived:
                if self._full():
                    os.close(fd)
                    self._refused()
                else:
                    self._met(fd)
            if len(arrived) < _BATCH:
                return


class Door:
    """Looks at the first bytes of plain connections without taking them, and sends each home.

    `home(first bytes)` is the core for a stream, or None when it cannot be told yet; `arrived`
    takes a descriptor and its core. `refused()` counts what was turned away or was silent for
    `timeout_ms`.
    """

    def __init__(
        self,
        poller: Poller,
        *,
        clock: Clock,
        now_ms: Callable[[], int],
        peek_bytes: int,
        timeout_ms: int,
        home: Callable[[bytes], int | None],
        arrived: Callable[[int, int], None],
        refused: Callable[[], None],
    ) -> None:
        self._poller = poller
        self._clock = clock
        self._now_ms = now_ms
        self._peek_bytes = peek_bytes
        self._timeout_ms = timeout_ms
        self._home = home
        self._arrived = arrived
        self._refused = refused
        self._waiting: dict[int, tuple[Watch, int]] = {}
        self._timed = False

    @property
    def waiting(self) -> int:
        """Connections whose core is not known yet."""
        return len(self._waiting)

    def shut(self) -> None:
        """Close those that have said nothing yet."""
        for fd, (watch, _) in self._waiting.items():
            watch.cancel()
            os.close(fd)
        self._waiting.clear()

    def meet(self, fd: int) -> None:
        """Take a connection that was accepted."""
        if not self._decide(fd):
            watch = self._poller.watch(fd, lambda: self._decide(fd))
            deadline = self._now_ms() + self._timeout_ms
            self._waiting[fd] = (watch, deadline)
            self._give_up_at(deadline)

    def _decide(self, fd: int) -> bool:
        try:
            beginning = peek(fd, self._peek_bytes)
        except OSError:
            beginning = b""
        if beginning is None:
            return False
        core = self._home(beginning) if beginning else -1
        if core is None:
            return False
        waiting = self._waiting.pop(fd, None)
        if waiting is not None:
            waiting[0].cancel()
        if core < 0:
            self._turn_away(fd)
        else:
            self._arrived(fd, core)
        return True

    def _give_up_at(self, deadline: int) -> None:
        if not self._timed:
            self._timed = True
            self._clock.at(deadline, self._give_up)

    def _give_up(self) -> None:
        """Turn away who has been silent for too long; they wait in the order of their arrival."""
        self._timed = False
        while self._waiting:
            fd, (watch, deadline) = next(iter(self._waiting.items()))
            if deadline > self._now_ms():
                self._give_up_at(deadline)
                return
            del self._waiting[fd]
            watch.cancel()
            self._turn_away(fd)

    def _turn_away(self, fd: int) -> None:
        os.close(fd)
        self._refused()
