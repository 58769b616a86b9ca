"""A core's part in its cluster: what all have agreed on, told to links and sessions; what it asks.

The image says which nodes there are, the meta process which sessions are whose. Both come over the
channel to the meta process of this node, between turns; what they lead to shows in the next one.
"""

import asyncio
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from robustmq._kernel.poller import Poller
from robustmq._kernel.turn import Turn
from robustmq.broker.core import Core
from robustmq.broker.placement import Life, Placement
from robustmq.errors import Refused
from robustmq.message.core_number import NODE_MAX, global_core
from robustmq.message.session_record import SessionRecord
from robustmq.message.topic import stable_hash
from robustmq.meta.records import CLUSTER, NODE, Node
from robustmq.mqtt.protocol import Mqtt
from robustmq.net.channel import Channel
from robustmq.workers import log
from robustmq.workers.inheritance import Inheritance
from robustmq.workers.links import Links
from robustmq.workers.meta_link import MetaLink, Page
from robustmq.workers.meta_messages import Adopt, Changed
from robustmq.workers.peer_line import PeerNode
from robustmq.workers.peers import Peers
from robustmq.workers.relays import Relays

RETRY_MS: Final = 500

_log = log.EventLog("cluster")


def reach(
    inheritance: Inheritance,
    poller: Poller,
    loop: asyncio.AbstractEventLoop,
    core: Core,
    chance: Callable[[int], int],
) -> Peers | None:
    """Make the links to other nodes' cores; None when this node is alone."""
    if inheritance.trust is None:
        return None
    state = inheritance.region.state(inheritance.index)
    return Peers(
        settings=inheritance.config.cluster,
        trust=inheritance.trust,
        node=inheritance.config.broker_id,
        index=inheritance.index,
        workers=inheritance.workers,
        boot=inheritance.secret,
        epoch=state.epoch,
        poller=poller,
        row=inheritance.region.counters(inheritance.index),
        loop=loop,
        clock=core,
        now_ms=lambda: core.turn.now_ms,
        chance=chance,
    )


def meta_link(
    inheritance: Inheritance,
    watch_writable: Callable[[socket.socket, Callable[[], None]], None],
    turn: Turn,
) -> MetaLink:
    """Make the way to the meta process of this node; its end is to be watched by the caller."""
    (end,) = inheritance.meta_channels
    channel = Channel(end, lambda: watch_writable(end, channel.flush))
    return MetaLink(
        channel,
        inheritance.region.state(inheritance.index).epoch,
        now_ms=lambda: turn.now_ms,
        timeout_ms=inheritance.config.meta_runtime.raft_write_timeout_sec * 1_000,
    )


