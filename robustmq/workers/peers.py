"""All links of one core to the cores of other nodes: who is there, who dials, who may come in."""

import asyncio
import hashlib
import os
import socket
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from robustmq import metrics
from robustmq._kernel.poller import Poller
from robustmq._kernel.turn import Turn
from robustmq.broker.api import Timer
from robustmq.message.core_number import global_core
from robustmq.net.layer import Facts, Layer, Stack
from robustmq.net.peer_connection import PeerConnection, Preamble, Stage
from robustmq.net.peer_handshake import (
    NONCE_BYTES,
    STREAM_BYTES,
    VERSION,
    Hello,
    Life,
)
from robustmq.net.tls import TlsLayer
from robustmq.net.transport import Pipeline
from robustmq.net.trust import Trust
from robustmq.settings.cluster import Cluster
from robustmq.workers import log
from robustmq.workers.peer_door import BACKLOG, Clock, PeerDoor, address_in
from robustmq.workers.peer_line import Line, PeerNode, Terms

_log = log.EventLog("peers")

BOOT_BYTES: Final = 8

_LINGER_MS: Final = 1_000
_REFUSALS_MS: Final = 10_000
"""Milliseconds in which one refusal is logged; the others are only counted."""


class Peers:
    """The links of core `index` of node `node`; what they bring comes up as it does from a ring.

    `handle(core, frame)` takes what comes in; `changed(nodes)` hears which nodes are live, this one
    among them, and `replaced(core)` of a new life of a core: after all that the earlier ones said,
    before anything that the new ones say. All are called from `receive` alone. Cores are known by
    their global numbers (`message.core_number`). A node that has another incarnation is gone in one
    call of `changed` and there again in the next; one that was only started again has what its
    disk has, and its cores are replaced.

    `boot` is the same for all cores of this node and nobody else, `epoch` that of this core's
    life. `row` are this core's counters, `clock` and `now_ms` those of its turns, `chance(n)` is
    a number from 0 to n - 1.
    """

    def __init__(
        self,
        *,
        settings: Cluster,
        trust: Trust,
        node: int,
        index: int,
        workers: int,
        boot: bytes,
        epoch: int,
        poller: Poller,
        row: memoryview,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        now_ms: Callable[[], int],
        chance: Callable[[int], int],
    ) -> None:
        self._settings = settings
        self._trust = trust
        self._node = node
        self._index = index
        self._workers = workers
        self._boot = hashlib.blake2b(boot, digest_size=BOOT_BYTES, person=b"boot").digest()
        self._epoch = epoch
        self._poller = poller
        self._row = row
        # The bytes of links are not those of clients: they are counted on a row of their own.
        self._counted = memoryview(array("Q", bytes(8 * metrics.CELLS)))
        self._turn = Turn(self._counted)
        self.loop = loop
        self._clock = clock
        self.now_ms = now_ms
        self.chance = chance
        self._cluster = ""
        self._nodes: Mapping[int, PeerNode] = {}
        self._events: deque[Callable[[], None]] = deque()
        self._marked: list[Line] = []
        self._owners: dict[PeerConnection, Line | None] = {}
        self._door: PeerDoor | None = None
        self._silent_until_ms = 0
        self.lines: dict[int, Line] = {}
        self.handle: Callable[[int, bytes], None]
        self.replaced: Callable[[int], None]
        self.changed: Callable[[Mapping[int, PeerNode]], None]
        self._row[metrics.LINKS_CONNECTED] = self._row[metrics.LINK_BACKLOG_BYTES] = 0
        self._look()

    # ------------------------------------------------------------------ the cluster

    def update(self, cluster: str, nodes: Sequence[PeerNode]) -> None:
        """Learn who belongs to the cluster, this node among them; it shows with `receive`.

        Cores of nodes that are not live, or have another incarnation, are gone; while this node
        itself is not live, or when its own incarnation has changed, all of them are.
        """
        self._events.append(partial(self._apply, cluster, tuple(nodes)))
        self.tick()

    def then(self, callback: Callable[[], None]) -> None:
        """Call back when all that was said so far has been heard."""
        self._events.append(callback)
        self.tick()

    def _apply(self, cluster: str, nodes: Sequence[PeerNode]) -> None:
        live = {node.node: node for node in nodes if node.is_live}
        is_same = cluster == self._cluster and _life(live, self._node) == _life(
            self._nodes, self._node
        )
        self._cluster = cluster
        kept = {
            number: node
            for number, node in live.items()
            if number == self._node
            or (is_same and _life(live, number) == _life(self._nodes, number))
        }
        self._leave(kept)
        self._meet_nodes(live)

    def _leave(self, kept: Mapping[int, PeerNode]) -> None:
        """Forget the nodes that are not among `kept`."""
        before, self._nodes = self._nodes, kept
        for core, line in list(self.lines.items()):
            if self._node in kept and line.node.node in kept:
                line.node = kept[line.node.node]
            else:
                del self.lines[core]
                line.shut()
        if any(_life(kept, number) != _life(before, number) for number in before):
            self.changed(kept)

    def _meet_nodes(self, live: Mapping[int, PeerNode]) -> None:
        """Know the nodes that are live, and no others."""
        before, self._nodes = self._nodes, live
        for node in live.values() if self._node in live else ():
            for index in range(node.workers):
                if node.node != self._node and global_core(node.node, index) not in self.lines:
                    self._join(node, index)
        if _lives(before) != _lives(live):
            self.changed(live)

    def _join(self, node: PeerNode, index: int) -> None:
        settings = self._settings
        terms = Terms(
            is_dialer=(self._node, self._index) < (node.node, index),
            stream=os.urandom(STREAM_BYTES),
            record_bytes=settings.peer_record_bytes,
            keepalive_ms=settings.peer_keepalive_ms,
            timeout_ms=settings.peer_timeout_ms,
            reconnect_min_ms=settings.peer_reconnect_min_ms,
            reconnect_max_ms=settings.peer_reconnect_max_ms,
        )
        line = Line(self, node, index, terms)
        self.lines[line.core] = line
        if terms.is_dialer:
            line.dial()

    # ------------------------------------------------------------------ turns

    def receive(self) -> bool:
        """Hand up what has come in, in its order; True when there was anything."""
        events = self._events
        if not events:
            return False
        while events:
            events.popleft()()
        return True

    @property
    def has_events(self) -> bool:
        """Say whether `receive` has anything to do."""
        return bool(self._events)

    def flush(self) -> None:
        """Send what was queued: one gathered send for each link that has something to say."""
        if self._marked:
            marked, self._marked = self._marked, []
            for line in marked:
                self._row[metrics.LINK_FRAMES_SENT] += line.link.frames
                line.link.frames = 0
                line.flush()
        outboxes = self._turn.outboxes
        if not outboxes:
            return
        # What is sent may let more follow.
        for outbox in outboxes:
            outbox.settle()
            if outbox.stream is not None:
                outbox.stream.flush()
        outboxes.clear()
        self._row[metrics.LINK_BYTES_SENT] += self._counted[metrics.BYTES_SENT]
        self._counted[metrics.BYTES_SENT] = 0

    @property
    def is_quiet(self) -> bool:
        """Say whether all that was sent over links that are connected has been acknowledged."""
        return not any(line.is_open and line.backlog_bytes for line in self.lines.values())

    @property
    def streams(self) -> int:
        """How many connections there are; they are none of clients."""
        return len(self._owners)

    def _look(self) -> None:
        """Bring up to date what changes with each frame and is looked at now and then."""
        self._row[metrics.LINK_BACKLOG_BYTES] = sum(
            line.backlog_bytes for line in self.lines.values()
        )
        self.at(self._settings.peer_keepalive_ms, self._look)

    # ------------------------------------------------------------------ what lines ask for

    def at(self, delay_ms: int, callback: Callable[[], None]) -> Timer:
        """Call back after a time."""
        return self._clock.at(self.now_ms() + delay_ms, callback)

    def tick(self) -> None:
        """A turn has to begin."""
        self._poller.tick()

    def mark(self, line: Line) -> None:
        """A line has something to say at the end of the turn."""
        line.is_marked = True
        self._marked.append(line)

    def counted(self, line: Line, change: int) -> None:
        """There is an open connection more, or less."""
        self._row[metrics.LINKS_CONNECTED] += change
        if change > 0:
            self._row[metrics.LINK_CONNECTS] += 1
        else:
            self._row[metrics.LINK_RECORDS_RESENT] += line.link.resent
            line.link.resent = 0

    def connect(self, line: Line, fd: int) -> None:
        """Begin a connection to a core on a socket that connects."""
        layers: list[Layer] = [Preamble(line.index)]
        if self._trust.client is not None:
            layers.append(TlsLayer(self._trust.client, server_name=line.node.address))
        self._begin(fd, layers, line)

    # ------------------------------------------------------------------ coming in

    def listen(self, listener: socket.socket, hand_over: Callable[[int, int, bytes], None]) -> None:
        """Take connections; `hand_over(core, fd, note)` gives one to another core of this node."""
        self._door = PeerDoor(
            self._poller,
            listener,
            index=self._index,
            workers=self._workers,
            clock=self._clock,
            now_ms=self.now_ms,
            timeout_ms=self._settings.peer_handshake_timeout_ms,
            accept=self._accept,
            hand_over=hand_over,
            full=lambda: self.is_full,
            refused=self._refuse,
        )

    def shut(self) -> None:
        """Let nobody in any more; links that are there go on."""
        if self._door is not None:
            self._door.shut()

    @property
    def is_full(self) -> bool:
        """Say whether as many connections are there as there could be, twice."""
        waiting = self._door.waiting if self._door is not None else 0
        return len(self._owners) + waiting >= 2 * len(self.lines) + BACKLOG

    def adopt(self, fd: int, note: bytes) -> None:
        """Take a socket that another core of this node has accepted for this one."""
        self._accept(fd, address_in(note))

    def _accept(self, fd: int, address: str) -> None:
        if self.is_full:
            os.close(fd)
            self._refuse(Facts(address), "too many connections are being made")
            return
        layers: list[Layer] = [Preamble()]
        if self._trust.server is not None:
            layers.append(TlsLayer(self._trust.server))
        try:
            self._begin(fd, layers, None, address)
        except OSError as error:
            os.close(fd)
            self._refuse(Facts(address), f"its socket cannot be used: {error.strerror}")

    def _begin(self, fd: int, layers: list[Layer], line: Line | None, address: str = "") -> None:
        connection = PeerConnection(
            self,
            self._trust.secret,
            self._settings.peer_write_bytes,
            is_dialer=line is not None,
        )
        pipeline = Pipeline(
            self._turn,
            Stack(layers),
            Facts(address or (line.node.address if line is not None else ""), "peer"),
            connection,
            opened=self._opened,
            broken=self._broken,
            closing=self._linger,
        )
        connection.transport = pipeline
        pipeline.adopt(self._poller, fd)
        self._owners[connection] = line
        self.at(self._settings.peer_handshake_timeout_ms, partial(self._give_up, connection))
        if line is not None:
            line.connection = connection
            # The lowest layer speaks first.
            pipeline.feed(b"")

    def _opened(self, pipeline: Pipeline) -> None:
        connection = pipeline.endpoint
        assert isinstance(connection, PeerConnection)
        line = self._owners.get(connection)
        if line is not None:
            connection.begin(self._hello(line))

    def _broken(self, pipeline: Pipeline, detail: str) -> None:
        connection = pipeline.endpoint
        assert isinstance(connection, PeerConnection)
        connection.broken(detail)

    def _linger(self, pipeline: Pipeline) -> None:
        self.at(_LINGER_MS, pipeline.abort)

    def _give_up(self, connection: PeerConnection) -> None:
        if connection.stage < Stage.OPEN:
            connection.fail("it was silent for too long")

    def _refuse(self, facts: Facts, why: str) -> None:
        """Count somebody who was turned away, and log one of them now and then."""
        self._row[metrics.LINKS_REFUSED] += 1
        if self.now_ms() >= self._silent_until_ms:
            self._silent_until_ms = self.now_ms() + _REFUSALS_MS
            _log.warning("link refused", address=facts.address, reason=why)

    # ------------------------------------------------------------------ what connections tell

    def _hello(self, line: Line) -> Hello:
        return Hello(
            VERSION,
            self._cluster,
            self._node,
            self._index,
            self._nodes[self._node].incarnation,
            Life(self._boot, self._epoch, line.stream),
            line.node.node,
            line.index,
            line.node.incarnation,
            os.urandom(NONCE_BYTES),
        )

    def greeted(self, connection: PeerConnection, hello: Hello) -> Hello | str:
        """Return our own hello, or why there can be no link."""
        if not self._cluster:
            return f"node {self._node}, core {self._index} does not know its cluster yet"
        if hello.cluster != self._cluster:
            return f"it is of the cluster {hello.cluster!r}, node {self._node} is of another"
        expected = self._owners[connection]
        line = self.lines.get(global_core(hello.node, hello.index))
        whom = f"node {hello.node}, core {hello.index}"
        if line is None or line.node.node != hello.node:
            return f"{whom} is no live node of the cluster, as far as node {self._node} knows"
        if (hello.to_node, hello.to_index) != (self._node, self._index) or (
            expected is not None and expected is not line
        ):
            return f"{whom} wants another core than this, or is another than was wanted"
        agreed = line.node.incarnation, self._nodes[self._node].incarnation
        if (hello.incarnation, hello.to_incarnation) != agreed:
            return (
                f"{whom} knows the incarnations {hello.incarnation} and {hello.to_incarnation}, "
                f"node {self._node} knows {agreed[0]} and {agreed[1]}"
            )
        if expected is None and line.is_dialer:
            return f"{whom} has to be dialled, and does not dial"
        if hello.life.stream in line.past:
            return f"{whom} has had another life since"
        self._owners[connection] = line
        return self._hello(line)

    def met(self, connection: PeerConnection) -> None:
        """Conclude it when all that has come so far has been handed up."""
        self._events.append(partial(self._meet, connection))

    def _meet(self, connection: PeerConnection) -> None:
        line, hello = self._owners.get(connection), connection.hello
        if line is None or hello is None:
            return  # It has ended meanwhile.
        life = hello.life
        if self.lines.get(line.core) is not line or life.stream in line.past:
            connection.refuse("the cluster has changed meanwhile")
            return
        if line.life is None:
            line.life = life
        elif line.life != life:
            line.past.append(line.life.stream)
            line.link.begin()
            line.life = life
            self.replaced(line.core)
        line.give_way(connection)
        connection.conclude(line.link)

    def opened(self, connection: PeerConnection) -> None:
        """Frames flow from now on."""
        line = self._owners[connection]
        assert line is not None
        line.opened()

    def arrived(self, connection: PeerConnection, size: int, frames: list[bytes]) -> None:
        """Hand frames up with the next `receive`."""
        self._row[metrics.LINK_BYTES_RECEIVED] += size
        line = self._owners.get(connection)
        if line is None or connection.link is not line.link:
            return
        if frames:
            self._row[metrics.LINK_FRAMES_RECEIVED] += len(frames)
            self._events.append(partial(self._hand_up, line, line.life, frames))
        if line.link.owed_bytes and not line.is_marked:
            self.mark(line)

    def _hand_up(self, line: Line, life: Life | None, frames: list[bytes]) -> None:
        if self.lines.get(line.core) is not line or line.life is not life:
            return  # Its life ended before it was handed up.
        for frame in frames:
            self.handle(line.core, frame)

    def ended(self, connection: PeerConnection, why: str) -> None:
        """Try again, or count who was turned away."""
        line = self._owners.pop(connection, None)
        if line is not None and line.connection is connection:
            line.failed(why)
        elif connection.link is None and not connection.is_dialer:
            assert connection.transport is not None
            self._refuse(connection.transport.facts, why or "it has ended by itself")

    # ------------------------------------------------------------------ administration

    def walk(
        self, start: int, arguments: Mapping[str, object]
    ) -> Iterator[tuple[int, dict[str, object]]]:
        """Yield what an administrator is told of each link, and the position behind it."""
        del arguments
        for core, line in sorted(self.lines.items()):
            if core >= start:
                yield (
                    core + 1,
                    {
                        "node": line.node.node,
                        "core": line.index,
                        "connected": line.is_open,
                        "since_ms": line.since_ms,
                        "backlog_bytes": line.backlog_bytes,
                        "trouble": line.trouble,
                    },
                )


def _life(nodes: Mapping[int, PeerNode], number: int) -> tuple[int, int] | None:
    """Return what makes a node's life: when it differs, what was said before is void."""
    node = nodes.get(number)
    return (node.incarnation, node.workers) if node is not None else None


def _lives(nodes: Mapping[int, PeerNode]) -> dict[int, tuple[int, int] | None]:
    return {number: _life(nodes, number) for number in nodes}
