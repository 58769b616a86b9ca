"""One child of the supervisor: its fork, its first steps, its end and its back-off."""

import contextlib
import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

import setproctitle

from robustmq.workers import log
from robustmq.workers.estate import Estate
from robustmq.workers.inheritance import ServerInheritance

PR_SET_PDEATHSIG: Final = 1
STEADY_NS: Final = 60_000_000_000

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
Mask: TypeAlias = set[int | signal.Signals]
_SIGNALS: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
_log = log.EventLog("process")


class Process:
    """The supervisor's record of a child and the program that it runs.

    `program` is a module with `run(inheritance)`; it is imported in the child only, so that the
    supervisor stays small and every fork safe. `core` is the processor to pin to, None for any.
    """

    def __init__(
        self,
        name: str,
        program: str,
        core: int | None,
        inherit: Callable[[], ServerInheritance],
    ) -> None:
        self.name = name
        self._program = program
        self._core = core
        self._inherit = inherit
        self.endpoint = inherit().index
        self.pid = 0
        self.pidfd = -1
        self.ready = False
        self.was_ready = False
        self.failures = 0
        self.restart_ns: int | None = None
        self.started_ns = 0
        self.worked_ns = 0
        self._ticks = 0

    def start(self, estate: Estate, now_ns: int, private: Sequence[int]) -> None:
        """Fork; the child never returns from here, and closes the `private` descriptors.

        Signals are blocked meanwhile, so that none reaches the child while it still has the
        supervisor's handlers and writes to the supervisor's pipe. Raises OSError.
        """
        state = estate.region.state(self.endpoint)
        state.heartbeat_ns = state.started_ns = self.started_ns = now_ns
        self.ready, self.restart_ns = False, None
        self.worked_ns = self._ticks = 0
        supervisor = os.getpid()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._live(estate, supervisor, mask, private)
            self._adopt(pid)
            state.pid = pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def look(self, now_ns: int) -> None:
        """Note in `worked_ns` whether the child has used processor time since the last look."""
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{self.pid}/stat").read_bytes()
            # proc(5): behind the name in parentheses, utime and stime are the 12th and 13th.
            fields = stat.rpartition(b")")[2].split()
            ticks = int(fields[11]) + int(fields[12])
            if ticks != self._ticks:
                self._ticks, self.worked_ns = ticks, now_ns

    def send(self, signum: signal.Signals) -> None:
        """Send a signal to the child, if there is one."""
        if self.pid:
            os.kill(self.pid, signum)

    def reap(self) -> str | None:
        """Collect an ended child and say how it ended; None while it lives."""
        pid, status = os.waitpid(self.pid, os.WNOHANG) if self.pid else (0, 0)
        if pid == 0:
            return None
        os.close(self.pidfd)
        self.pid, self.pidfd, self.ready = 0, -1, False
        code = os.waitstatus_to_exitcode(status)
        return f"exit status {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

    def back_off(self, now_ns: int, first_ms: int, most_ms: int) -> int:
        """Set when to start again; return the wait in milliseconds, doubled at each failure.

        A child that lived for `STEADY_NS` begins with the first wait again.
        """
        if now_ns - self.started_ns >= STEADY_NS:
            self.failures = 0
        wait_ms = min(first_ms << min(self.failures, 32), most_ms)
        self.failures += 1
        self.restart_ns = now_ns + wait_ms * 1_000_000
        return wait_ms

    def _adopt(self, pid: int) -> None:
        try:
            self.pidfd = os.pidfd_open(pid)
        except OSError:
            # A child whose end we could not see would be none.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self.pid = pid

    def _live(
        self, estate: Estate, supervisor: int, mask: Mask, private: Sequence[int]
    ) -> NoReturn:
        status = 1
        try:
            inheritance = self._inherit()
            signal.set_wakeup_fd(-1)
            for descriptor in private:
                os.close(descriptor)
            self._settle(estate, inheritance, supervisor, mask)
            importlib.import_module(self._program).run(inheritance)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except Exception:
            _log.error("process failed")
        finally:
            # Not sys.exit: the supervisor's frames and finalizers below us are not ours to run.
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)

    def _settle(
        self,
        estate: Estate,
        inheritance: ServerInheritance,
        supervisor: int,
        mask: Mask,
    ) -> None:
        """Become a process of its own: signals, title, processor, sockets."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # A terminal sends these to the whole group; what they mean is the supervisor's decision.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(1)
        setproctitle.setproctitle(f"robustmq: {self.name}")
        log.configure(inheritance.config.log, self.name)
        if self._core is not None:
            os.sched_setaffinity(0, {self._core})
        estate.close_all_but(inheritance)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
