"""An MQTT client without opinions: every packet that comes or goes is seen by the test."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from robustmq.mqtt import codec
from robustmq.mqtt.framing import scan
from robustmq.mqtt.packets import (
    V5,
    V31,
    V311,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from tests.explanations import apart
from tests.integration.supervised import PATIENCE_SECONDS, Node

P = TypeVar("P", bound=msgspec.Struct)

VERSIONS: Final = (V31, V311, V5)
_LARGEST: Final = 268_435_460
_READ: Final = 262_144


def serve(data: Path, *settings: str, config: str = "") -> Iterator[Node]:
    """Run a node with two workers; when it is done with, nothing may have gone wrong in it.

    `config` is the text of a configuration file.
    """
    arguments: tuple[str, ...] = ()
    if config:
        path = data.with_suffix(".toml")
        path.write_text(config, encoding="utf-8")
        arguments = ("--config", str(path))
    node = Node(data, *arguments, module="robustmq.cli.supervisor", settings=settings)
    try:
        workers = node.ready().children()
        yield node
        assert node.children() == workers
        assert node.complaints() == []
    finally:
        node.close()


class Ended(Exception):
    """The server has closed the connection."""


class Wire:
    """A connection on which nothing is said by itself; packets are read as `version` has them."""

    listener = "mqtt_tcp"

    def __init__(self, node: Node, version: int = V5, *, receive_buffer: int = 0) -> None:
        self.version = version
        self.socket = self.opened(node, receive_buffer)
        self.told: list[str] = []
        self._input = b""

    def opened(self, node: Node, receive_buffer: int) -> socket.socket:
        """Return a connected socket; other transports have other ones."""
        opened = socket.socket()
        if receive_buffer:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        opened.settimeout(PATIENCE_SECONDS)
        opened.connect(node.address(self.listener))
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection without a word."""
        self.socket.close()

    def read(self) -> bytes:
        """Return some bytes of MQTT; b"" when there are no more."""
        return self.socket.recv(_READ)

    def send(self, *packets: Packet) -> None:
        """Send packets with one call."""
        self.send_bytes(b"".join(codec.encode(packet, self.version) for packet in packets))

    def send_bytes(self, data: bytes) -> None:
        """Send what may be no packet."""
        self.socket.sendall(data)

    def receive(self) -> Packet:
        """Return the next packet; Ended when there is none."""
        return self.receive_sized()[0]

    def receive_sized(self) -> tuple[Packet, int]:
        """Return the next packet and its size in bytes; a reason string is put into `told`."""
        while (found := scan(self._input, 0, _LARGEST)) is None:
            try:
                data = self.read()
            except ConnectionError:
                data = b""
            if not data:
                assert not self._input, f"a piece of a packet: {self._input.hex()}"
                raise Ended
            self._input += data
        first_byte, start, end = found
        body, self._input = self._input[start:end], self._input[end:]
        packet, told = apart(codec.decode(first_byte, body, self.version))
        self.told += [told] if told is not None else []
        return packet, end

    def expect(self, kind: type[P]) -> P:
        """Return the next packet, which is of this kind."""
        packet = self.receive()
        assert isinstance(packet, kind), packet
        return packet

    def ending(self) -> list[Packet]:
        """Return what comes until the server closes the connection."""
        packets: list[Packet] = []
        with contextlib.suppress(Ended):
            while True:
                packets.append(self.receive())
        return packets


