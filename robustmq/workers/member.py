"""A node as a member of its cluster: how it comes, stays, and goes."""

import asyncio
from collections.abc import Callable
from typing import Any

from robustmq.net.trust import read_trust
from robustmq.rpc.wire import Hello
from robustmq.workers import log
from robustmq.workers.identity import IdentityFile
from robustmq.workers.inheritance import GRPC, ServerInheritance
from robustmq.workers.neighbours import Neighbours, advertised

_log = log.EventLog("meta")


class Member:
    """The meta service of this node. Raises ConfigError when it cannot be trusted as configured."""

    def __init__(self, inheritance: ServerInheritance, identity: IdentityFile) -> None:
        self._config = config = inheritance.config
        self._inheritance = inheritance
        self._identity = identity
        self._neighbours: Neighbours | None = None
        if config.meta_addrs:
            self._neighbours = Neighbours(
                config,
                identity,
                read_trust(config.cluster),
                address=advertised(config, inheritance.addresses[GRPC]),
                store_of=self._store_of,
                raft=self._raft,
                call=self._called,
            )

    async def live(self, ready: Callable[[], None]) -> None:
        """Take part until the process ends; `ready()` when workers may serve."""
        if self._neighbours is not None:
            await self._neighbours.listen(self._inheritance.listeners[GRPC])
            seeds = {int(node): address for node, address in self._config.meta_addrs.items()}
            self._neighbours.know(seeds)
        ready()
        await asyncio.get_running_loop().create_future()

    async def stop(self) -> None:
        """Leave in order."""
        if self._neighbours is not None:
            await self._neighbours.close()

    async def ask(self, kind: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
        """Answer a question about the cluster; raises ValueError with a sentence."""
        if kind == "status":
            return self.status()
        raise ValueError(f"nobody answers {kind[:100]}")

    def status(self) -> dict[str, Any]:
        """Return what this node knows of its cluster."""
        own = self._identity.value
        neighbours = self._neighbours
        return {
            "cluster_name": self._config.cluster_name,
            "cluster_id": own.cluster,
            "node": own.node,
            "store_id": own.store,
            "connected": neighbours.lines.connected() if neighbours is not None else [],
        }

    def _store_of(self, node: int) -> str | None:
        return None

    def _raft(self, node: int, frame: bytes) -> None:
        pass

    async def _called(self, caller: Hello, kind: str, body: bytes) -> bytes:
        raise ValueError(f"nobody answers {kind[:100]}")
