"""Where connections come in: the listeners of a worker, and the way of each to its home core."""

import ipaddress
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from robustmq import metrics
from robustmq._kernel.outbox import Outbox
from robustmq._kernel.poller import Poller, peer_address
from robustmq.broker.api import Timer
from robustmq.broker.core import Core
from robustmq.mqtt.connection import Connection
from robustmq.mqtt.protocol import PEEK_BYTES, Mqtt
from robustmq.net import proxy
from robustmq.net.handover import Handover
from robustmq.net.layer import Facts, Layer, Stack
from robustmq.net.tcp import Acceptor, Door
from robustmq.net.tls import TlsLayer
from robustmq.net.transport import Pipeline, Transport
from robustmq.net.websocket import Terms, WebSocket
from robustmq.policy.principal import Peer
from robustmq.workers import limits, log
from robustmq.workers.entrance import Entrance, LocalEnd, Sink, UpperEnd
from robustmq.workers.inheritance import Inheritance
from robustmq.workers.listeners import LISTENERS, UNIX, Listener
from robustmq.workers.peer_door import NOTE
from robustmq.workers.peers import Peers
from robustmq.workers.relays import Fabric, Relays

if TYPE_CHECKING:
    from robustmq.workers.quic import QuicDoor

_log = log.EventLog("reception")

_BACKLOG: Final = 4_096
_RETRY_MS: Final = 50


class Stream(Protocol):
    """What carries a resident."""

    def resume(self) -> None:
        """Read again."""

    def close(self) -> None:
        """Send what waits, then end."""

    def abort(self) -> None:
        """End at once."""


class Resident(Sink, Protocol):
    """A connection that stays on the core that has accepted it."""

    outbox: Outbox
    stream: Stream | None

    def lost(self) -> None:
        """The peer is gone."""