class Client(Wire):
    """A client that is connected; `connack` is what it was told."""

    def __init__(
        self,
        node: Node,
        client_id: str,
        version: int = V5,
        *,
        clean: bool = True,
        keep_alive: int = 0,
        will: Will | None = None,
        properties: Properties | None = None,
        receive_buffer: int = 0,
    ) -> None:
        super().__init__(node, version, receive_buffer=receive_buffer)
        self.client_id = client_id
        self._packet_id = 0
        self._heard: list[Publish] = []
        self._exchanges: set[int] = set()
        self.send(
            Connect(
                client_id,
                version,
                clean_start=clean,
                keep_alive=keep_alive,
                will=will,
                properties=properties,
            )
        )
        self.connack = self.expect(Connack)

    def next_id(self) -> int:
        """Return a packet identifier that was not used before."""
        self._packet_id += 1
        return self._packet_id

    def subscribe(
        self,
        topic_filter: str,
        qos: int = 0,
        *,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        identifier: int = 0,
    ) -> list[int]:
        """Subscribe, and return the reasons when SUBACK is here; messages may come before."""
        block = Properties(subscription_identifiers=(identifier,)) if identifier else None
        packet_id = self.next_id()
        options = Subscription(topic_filter, qos, no_local, retain_as_published, retain_handling)
        self.send(Subscribe(packet_id, [options], block))
        answer = self._answer(Suback)
        assert answer.packet_id == packet_id
        return list(answer.reasons)

    def unsubscribe(self, *filters: str) -> list[int]:
        """Unsubscribe, and return the reasons when UNSUBACK is here."""
        packet_id = self.next_id()
        self.send(Unsubscribe(packet_id, list(filters)))
        answer = self._answer(Unsuback)
        assert answer.packet_id == packet_id
        return list(answer.reasons)

    def publish(
        self,
        topic: str,
        payload: bytes = b"",
        qos: int = 0,
        *,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> int:
        """Publish, go through the whole exchange, and return the reason of its first answer."""
        packet_id = self.next_id() if qos else 0
        self.send(Publish(topic.encode(), payload, qos, retain, False, packet_id, properties))
        if qos == 1:
            answer = self._answer(Puback)
            assert answer.packet_id == packet_id
            return answer.reason
        if qos == 2:
            recorded = self._answer(Pubrec)
            assert recorded.packet_id == packet_id
            if recorded.reason < 0x80:
                self.send(Pubrel(packet_id))
                assert self._answer(Pubcomp).packet_id == packet_id
            return recorded.reason
        return 0

    def message(self) -> Publish:
        """Return the next message, and go through the whole exchange for it."""
        return self.messages(1)[0]

    def messages(self, count: int) -> list[Publish]:
        """Return the next messages, and go through the whole exchange for each."""
        while self._exchanges or len(self._heard) < count:
            packet = self.receive()
            assert self._hear(packet), packet
        heard, self._heard = self._heard[:count], self._heard[count:]
        return heard

    def _hear(self, packet: Packet) -> bool:
        """Do what a message, or the rest of its exchange, asks for."""
        if isinstance(packet, Pubrel):
            self._exchanges.remove(packet.packet_id)
            self.send(Pubcomp(packet.packet_id))
        elif isinstance(packet, Publish):
            self._heard.append(packet)
            if packet.qos == 1:
                self.send(Puback(packet.packet_id))
            elif packet.qos == 2:
                self._exchanges.add(packet.packet_id)
                self.send(Pubrec(packet.packet_id))
        else:
            return False
        return True

    def _answer(self, kind: type[P]) -> P:
        """Return the next packet that is no message of somebody else."""
        while self._hear(packet := self.receive()):
            continue
        assert isinstance(packet, kind), packet
        return packet

    def heard(self) -> list[Publish]:
        """Return the messages that come before the answer to a ping."""
        self.send(Pingreq())
        self._answer(Pingresp)
        heard, self._heard = self._heard, []
        return heard

    def payloads(self, count: int) -> list[bytes]:
        """Return the payloads of the next messages."""
        return [message.payload for message in self.messages(count)]

    def waits(self) -> bool:
        """Say whether the server had messages for us before it was asked."""
        self.send(Pingreq())
        self._answer(Pingresp)
        return bool(self._heard)

    def ping(self) -> None:
        """Hear from the server; whatever it said before has arrived, and was nothing."""
        assert not self._heard
        self.send(Pingreq())
        self.expect(Pingresp)

    def disconnect(self, properties: Properties | None = None) -> None:
        """End in order; the server has taken note when this returns."""
        self.send(Disconnect(properties=properties))
        assert self.ending() == []
        self.close()

    def drop(self) -> None:
        """End without DISCONNECT; the server has taken note when this returns."""
        self.socket.shutdown(socket.SHUT_WR)
        self.ending()
        self.close()


def numbered(count: int, start: int = 0) -> Iterator[bytes]:
    """Yield payloads that tell their place."""
    for number in range(start, start + count):
        yield b"%d" % number
