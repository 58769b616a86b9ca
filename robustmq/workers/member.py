"""A node as a member of its cluster: how it comes, stays, and goes."""

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from msgspec import Struct

from robustmq.meta import commands
from robustmq.meta.controller import Controller
from robustmq.meta.data import Data
from robustmq.meta.raft_host import GroupStatus
from robustmq.meta.records import CLUSTER, Cluster, Node, node_of
from robustmq.rpc.wire import Hello, Unreachable
from robustmq.settings.place import join_address, split_address
from robustmq.workers import log
from robustmq.workers.identity import IdentityFile
from robustmq.workers.inheritance import GRPC, HTTP, PEER, ServerInheritance
from robustmq.workers.limits import StartError
from robustmq.workers.listeners import kafka_host, kafka_ports
from robustmq.workers.meta_counters import count
from robustmq.workers.meta_service import MetaService
from robustmq.workers.replication import METADATA, Replication, now_ms, result
from robustmq.workers.roll import Changing, Joined, Joining, Roll

if TYPE_CHECKING:
    from robustmq.workers.neighbours import Neighbours
    from robustmq.workers.way import Way

STEP_S: Final = 0.02
IDLE_MS: Final = 1_000
RETRY_S: Final = 1.0
FAREWELL_S: Final = 2.0
"""Seconds at most that a node which is stopped waits for others to lead what it leads."""

S = TypeVar("S", bound=Struct)
_log = log.EventLog("meta")


