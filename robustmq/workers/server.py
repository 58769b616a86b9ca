"""The server process: HTTP for administrators, orchestrators and Prometheus."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Final

import psutil
import uvicorn
import uvloop

from robustmq._kernel.choice import KERNEL
from robustmq.admin import app
from robustmq.admin.console import WebSocketListeners
from robustmq.admin.prometheus import Core, Usage
from robustmq.shm.region import Phase, Region
from robustmq.workers import limits, log
from robustmq.workers.inheritance import HTTP, ServerInheritance, meta_endpoint
from robustmq.workers.observer import Observer
from robustmq.workers.workforce import GRACE_SECONDS, Workforce

HEARTBEATS_PER_TIMEOUT: Final = 5


def run(inheritance: ServerInheritance) -> None:
    """Serve HTTP until SIGTERM; what the supervisor calls in the forked server process."""
    uvloop.run(_serve(inheritance))


async def _serve(inheritance: ServerInheritance) -> None:
    node = Workforce(inheritance)
    snapshot = RegionSnapshot(inheritance.region, inheritance.workers)
    observer = _observer(inheritance, node, snapshot)
    application = app.create(
        snapshot, node, inheritance.config.admin, _console(inheritance), observer.alarms
    )
    config = uvicorn.Config(
        application,
        lifespan="off",
        log_config=None,
        access_log=False,
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = EmbeddedServer(config, inheritance)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, server.stop)
    loop.add_signal_handler(signal.SIGHUP, log.reload_level, inheritance.reload)
    interval = inheritance.config.runtime.heartbeat_timeout_ms / 1000 / HEARTBEATS_PER_TIMEOUT
    node.start()
    observer.start()
    beating = asyncio.create_task(_beat(inheritance, interval))
    await server.serve(sockets=[inheritance.listeners[HTTP]])
    inheritance.enter(Phase.STOPPED)
    observer.stop()
    beating.cancel()


def _observer(
    inheritance: ServerInheritance, node: Workforce, snapshot: "RegionSnapshot"
) -> Observer:
    return Observer(
        inheritance.config,
        node,
        snapshot,
        started_s=psutil.Process(os.getppid()).create_time(),
        max_connections=limits.connection_count(inheritance.config, inheritance.workers),
    )


def _console(inheritance: ServerInheritance) -> WebSocketListeners:
    def port(listener: str) -> int | None:
        address = inheritance.addresses.get(listener)
        return None if address is None else int(address.rsplit(":", 1)[1])

    path = inheritance.config.mqtt_runtime.server.websocket_path
    return WebSocketListeners(ws=port("mqtt_ws"), wss=port("mqtt_wss"), path=path)


async def _beat(inheritance: ServerInheritance, interval: float) -> None:
    state = inheritance.region.state(inheritance.index)
    while True:
        state.heartbeat_ns = time.monotonic_ns()
        await asyncio.sleep(interval)


class EmbeddedServer(uvicorn.Server):
    """uvicorn without signal handlers of its own, that tells the supervisor its phases."""

    def __init__(self, config: uvicorn.Config, inheritance: ServerInheritance) -> None:
        super().__init__(config)
        self._inheritance = inheritance

    def stop(self) -> None:
        """Stop listening, give open requests `GRACE_SECONDS`, and let `serve` return."""
        self._inheritance.enter(Phase.DRAINING)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then be ready."""
        await super().startup(sockets)
        self._inheritance.enter(Phase.READY)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the event loop: uvicorn would raise them again at its end."""
        yield


class RegionSnapshot:
    """The node as the shared memory shows it; the `Snapshot` of the HTTP application."""

    kernel = KERNEL

    def __init__(self, region: Region, workers: int) -> None:
        self._region = region
        self._workers = workers
        self._supervisor = os.getppid()

    def cores(self) -> Sequence[Core]:
        """Read the workers' states and counters now."""
        return [self._core(number) for number in range(self._workers)]

    def processes(self) -> Sequence[Usage]:
        """Measure all processes of the node that are alive."""
        pids = {"supervisor": self._supervisor, "server": os.getpid()}
        pids["meta"] = self._region.state(meta_endpoint(self._workers)).pid
        for number in range(self._workers):
            pids[f"worker {number}"] = self._region.state(number).pid
        return [usage for name, pid in pids.items() if pid and (usage := _usage(name, pid))]

    def phases(self) -> dict[str, str]:
        """Return the phase in lower case of the meta process and each worker, by its name."""
        endpoints = {"meta": meta_endpoint(self._workers)}
        endpoints |= {f"worker {number}": number for number in range(self._workers)}
        return {
            name: self._region.state(endpoint).phase.name.lower()
            for name, endpoint in endpoints.items()
        }

    def meta(self) -> Sequence[int]:
        """Read the counters of the meta process."""
        return self._region.counters(meta_endpoint(self._workers)).tolist()

    def is_isolated(self) -> bool:
        """Return whether the node hears of no leader of its cluster."""
        return bool(self._region.state(meta_endpoint(self._workers)).isolated)

    def _core(self, number: int) -> Core:
        state = self._region.state(number)
        return Core(
            number=number,
            up=state.phase is Phase.READY,
            restarts=max(state.epoch - 1, 0),
            counters=self._region.counters(number).tolist(),
        )


def _usage(name: str, pid: int) -> Usage | None:
    """Measure one process; None when it has just ended."""
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return Usage(name, process.memory_info().rss, times.user + times.system)
    except psutil.NoSuchProcess:
        return None
