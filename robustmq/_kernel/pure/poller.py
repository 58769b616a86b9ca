"""The edge-triggered epoll that carries plain TCP: readable twin.

A worker waits here and nowhere else; `net.selector` makes it the wait of its event loop too. The
one kernel that does I/O and reads the clock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Final, Protocol

from robustmq._kernel.pure.intake import Intake

if TYPE_CHECKING:
    from collections.abc import Callable

    from robustmq._kernel.pure.outbox import Outbox
    from robustmq._kernel.pure.turn import Turn

BUFFER: Final = 262_144
"""Bytes that one read takes at most."""
EVENTS: Final = 512
"""Events that one round handles at most."""
FOREVER_MS: Final = 3_600_000
"""How long epoll waits at most; then it waits again."""
READS: Final = 4
"""Reads of one socket in one round at most, so that the others get theirs."""

_WATCH: Final = select.EPOLLIN | select.EPOLLET | select.EPOLLRDHUP
_STREAM: Final = _WATCH | select.EPOLLOUT
_GONE: Final = select.EPOLLERR | select.EPOLLHUP | select.EPOLLRDHUP
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


SLEW: Final = 64
"""A clock that is wrong is set right by this fraction of the time that passes."""


def slew(error_ns: int, elapsed_ns: int) -> int:
    """Return how far a clock that is wrong by `error_ns` is set right after `elapsed_ns`."""
    most = elapsed_ns // SLEW
    return max(-most, min(error_ns, most))


class Sink(Protocol):
    """What a stream reads into: an Intake, or anything that takes bytes.

    Whoever ends the pause of a sink that is no Intake calls the stream's `resume`.
    """

    @property
    def paused(self) -> bool:
        """Say whether nothing should be read now."""

    def feed(self, data: bytes) -> object:
        """Take what the socket gave."""


def accept(fd: int, limit: int) -> list[int]:
    """Return up to `limit` waiting connections as non-blocking descriptors with TCP_NODELAY.

    An empty list when nobody waits. Raises OSError when the process is out of descriptors and
    none was accepted.
    """
    accepted: list[int] = []
    listener = socket.socket(fileno=fd)
    try:
        while len(accepted) < limit:
            try:
                connection, _ = listener.accept()
            except (InterruptedError, ConnectionAbortedError):
                continue
            except OSError as error:
                if error.errno in _EXHAUSTED and not accepted:
                    raise
                break
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            accepted.append(connection.detach())
    finally:
        listener.detach()
    return accepted


def peek(fd: int, length: int) -> bytes | None:
    """Return what the socket holds, up to `length` bytes and unread; None when nothing is there.

    b"" when the peer has closed; OSError when the connection broke.
    """
    connection = socket.socket(fileno=fd)
    try:
        return connection.recv(length, socket.MSG_DONTWAIT | socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError):
        return None
    finally:
        connection.detach()


def peer_address(fd: int) -> str:
    """Return the IP address of a connected socket's peer; "" when it has none."""
    connection = socket.socket(fileno=fd)
    try:
        name = connection.getpeername()
    except OSError:
        return ""
    finally:
        connection.detach()
    return str(name[0]) if isinstance(name, tuple) else ""


class Watch:
    """A descriptor whose readiness is told to a callable; `fd` is -1 after `cancel`."""

    __slots__ = ("_callback", "_poller", "fd")

    def __init__(self, poller: Poller, fd: int, callback: Callable[[], object] | None) -> None:
        self._poller = poller
        self._callback = callback
        self.fd = fd

    def _ready(self, _events: int) -> None:
        if self._callback is not None:
            self._callback()

    def cancel(self) -> None:
        """Watch no longer; the descriptor stays open and is the caller's."""
        if self.fd >= 0:
            self._poller._forget(self.fd)
            self.fd = -1
            self._callback = None


