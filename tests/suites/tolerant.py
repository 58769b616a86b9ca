"""What mosquitto's own tests compare, byte for byte, with what every right server may say.

`mosq_test` takes these functions over: an answer is compared by its meaning. A server may add a
reason string, and say in CONNACK what it likes to grant, unless the test asks for a value.
"""

import socket
from typing import Final

from tests.conformance import raw
from tests.conformance.peer import Packet, parse

_GRANTED_BY_MOSQUITTO: Final = {(0x22, (10,)), (0x21, (20,))}
"""Topic alias maximum and receive maximum: what `gen_connack` writes into every CONNACK."""
_PATIENCE: Final = 6
"""How much longer than a test would we wait for an answer: this machine may be busy."""
_REASON_STRING: Final = 0x1F
_BROKEN: Final = {b"\x81", b"\x82"}
_EXACTLY: Final = {b"\x8f", b"\x90"}

_latest: "Socket | None" = None
"""Whose packets are compared where a test does not say it."""


def packets(data: bytes) -> list[tuple[int, bytes]]:
    """Split bytes into packets: the first byte, and what follows the remaining length."""
    found = []
    while len(data) > 1:
        size = shift = 0
        at = 1
        while at < len(data):
            byte, at = data[at], at + 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if at + size > len(data):
            break
        found.append((data[0], data[at : at + size]))
        data = data[at + size :]
    return found


def read(sock: "Socket") -> bytes:
    """Read one packet, or what comes before the end of the connection."""
    global _latest  # noqa: PLW0603
    _latest = sock
    data = sock.recv(2)
    while data and not packets(data):
        # The remaining length, then the rest; never a byte of the next packet.
        known = len(data) > 1 and data[-1] < 128 and _size(data) is not None
        size = _size(data) if known else None
        more = sock.recv(1 if size is None else size - len(data))
        if not more:
            break
        data += more
    return data


class Socket(socket.socket):
    """A test's socket: the packet identifiers that it takes for granted become the server's.

    Which identifier a message has is the server's choice (MQTT5 2.2.1); mosquitto counts from 1.
    """

    latest: dict[int, int] = {}  # noqa: RUF012
    """The server's identifiers by those of the test, of all connections: for one that returns."""

    def __init__(
        self,
        family: int = socket.AF_INET,
        kind: int = socket.SOCK_STREAM,
        proto: int = 0,
        fileno: int | None = None,
    ) -> None:
        super().__init__(family, kind, proto, fileno)
        self.version = 4
        self.given: dict[int, int] = {}

    def settimeout(self, value: float | None) -> None:
        """Wait longer than the test would: no test takes a silence for an answer."""
        super().settimeout(value if value is None else value * _PATIENCE)

    def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]
        """Send it all, acknowledgements with the server's identifiers."""
        whole = packets(data)
        if whole and sum(_length(each) for each in whole) == len(data):
            self.sendall(b"".join(map(self._translated, whole)), flags)
        else:
            self.sendall(data, flags)
        return len(data)

    def _translated(self, packet: tuple[int, bytes]) -> bytes:
        first, body = packet
        if first >> 4 == raw.CONNECT and len(body) > 6:
            self.version = 5 if body[6] == 5 else 4
        if first >> 4 in {raw.PUBACK, raw.PUBREC, raw.PUBCOMP} and len(body) > 1:
            meant = int.from_bytes(body[:2], "big")
            body = self.known(meant).to_bytes(2, "big") + body[2:]
        return raw.packet(first, body)

    def known(self, meant: int) -> int:
        """The server's identifier for that of the test."""
        return self.given.get(meant, self.latest.get(meant, meant))


def last_words(sock: Socket) -> bytes:
    """Read to the end of the connection; what is no refusal is returned."""
    rest = b""
    while data := read(sock):
        rest = rest if _refuses(data) else rest + data
    return rest[:1]


def _refuses(data: bytes) -> bool:
    """Say whether this is a CONNACK or DISCONNECT that says why the connection ends."""
    first, body = packets(data)[0]
    if first == raw.CONNACK << 4:
        return body[1] > 0
    return first == raw.DISCONNECT << 4 and len(body) > 0 and body[0] >= 0x80