class Participation:
    """What a core of a cluster hears and says; a `seeker.Cluster`.

    `groups` is the number of data groups. `welcome()` is called when the core knows for the first
    time which sessions are its own: clients may come. `departed(core)` hears of cores whose node
    is not live any more, `moved()` that nodes have come or gone. `silent_ms()` says for how long
    the meta process has given no sign of life: after `lease_ms` of it the node may be given up
    unnoticed.
    """

    def __init__(
        self,
        *,
        node: int,
        groups: int,
        link: MetaLink,
        core: Core,
        placement: Placement,
        links: Links,
        peers: Peers,
        relays: Relays,
        welcome: Callable[[], None],
        silent_ms: Callable[[], int],
        lease_ms: int,
    ) -> None:
        self.node = node
        self.version = 0
        self._groups = groups
        self._link = link
        self._core = core
        self._placement = placement
        self._links = links
        self._peers = peers
        self._relays = relays
        self.departed: Callable[[int], None] = lambda _core: None
        self.moved: Callable[[], None] = lambda: None
        self._welcome: Callable[[], None] | None = welcome
        self._mqtt: Mqtt
        self._known: Sequence[PeerNode] = ()
        self._named: set[int] = set()
        self._gone: frozenset[int] = frozenset()
        self._live: frozenset[int] = frozenset()
        self._incarnation = 0
        self._member = 0
        """The incarnation of this node that was seen last."""
        self._known_as = 0
        """The incarnation of this node that the broker was told of last."""
        self._awaited = 0
        """Updates of the nodes that the links have not told yet."""
        self._fetch = 0
        self._is_informed = False
        self._silent_ms = silent_ms
        self._lease_ms = lease_ms
        self._is_isolated = False
        links.changed = self._placed
        link.image.changed = self._image_changed
        link.applied = self._applied
        link.adopt = self._adopt
        link.stood = lambda _is_isolated: self.look()
        link.changed = self._changed

    def join(self, mqtt: Mqtt) -> None:
        """Know whose sessions these are."""
        self._mqtt = mqtt

    # ------------------------------------------------------------------ the cluster, for seekers

    def homes(self, client_id: bytes) -> Sequence[int]:
        """Return the cores of the other live nodes that sessions of a client would live on."""
        return [
            global_core(node, stable_hash(client_id) % life.workers)
            for node, life in self._placement.nodes.items()
            if node != self.node and life.workers
        ]

    def send(self, core: int, frame: bytes) -> None:
        """Queue a frame."""
        self._links.send(core, frame)

    def _own_incarnation(self) -> int:
        own = self._link.image.nodes.get(self.node)
        return own.incarnation if own is not None else 0

    # ------------------------------------------------------------------ what the image says

    def _image_changed(self, kinds: Collection[str]) -> None:
        cluster = self._link.image.cluster
        if cluster is None or not {NODE, CLUSTER} & {*kinds}:
            return
        nodes = self._link.image.nodes
        self._see_own()
        self._forget(self._named - {*nodes})
        self._named = {*nodes}
        gone = frozenset(
            number
            for number, node in nodes.items()
            if number != self.node and node.is_broker and node.state != "live"
        )
        if self._known_as != self._own_incarnation():
            self._known_as = self._own_incarnation()
            self._core.estates.begin()
        roaming = self._mqtt.roaming
        assert roaming is not None
        live = frozenset(n for n, node in nodes.items() if node.is_broker) - gone
        # When other nodes are live, all that is gone is shared out anew.
        for number in gone if live != self._live else gone - self._gone:
            roaming.fenced(number)
        for number in self._gone - gone:
            roaming.returned(number)
        self._gone = gone
        self._live = live
        known = [_peer(node) for node in nodes.values() if node.is_broker]
        if known != self._known:
            self._known = known
            self._awaited += 1
            self._peers.update(cluster.id, known)
            self._peers.then(self._links_know)

    def _see_own(self) -> None:
        """See whether this node was fenced and is back before anybody here noticed."""
        own = self._own_incarnation()
        if own != self._member and self._member and not self._is_isolated:
            self._stood(True)
            self._incarnation = self._member
            self._stood(False)
        self._member = own

    def _forget(self, numbers: Iterable[int]) -> None:
        """Let a node that has one of these numbers later begin with nothing."""
        for number in numbers:
            if number != self.node:
                self._core.forget(number)

    def _links_know(self) -> None:
        self._awaited -= 1
        self._applied(self._link.image.index or 0)

    def _applied(self, index: int) -> None:
        if not self._is_informed:
            self._is_informed = True
            for group in range(self._groups):
                self._link.follow(f"data_{group}", (0, b""))
            self._forget({*range(NODE_MAX + 1)} - {*self._link.image.nodes})
            if not self._is_isolated:
                self._return()
        # What the others are told of the version holds for the links and the placement, too.
        if not self._awaited:
            self.version = index
            roaming = self._mqtt.roaming
            assert roaming is not None
            roaming.look()

    def _placed(self, nodes: Mapping[int, Life]) -> None:
        """The links know which nodes are live: the broker is told."""
        before = self._placement.remote
        self._core.update(nodes)
        now = {*self._placement.remote}
        for core in before:
            if core not in now:
                self.replaced(core)
                self.departed(core)
        self.moved()

    def replaced(self, core: int) -> None:
        """A core has a new life, or is not there any more: what came from it has ended."""
        self._relays.replaced(core)
        if self._mqtt.roaming is not None:
            self._mqtt.roaming.replaced(core)

    # ------------------------------------------------------------------ what is retained

    def _changed(self, message: Changed) -> None:
        self._core.applied(
            int(message.group.removeprefix("data_")),
            message.index,
            [(row.topic, row.message) for _, row in message.rows],
            is_whole=message.is_whole,
            is_last=message.after is None,
        )

    # ------------------------------------------------------------------ whose sessions are whose

    def _adopt(self, message: Adopt) -> None:
        roaming = self._mqtt.roaming
        assert roaming is not None
        if message.node in self._gone:
            roaming.adopt(message.node, message.sessions)
            if message.is_last:
                roaming.settled(message.node)

    def look(self) -> None:
        """See whether the node is in touch with its cluster; to be called now and then, too."""
        is_isolated = self._link.is_isolated or self._silent_ms() > self._lease_ms
        if is_isolated != self._is_isolated:
            self._is_isolated = is_isolated
            self._stood(is_isolated)

    def _stood(self, is_isolated: bool) -> None:
        roaming = self._mqtt.roaming
        assert roaming is not None
        if is_isolated:
            self._fetch += 1
            self._incarnation = self._own_incarnation()
            _log.warning("the cluster is out of reach: no client is served here until it is back")
            self._mqtt.isolated()
        else:
            _log.info("the cluster is in reach")
            roaming.rejoined(self._incarnation != self._own_incarnation())
            if self._is_informed:
                self._return()

    def _return(self) -> None:
        """Ask which sessions are this core's, group by group."""
        self._fetch += 1
        self._ask(self._fetch, 0, "", [])

    def _ask(self, fetch: int, group: int, start: str, found: list[SessionRecord]) -> None:
        if fetch == self._fetch:
            heard = partial(self._heard, fetch, group, start, found)
            self._link.owned(f"data_{group}", start, heard)

    def _heard(
        self, fetch: int, group: int, start: str, found: list[SessionRecord], page: Page | Refused
    ) -> None:
        if fetch != self._fetch:
            return
        if isinstance(page, Refused):
            again = partial(self._ask, fetch, group, start, found)
            self._core.at(self._core.turn.now_ms + RETRY_MS, again)
            return
        rows, after = page
        found += rows
        if after is not None:
            self._ask(fetch, group, after, found)
        elif group + 1 < self._groups:
            self._ask(fetch, group + 1, "", found)
        else:
            self._restored(found)

    def _restored(self, rows: list[SessionRecord]) -> None:
        roaming = self._mqtt.roaming
        assert roaming is not None
        roaming.restored(rows)
        if self._welcome is not None:
            welcome, self._welcome = self._welcome, None
            welcome()


def _peer(node: Node) -> PeerNode:
    return PeerNode(
        node.number,
        node.address,
        node.peer_port,
        node.workers,
        node.incarnation,
        node.state == "live",
    )
