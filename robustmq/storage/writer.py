"""The one thread of an engine that may wait for the disk, and how it wakes the loop.

This is the only module of storage that names threads and the clock; an engine is handed a
`Writer`, and tests hand it one that runs in their own thread and time.
"""

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

monotonic: Final = time.monotonic

Work: TypeAlias = Callable[[], float | None]
"""Does what is queued; returns the seconds until it wants to be called again, None: never."""


class Writer(Protocol):
    """Calls the engine's work when asked to, and tells the loop when something is done."""

    def start(self, work: Work) -> None:
        """Take the work, once; not if it is too late."""

    def wake(self) -> None:
        """Have the work called soon."""

    def ring(self) -> None:
        """Make `fileno()` readable; called by the work."""

    def fileno(self) -> int:
        """The descriptor that `ring` makes readable."""

    def hush(self) -> None:
        """Make `fileno()` unreadable again."""

    def now(self) -> float:
        """Seconds, never running back."""

    def stop(self) -> None:
        """Have the work, if there is any, called a last time, and end."""


class WriterThread:
    """A writer that is a thread with an eventfd.

    What the work does not handle ends the process, with its traceback and SIGABRT: without a writer
    all would wait for ever. Whoever watches the process begins it anew.
    """

    def __init__(self, name: str) -> None:
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wanted = threading.Condition()
        self._asked = False
        self._rung = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._work: Work | None = None

    def start(self, work: Work) -> None:
        """Take the work and begin; after `stop` nothing begins any more."""
        with self._wanted:
            if not self._stopping:
                self._work = work
                self._thread.start()

    def wake(self) -> None:
        """Have the work called soon."""
        with self._wanted:
            self._asked = True
            self._wanted.notify()

    def ring(self) -> None:
        """Make `fileno()` readable; called by the work."""
        # Noted after it is done: who sees the bell before the note comes once more.
        os.eventfd_write(self._bell, 1)
        self._rung = True

    def fileno(self) -> int:
        """The eventfd."""
        return self._bell

    def hush(self) -> None:
        """Make `fileno()` unreadable again."""
        if self._rung:
            self._rung = False
            # A second ring may have been read with the first, and noted since.
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._bell)

    def now(self) -> float:
        """Seconds, never running back."""
        return monotonic()

    def stop(self) -> None:
        """Have the work called a last time, and end the thread."""
        with self._wanted:
            self._stopping = True
            self._wanted.notify()
        if self._thread.is_alive():
            self._thread.join()
        os.close(self._bell)

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException:
            traceback.print_exc()
            os.abort()

    def _serve(self) -> None:
        assert self._work is not None
        wait: float | None = None
        while True:
            with self._wanted:
                if not self._asked and not self._stopping:
                    self._wanted.wait(wait)
                self._asked = False
                last = self._stopping
            wait = self._work()
            if last:
                return
