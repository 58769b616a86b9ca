"""A QUIC server and its clients on a network without sockets: time, loss and disorder are said."""

import heapq
import itertools
import random
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TypeVar

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import NetworkAddress, QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    HandshakeCompleted,
    QuicEvent,
    StreamDataReceived,
    StreamReset,
)
from aioquic.tls import SessionTicket
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from robustmq.net.quic_link import LinkLimits
from robustmq.net.quic_replies import RetryTokens
from robustmq.net.quic_server import QuicServer, ServerLimits
from robustmq.net.quic_steering import ConnectionIds
from robustmq.net.quic_stream import QuicStream

SERVER: NetworkAddress = ("10.0.0.1", 9083)
WINDOW = 65_536
SECRET = b"s" * 32
LATENCY = 0.01

_Event = TypeVar("_Event", bound=QuicEvent)


@cache
def credentials() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return a certificate for the tests, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1))
    builder = builder.not_valid_after(now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()), key


def server_configuration(idle_timeout: float) -> QuicConfiguration:
    """Return what a server is set up with."""
    certificate, key = credentials()
    return QuicConfiguration(
        is_client=False,
        alpn_protocols=["mqtt"],
        certificate=certificate,
        private_key=key,
        max_data=4 * WINDOW,
        max_stream_data=WINDOW,
        idle_timeout=idle_timeout,
    )


class Taker:
    """The upper end of a stream: it keeps what comes, or echoes it."""

    def __init__(self, stream: QuicStream, echo: bool) -> None:
        self.stream = stream
        self.echo = echo
        self.paused = False
        self.taken = bytearray()
        self.drains = 0
        self.losses = 0

    def feed(self, data: bytes) -> None:
        self.taken += data
        if self.echo:
            self.stream.write(data)

    def drained(self) -> None:
        self.drains += 1

    def lost(self) -> None:
        self.losses += 1


class Hall:
    """The server's audience."""

    def __init__(self) -> None:
        self.takers: list[Taker] = []
        self.full = False
        self.echo = False
        self.refusals = 0
        self.retries = 0
        self.resets = 0
        self.errors: list[Exception] = []

    def opened(self, stream: QuicStream) -> None:
        taker = Taker(stream, self.echo)
        self.takers.append(taker)
        stream.endpoint = taker

    def is_full(self) -> bool:
        return self.full

    def refused(self) -> None:
        self.refusals += 1

    def retried(self) -> None:
        self.retries += 1

    def reset(self) -> None:
        self.resets += 1

    def failed(self, error: Exception) -> None:
        self.errors.append(error)


