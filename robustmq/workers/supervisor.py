"""The supervisor: it forks the processes of a node, watches them, restarts and stops them.

Single-threaded and without an event loop, and nothing heavy is imported here, so that a fork is
safe at any time. It sleeps in poll(2) until a child ends, a signal comes, a child rings its bell,
or a heartbeat is due to be looked at.
"""

import contextlib
import gc
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

import msgspec
import setproctitle

from robustmq._kernel.choice import KERNEL
from robustmq.config import Config, changed_keys
from robustmq.errors import ConfigError, Corrupt
from robustmq.metrics import META_TABLE, TABLE
from robustmq.shm.region import Phase
from robustmq.storage.files import SystemFiles
from robustmq.storage.format import ROCKSDB, ROCKSDB_FORMAT, verify
from robustmq.storage.layout import open_layout
from robustmq.workers import limits, log
from robustmq.workers.estate import Estate
from robustmq.workers.inheritance import ServerInheritance
from robustmq.workers.limits import StartError
from robustmq.workers.process import Process

PROGRAMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "server": "robustmq.workers.server",
        "meta": "robustmq.workers.meta",
        "worker": "robustmq.workers.worker",
        "move": "robustmq.workers.relocation",
    }
)
FIRST_STARTS: Final = 3
HEARTBEAT_LOOKS: Final = 4
_LOOK_NS: Final = 1_000_000_000
RELOADED_KEYS: Final = frozenset(
    {
        "log.level",
        "mqtt_runtime.auth.secret_free_login",
        "mqtt_runtime.auth.certificate_as_username",
        "mqtt_runtime.auth.default_permission",
        "acl",
        "users",
    }
)
_NS_PER_MS: Final = 1_000_000
_ENDED_WELL: Final = "exit status 0"
_log = log.EventLog("supervisor")