class Member:
    """The meta service of a node. `ways` lead to its other processes, by endpoint."""

    def __init__(
        self, inheritance: ServerInheritance, identity: IdentityFile, ways: "Sequence[Way]"
    ) -> None:
        self._config = inheritance.config
        self._inheritance = inheritance
        self._identity = identity
        self._neighbours: Neighbours | None = None
        self._replication: Replication | None = None
        self._roll: Roll | None = None
        self._controller: Controller | None = None
        self._service: MetaService | None = None
        self._ways = ways
        self._is_leading = False
        self._recorded: dict[int, Node] = {}
        self._said = ""

    async def live(self, ready: Callable[[], None]) -> None:
        """Take part until the process ends; `ready()` when workers may serve.

        Raises ConfigError or StartError when the node may not be in its cluster as configured,
        Broken when its disk has failed.
        """
        state = self._inheritance.region.state(self._inheritance.index)
        state.isolated = 1
        if self._config.meta_addrs:
            await self._listen()
        voters = await self._form()
        replication = Replication(self._config, voters, self._send, self._turned)
        self._replication = replication
        seconds = float(self._config.meta_runtime.raft_write_timeout_sec)
        self._roll = Roll(self._config.broker_id, replication, self._neighbours, seconds)
        machines = replication.machines()
        self._controller = Controller(
            replication.metadata,
            {name: machine for name, machine in machines.items() if isinstance(machine, Data)},
            timeout_ms=self._config.meta_runtime.heartbeat_timeout_ms,
            retry_ms=self._config.meta_runtime.raft.election_timeout_ms,
        )
        self._identity.change(has_begun=True, first=voters)
        self._serve(replication)
        living = asyncio.ensure_future(self._stay(ready))
        try:
            await asyncio.wait((living, replication.broken), return_when=asyncio.FIRST_COMPLETED)
            if replication.broken.done():
                replication.broken.result()
            living.result()
        finally:
            living.cancel()

    async def stop(self) -> None:
        """Give up what this node leads, and end."""
        if self._replication is not None and self._neighbours is not None:
            try:
                async with asyncio.timeout(FAREWELL_S):
                    await self._hand_over(self._replication)
            except TimeoutError:
                pass
        if self._replication is not None:
            self._replication.close()
        if self._neighbours is not None:
            await self._neighbours.close()

    async def _hand_over(self, replication: Replication) -> None:
        """Have others lead the groups that this node leads, each whoever is most up to date."""
        me = self._config.broker_id
        while led := [each for each in replication.host.status() if each.leads]:
            for status in led:
                others = [each for each in status.followers if each.voter]
                if not others:
                    return
                best = max(others, key=lambda each: (each.heard_ms // 1_000, each.matched))
                replica = replication.host.group(status.name).node
                replica.transfer_leadership(best.node, now_ms())
            replication.wake()
            await asyncio.sleep(STEP_S)
        _log.debug("nothing is led any more", node=me)

    # ------------------------------------------------------------------ coming

    async def _listen(self) -> None:
        # What a node that is alone does without takes its time to be loaded.
        from robustmq.net.trust import read_trust  # noqa: PLC0415
        from robustmq.workers.neighbours import Neighbours, advertised  # noqa: PLC0415

        inheritance = self._inheritance
        self._neighbours = Neighbours(
            self._config,
            self._identity,
            read_trust(self._config.cluster),
            address=advertised(self._config, inheritance.addresses[GRPC]),
            store_of=self._store_of,
            raft=self._received,
            lost=self._lost,
            call=self._called,
        )
        await self._neighbours.listen(inheritance.listeners[GRPC])
        seeds = {int(node): address for node, address in self._config.meta_addrs.items()}
        self._neighbours.know(seeds)

    async def _form(self) -> tuple[int, ...]:
        """Return the first voters of groups that have no log yet; () for a node that learns."""
        own, me = self._identity.value, self._config.broker_id
        if own.has_begun:
            return own.first
        neighbours = self._neighbours
        if neighbours is None:
            return (me,)
        first = tuple(sorted(int(node) for node in self._config.meta_addrs))
        while True:
            met = neighbours.met()
            founded = [node for node, hello in met.items() if hello.cluster]
            if founded:
                joined = await self._join(founded[0])
                if joined is not None:
                    return first if joined.votes and me in first else ()
                await asyncio.sleep(RETRY_S)
            elif me in first and len({me, *met} & {*first}) > len(first) // 2:
                return first
            else:
                await asyncio.sleep(STEP_S)

    async def _join(self, node: int) -> Joined | None:
        """Ask to be taken in; None when it did not come to that, and the log says why."""
        assert self._neighbours is not None
        own = self._identity.value
        body = msgspec.msgpack.encode(Joining(own.node, own.store))
        seconds = float(self._config.meta_runtime.raft_write_timeout_sec) * 2
        try:
            data = await self._neighbours.lines.call(node, "join", body, seconds)
        except (Unreachable, ValueError) as error:
            self._say_once("the node was not taken in", str(error))
            return None
        joined = msgspec.msgpack.decode(data, type=Joined)
        self._identity.change(cluster=joined.cluster)
        self._neighbours.know(joined.addresses)
        return joined

    # ------------------------------------------------------------------ staying

    async def _stay(self, ready: Callable[[], None]) -> None:
        """Found the cluster or find it founded, register, and show that we live."""
        assert self._replication is not None
        assert self._roll is not None
        interval = self._config.meta_runtime.heartbeat_check_time_ms / 1_000
        await self._found(self._replication)
        await self._register(self._replication)
        ready()
        while True:
            self._know_nodes(self._roll)
            node = self._roll.node(self._config.broker_id)
            if node is None or node.state == "leaving":
                self._say_once(
                    "this node has left the cluster",
                    "stop it; with an empty data directory it may come again",
                )
            elif node.state == "fenced":
                await self._register(self._replication)
            else:
                self._beat(node.incarnation)
            self._control(self._replication)
            self._count(self._replication, self._roll)
            await asyncio.sleep(interval)

    async def _found(self, replication: Replication) -> None:
        """Wait until the cluster has an id, which the first leader gives it."""
        while (row := replication.metadata.record(CLUSTER, "")) is None:
            if replication.host.leader(METADATA) == self._config.broker_id:
                name = self._config.cluster_name
                command = commands.Found(id=uuid.uuid4().hex, name=name)
                await replication.folded(METADATA, commands.encode(command))
            else:
                await asyncio.sleep(STEP_S)
        found = msgspec.msgpack.decode(row[1], type=Cluster).id
        own = self._identity.value.cluster
        if own not in {"", found}:
            raise StartError(f"the data are of the cluster {found}, the node is of {own}")
        if not own:
            self._identity.change(cluster=found)

    async def _register(self, replication: Replication) -> None:
        """Have all nodes know this one, as it is now; tried until it has worked."""
        command = commands.encode(self._registration())
        while True:
            try:
                value = commands.outcome(result(await replication.folded(METADATA, command)))
            except ValueError as error:
                self._say_once("the node is not registered yet", str(error))
                await asyncio.sleep(STEP_S)
                continue
            if isinstance(value, bytes):
                node = node_of(value)
                _log.info("node is registered", node=node.number, incarnation=node.incarnation)
                return
            raise StartError(value.detail)

    def _registration(self) -> commands.Register:
        config, own = self._config, self._identity.value
        addresses = self._inheritance.addresses
        grpc = split_address(addresses[GRPC])[1] if GRPC in addresses else 0
        peer = split_address(addresses[PEER])[1] if PEER in addresses else 0
        return commands.Register(
            number=own.node,
            store=own.store,
            cluster=own.cluster,
            address=config.place.advertised_host,
            grpc_port=split_address(config.place.own)[1] if config.place.own else grpc,
            peer_port=peer,
            http_port=split_address(addresses[HTTP])[1],
            workers=self._inheritance.workers,
            roles=config.roles,
            version=metadata.version("robustmq"),
            kafka_host=kafka_host(config),
            kafka_ports=kafka_ports(addresses, self._inheritance.workers),
        )

    def _know_nodes(self, roll: Roll) -> None:
        """Call the nodes that are there, and no others."""
        if self._neighbours is None:
            return
        nodes = roll.nodes()
        for number, node in self._recorded.items():
            if number not in nodes:
                self._neighbours.forget(number, node.store)
        self._recorded = nodes
        addresses = {
            number: join_address(node.address, node.grpc_port)
            for number, node in nodes.items()
            if node.grpc_port
        }
        self._neighbours.know(addresses)

    def _beat(self, incarnation: int) -> None:
        """Tell the leader of the metadata that this node lives."""
        assert self._replication is not None
        me = self._config.broker_id
        leader = self._replication.host.leader(METADATA)
        if leader == me and self._controller is not None:
            self._controller.heard(me, incarnation, now_ms())
        elif leader is not None and self._neighbours is not None:
            self._neighbours.lines.tell(leader, "beat", msgspec.msgpack.encode(incarnation))

    def _control(self, replication: Replication) -> None:
        """Do what the leader of the metadata does."""
        controller = self._controller
        assert controller is not None
        leads = replication.host.group(METADATA).node.leads
        if leads and not self._is_leading:
            controller.lead(now_ms())
        elif not leads and self._is_leading:
            controller.resign()
        self._is_leading = leads
        for group, command in controller.turn(now_ms()):
            replication.propose(group, command, lambda _outcome: None)

    def _count(self, replication: Replication, roll: Roll) -> None:
        lines = self._neighbours.lines if self._neighbours is not None else None
        count(
            self._inheritance.region.counters(self._inheritance.index),
            replication.host,
            isolated=self._is_isolated(replication),
            live=sum(node.state == "live" for node in roll.nodes().values()),
            connected=len(lines.connected()) if lines is not None else 0,
            dropped=lines.dropped if lines is not None else 0,
        )

    # ------------------------------------------------------------------ what others say

    def _send(self, node: int, parcel: bytes) -> None:
        if self._neighbours is not None:
            self._neighbours.lines.raft(node, parcel)

    def _lost(self, node: int) -> None:
        if self._replication is not None:
            self._replication.lost(node)

    def _received(self, node: int, parcel: bytes) -> None:
        if self._replication is not None:
            self._replication.receive(node, parcel)

    def _serve(self, replication: Replication) -> None:
        """Answer the processes of the node, and tell them what is decided."""
        service = MetaService(
            self._config.broker_id,
            self._inheritance.workers,
            self._ways,
            replication.machines(),
            replication,
            life=self._inheritance.region.state(self._inheritance.index).epoch,
            directory=Path(self._config.data_path),
            now_ms=now_ms(),
        )
        self._service = service

    def heard(self, endpoint: int, data: bytes) -> None:
        """Take what a process of the node says; before we serve it is dropped, and said again."""
        if self._service is not None and self._replication is not None:
            self._service.feed.receive(endpoint, data)
            self._replication.wake()

    def drained(self, endpoint: int) -> None:
        """Hear that what waited for a process of the node is sent."""
        if self._service is not None and self._replication is not None:
            self._service.feed.drained(endpoint)
            self._replication.wake()

    def _is_isolated(self, replication: Replication) -> bool:
        """Whether the node may soon be given up: not already while a leader is elected."""
        return replication.host.silent_ms >= self._config.meta_runtime.lease_ms

    def _turned(self, now: int) -> int:
        """Follow a turn of the groups; return when the next one is due."""
        assert self._replication is not None
        is_isolated = self._is_isolated(self._replication)
        state = self._inheritance.region.state(self._inheritance.index)
        state.isolated = int(is_isolated)
        if self._service is None:
            return now + IDLE_MS
        self._service.turn(now, is_isolated)
        return self._service.next_ms

    async def _called(self, caller: Hello, kind: str, body: bytes) -> bytes:
        """Answer another node; raises ValueError."""
        if self._replication is None or self._roll is None:
            raise ValueError("the node does not take part in the cluster yet; ask again")
        match kind:
            case "beat":
                if self._controller is not None:
                    incarnation = msgspec.msgpack.decode(body, type=int)
                    self._controller.heard(caller.node, incarnation, now_ms())
                return b""
            case "join":
                wanted = _read(body, Joining)
                return await self._led("join", body, self._take_in(self._roll, wanted))
            case "change":
                await self._roll.change(_read(body, Changing))
                return b""
            case "ask":
                asked = msgspec.msgpack.decode(body, type=tuple[str, dict[str, Any]])
                return msgspec.msgpack.encode(await self._decide(self._roll, *asked))
        raise ValueError(f"nobody answers {kind[:100]}")

    async def _take_in(self, roll: Roll, wanted: Joining) -> bytes:
        own = self._identity.value.cluster
        if not own:
            raise ValueError("the cluster has no id yet; ask again")
        addresses = {
            number: join_address(node.address, node.grpc_port)
            for number, node in roll.nodes().items()
            if number != wanted.node and node.grpc_port
        }
        return msgspec.msgpack.encode(await roll.join(wanted, own, addresses))

    async def _led(self, kind: str, body: bytes, here: Coroutine[Any, Any, bytes]) -> bytes:
        """Have something done where the metadata is led: here, or there."""
        assert self._roll is not None
        try:
            leader = self._roll.leader()
            if leader == self._config.broker_id:
                return await here
            if self._neighbours is None:
                raise ValueError("no other node is known here")
            seconds = float(self._config.meta_runtime.raft_write_timeout_sec)
            return await self._neighbours.lines.call(leader, kind, body, seconds)
        except Unreachable as error:
            raise ValueError(f"{error}; ask again") from None
        finally:
            here.close()

    def _store_of(self, node: int) -> str | None:
        known = self._roll.node(node) if self._roll is not None else None
        return known.store if known is not None else None

    # ------------------------------------------------------------------ what is asked here

    async def ask(self, kind: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
        """Answer a question about the cluster; raises ValueError with a sentence."""
        if kind == "status":
            return self.status()
        if self._replication is None or self._roll is None:
            raise ValueError("the node does not take part in the cluster yet; try again later")
        body = msgspec.msgpack.encode((kind, arguments))
        here = self._decide(self._roll, kind, arguments)
        return msgspec.msgpack.decode(await self._led("ask", body, _encoded(here)))

    async def _decide(self, roll: Roll, kind: str, arguments: dict[str, Any]) -> str:
        """Do what an administrator has asked for, on the node that leads the metadata."""
        node = arguments.get("node")
        if not isinstance(node, int):
            raise ValueError("which node?")
        match kind:
            case "promote":
                await roll.promote(node)
            case "leave":
                await roll.leave(node, force=bool(arguments.get("force")))
            case "replace":
                await roll.replace(node)
            case _:
                raise ValueError(f"nobody answers {kind[:100]}")
        return "success"

    def status(self) -> dict[str, Any]:
        """Return what this node knows of its cluster."""
        own = self._identity.value
        found: dict[str, Any] = {
            "cluster_name": self._config.cluster_name,
            "cluster_id": own.cluster,
            "node": own.node,
            "store_id": own.store,
            "isolated": True,
            "connected": self._neighbours.lines.connected() if self._neighbours else [],
            "leader": None,
            "groups": {},
            "nodes": {},
        }
        if self._replication is not None and self._roll is not None:
            found["isolated"] = self._is_isolated(self._replication)
            found["leader"] = self._replication.host.leader(METADATA)
            found["groups"] = {each.name: _shown(each) for each in self._replication.host.status()}
            found["nodes"] = {
                str(number): msgspec.to_builtins(node)
                for number, node in sorted(self._roll.nodes().items())
            }
        return found

    def _say_once(self, event: str, reason: str) -> None:
        """Log what is tried again and again once, until there is another reason."""
        if reason != self._said:
            self._said = reason
            _log.warning(event, reason=reason)


async def _encoded(value: Coroutine[Any, Any, object]) -> bytes:
    return msgspec.msgpack.encode(await value)


def _read(body: bytes, struct: type[S]) -> S:
    try:
        return msgspec.msgpack.decode(body, type=struct)
    except msgspec.DecodeError as error:
        raise ValueError(f"a question that cannot be read: {error}") from None


def _shown(status: GroupStatus) -> dict[str, Any]:
    return {
        "leader": status.leader,
        "term": status.term,
        "commit": status.commit,
        "applied": status.applied,
        "last": status.last,
        "position": status.position,
        "voters": list(status.membership.voters),
        "learners": list(status.membership.learners),
    }
