"""Thousands of clients in one thread, and a meter of what a bystander feels meanwhile."""

import contextlib
import multiprocessing
import resource
import select
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection as Pipe
from types import TracebackType
from typing import Final, Self

from robustmq.mqtt import codec
from robustmq.mqtt.packets import (
    V5,
    Connect,
    Packet,
    Properties,
    Puback,
    Publish,
    Subscribe,
    Subscription,
)
from tests.websocket import masked, request

Address = tuple[str, int]

PATIENCE: Final = 60.0
AT_ONCE: Final = 1_000
"""Clients that connect at the same time."""
WEB_AT_ONCE: Final = 200
"""Those that open a WebSocket at the same time; a worker takes a bounded number of them."""

_LONG: Final = 240.0
"""Seconds that a whole crowd may take."""
_CONNACK: Final = 0x20
_DISCONNECT: Final = 0xE0
_IP_BIND_ADDRESS_NO_PORT: Final = 24
_PAUSE: Final = 0.002
_PORTS: Final = 5_000
_READ: Final = 65_536
_WORDS: Final = 128


class Crowd:
    """Clients that connect at the same time and then only listen.

    `heard` counts the bytes of each, `total` those of all. A client is its socket; those that
    the server ended are in `ended`, with its last words.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._epoll = select.epoll()
        self.clients: dict[str, socket.socket] = {}
        self._names: dict[int, tuple[str, socket.socket]] = {}
        self._said: dict[int, bytes] = {}
        self.ended: dict[str, bytes] = {}
        self.heard: dict[str, int] = {}
        self.total = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def connect(self, names: Iterable[str], *further: Packet, at_once: int = AT_ONCE) -> None:
        """Connect every name, `at_once` at a time, and wait until each was accepted.

        `further` packets go out with CONNECT. A name that is connected already is taken over.
        """
        waiting: set[int] = set()
        for name in names:
            waiting.add(self._open(name, *further))
            while len(waiting) >= at_once:
                self._take(waiting)
        while waiting:
            self._take(waiting)

    def _open(self, name: str, *further: Packet) -> int:
        sock = socket.socket()
        # From many addresses: the kernel looks long for a port when half of them are in use.
        sock.setsockopt(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((f"127.0.0.{2 + len(self._names) // _PORTS}", 0))
        sock.connect(self._address)
        connect = Connect(name, V5, properties=Properties(session_expiry_interval=0))
        self._greet(sock, b"".join(codec.encode(packet, V5) for packet in (connect, *further)))
        sock.setblocking(False)
        descriptor = sock.fileno()
        self._names[descriptor] = (name, sock)
        self._said[descriptor] = b""
        self.clients[name] = sock
        self._epoll.register(descriptor, select.EPOLLIN)
        return descriptor

    def _greet(self, sock: socket.socket, packets: bytes) -> None:
        sock.sendall(packets)

    def _accepted(self, said: bytes) -> bool:
        """Say whether a client was answered; it may not be refused."""
        assert not said or (said[0], said[3]) == (_CONNACK, 0), said.hex()
        return bool(said)

    def _take(self, waiting: set[int]) -> None:
        """Read once what is there; who was answered waits no longer."""
        events = self._epoll.poll(PATIENCE)
        assert events, f"{len(waiting)} clients have no answer"
        for descriptor, _ in events:
            said = self._read(descriptor)
            assert said or descriptor not in waiting, "a client was turned away"
            if descriptor in waiting and self._accepted(said):
                waiting.discard(descriptor)

    def _read(self, descriptor: int) -> bytes:
        name, sock = self._names[descriptor]
        try:
            data = sock.recv(_READ)
        except ConnectionError:
            data = b""
        said = self._said[descriptor] = (self._said[descriptor] + data)[-_WORDS:]
        self.heard[name] = self.heard.get(name, 0) + len(data)
        self.total += len(data)
        if not data:
            self._epoll.unregister(descriptor)
            self.ended[name] = said
            del self._names[descriptor], self._said[descriptor]
            sock.close()
        return data

    def listen(self, seconds: float) -> None:
        """Read whatever comes until nothing has come for so long."""
        while events := self._epoll.poll(seconds):
            for descriptor, _ in events:
                self._read(descriptor)

    def hear(self, total: int) -> None:
        """Read until all together have heard so many bytes."""
        while self.total < total:
            events = self._epoll.poll(PATIENCE)
            assert events, f"{total - self.total} bytes are missing"
            for descriptor, _ in events:
                self._read(descriptor)

    def ignore(self, name: str) -> None:
        """Let a client read no more; its connection stays."""
        self._epoll.unregister(self.clients[name].fileno())

    def close(self) -> None:
        """End every connection without a word."""
        for _, sock in self._names.values():
            sock.close()
        self._names.clear()
        self._epoll.close()


class WebCrowd(Crowd):
    """Clients that come by WebSocket: the worker that accepts one relays it to its home."""

    def _greet(self, sock: socket.socket, packets: bytes) -> None:
        sock.sendall(request() + masked(packets))

    def _accepted(self, said: bytes) -> bool:
        # The answer to the handshake comes by itself or with the first frame behind it.
        frame = said.rpartition(b"\r\n\r\n")[2]
        return super()._accepted(frame[2:])


class DistantCrowd:
    """A `WebCrowd` in a process of its own, which has its own limit of open files."""

    def __init__(self, address: Address) -> None:
        self._mine, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_gather, args=(address, theirs))
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._mine.close()
        self._process.join()

    def connect(self, names: Sequence[str], *further: Packet) -> None:
        """Begin as `Crowd.connect`; `wait` says when it is done."""
        self._mine.send((names, further))

    def listen(self) -> None:
        """Begin to read until nothing has come for a second."""
        self._mine.send(None)

    def wait(self) -> tuple[dict[str, int], dict[str, bytes]]:
        """Wait for what was begun; return what each has heard so far, and `Crowd.ended`."""
        assert self._mine.poll(_LONG), "the distant crowd is done"
        told: tuple[dict[str, int], dict[str, bytes]] = self._mine.recv()
        return told


def _gather(address: Address, pipe: Pipe) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with WebCrowd(address) as crowd, contextlib.suppress(EOFError):
        while True:
            asked = pipe.recv()
            if asked is None:
                crowd.listen(1.0)
            else:
                names, further = asked
                crowd.connect(names, *further, at_once=WEB_AT_ONCE)
            pipe.send((crowd.heard, crowd.ended))


def taken_over(last_words: bytes) -> bool:
    """Say whether DISCONNECT 0x8E was the last that a client of MQTT 5 heard."""
    at = last_words.rfind(bytes([_DISCONNECT]))
    return at >= 0 and last_words[at + 2 : at + 3] == b"\x8e"


class Meter:
    """A bystander in a process of its own: its round trips, QoS 1 to itself, in seconds."""

    def __init__(self, address: Address, name: str, topic: str) -> None:
        self._mine, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_measure, args=(address, name, topic, theirs))
        self._process.start()
        theirs.close()
        assert self._mine.poll(PATIENCE), "the bystander is connected"
        self._mine.recv()

    def stop(self) -> list[float]:
        """End, and return every round trip, ascending."""
        self._mine.send(None)
        assert self._mine.poll(PATIENCE), "the bystander answers"
        trips: list[float] = self._mine.recv()
        self._process.join()
        return sorted(trips)


def _measure(address: Address, name: str, topic: str, pipe: Pipe) -> None:
    with contextlib.closing(socket.create_connection(address, PATIENCE)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        trips: list[float] = []
        for begin, end in _round_trips(sock, name, topic):
            if not trips:
                pipe.send(None)
            trips.append(end - begin)
            if pipe.poll(_PAUSE):
                break
        pipe.send(trips)


def _round_trips(sock: socket.socket, name: str, topic: str) -> Iterator[tuple[float, float]]:
    """Publish, hear it, be answered; yield when each began and ended."""
    sock.sendall(codec.encode(Connect(name, V5), V5))
    _expect(sock, 1)
    sock.sendall(codec.encode(Subscribe(1, [Subscription(topic, 1)]), V5))
    _expect(sock, 1)
    number = 0
    while True:
        number = number % 60_000 + 1
        begin = time.monotonic()
        message = Publish(topic.encode(), b"x" * 64, 1, False, False, number)
        sock.sendall(codec.encode(message, V5))
        for first_byte, body in _expect(sock, 2):
            if first_byte >> 4 == 3:
                heard = codec.decode(first_byte, body, V5)
                assert isinstance(heard, Publish)
                sock.sendall(codec.encode(Puback(heard.packet_id), V5))
        yield begin, time.monotonic()


def _expect(sock: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """Read so many packets, which are all short."""
    packets: list[tuple[int, bytes]] = []
    data = b""
    while len(packets) < count:
        more = sock.recv(_READ)
        assert more, "the server ended the bystander's connection"
        data += more
        while len(data) >= 2 and len(data) >= 2 + data[1]:
            packets.append((data[0], data[2 : 2 + data[1]]))
            data = data[2 + data[1] :]
    return packets