class Supervisor:
    """The life of a node: `run` returns its exit status.

    `reload` reads the configuration again for SIGHUP. `programs` names the modules that the
    children run, by "server", "meta" and "worker". Raises StartError where the machine refuses.
    """

    def __init__(
        self,
        config: Config,
        reload: Callable[[], Config],
        programs: Mapping[str, str] = PROGRAMS,
    ) -> None:
        self._config = config
        self._reload = reload
        self._workers = limits.worker_count(config)
        limits.raise_open_files(config, self._workers)
        self._programs = programs
        self._lock = limits.lock_data_directory(config.data_path)
        self._estate = Estate(config, self._workers, reload)
        server = Process("server", programs["server"], None, self._of_server)
        meta = Process("meta", programs["meta"], None, self._of_meta)
        cores = _cores_for(self._workers, config.runtime.pin)
        workers = [
            Process(f"worker {i}", programs["worker"], cores[i], partial(self._of_worker, i))
            for i in range(self._workers)
        ]
        # The order of the start; each stage waits until the one before is ready.
        self._stages = [[server, meta], workers]
        self._started = 0
        self._processes = [server, meta, *workers]
        self._stopping: list[list[Process]] | None = None
        self._deadline_ns = 0
        self._clean = True
        self._looked_ns = time.monotonic_ns()
        self._resumed_ns = 0
        self._poll = select.poll()
        self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> int:
        """Run the node until a signal ends it; 0 when everybody stopped in time, else 1.

        Raises StartError when a process ends again and again before it was ever ready. No child
        is left behind, whatever happens.
        """
        setproctitle.setproctitle("robustmq: supervisor")
        self._watch_signals()
        self._poll.register(self._estate.bell.fileno(), select.POLLIN)
        # What is alive now stays for good: children need not copy its pages to collect garbage.
        gc.freeze()
        try:
            self._prepare_data()
            if self._stopping is None:
                self._start_next_stage()
            while not self._is_over():
                self._poll.poll(self._wait_ms())
                self._estate.bell.answer()
                for signum in _read_all(self._wakeup[0]):
                    self._on_signal(signal.Signals(signum))
                self._step(time.monotonic_ns())
        finally:
            self._kill_all()
            self._estate.remove_files()
        return 0 if self._clean else 1

    def _prepare_data(self) -> None:
        """See that the data is that of as many workers as there will be.

        Raises StartError when it cannot be moved; ConfigError when it is not understood.
        """
        layout = open_layout(self._config.data_path)
        try:
            for core in layout.cores():
                verify(SystemFiles(), layout.core_path(core), ROCKSDB, ROCKSDB_FORMAT)
            if not self._workers:
                # What workers have left is for those of a later start.
                return
            if layout.workers is None:
                layout.record(self._workers)
            elif layout.workers != self._workers:
                self._move_data(layout.workers)
            else:
                for path in layout.strays():
                    shutil.rmtree(path)
        except OSError as error:
            raise StartError(
                f"the data directory {self._config.data_path} cannot be used: {error.strerror}"
            ) from error

    def _move_data(self, workers: int) -> None:
        """Have a process move the data of so many workers, and wait for it; a signal ends it."""
        process = Process("move", self._programs["move"], None, self._of_server)
        self._processes.append(process)
        process.start(self._estate, time.monotonic_ns(), self._private_descriptors())
        self._poll.register(process.pidfd, select.POLLIN)
        pidfd, end = process.pidfd, None
        while end is None:
            self._poll.poll()
            self._estate.bell.answer()
            for signum in _read_all(self._wakeup[0]):
                if signum in {signal.SIGTERM, signal.SIGINT}:
                    _log.info("stopping", signal=signal.Signals(signum).name)
                    self._stopping = []
                    process.send(signal.SIGKILL)
            end = process.reap()
        self._poll.unregister(pidfd)
        self._processes.remove(process)
        if self._stopping is None and end != _ENDED_WELL:
            raise StartError(
                f"the data could not be moved from {workers} workers to {self._workers} ({end}):"
                f" the log says why; it is as it was, and can be used with -w {workers}"
            )

    def _of_server(self) -> ServerInheritance:
        return self._estate.of_server(self._config)

    def _of_meta(self) -> ServerInheritance:
        return self._estate.of_meta(self._config)

    def _of_worker(self, index: int) -> ServerInheritance:
        return self._estate.of_worker(self._config, index)

    def _private_descriptors(self) -> list[int]:
        """Return what no child may keep."""
        return [*self._wakeup, *(p.pidfd for p in self._processes if p.pid)]

    def _watch_signals(self) -> None:
        """Turn signals into bytes on a pipe that poll watches."""
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, _ignore)
        self._poll.register(self._wakeup[0], select.POLLIN)

    def _step(self, now_ns: int) -> None:
        for process in self._processes:
            self._collect(process, now_ns)
        if self._stopping is not None:
            self._go_on_stopping(now_ns)
            return
        for process in self._processes:
            if process.restart_ns is not None and now_ns >= process.restart_ns:
                self._start(process)
        self._look_at_heartbeats(now_ns)
        self._notice_ready()

    def _wait_ms(self) -> int:
        """Return the milliseconds until something must be looked at that rings no bell."""
        due = [self._deadline_ns]
        if self._stopping is None:
            due = [p.restart_ns for p in self._processes if p.restart_ns is not None]
            due.append(self._looked_ns + self._look_interval_ns())
        return max(0, min(due) - time.monotonic_ns()) // _NS_PER_MS + 1

    def _look_interval_ns(self) -> int:
        timeout_ns = self._config.runtime.heartbeat_timeout_ms * _NS_PER_MS
        return min(timeout_ns // HEARTBEAT_LOOKS, _LOOK_NS)

    def _start_next_stage(self) -> None:
        self._started += 1
        stage = self._stages[self._started - 1]
        for process in stage:
            # Before any of them is forked: they stamp their frames with each other's epoch.
            self._estate.region.state(process.endpoint).epoch = 1
        for process in stage:
            self._start(process)

    def _start(self, process: Process) -> None:
        state = self._estate.region.state(process.endpoint)
        state.phase = Phase.STARTING
        try:
            process.start(self._estate, time.monotonic_ns(), self._private_descriptors())
        except OSError as error:
            self._give_up_or_wait(process, f"fork failed: {error.strerror}", time.monotonic_ns())
            return
        self._poll.register(process.pidfd, select.POLLIN)
        _log.debug("process started", name=process.name, pid=process.pid, epoch=state.epoch)

    def _collect(self, process: Process, now_ns: int) -> None:
        """Reap a child that ended and tell its peers by a new epoch and their bells."""
        pid, pidfd = process.pid, process.pidfd
        end = process.reap()
        if end is None:
            return
        self._poll.unregister(pidfd)
        state = self._estate.region.state(process.endpoint)
        state.phase, state.pid = Phase.STOPPED, 0
        state.epoch += 1
        counters = self._estate.region.counters(process.endpoint)
        table = META_TABLE if process.name == "meta" else TABLE
        for cell, metric in enumerate(table):
            # Its counters go on after a restart; what it held is gone.
            if metric.kind == "gauge":
                counters[cell] = 0
        for doorbell in self._estate.doorbells:
            doorbell.ring()
        if self._stopping is not None:
            _log.info("process stopped", name=process.name, pid=pid, end=end)
        else:
            self._give_up_or_wait(process, end, now_ns)

    def _give_up_or_wait(self, process: Process, end: str, now_ns: int) -> None:
        runtime = self._config.runtime
        wait_ms = process.back_off(
            now_ns, runtime.restart_backoff_ms, runtime.restart_backoff_max_ms
        )
        if not process.was_ready and process.failures >= FIRST_STARTS:
            raise StartError(
                f"{process.name} ended {process.failures} times before it was ready ({end})"
            )
        _log.warning("process ended", name=process.name, end=end, restart_in_ms=wait_ms)

    def _look_at_heartbeats(self, now_ns: int) -> None:
        """Kill who has shown no sign of life for the timeout, or has damaged its state."""
        since_ns, interval_ns = now_ns - self._looked_ns, self._look_interval_ns()
        if since_ns < interval_ns:
            return
        self._looked_ns = now_ns
        if since_ns > 2 * interval_ns:
            # We were stopped ourselves, and so perhaps were they: their time begins again.
            self._resumed_ns = now_ns
        runtime = self._config.runtime
        for process in self._processes:
            if not process.pid:
                continue
            beat_ns = self._estate.region.state(process.endpoint).heartbeat_ns
            # While it loads its program it cannot beat: what it has is still our own time stamp.
            new = beat_ns == process.started_ns
            if self._phase_of(process) is Phase.RECOVERING:
                # Nor can it while its database reads what it has.
                new = True
                self._tell_recovery(process, now_ns)
            if new:
                # On a busy machine both take as long as they take: it lives as long as it works.
                process.look(now_ns)
            silent_ns = now_ns - max(beat_ns, process.worked_ns, self._resumed_ns)
            timeout_ms = runtime.start_timeout_ms if new else runtime.heartbeat_timeout_ms
            if silent_ns > timeout_ms * _NS_PER_MS:
                _log.error(
                    "process hangs and is killed",
                    name=process.name,
                    pid=process.pid,
                    silent_ms=silent_ns // _NS_PER_MS,
                )
                process.send(signal.SIGKILL)

    def _tell_recovery(self, process: Process, now_ns: int) -> None:
        since_ns = now_ns - process.started_ns
        if since_ns >= _LOOK_NS:
            _log.info(
                "process reads what is stored",
                name=process.name,
                pid=process.pid,
                seconds=round(since_ns / 1e9, 1),
            )

    def _notice_ready(self) -> None:
        for process in self._processes:
            if process.pid and not process.ready and self._phase_of(process) is Phase.READY:
                process.ready = True
                again = process.was_ready
                process.was_ready = True
                _log.info(
                    "process is back" if again else "process is ready",
                    name=process.name,
                    pid=process.pid,
                    after_ms=(time.monotonic_ns() - process.started_ns) // _NS_PER_MS,
                )
                if not again and all(p.was_ready for p in self._processes):
                    self._announce()
        if self._started < len(self._stages) and all(
            process.was_ready for stage in self._stages[: self._started] for process in stage
        ):
            self._start_next_stage()

    def _phase_of(self, process: Process) -> Phase:
        try:
            return self._estate.region.state(process.endpoint).phase
        except Corrupt as error:
            _log.error("process damaged its state and is killed", name=process.name, at=error.where)
            process.send(signal.SIGKILL)
            return Phase.STOPPED

    def _announce(self) -> None:
        """Print on standard output what listens where: the node is ready."""
        facts: dict[str, object] = {
            **self._estate.addresses(),
            "workers": self._workers,
            "kernel": KERNEL,
            "data_path": os.path.realpath(self._config.data_path),
            "flush": self._config.storage.flush,
            "pid": os.getpid(),
        }
        if log.is_human(self._config.log, sys.stdout):
            lines = [f"  {name:<10} {value}" for name, value in facts.items()]
            text = "\n".join(["robustmq is ready", *lines]).encode()
        else:
            text = msgspec.json.encode({"event": "ready", **facts})
        # Unbuffered, so that no child inherits a part; a reader who has gone is no reason to stop.
        with contextlib.suppress(OSError):
            os.write(sys.stdout.fileno(), text + b"\n")

    def _on_signal(self, signum: signal.Signals) -> None:
        if signum is signal.SIGHUP:
            self._reload_configuration()
        elif signum not in {signal.SIGTERM, signal.SIGINT}:
            return
        elif self._stopping is None:
            _log.info("stopping", signal=signum.name)
            self._estate.close_protocol_listeners()
            self._stopping = [*reversed(self._stages)]
            self._stop_stage()
        else:
            _log.warning("stopping at once", signal=signum.name)
            self._clean = False
            self._stopping = []

    def _is_over(self) -> bool:
        return self._stopping is not None and not self._stopping

    def _stop_stage(self) -> None:
        assert self._stopping
        self._deadline_ns = time.monotonic_ns() + self._config.runtime.drain_timeout_ms * _NS_PER_MS
        for process in self._stopping[0]:
            process.send(signal.SIGTERM)

    def _go_on_stopping(self, now_ns: int) -> None:
        """Kill a stage that is over its time; go to the next one when all of this are gone."""
        while self._stopping and not any(process.pid for process in self._stopping[0]):
            del self._stopping[0]
            if self._stopping:
                self._stop_stage()
        if self._stopping and now_ns >= self._deadline_ns:
            for process in self._stopping[0]:
                if process.pid:
                    _log.error("process did not stop in time", name=process.name, pid=process.pid)
                    self._clean = False
                    process.send(signal.SIGKILL)
            self._deadline_ns = now_ns + self._look_interval_ns()

    def _kill_all(self) -> None:
        for process in self._processes:
            process.send(signal.SIGKILL)
        for process in self._processes:
            if process.pid:
                os.waitpid(process.pid, 0)
                process.pid = 0

    def _reload_configuration(self) -> None:
        """Apply what can be applied now, name what needs a restart, tell the children."""
        try:
            new = self._reload()
        except ConfigError as error:
            _log.error("the configuration was not reloaded", reason=str(error))
            return
        changed = changed_keys(self._config, new)
        self._config = _reloaded(self._config, new)
        log.apply_level(self._config.log)
        _log.info(
            "configuration reloaded",
            applied=[key for key in changed if key in RELOADED_KEYS],
            needs_restart=[key for key in changed if key not in RELOADED_KEYS],
        )
        for process in self._processes:
            process.send(signal.SIGHUP)


def _reloaded(old: Config, new: Config) -> Config:
    """The configuration that holds from now on: of the new one what needs no restart."""
    before = old.mqtt_runtime.auth
    auth = msgspec.structs.replace(
        new.mqtt_runtime.auth,
        tenants=before.tenants,
        max_pending_logins=before.max_pending_logins,
    )
    return msgspec.structs.replace(
        old,
        log=msgspec.structs.replace(old.log, level=new.log.level),
        mqtt_runtime=msgspec.structs.replace(old.mqtt_runtime, auth=auth),
        users=new.users,
        acl=new.acl,
    )


def _cores_for(workers: int, pin: bool) -> list[int | None]:
    """Return the processor of each worker; no pinning when there are too few."""
    cores = sorted(os.sched_getaffinity(0))
    return [*cores[:workers]] if pin and len(cores) >= workers else [None] * workers


def _read_all(pipe: int) -> bytes:
    try:
        return os.read(pipe, 4096)
    except BlockingIOError:
        return b""


def _ignore(_signum: int, _frame: object) -> None:
    """Do nothing here: the number of the signal is on the wakeup pipe."""
