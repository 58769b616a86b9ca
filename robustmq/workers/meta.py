"""The meta process: this node's part in what all nodes of the cluster agree on."""

import asyncio
import signal
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import uvloop

from robustmq.errors import ConfigError
from robustmq.shm.region import Phase
from robustmq.workers import log
from robustmq.workers.cluster_desk import Answered, Asked, asked, encode
from robustmq.workers.identity import IdentityFile
from robustmq.workers.inheritance import ServerInheritance
from robustmq.workers.limits import StartError
from robustmq.workers.member import Member
from robustmq.workers.replication import Broken
from robustmq.workers.way import Way

HEARTBEATS_PER_TIMEOUT: Final = 5
_STATUS_FAILED: Final = 1

_log = log.EventLog("meta")


def run(inheritance: ServerInheritance) -> None:
    """Take part until SIGTERM; what the supervisor calls in the forked meta process."""
    try:
        identity = IdentityFile(inheritance.config.data_path, inheritance.config.broker_id)
        uvloop.run(_serve(inheritance, identity))
        return
    except (ConfigError, StartError, Broken) as error:
        reason = str(error)
    # Said here: within the except clause a traceback would go with it.
    _log.error("the meta service cannot run", reason=reason)
    raise SystemExit(_STATUS_FAILED)


async def _serve(inheritance: ServerInheritance, identity: IdentityFile) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, log.reload_level, inheritance.reload)
    config = inheritance.config
    # Workers look at it too: after a lease without a beat they serve nobody.
    timeout_ms = min(config.runtime.heartbeat_timeout_ms, config.meta_runtime.lease_ms)
    interval = timeout_ms / 1000 / HEARTBEATS_PER_TIMEOUT
    beating = asyncio.create_task(_beat(inheritance, interval))
    ways = [
        Way(end, inheritance.region.state(endpoint))
        for endpoint, end in enumerate(inheritance.meta_channels)
    ]
    member = Member(inheritance, identity, ways)
    desk = Desk(ways, member)
    living = asyncio.create_task(member.live(partial(inheritance.enter, Phase.READY)))
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait((living, waiting), return_when=asyncio.FIRST_COMPLETED)
    inheritance.enter(Phase.DRAINING)
    if living.done():
        living.result()
    await member.stop()
    living.cancel()
    beating.cancel()
    desk.close()
    inheritance.enter(Phase.STOPPED)


async def _beat(inheritance: ServerInheritance, interval: float) -> None:
    state = inheritance.region.state(inheritance.index)
    while True:
        state.heartbeat_ns = time.monotonic_ns()
        await asyncio.sleep(interval)


class Desk:
    """Hears the other processes of the node, and answers what they ask about the cluster."""

    def __init__(self, ways: Sequence[Way], member: Member) -> None:
        self._ways = ways
        self._member = member
        self._tasks: set[asyncio.Task[None]] = set()
        for endpoint, way in enumerate(ways):
            way.drained = partial(member.drained, endpoint)
            way.listen(partial(self._receive, endpoint))

    def close(self) -> None:
        """Answer nothing more."""
        for task in self._tasks:
            task.cancel()

    def _receive(self, endpoint: int, data: bytes) -> None:
        question = asked(data)
        if question is None:
            self._member.heard(endpoint, data)
            return
        task = asyncio.create_task(self._answer(endpoint, question))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, endpoint: int, question: Asked) -> None:
        value: Any = None
        error = None
        try:
            value = await self._member.ask(question.kind, question.arguments)
        except ValueError as refusal:
            error = str(refusal)
        self._ways[endpoint].send(encode(Answered(question.number, value, error)))
