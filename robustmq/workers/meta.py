"""The meta process: this node's part in what all nodes of the cluster agree on."""

import asyncio
import signal
import time
from typing import Final

import uvloop

from robustmq.shm.region import Phase
from robustmq.workers import log
from robustmq.workers.inheritance import ServerInheritance

HEARTBEATS_PER_TIMEOUT: Final = 5

_log = log.EventLog("meta")


def run(inheritance: ServerInheritance) -> None:
    """Take part until SIGTERM; what the supervisor calls in the forked meta process."""
    uvloop.run(_serve(inheritance))


async def _serve(inheritance: ServerInheritance) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, log.reload_level, inheritance.reload)
    interval = inheritance.config.runtime.heartbeat_timeout_ms / 1000 / HEARTBEATS_PER_TIMEOUT
    beating = asyncio.create_task(_beat(inheritance, interval))
    inheritance.enter(Phase.READY)
    await stopping.wait()
    inheritance.enter(Phase.DRAINING)
    beating.cancel()
    inheritance.enter(Phase.STOPPED)


async def _beat(inheritance: ServerInheritance, interval: float) -> None:
    state = inheritance.region.state(inheritance.index)
    while True:
        state.heartbeat_ns = time.monotonic_ns()
        await asyncio.sleep(interval)
