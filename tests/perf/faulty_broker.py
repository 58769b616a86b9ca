"""A tiny broker for MQTT 3.1.1 and 5 that does one thing wrong, at a known delivery.

It knows exact topics and `#` at the end, grants what is asked for and forwards each PUBLISH as it
came. Everything runs in one thread of the test, so that what it does is the same in every run.
"""

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, DISCONNECT = 1, 2, 3, 4, 8, 9, 14
POLL_SECONDS = 0.02


class Fault(Enum):
    """What the broker does wrong, once; from LOSE to CUT to one delivery."""

    NONE = auto()
    LOSE = auto()
    SWAP = auto()
    DELAY = auto()
    DUPLICATE = auto()
    FLIP = auto()
    CUT = auto()
    LOSE_ACK = auto()
    SWAP_ACKS = auto()
    MISROUTE = auto()
    REFUSE = auto()
    SILENT = auto()
    HANG_UP = auto()


@dataclass(slots=True)
class Peer:
    """One connection: its unread bytes, what it subscribed to, what is held back for it."""

    sock: socket.socket
    version: int = 4
    rest: bytes = b""
    filters: list[bytes] = field(default_factory=list)
    held: list[tuple[int, bytes]] = field(default_factory=list)
    acks: list[bytes] = field(default_factory=list)


def varint(value: int) -> bytes:
    """A variable byte integer (MQTT5 1.5.5)."""
    out = bytearray()
    while True:
        value, byte = value >> 7, value & 127
        out.append(byte | (128 if value else 0))
        if not value:
            return bytes(out)


def packet(header: int, body: bytes) -> bytes:
    """A whole packet."""
    return bytes([header]) + varint(len(body)) + body


class FaultyBroker:
    """The broker; `victim` is the number of the delivery (of the acknowledgement) that suffers."""

    def __init__(self, fault: Fault, victim: int) -> None:
        self.fault, self.victim = fault, victim
        self.deliveries = self.acks = 0
        self.stopping = False
        self.selector = selectors.DefaultSelector()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.peers: list[Peer] = []
        self.selector.register(self.listener, selectors.EVENT_READ)

    def serve(self) -> None:
        """Serves until `stopping` is set."""
        while not self.stopping:
            for key, _ in self.selector.select(POLL_SECONDS):
                if key.data is None:
                    peer = Peer(self.listener.accept()[0])
                    self.peers.append(peer)
                    self.selector.register(peer.sock, selectors.EVENT_READ, peer)
                else:
                    self.read(key.data)
        for peer in self.peers:
            peer.sock.close()
        self.listener.close()
        self.selector.close()

    def read(self, peer: Peer) -> None:
        try:
            data = peer.sock.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self.leave(peer)
            return
        peer.rest += data
        while (found := self.split(peer)) is not None:
            self.handle(peer, *found)

    def leave(self, peer: Peer) -> None:
        if peer in self.peers:
            self.peers.remove(peer)
            self.selector.unregister(peer.sock)
            peer.sock.close()

    @staticmethod
    def split(peer: Peer) -> tuple[int, bytes] | None:
        rest, length, at = peer.rest, 0, 1
        while True:
            if at >= len(rest):
                return None
            length |= (rest[at] & 127) << 7 * (at - 1)
            at += 1
            if rest[at - 1] < 128:
                break
        if len(rest) < at + length:
            return None
        peer.rest = rest[at + length :]
        return rest[0], rest[at : at + length]

    def handle(self, peer: Peer, header: int, body: bytes) -> None:
        kind = header >> 4
        if kind == CONNECT:
            peer.version = body[6]
            if self.fault is Fault.SILENT:
                return
            refused = self.fault is Fault.REFUSE
            tail = b"\0" if peer.version == 5 else b""
            peer.sock.sendall(packet(CONNACK << 4, bytes([0, 5 if refused else 0]) + tail))
        elif kind == SUBSCRIBE:
            five = b"\0" if peer.version == 5 else b""
            at = 2 + len(five)
            size = int.from_bytes(body[at : at + 2], "big")
            peer.filters.append(body[at + 2 : at + 2 + size])
            peer.sock.sendall(packet(SUBACK << 4, body[:2] + five + body[-1:]))
        elif kind == PUBLISH:
            self.publish(peer, header, body)
        elif kind == DISCONNECT:
            self.leave(peer)

    def publish(self, peer: Peer, header: int, body: bytes) -> None:
        size = int.from_bytes(body[:2], "big")
        topic = body[2 : 2 + size]
        for other in list(self.peers):
            astray = self.fault is Fault.MISROUTE and self.deliveries == self.victim
            if astray or any(f == topic or f.endswith(b"#") for f in other.filters):
                self.deliver(other, header, body)
        if header & 6:
            self.acknowledge(peer, packet(PUBACK << 4, body[2 + size : 4 + size]))

    def deliver(self, peer: Peer, header: int, body: bytes) -> None:
        self.deliveries += 1
        whole = packet(header, body)
        out = [whole]
        if self.deliveries == self.victim:
            match self.fault:
                case Fault.LOSE:
                    out = []
                case Fault.SWAP:
                    peer.held, out = [(1, whole)], []
                case Fault.DELAY:
                    peer.held, out = [(3, whole)], []
                case Fault.DUPLICATE:
                    out = [whole, whole]
                case Fault.FLIP:
                    out = [whole[:-1] + bytes([whole[-1] ^ 1])]
                case Fault.CUT:
                    out = [packet(header, body[:-1])]
                case Fault.HANG_UP:
                    self.leave(peer)
                    return
        else:
            out += [held for wait, held in peer.held if wait == 1]
            peer.held = [(wait - 1, held) for wait, held in peer.held if wait > 1]
        peer.sock.sendall(b"".join(out))

    def acknowledge(self, peer: Peer, ack: bytes) -> None:
        self.acks += 1
        if self.acks == self.victim and self.fault is Fault.LOSE_ACK:
            return
        if self.acks == self.victim and self.fault is Fault.SWAP_ACKS:
            peer.acks.append(ack)
            return
        peer.sock.sendall(b"".join([ack, *peer.acks]))
        peer.acks.clear()


@contextmanager
def serving(fault: Fault, victim: int = 20) -> Iterator[int]:
    """Runs a broker with this fault and gives its port."""
    broker = FaultyBroker(fault, victim)
    thread = threading.Thread(target=broker.serve)
    thread.start()
    try:
        yield broker.port
    finally:
        broker.stopping = True
        thread.join(10)
    assert not thread.is_alive()