class Reception:
    """All that leads to connections on one worker, until it is shut.

    `watch_writable(socket, callback)` calls back once when a socket takes something again;
    `report` hears of errors of ours. `peers` takes the sockets of other nodes' cores, `residents`
    make the connections that stay where they were accepted, by their protocol.
    """

    def __init__(
        self,
        inheritance: Inheritance,
        poller: Poller,
        core: Core,
        mqtt: Mqtt,
        fabric: Fabric,
        *,
        watch_writable: Callable[[socket.socket, Callable[[], None]], None],
        report: Callable[[Exception], None],
    ) -> None:
        config = inheritance.config
        self._inheritance = inheritance
        self._index = inheritance.index
        self._server = config.mqtt_runtime.server
        self._tls = config.mqtt_runtime.tls
        self._protocol = config.mqtt_runtime.protocol
        self._poller = poller
        self._turn = core.turn
        self._core = core
        self._mqtt = mqtt
        self._watch_writable = watch_writable
        self._most_streams = limits.connection_count(config, inheritance.workers)
        # Another worker has their sockets: without a limit of connections only files are one.
        self._counts_relayed = config.cluster_limit.max_network_connection > 0
        self._is_shut = False
        self._report = report
        self.quic: QuicDoor | None = None
        self.peers: Peers | None = None
        self.residents: dict[str, Callable[[Peer], Resident]] = {}
        self._of_listener: dict[str, Callable[[Peer], Resident]] = {}
        self._is_retrying = False
        self._acceptors: list[Acceptor] = []
        self._doors: list[Door] = []
        self._entrances: set[Entrance] = set()
        self._opening: set[Entrance] = set()
        self._proxies = [ipaddress.ip_network(each) for each in self._server.proxy_networks]
        self._makers: dict[str, Callable[[], Layer]] = {
            "tls": self._tls_layer,
            "websocket": self._websocket(),
        }
        self._unsaid = 0
        self._silent_until_ms = 0
        self.relays = Relays(fabric, self._server.relay_window_bytes, self._from_relay, report)
        self.handover = Handover(
            inheritance.handover_in,
            inheritance.handover_out,
            self._from_handover,
            self._wait_until_writable,
            self._retry_later,
        )

    # ------------------------------------------------------------------ life

    def open(self) -> None:
        """Take clients from now on."""
        for listener in (*LISTENERS, UNIX):
            sock = self._inheritance.listeners.get(listener.address_name)
            if sock is not None and listener.transport == socket.SOCK_DGRAM:
                self.quic = self._quic_door(sock)
                continue
            if sock is not None:
                sock.listen(_BACKLOG)
                self._acceptors.append(self._acceptor(listener, sock, self._way_in(listener)))
        self.handover.receive()

    def _way_in(self, listener: Listener) -> Callable[[int], None]:
        """Return what takes the sockets of a listener."""
        resident = self.residents.get(listener.protocol)
        if resident is not None:
            self._of_listener[listener.name] = resident
        if listener.layers:
            return self._layered(listener)
        return self._plain(listener) if resident is None else self._staying(listener, resident)

    def _quic_door(self, sock: socket.socket) -> "QuicDoor":
        # Not loaded where nobody listens for QUIC.
        from robustmq.workers.quic import QuicDoor  # noqa: PLC0415

        certificates = self._inheritance.certificates
        assert certificates is not None
        return QuicDoor(
            sock,
            config=self._inheritance.config.mqtt_runtime,
            certificates=certificates,
            worker=self._index,
            workers=self._inheritance.workers,
            secret=self._inheritance.secret,
            poller=self._poller,
            turn=self._turn,
            hall=self,
            report=self._report,
        )

    def shut(self) -> None:
        """Take no more clients; those that are nobody yet are closed."""
        self._is_shut = True
        if self.quic is not None:
            self.quic.shut()
        for acceptor in self._acceptors:
            acceptor.shut()
        for door in self._doors:
            door.shut()
        for entrance in list(self._entrances):
            entrance.abort()

    @property
    def is_idle(self) -> bool:
        """Say whether no connection is left, here or on the way to its home."""
        quiet = self.quic is None or self.quic.is_idle
        return quiet and not (self._streams or self.relays.homes)

    @property
    def _streams(self) -> int:
        """How many sockets there are of clients, and of bridges."""
        return self._poller.streams - (self.peers.streams if self.peers is not None else 0)

    @property
    def is_full(self) -> bool:
        """Say whether no more connections may come in."""
        arriving = sum(door.waiting for door in self._doors) + self.handover.waiting
        streams = self._streams
        if self.quic is not None:
            streams += self.quic.connections
        if self._counts_relayed:
            streams += len(self.relays.homes)
        return streams + arriving >= self._most_streams

    def _acceptor(
        self, listener: Listener, sock: socket.socket, met: Callable[[int], None]
    ) -> Acceptor:
        return Acceptor(
            self._poller,
            clock=self._core,
            now_ms=self._now_ms,
            listener=sock,
            met=met,
            full=lambda: self.is_full,
            refused=partial(self._refuse, Facts(listener=listener.name), "no more may come in"),
        )

    def _now_ms(self) -> int:
        return self._turn.now_ms

    def _refuse(self, facts: Facts, why: str) -> None:
        """Count somebody who was turned away, and log one of them now and then."""
        self._turn.row[metrics.CONNECTIONS_REFUSED] += 1
        self._unsaid += 1
        now_ms = self._turn.now_ms
        if now_ms >= self._silent_until_ms:
            self._silent_until_ms = now_ms + self._server.refusal_log_interval_ms
            _log.info(
                "connection refused",
                listener=facts.listener,
                address=facts.address,
                reason=why,
                others=self._unsaid - 1,
            )
            self._unsaid = 0

    def _is_proxy(self, address: str) -> bool:
        """Say whether a PROXY header comes first."""
        if not self._proxies or not address:
            return False
        ip = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self._proxies)

    # ------------------------------------------------------------------ plain sockets

    def _plain(self, listener: Listener) -> Callable[[int], None]:
        door = Door(
            self._poller,
            clock=self._core,
            now_ms=self._now_ms,
            peek_bytes=PEEK_BYTES,
            timeout_ms=self._protocol.connect_timeout_ms,
            home=self._mqtt.home,
            arrived=self._from_door,
            refused=self._refuse,
            header=self._header,
        )
        self._doors.append(door)

        def meet(fd: int) -> None:
            address = peer_address(fd)
            door.meet(fd, Facts(address, listener.name), self._is_proxy(address))

        return meet

    def _header(self, beginning: bytes, facts: Facts) -> int | None:
        """Read the PROXY header that a connection begins with; return its length in bytes."""
        header = proxy.parse(beginning, self._server.proxy_max_bytes)
        if header is None:
            return None
        proxy.apply(header, facts, takes_user=self._server.proxy_certified_user)
        return header.length

    def _from_door(self, fd: int, core: int, facts: Facts) -> None:
        peer = _peer(facts)
        if core == self._index:
            self._adopt(fd, peer)
        else:
            self._turn.row[metrics.CONNECTIONS_HANDED_OVER] += 1
            self.handover.send(core, fd, msgspec.msgpack.encode(peer))

    def _from_handover(self, fd: int, note: bytes) -> None:
        if note.startswith(NOTE):
            if self.peers is None:
                os.close(fd)
            else:
                self.peers.adopt(fd, note)
            return
        self._adopt(fd, msgspec.msgpack.decode(note, type=Peer))

    def _adopt(self, fd: int, peer: Peer) -> None:
        if self.is_full or self._is_shut:
            os.close(fd)
            self._refuse(Facts(peer.address, peer.listener), "no more may come in")
            return
        connection = self._mqtt.connection(peer)
        self._carry(fd, connection, connection.intake)

    def _carry(self, fd: int, connection: Connection | Resident, sink: Sink) -> None:
        """Let the poller carry a connection over its socket."""
        try:
            connection.stream = self._poller.adopt(fd, sink, connection.outbox, connection.lost)
        except OSError as error:
            _log.warning("connection not adopted", error=error.strerror)
            os.close(fd)
            connection.lost()

    def _staying(
        self, listener: Listener, resident: Callable[[Peer], Resident]
    ) -> Callable[[int], None]:
        """Return what takes plain sockets whose connections stay here."""

        def meet(fd: int) -> None:
            address = peer_address(fd)
            facts = Facts(address, listener.name)
            if self._is_proxy(address):
                self._meet(fd, [self._proxy_layer()], facts)
            else:
                connection = resident(_peer(facts))
                self._carry(fd, connection, connection)

        return meet

    def _wait_until_writable(self, core: int, blocked: socket.socket) -> None:
        del core
        self._watch_writable(blocked, self._poller.tick)

    def _retry_later(self) -> None:
        if not self._is_retrying:
            self._is_retrying = True
            self._core.at(self._turn.now_ms + _RETRY_MS, self._retry)

    def _retry(self) -> None:
        # The turn that this timer began flushes the handover at its end.
        self._is_retrying = False

    # ------------------------------------------------------------------ transports

    def _layered(self, listener: Listener) -> Callable[[int], None]:
        makers = [self._makers[name] for name in listener.layers]

        def meet(fd: int) -> None:
            address = peer_address(fd)
            layers = [make() for make in makers]
            if self._is_proxy(address):
                layers.insert(0, self._proxy_layer())
            self._meet(fd, layers, Facts(address, listener.name))

        return meet

    def _tls_layer(self) -> Layer:
        certificates = self._inheritance.certificates
        assert certificates is not None
        return TlsLayer(certificates.context, self._tls.user_from)

    def _proxy_layer(self) -> Layer:
        server = self._server
        return proxy.ProxyLayer(server.proxy_max_bytes, server.proxy_certified_user)

    def _websocket(self) -> Callable[[], Layer]:
        server = self._server
        terms = Terms(
            path=server.websocket_path,
            origins=server.websocket_origins,
            max_head=server.websocket_max_request_size,
            max_message=server.websocket_max_message_size,
        )
        return partial(WebSocket, terms)

    def _meet(self, fd: int, layers: list[Layer], facts: Facts) -> None:
        if len(self._opening) >= self._tls.max_handshakes:
            os.close(fd)
            self._refuse(facts, "too many handshakes are under way")
            return
        entrance = self.entrance(self._server.handshake_timeout_ms)
        pipeline = Pipeline(
            self._turn,
            layers[0] if len(layers) == 1 else Stack(layers),
            facts,
            entrance,
            opened=self._opened,
            broken=self._broken,
            closing=self._linger,
        )
        entrance.transport = pipeline
        self._opening.add(entrance)
        try:
            pipeline.adopt(self._poller, fd)
        except OSError as error:
            _log.warning("connection not adopted", error=error.strerror)
            os.close(fd)
            entrance.lost()

    def entrance(self, timeout_ms: int) -> Entrance:
        """Return the first endpoint of a new transport; its user sets `transport`."""
        entrance = Entrance(self)
        entrance.wait(timeout_ms)
        self._entrances.add(entrance)
        return entrance

    def _opened(self, pipeline: Pipeline) -> None:
        """The layers are open: now the client has its time for CONNECT."""
        entrance = pipeline.endpoint
        assert isinstance(entrance, Entrance)
        self._opening.discard(entrance)
        entrance.wait(self._protocol.connect_timeout_ms)

    def _broken(self, pipeline: Pipeline, detail: str) -> None:
        self._refuse(pipeline.facts, detail)

    def _linger(self, pipeline: Pipeline) -> None:
        """A peer that does not end its side in time is aborted."""
        self._core.at(self._turn.now_ms + self._protocol.linger_timeout_ms, pipeline.abort)

    def settle(self, transport: Transport, beginning: bytes) -> bool:
        """Give a transport that begins like this to whom it belongs; False if it is not known."""
        resident = self._of_listener.get(transport.facts.listener)
        if resident is not None:
            self._settle_here(transport, resident(_peer(transport.facts)), beginning)
            return True
        core = self._mqtt.home(beginning[:PEEK_BYTES])
        if core is None:
            return False
        if core < 0:
            self._refuse(transport.facts, "it does not begin with CONNECT")
            transport.close()
            return True
        peer = _peer(transport.facts)
        if core == self._index:
            connection = self._mqtt.connection(peer)
            LocalEnd(connection, transport).feed(beginning)
        else:
            self._turn.row[metrics.CONNECTIONS_RELAYED] += 1
            self.relays.open(core, transport, peer, beginning)
        return True

    @staticmethod
    def _settle_here(transport: Transport, connection: Resident, beginning: bytes) -> None:
        end = UpperEnd(connection, connection.outbox, connection.lost, transport)
        connection.stream = end
        end.feed(beginning)

    def give_up(self, entrance: Entrance) -> None:
        """A peer was silent for too long."""
        if entrance.transport is not None:
            self._refuse(entrance.transport.facts, "it was silent for too long")
        entrance.abort()

    def leave(self, entrance: Entrance) -> None:
        """A transport's first endpoint is not needed any more."""
        self._entrances.discard(entrance)
        self._opening.discard(entrance)

    def at(self, timeout_ms: int, callback: Callable[[], None]) -> Timer:
        """Call back after a time."""
        return self._core.at(self._turn.now_ms + timeout_ms, callback)

    def _from_relay(self, peer: Peer) -> Connection | None:
        if self.is_full or self._is_shut:
            self._refuse(Facts(peer.address, peer.listener), "no more may come in")
            return None
        return self._mqtt.connection(peer)


def _peer(facts: Facts) -> Peer:
    return Peer(facts.address, facts.listener, facts.certified)