class Client:
    """A client's connection, at an address that it may change."""

    def __init__(self, address: NetworkAddress, now: float, alpn: str) -> None:
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=[alpn],
            verify_mode=ssl.CERT_NONE,
        )
        self.tickets: list[SessionTicket] = []
        self.quic = QuicConnection(
            configuration=configuration, session_ticket_handler=self.tickets.append
        )
        self.address = address
        self.events: list[QuicEvent] = []
        self.quic.connect(SERVER, now)

    def look(self) -> None:
        while (event := self.quic.next_event()) is not None:
            self.events.append(event)

    def seen(self, kind: type[_Event]) -> list[_Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def received(self, stream_id: int = 0) -> bytes:
        """Return all that has come on a stream."""
        events = self.seen(StreamDataReceived)
        return b"".join(event.data for event in events if event.stream_id == stream_id)


class Network:
    """One server and clients. `mangle(datagram)` says how many copies of it arrive, and how late.

    Everything takes LATENCY on its way; times are seconds of the network's own clock.
    """

    def __init__(
        self,
        *,
        worker: int = 0,
        workers: int = 1,
        retry_above: int = 100,
        handshakes: int = 100,
        streams: int = 8,
        idle_timeout: float = 60.0,
    ) -> None:
        self.now = 1_000.0
        self.hall = Hall()
        self.clients: list[Client] = []
        self.mangle: Callable[[bytes], list[float]] = lambda _: [0.0]
        self.sent = 0
        self._on_the_way: list[tuple[float, int, bytes, NetworkAddress, NetworkAddress]] = []
        self._numbers = itertools.count()
        chance = random.Random(7)
        self.ids = ConnectionIds(worker, workers, SECRET, chance.randbytes)
        link = LinkLimits(
            send_buffer=WINDOW, handshake_timeout=5.0, connect_timeout=5.0, linger_timeout=2.0
        )
        self._limits = ServerLimits(
            handshakes=handshakes, retry_above=retry_above, streams=streams, link=link
        )
        self._chance = chance
        self._idle_timeout = idle_timeout
        self.server = self._start()

    def _start(self) -> QuicServer:
        return QuicServer(
            server_configuration(self._idle_timeout),
            self._limits,
            ids=self.ids,
            tokens=RetryTokens(SECRET),
            random=self._chance.randbytes,
            audience=self.hall,
        )

    def restart(self) -> None:
        """Replace the server by one that knows nothing."""
        self.server = self._start()

    def client(self, port: int = 5_000, alpn: str = "mqtt") -> Client:
        """Let a client begin."""
        client = Client(("10.0.0.2", port), self.now, alpn)
        self.clients.append(client)
        return client

    def inject(self, data: bytes, source: NetworkAddress) -> None:
        """Let a datagram of anybody's arrive at the server."""
        self._send(data, source, SERVER)

    def run(self, until: Callable[[], object], seconds: float = 60.0) -> bool:
        """Let time pass until a condition holds; says whether it did within `seconds`."""
        end = self.now + seconds
        self._flush()
        while not until():
            when = self._next()
            if when is None or when > end:
                self.now = end
                return False
            self.now = max(self.now, when)
            self._deliver()
            if (timer := self.server.timer()) is not None and timer <= self.now:
                self.server.alarm(self.now)
            for client in self.clients:
                timer = client.quic.get_timer()
                if timer is not None and timer <= self.now:
                    client.quic.handle_timer(self.now)
                client.look()
            self._flush()
        return True

    def connected(self, client: Client) -> bool:
        """Let a client finish its handshake."""
        return self.run(lambda: client.seen(HandshakeCompleted))

    def _next(self) -> float | None:
        times = [client.quic.get_timer() for client in self.clients]
        times.append(self.server.timer())
        times.append(self._on_the_way[0][0] if self._on_the_way else None)
        return min((when for when in times if when is not None), default=None)

    def _deliver(self) -> None:
        while self._on_the_way and self._on_the_way[0][0] <= self.now:
            _, _, data, source, to = heapq.heappop(self._on_the_way)
            if to == SERVER:
                self.server.receive(data, source, self.now)
            for client in self.clients:
                if client.address == to:
                    client.quic.receive_datagram(data, source, self.now)
                    client.look()

    def _flush(self) -> None:
        for data, to in self.server.datagrams(self.now, 1_000):
            self._send(data, SERVER, to)
        for client in self.clients:
            for data, _ in client.quic.datagrams_to_send(self.now):
                self._send(data, client.address, SERVER)

    def _send(self, data: bytes, source: NetworkAddress, to: NetworkAddress) -> None:
        self.sent += 1
        for late in self.mangle(data):
            when = self.now + LATENCY + late
            heapq.heappush(self._on_the_way, (when, next(self._numbers), data, source, to))


def greet(network: Network, data: bytes = b"hello") -> Client:
    """A client that has opened its control stream and said something."""
    client = network.client(5_000 + len(network.clients))
    assert network.connected(client)
    before = len(network.hall.takers)
    client.quic.send_stream_data(0, data)
    assert network.run(lambda: len(network.hall.takers) > before)
    return client


def met(network: Network, count: int) -> bool:
    """Wait until the server has seen so many streams."""
    return network.run(lambda: len(network.hall.takers) == count)


def lost(network: Network, taker: Taker) -> bool:
    """Wait until an endpoint was told of its end."""
    return network.run(lambda: taker.losses == 1)


def closed(network: Network, client: Client) -> bool:
    """Wait until a client knows of the end of its connection."""
    return network.run(lambda: client.seen(ConnectionTerminated))


def was_reset(network: Network, client: Client, stream_id: int) -> bool:
    """Wait until a client knows that a stream was given up."""
    return network.run(lambda: stream_id in {one.stream_id for one in client.seen(StreamReset)})


def echoed(network: Network, client: Client, data: bytes) -> bool:
    """Wait until all that a client has heard on its control stream is this."""
    return network.run(lambda: client.received() == data)