class Stream(Watch):
    """A connected socket: reads into `sink.feed`, sends what its outbox holds, owns the fd.

    `on_lost()` is called once, when the peer is gone or `close` has done its work. Nothing is
    read while the sink is paused. `closing` says that `close` or `abort` was
    called or the connection is lost; `fd` is then -1 when it has ended.
    """

    __slots__ = ("_blocked", "_finished", "_on_lost", "_sink", "_unread", "closing", "outbox")

    def __init__(
        self,
        poller: Poller,
        fd: int,
        sink: Sink,
        outbox: Outbox,
        on_lost: Callable[[], object] | None,
    ) -> None:
        super().__init__(poller, fd, None)
        self._sink: Sink | None = sink
        self._on_lost = on_lost
        self._blocked = False
        self._unread = False
        self._finished = False
        self.closing = False
        self.outbox = outbox
        outbox.stream = self

    def cancel(self) -> None:
        """Close at once, as `abort` does: the descriptor is the stream's."""
        self.abort()

    def resume(self) -> None:
        """Let the sink take input again: what it kept first, then what the socket holds."""
        if self.fd < 0 or self.closing:
            return
        if isinstance(self._sink, Intake):
            self._sink.resume()
        if self.fd >= 0 and self._unread and not self._sink_paused():
            self._unread = False
            self._readable(True)

    def flush(self) -> None:
        """Send what the outbox holds, as far as the peer takes it."""
        if self.fd < 0 or self._blocked or self._finished:
            return
        result = self.outbox.send(self.fd)
        if result < 0:
            self._release()
        elif result == 0:
            self._blocked = True
        elif self.closing:
            self._finish()
        elif self.outbox.drained is not None:
            self.outbox.drained()

    def close(self) -> None:
        """Send what waits, end our side with the turn, and wait for the peer to end its own."""
        if self.fd >= 0 and not self.closing:
            self.closing = True
            # The peer hears of it when all that follows from it is on its way to other cores.
            self._poller._turn.outboxes.append(self.outbox)

    def abort(self) -> None:
        """Close at once; what waits is lost."""
        if self.fd >= 0:
            self._release()

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT and self._blocked:
            self._blocked = False
            self.flush()
        if self.fd >= 0 and events & (select.EPOLLIN | _GONE):
            self._readable(bool(events & _GONE))

    def _sink_paused(self) -> bool:
        return self._sink is not None and self._sink.paused

    def _readable(self, ending: bool) -> None:
        """Read until the socket is empty or its share of the round is used up.

        A short read means that it is empty, unless the peer is `ending`. Within a callback of
        some sink it is put off, for sinks are not told of bytes while they handle others.
        """
        if self._poller._reading:
            self._poller._later(self.fd)
            return
        for _ in range(READS):
            if self.fd < 0:
                return
            if not self._finished and self._sink_paused():
                self._unread = True
                return
            try:
                data = os.read(self.fd, BUFFER)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._release()
                return
            if self._finished or self._sink is None:
                continue
            self._poller._reading = True
            try:
                self._sink.feed(data)
            finally:
                self._poller._reading = False
            if self.fd < 0 or (len(data) < BUFFER and not ending):
                return
        self._poller._later(self.fd)

    def _finish(self) -> None:
        """End our side; what the peer still sends is read and forgotten, so that it gets ours."""
        self._finished = True
        self.outbox.close()
        connection = socket.socket(fileno=self.fd)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        connection.detach()
        self._readable(True)

    def _release(self) -> None:
        self._poller._forget(self.fd)
        self._poller.streams -= 1
        os.close(self.fd)
        self.fd = -1
        self.closing = True
        self.outbox.close()
        self._sink = None
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            on_lost()


