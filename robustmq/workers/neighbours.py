"""The other nodes of the cluster as the meta process reaches them, and lets them reach it."""

import os
import socket
from collections.abc import Awaitable, Callable, Mapping

from robustmq.config import Config
from robustmq.net.trust import Trust
from robustmq.rpc import wire
from robustmq.rpc.callee import Callee, Ears
from robustmq.rpc.caller import Lines, Terms
from robustmq.rpc.stream import Identity
from robustmq.rpc.wire import Hello
from robustmq.settings.place import NODE_MAX, join_address, split_address
from robustmq.workers import log
from robustmq.workers.identity import IdentityFile

_log = log.EventLog("meta")


class Neighbours:
    """Streams to and from all other nodes. Who is foreign is refused, and both sides say so.

    `store_of(node)` is the store that a node of this cluster has, None when nobody knows it.
    `raft(node, frame)` takes what came, `lost(node)` hears that what was sent may be lost, and
    `call(caller, kind, body)` answers, or raises ValueError.
    """

    def __init__(
        self,
        config: Config,
        identity: IdentityFile,
        trust: Trust,
        *,
        address: str,
        store_of: Callable[[int], str | None],
        raft: Callable[[int, bytes], None],
        lost: Callable[[int], None],
        call: Callable[[Hello, str, bytes], Awaitable[bytes]],
    ) -> None:
        settings = config.cluster
        self._config = config
        self._identity = identity
        self._address = address
        self._store_of = store_of
        self._known: dict[int, tuple[str, int]] = {}
        self._met: dict[int, Hello] = {}
        self._stores: dict[int, str] = {}
        """Of the nodes that have called."""
        self._said: dict[object, str] = {}
        own = Identity(trust.secret, self._hello, self.judge, _nonce)
        self._callee = Callee(
            own,
            Ears(raft, call, self._came_in_vain, self._came),
            most_bytes=settings.max_call_bytes,
            timeout_s=settings.call_timeout_ms / 1_000,
            max_callers=settings.max_callers,
            context=trust.server,
        )
        terms = Terms(
            settings.max_call_bytes,
            settings.max_call_backlog_bytes,
            settings.call_timeout_ms / 1_000,
            settings.call_retry_min_ms / 1_000,
            settings.call_retry_max_ms / 1_000,
            trust.client,
        )
        self.lines = Lines(own, terms, met=self._reached, lost=lost, refused=self._refused)

    async def listen(self, listener: socket.socket) -> None:
        """Let other nodes call."""
        await self._callee.listen(listener)

    def know(self, addresses: Mapping[int, str]) -> None:
        """Call these nodes too, "host:port" by number; one that has moved, at its new address."""
        for node, address in addresses.items():
            if node != self._config.broker_id and 0 <= node <= NODE_MAX:
                try:
                    self._known[node] = split_address(address)
                except ValueError:
                    continue
        self.lines.update(self._known)

    def forget(self, node: int, store: str) -> None:
        """Call a node no more, unless another one has its number by now."""
        if self._stores.get(node, store) != store:
            return
        if self._known.pop(node, None):
            self.lines.update(self._known)
        self._met.pop(node, None)

    def met(self) -> dict[int, Hello]:
        """Return what the nodes that are connected have said of themselves."""
        return {node: self._met[node] for node in self.lines.connected() if node in self._met}

    async def close(self) -> None:
        """End all connections."""
        await self.lines.close()
        await self._callee.close()

    def judge(self, theirs: Hello) -> str | None:
        """Return why a node is not spoken with; None when it is."""
        ours = self._hello()
        if theirs.name != ours.name:
            return (
                f"cluster_name differs: node {theirs.node} is of {theirs.name[:255]}, "
                f"node {ours.node} of {ours.name}"
            )
        if not 0 <= theirs.node <= NODE_MAX:
            return f"broker_id must be 0 to {NODE_MAX} in a cluster, not {theirs.node}"
        if theirs.node == ours.node:
            return f"there are two nodes with the broker_id {ours.node}: give one another number"
        if theirs.cluster and ours.cluster and theirs.cluster != ours.cluster:
            return (
                f"node {theirs.node} belongs to the cluster {theirs.cluster[:64]}, node "
                f"{ours.node} to {ours.cluster}: empty the data directory of the one that is "
                "foreign, or name the meta_addrs of its own cluster"
            )
        known = self._store_of(theirs.node)
        if known is not None and known != theirs.store:
            return (
                f"node {theirs.node} has another data directory than the cluster knows: start it "
                "with its own, give it another broker_id, or have the old one replaced first"
            )
        return None

    def _hello(self) -> Hello:
        own = self._identity.value
        return Hello(self._config.cluster_name, own.cluster, own.node, own.store, self._address)

    def _came(self, caller: Hello) -> None:
        """Hear of a node that has called and was let in: it is called back."""
        self._stores[caller.node] = caller.store
        self.know({caller.node: caller.address})

    def _reached(self, hello: Hello) -> None:
        self._met[hello.node] = hello
        self._said.pop(hello.node, None)
        _log.info("node is connected", node=hello.node, address=hello.address)

    def _refused(self, node: int, reason: str) -> None:
        self._say(node, "node is refused", reason, node=node)

    def _came_in_vain(self, where: str, reason: str) -> None:
        self._say(where.rpartition(":")[0], "caller is refused", reason, address=where)

    def _say(self, whom: object, event: str, reason: str, **facts: object) -> None:
        """Log a refusal once, until another reason comes: it is tried again and again."""
        if self._said.get(whom) != reason:
            self._said[whom] = reason
            _log.warning(event, reason=reason, **facts)


def advertised(config: Config, listening: str) -> str:
    """Return where other nodes reach this one, whose socket is at `listening`."""
    place = config.place
    if place.own is not None and not place.cluster.advertised_host:
        return place.own
    return join_address(place.advertised_host, split_address(listening)[1])


def _nonce() -> bytes:
    return os.urandom(wire.NONCE_BYTES)