def receive_unordered(sock: Socket, one: bytes, other: bytes, error_string: str) -> None:
    """Read two packets in any order; raises ValueError."""
    received = [read(sock), read(sock)]
    for first, second in ((one, other), (other, one)):
        if _matches(sock, received[0], first) and _matches(sock, received[1], second):
            return
    print(f"FAIL: {error_string}: {received!r}, expected {one!r} and {other!r}")
    raise ValueError(error_string)


def expect_packet(sock: Socket, name: str, expected: bytes) -> bool:
    """Read as many packets as are expected and compare them; raises TestError as the original."""
    from mosq_test import TestError  # type: ignore[import-not-found]

    got = b"".join(read(sock) for _ in range(max(len(packets(expected)), 1)))
    if not expected and got and _refuses(got):
        return not last_words(sock)
    if packet_matches(name, got, expected):
        return True
    raise TestError


def packet_matches(name: str, received: bytes, expected: bytes) -> bool:
    """Say whether the bytes mean the same; print what differs."""
    if _matches(_latest, received, expected):
        return True
    print(f"FAIL: Received incorrect {name}.\nReceived: {received!r}\nExpected: {expected!r}")
    return False


def _matches(sock: Socket | None, received: bytes, expected: bytes) -> bool:
    if received == expected:
        return True
    ours, theirs = packets(received), packets(expected)
    if sock is None or not theirs or len(ours) != len(theirs):
        return False
    try:
        for a, b in zip(ours, theirs, strict=True):
            got, wanted = parse(*a, sock.version), parse(*b, sock.version)
            if not same(_known(sock, got, wanted), wanted):
                return False
    except (AssertionError, IndexError, UnicodeDecodeError):
        return False
    return True


def _known(sock: Socket, got: Packet, wanted: Packet) -> Packet:
    """The packet with the test's identifier, in the place of the server's."""
    if got.kind == raw.PUBLISH and wanted.kind == raw.PUBLISH and got.qos and wanted.qos:
        sock.given[wanted.packet_id] = Socket.latest[wanted.packet_id] = got.packet_id
    elif got.kind != raw.PUBREL or sock.known(wanted.packet_id) != got.packet_id:
        return got
    return got._replace(packet_id=wanted.packet_id)


def same(got: Packet, wanted: Packet) -> bool:
    """Say whether two packets mean the same."""
    plain = (got.kind, got.flags, got.packet_id, got.topic, got.payload)
    if plain != (wanted.kind, wanted.flags, wanted.packet_id, wanted.topic, wanted.payload):
        return False
    # Without a reason in an acknowledgement it is 0.
    code, asked_code = got.codes or b"\0", wanted.codes or b"\0"
    if code != asked_code and not _is_as_good(got.kind, code, asked_code):
        return False
    given = {name: value for name, value in got.properties.items() if name != _REASON_STRING}
    if got.kind != raw.CONNACK:
        return given == wanted.properties
    granted = {(name, tuple(value)) for name, value in given.items()}
    asked = {(name, tuple(value)) for name, value in wanted.properties.items()}
    return got.data[0] == wanted.data[0] and asked - granted <= _GRANTED_BY_MOSQUITTO


def _is_as_good(kind: int, code: bytes, wanted: bytes) -> bool:
    """Say whether a reason means what is wanted.

    No matching subscribers may be said for success (MQTT5 3.4.2.1). What is malformed and what a
    protocol error mosquitto's tests do not tell apart as the text does (MQTT5 2.1.3, 2.2.2.2,
    3.8.3), and an invalid topic has a reason of its own (MQTT5 4.13).
    """
    if kind in {raw.CONNACK, raw.DISCONNECT}:
        return wanted in _BROKEN and code in _BROKEN | _EXACTLY
    return (code, wanted) == (b"\x10", b"\0")


def _length(packet: tuple[int, bytes]) -> int:
    return len(raw.packet(*packet))


def _size(data: bytes) -> int | None:
    """The bytes of the whole packet, once its remaining length is known."""
    size = shift = 0
    for at, byte in enumerate(data[1:], 2):
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return at + size
    return None


# The tests make their sockets by this name.
socket.socket = Socket  # type: ignore[misc,assignment]
