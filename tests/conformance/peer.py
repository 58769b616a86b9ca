"""A connection on which a test says what it likes and sees every packet that comes."""

import contextlib
import socket
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from tests.conformance import raw
from tests.conformance.raw import V5, Value, Will
from tests.integration.supervised import PATIENCE_SECONDS

_TEXTS: Final = {0x03, 0x08, 0x12, 0x15, 0x1A, 0x1C, 0x1F}
_SIZES: Final = {0x01: 1, 0x13: 2, 0x21: 2, 0x22: 2, 0x23: 2, 0x02: 4, 0x11: 4, 0x18: 4, 0x27: 4}
_ACKNOWLEDGEMENTS: Final = {raw.PUBACK, raw.PUBREC, raw.PUBREL, raw.PUBCOMP}

Name = TypeVar("Name", str, bytes)


class Closed(Exception):
    """The server has ended the connection."""


class Packet(NamedTuple):
    """A packet of the server, taken apart.

    `properties` are by identifier, in order; `codes` are the reasons of SUBACK and UNSUBACK, or
    the one of any other packet; `data` is all after the fixed header.
    """

    kind: int
    flags: int
    data: bytes
    size: int
    packet_id: int = 0
    codes: bytes = b""
    properties: dict[int, list[Value]] = {}  # noqa: RUF012
    topic: bytes = b""
    payload: bytes = b""

    @property
    def code(self) -> int:
        """The reason; 0 when the packet leaves it out."""
        return self.codes[0] if self.codes else 0

    @property
    def qos(self) -> int:
        """The QoS of a PUBLISH."""
        return self.flags >> 1 & 3

    @property
    def retain(self) -> bool:
        """RETAIN of a PUBLISH."""
        return bool(self.flags & 1)

    @property
    def dup(self) -> bool:
        """DUP of a PUBLISH."""
        return bool(self.flags & 8)


def parse(first_byte: int, data: bytes, version: int) -> Packet:
    """Take a packet of the server apart."""
    kind, flags, size = first_byte >> 4, first_byte & 15, 1 + len(raw.varint(len(data))) + len(data)
    found = Packet(kind, flags, data, size)
    at = 0
    if kind == raw.PUBLISH:
        length = int.from_bytes(data[:2], "big")
        found = found._replace(topic=data[2 : 2 + length])
        at = 2 + length
        if found.qos:
            found = found._replace(packet_id=int.from_bytes(data[at : at + 2], "big"))
            at += 2
        properties, at = _properties(data, at) if version == V5 else ({}, at)
        return found._replace(properties=properties, payload=data[at:])
    if kind in _ACKNOWLEDGEMENTS or kind in {raw.SUBACK, raw.UNSUBACK}:
        assert len(data) >= 2
        found = found._replace(packet_id=int.from_bytes(data[:2], "big"))
        at = 2
    if kind in {raw.SUBACK, raw.UNSUBACK}:
        properties, at = _properties(data, at) if version == V5 else ({}, at)
        return found._replace(properties=properties, codes=data[at:])
    if kind == raw.CONNACK:
        at = 1
    codes, at = data[at : at + 1], at + 1
    properties = _properties(data, at)[0] if version == V5 and at < len(data) else {}
    return found._replace(codes=codes, properties=properties)


def _properties(data: bytes, at: int) -> tuple[dict[int, list[Value]], int]:
    size, at = _varint(data, at)
    end = at + size
    assert end <= len(data)
    found: dict[int, list[Value]] = {}
    while at < end:
        identifier, at = data[at], at + 1
        value: Value
        if identifier == raw.SUBSCRIPTION_IDENTIFIER:
            value, at = _varint(data, at)
        elif identifier == raw.USER_PROPERTY:
            key, at = _binary(data, at)
            held, at = _binary(data, at)
            value = (key, held)
        elif identifier in _TEXTS:
            encoded, at = _binary(data, at)
            value = encoded.decode()
        elif identifier in {raw.CORRELATION_DATA, raw.AUTHENTICATION_DATA}:
            value, at = _binary(data, at)
        else:
            width = _SIZES.get(identifier, 1)
            value, at = int.from_bytes(data[at : at + width], "big"), at + width
        found.setdefault(identifier, []).append(value)
    assert at == end
    return found, end


