"""A listening socket, and the door behind it that looks whose plain connection it is."""

import os
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from robustmq._kernel.poller import Poller, Watch, accept, peek
from robustmq.net.layer import Broken, Facts
from robustmq.net.proxy import SIGNATURE

_BATCH: Final = 64
_RETRY_MS: Final = 200
_TLS: Final = b"\x16\x03"
"""How the first record of a TLS handshake begins (RFC 8446 5.1)."""

NOBODY: Final = -1
"""The home of a stream that is to be closed at once; so is every other negative number."""


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
    takes a descriptor, its core, and what is known of the peer. `refused(facts, why)` hears of
    what was turned away or was silent for `timeout_ms`. `header` reads the PROXY header of those
    who must send one; it is taken from the stream. `what` names what belongs nowhere.
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
        arrived: Callable[[int, int, Facts], None],
        refused: Callable[[Facts, str], None],
        header: Callable[[bytes, Facts], int | None],
        what: Callable[[bytes], str] | None = None,
    ) -> None:
        self._poller = poller
        self._clock = clock
        self._now_ms = now_ms
        self._peek_bytes = peek_bytes
        self._timeout_ms = timeout_ms
        self._home = home
        self._arrived = arrived
        self._refused = refused
        self._header = header
        self._what = what or _what
        self._waiting: dict[int, _Caller] = {}
        self._timed = False

    @property
    def waiting(self) -> int:
        """Connections whose core is not known yet."""
        return len(self._waiting)

    def shut(self) -> None:
        """Close those that have said nothing yet."""
        for fd, caller in self._waiting.items():
            if caller.watch is not None:
                caller.watch.cancel()
            os.close(fd)
        self._waiting.clear()

    def meet(self, fd: int, facts: Facts, has_header: bool = False) -> None:
        """Take a connection that was accepted; with `has_header` it begins with a PROXY header."""
        caller = _Caller(facts, has_header)
        if not self._decide(fd, caller):
            caller.watch = self._poller.watch(fd, lambda: self._decide(fd, caller))
            caller.deadline_ms = self._now_ms() + self._timeout_ms
            self._waiting[fd] = caller
            self._give_up_at(caller.deadline_ms)

    def _decide(self, fd: int, caller: "_Caller") -> bool:
        """Say whether it is known where a connection belongs, and let it go there."""
        core, why = self._look(fd, caller)
        if core is None:
            if not has_ended(fd):
                return False
            # What has come meanwhile is all that there will ever be.
            core, why = self._look(fd, caller)
            if core is None:
                core, why = NOBODY, "it ended before it was known whose it is"
        self._waiting.pop(fd, None)
        if caller.watch is not None:
            caller.watch.cancel()
        if core < 0:
            os.close(fd)
            self._refused(caller.facts, why)
        else:
            self._arrived(fd, core, caller.facts)
        return True

    def _look(self, fd: int, caller: "_Caller") -> tuple[int | None, str]:
        """Return the core for what has come so far, None for too little, and what it is."""
        try:
            beginning = peek(fd, self._peek_bytes)
            if beginning and caller.has_header:
                beginning = self._without_header(fd, caller, beginning)
        except OSError:
            beginning = b""
        except Broken as error:
            return NOBODY, error.detail
        if beginning is None:
            return None, ""
        if not beginning:
            return NOBODY, "it said nothing"
        # A TLS record could pass for a CONNECT that is wrong.
        core = NOBODY if beginning.startswith(_TLS) else self._home(beginning)
        return core, self._what(beginning)

    def _without_header(self, fd: int, caller: "_Caller", beginning: bytes) -> bytes | None:
        """Take the header from the stream; return what has come behind it, None for nothing."""
        length = self._header(beginning, caller.facts)
        if length is None:
            return None
        caller.has_header = False
        os.read(fd, length)
        return beginning[length:] or None

    def _give_up_at(self, deadline_ms: int) -> None:
        if not self._timed:
            self._timed = True
            self._clock.at(deadline_ms, self._give_up)

    def _give_up(self) -> None:
        """Turn away who has been silent for too long; they wait in the order of their arrival."""
        self._timed = False
        while self._waiting:
            fd, caller = next(iter(self._waiting.items()))
            if caller.deadline_ms > self._now_ms():
                self._give_up_at(caller.deadline_ms)
                return
            del self._waiting[fd]
            assert caller.watch is not None
            caller.watch.cancel()
            os.close(fd)
            self._refused(caller.facts, "it was silent for too long")


def has_ended(fd: int) -> bool:
    """Say whether the peer sends nothing more, whatever is still to be read of it."""
    ask = select.poll()
    ask.register(fd, select.POLLRDHUP)
    return bool(ask.poll(0))


@dataclass(slots=True)
class _Caller:
    """Somebody at the door whose core is not known yet."""

    facts: Facts
    has_header: bool
    watch: Watch | None = None
    deadline_ms: int = 0


def _what(beginning: bytes) -> str:
    """Name what is no MQTT, for the log."""
    if beginning.startswith(_TLS):
        return "it speaks TLS to a plain port"
    if beginning.startswith((b"PROXY ", SIGNATURE)):
        return "it sends a PROXY header from a network that is not in proxy_networks"
    return "it does not begin with CONNECT"