class Poller:
    """Waits for sockets; `end_turn()` is called after every round of events.

    `end_turn` says whether there is nothing left but to sleep; if not, another turn follows at
    once. `on_alarm()` is called when the time `alarm_ms` (0: none) has come, before the end of a
    turn. What a callback of a descriptor raises goes to `on_error`, after its stream was
    aborted: one connection's failure is nobody else's. `streams` counts those that are open.
    """

    __slots__ = (
        "__weakref__",
        "_end_turn",
        "_epoll",
        "_interrupted",
        "_offset_ns",
        "_on_alarm",
        "_on_error",
        "_quiet",
        "_reading",
        "_steady_ns",
        "_turn",
        "_watches",
        "alarm_ms",
        "streams",
    )

    def __init__(
        self,
        turn: Turn,
        end_turn: Callable[[], bool],
        on_alarm: Callable[[], object],
        on_error: Callable[[Exception], object],
    ) -> None:
        self._turn = turn
        self._end_turn = end_turn
        self._on_alarm = on_alarm
        self._on_error = on_error
        self._quiet = False
        self._interrupted = False
        self._steady_ns = time.monotonic_ns()
        self._offset_ns = time.time_ns() - self._steady_ns
        self.alarm_ms = 0
        self.streams = 0
        self._epoll = select.epoll()
        self._watches: dict[int, Watch] = {}
        self._reading = False
        self.tick()

    def watch(self, fd: int, callback: Callable[[], object], edge: bool = True) -> Watch:
        """Call `callback()` whenever something new can be read from `fd`.

        With `edge` the callback takes all there is, or comes back for the rest by itself;
        without, it is called in every turn for as long as anything is there.
        """
        watch = Watch(self, fd, callback)
        self._epoll.register(fd, _WATCH if edge else _WATCH & ~select.EPOLLET)
        self._watches[fd] = watch
        return watch

    def adopt(
        self, fd: int, sink: Sink, outbox: Outbox, on_lost: Callable[[], object] | None
    ) -> Stream:
        """Return a Stream on the connected socket `fd`; what has arrived is read in this turn.

        Raises OSError when the descriptor cannot be watched; it stays the caller's then.
        """
        os.set_blocking(fd, False)
        self._epoll.register(fd, _STREAM)
        stream = Stream(self, fd, sink, outbox, on_lost)
        self._watches[fd] = stream
        self.streams += 1
        return stream

    def interrupt(self) -> None:
        """Let `wait` return at the end of this turn."""
        self._interrupted = True

    def wait(self, timeout_ms: int) -> None:
        """Take turns until `interrupt` or until `timeout_ms` (-1: no limit) have passed."""
        deadline = self._now() + timeout_ms
        self._interrupted = False
        while True:
            events = self._epoll.poll(self._block(timeout_ms, deadline) / 1_000, EVENTS)
            self._turn.now_ms = self._now()
            self._handle([(self._watches.get(fd), mask) for fd, mask in events])
            if self.alarm_ms and self.alarm_ms <= self._turn.now_ms:
                self.alarm_ms = 0
                self._on_alarm()
                self._quiet = False
            if events or not self._quiet:
                self._quiet = bool(self._end_turn())
            if self._interrupted or (timeout_ms >= 0 and deadline <= self._turn.now_ms):
                return

    def _now(self) -> int:
        """Return the wall clock in ms, but steady: a step of it is made up for slowly."""
        steady = time.monotonic_ns()
        error = time.time_ns() - steady - self._offset_ns
        self._offset_ns += slew(error, steady - self._steady_ns)
        self._steady_ns = steady
        return (steady + self._offset_ns) // 1_000_000

    def _block(self, timeout_ms: int, deadline: int) -> int:
        """How long epoll may wait, in ms: as long as nothing is left to do or due."""
        if not self._quiet:
            return 0
        waits = [FOREVER_MS]
        if timeout_ms >= 0:
            waits.append(deadline - self._turn.now_ms)
        if self.alarm_ms:
            waits.append(self.alarm_ms - self._turn.now_ms)
        return max(0, min(waits))

    def _handle(self, ready: list[tuple[Watch | None, int]]) -> None:
        """Tell every watch of the round; whoever fails is ended and reported."""
        for watch, mask in ready:
            if watch is None or watch.fd < 0:
                continue
            try:
                watch._ready(mask)
            except Exception as error:
                if isinstance(watch, Stream):
                    watch.abort()
                self._on_error(error)

    def tick(self) -> None:
        """Bring the time up to date outside `wait`; the next `wait` begins with a turn."""
        self._turn.now_ms = self._now()
        self._quiet = False

    def flush(self) -> None:
        """Send what the turn has put into outboxes: one gathered send per connection."""
        outboxes = self._turn.outboxes
        while outboxes:
            self._turn.outboxes = []
            for outbox in outboxes:
                outbox.settle()
                if outbox.stream is not None:
                    outbox.stream.flush()
            outboxes = self._turn.outboxes

    def close(self) -> None:
        """Abort every connection and forget every watch."""
        for watch in list(self._watches.values()):
            watch.cancel()

    def _forget(self, fd: int) -> None:
        with contextlib.suppress(OSError):
            self._epoll.unregister(fd)
        self._watches.pop(fd, None)

    def _later(self, fd: int) -> None:
        """Let epoll tell of `fd` once more if there is anything to read."""
        self._epoll.modify(fd, _STREAM)