def _binary(data: bytes, at: int) -> tuple[bytes, int]:
    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    return data[at + 2 : end], end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


class Peer:
    """One TCP connection to the server, which answers as `version` has it."""

    def __init__(self, address: tuple[str, int], version: int, client_id: str) -> None:
        self.version = version
        self.client_id = client_id
        self.connack = Packet(0, 0, b"", 0)
        self.socket = socket.create_connection(address, timeout=PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._input = bytearray()
        self._packet_id = 0
        self._kept: list[Packet] = []

    # ------------------------------------------------------------------ bytes and packets

    def send(self, *packets: bytes) -> "Peer":
        """Send bytes at once."""
        self.socket.sendall(b"".join(packets))
        return self

    def _need(self, size: int) -> None:
        while len(self._input) < size:
            data = self._receive()
            if not data:
                assert not self._input, f"a piece of a packet: {self._input.hex()}"
                raise Closed
            self._input += data

    def _receive(self) -> bytes:
        """Return the bytes that come next; nothing at the end."""
        try:
            return self.socket.recv(262_144)
        except ConnectionError:
            return b""

    def read(self) -> Packet:
        """Return the next packet that comes; Closed when there is none."""
        at = 1
        while True:
            self._need(at + 1)
            at += 1
            if self._input[at - 1] < 128:
                break
        size, at = _varint(bytes(self._input[:at]), 1)
        self._need(at + size)
        first_byte, data = self._input[0], bytes(self._input[at : at + size])
        del self._input[: at + size]
        return parse(first_byte, data, self.version)

    def next(self, kind: int) -> Packet:
        """Return the next packet, which is of this kind."""
        found = self._kept.pop(0) if self._kept else self.read()
        assert found.kind == kind, found
        return found

    def find(self, kind: int) -> Packet:
        """Return the first packet of a kind; what comes before it is kept for later."""
        for at, found in enumerate(self._kept):
            if found.kind == kind:
                return self._kept.pop(at)
        while (found := self.read()).kind != kind:
            self._kept.append(found)
        return found

    def rest(self) -> list[Packet]:
        """Return what comes until the server ends the connection."""
        found, self._kept = self._kept, []
        try:
            while True:
                found.append(self.read())
        except Closed:
            return found

    def refused(self, *reasons: int) -> bool:
        """Say whether the server ends the connection now, in MQTT 5 with one of these reasons."""
        rest = self.rest()
        if self.version < V5:
            return rest == []
        wanted = reasons or (0x81, 0x82)
        return [one.kind for one in rest] == [raw.DISCONNECT] and rest[0].code in wanted

    def rejected(self, *reasons: int) -> bool:
        """Say whether CONNECT is refused: in MQTT 5 with CONNACK, in MQTT 3 without a word."""
        rest = self.rest()
        if self.version < V5:
            return rest == []
        wanted = reasons or (0x81, 0x82)
        return (
            [one.kind for one in rest] == [raw.CONNACK]
            and rest[0].code in wanted
            and rest[0].data[0] == 0
        )

    def heard(self) -> list[Packet]:
        """Return what comes before the answer to a ping."""
        self.send(raw.PING)
        self.find(raw.PINGRESP)
        found, self._kept = self._kept, []
        return found

    def silence(self, seconds: float) -> None:
        """Let time pass in which the server says nothing."""
        self.socket.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            raise AssertionError(self.read())
        self.socket.settimeout(PATIENCE_SECONDS)

    # ------------------------------------------------------------------ whole conversations

    def next_id(self) -> int:
        """Return a packet identifier that was not used before."""
        self._packet_id += 1
        return self._packet_id

    def hello(self, **fields: object) -> "Peer":
        """Send CONNECT and take CONNACK, which accepts."""
        build: Callable[..., bytes] = raw.connect
        self.send(build(self.version, self.client_id, **fields))
        self.connack = self.next(raw.CONNACK)
        assert self.connack.code == 0, self.connack
        return self

    def subscribe(self, topic_filter: str, options: int = 0, properties: bytes = b"") -> Packet:
        """Subscribe and return SUBACK, which grants; messages may come before it."""
        packet_id = self.next_id()
        wanted = (topic_filter, options)
        self.send(raw.subscribe(self.version, packet_id, wanted, properties=properties))
        suback = self.find(raw.SUBACK)
        assert suback.packet_id == packet_id
        assert suback.codes == bytes((options & 3,))
        return suback

    def unsubscribe(self, *filters: str) -> Packet:
        """Unsubscribe and return UNSUBACK."""
        packet_id = self.next_id()
        self.send(raw.unsubscribe(self.version, packet_id, *filters))
        unsuback = self.find(raw.UNSUBACK)
        assert unsuback.packet_id == packet_id
        return unsuback

    def publish(
        self,
        topic: str,
        payload: bytes = b"",
        qos: int = 1,
        *,
        retain: bool = False,
        properties: bytes = b"",
    ) -> int:
        """Publish, go through the exchange, and return the reason of its first answer."""
        packet_id = self.next_id() if qos else 0
        self.send(
            raw.publish(
                self.version, topic, payload, qos, packet_id, retain=retain, properties=properties
            )
        )
        if not qos:
            return 0
        first = self.find(raw.PUBACK if qos == 1 else raw.PUBREC)
        assert first.packet_id == packet_id
        if qos == 2 and first.code < 0x80:
            self.send(raw.answer(raw.PUBREL, packet_id))
            assert self.find(raw.PUBCOMP).packet_id == packet_id
        return first.code

    def message(self) -> Packet:
        """Return the next message, after the whole exchange for it."""
        found = self.next(raw.PUBLISH)
        if found.qos == 1:
            self.send(raw.answer(raw.PUBACK, found.packet_id))
        elif found.qos == 2:
            self.send(raw.answer(raw.PUBREC, found.packet_id))
            assert self.find(raw.PUBREL).packet_id == found.packet_id
            self.send(raw.answer(raw.PUBCOMP, found.packet_id))
        return found

    def messages(self, count: int) -> list[Packet]:
        """Return the next messages, after the whole exchange for each."""
        return [self.message() for _ in range(count)]

    def bye(self, reason: int = 0, properties: bytes = b"") -> None:
        """End with DISCONNECT; the server has taken note when this returns."""
        self.send(raw.disconnect(reason, properties))
        assert [one for one in self.rest() if one.kind != raw.PUBLISH] == []
        self.socket.close()

    def drop(self) -> None:
        """End without DISCONNECT; the server has taken note when this returns."""
        self.socket.shutdown(socket.SHUT_WR)
        self.rest()
        self.socket.close()


class Site:
    """The server as one test sees it: clients and topics that no other test has."""

    def __init__(self, address: tuple[str, int], version: int, number: int) -> None:
        self.address = address
        self.version = version
        self.topic = f"t{number}"
        self._number = number
        self._peers: list[Peer] = []

    def name(self, who: str = "a") -> str:
        """Return a client identifier of the test's own."""
        return f"c{self._number}{who}"

    def peer(self, who: str = "a") -> Peer:
        """Open a connection on which nothing was said yet."""
        peer = Peer(self.address, self.version, self.name(who))
        self._peers.append(peer)
        return peer

    def client(self, who: str = "a", /, **fields: object) -> Peer:
        """Connect a client, by default with a clean start; `durable` ones outlive it."""
        if fields.pop("durable", False):
            fields.setdefault("clean", False)
            if self.version == V5:
                known = fields.get("properties", b"")
                assert isinstance(known, bytes)
                fields["properties"] = known + raw.block((raw.SESSION_EXPIRY, 3600))
        return self.peer(who).hello(**fields)

    def will(self, topic: str, **fields: object) -> Will:
        """Return a will below the test's topic."""
        build: Callable[..., Will] = Will
        return build(f"{self.topic}/{topic}", **fields)

    def close(self) -> None:
        """End every connection."""
        for peer in self._peers:
            peer.socket.close()
