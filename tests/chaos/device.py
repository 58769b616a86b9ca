"""Clients whose sessions outlive connections and servers: the client's half of QoS 1 and 2.

They keep what MQTT5 4.1 asks a client to keep: what is sent and not acknowledged, in the order of
sending, and the identifiers of QoS 2 messages between PUBLISH and PUBREL. All of it is sent again,
or known again, on the next connection; it is forgotten only when the server has no session.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from typing import Final

from tests.chaos.ledger import SHARE, Ledger, Stream
from tests.chaos.talker import packet, text

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, DISCONNECT = 2, 3, 4, 5, 6, 7, 9, 14
EXPIRY_SECONDS: Final = 3_600
REFUSED: Final = 0x80
RETRY_SECONDS: Final = 0.03
READ_BYTES: Final = 65_536


def _variable(data: bytes, at: int) -> tuple[int, int] | None:
    """Return a variable byte integer (MQTT5 1.5.5) and its end; None when it is not all there."""
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at
    return None


def _receive_maximum(properties: bytes) -> int:
    """Return the Receive Maximum of a CONNACK's properties (MQTT5 3.2.2.3.3)."""
    sizes = {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x27: 4}
    found = _variable(properties, 0)
    at = found[1] if found else 0
    while at < len(properties):
        name, at = properties[at], at + 1
        if name == 0x21:
            return int.from_bytes(properties[at : at + 2], "big")
        if name in {0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F}:
            at += 2 + int.from_bytes(properties[at : at + 2], "big")
        else:
            at += sizes.get(name, 1)
    return 65_535


class Device:
    """A client that is connected again and again while it is `wanted`."""

    def __init__(
        self,
        ledger: Ledger,
        client_id: str,
        version: int = 5,
        *,
        receive_maximum: int = 0,
    ) -> None:
        self.ledger = ledger
        self.client_id = client_id
        self.version = version
        self.receive_maximum = receive_maximum
        self.connections = 0
        self.quota = 65_535
        self.online = False
        self.place = 0
        self.refusals: Counter[int] = Counter()
        self._confirmed = False
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._writer: asyncio.StreamWriter | None = None
        self._last_id = 0

    async def run(self, *addresses: tuple[str, int]) -> None:
        """Be connected whenever that is wanted and possible, until cancelled.

        With several addresses it is at that of `place`.
        """
        while True:
            await self._wanted.wait()
            try:
                address = addresses[self.place]
                reader, self._writer = await asyncio.open_connection(*address)
            except OSError:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            try:
                await self._converse(reader, self._writer)
            except ConnectionError:
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                self.online = False
                self._writer.transport.abort()
                self._writer = None

    def leave(self, *, politely: bool) -> None:
        """Disconnect and stay away; rudely: in the middle of whatever is under way."""
        self._wanted.clear()
        if self._writer is None:
            return
        if politely and self.online:
            self._writer.write(b"\xe0\0")
            self._writer.close()
            self.online = False
        else:
            self._writer.transport.abort()

    def drop(self) -> None:
        """Lose the connection, and come back at once."""
        if self._writer is not None:
            self._writer.transport.abort()

    def come(self) -> None:
        """Be connected again."""
        self._wanted.set()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        properties = b""
        if self.version == 5:
            properties = b"\x11" + EXPIRY_SECONDS.to_bytes(4, "big")
            if self.receive_maximum:
                properties += b"\x21" + self.receive_maximum.to_bytes(2, "big")
            properties = bytes((len(properties),)) + properties
        head = text("MQTT") + bytes((self.version, 0)) + b"\0\0" + properties
        writer.write(packet(0x10, head, text(self.client_id)))
        rest = b""
        while data := await reader.read(READ_BYTES):
            rest = self._scan(rest + data)

    def _scan(self, data: bytes) -> bytes:
        at = 0
        while at + 1 < len(data):
            found = _variable(data, at + 1)
            if found is None or found[1] + found[0] > len(data):
                break
            length, start = found
            self._take(data[at], data[start : start + length])
            at = start + length
        return data[at:]

    def _take(self, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == CONNACK:
            if body[1] != 0:
                self.refusals[body[1]] += 1
                raise ConnectionRefusedError(f"CONNACK {body[1]:#x}")
            self.quota = _receive_maximum(body[2:])
            self._begin(present=bool(body[0] & 1))
        elif kind != DISCONNECT:
            self.on_packet(first, body)

    def _begin(self, *, present: bool) -> None:
        if self._confirmed and not present:
            self.ledger.forgotten(self.client_id)
        if not present:
            self.on_new_session()
        self._confirmed = self.online = True
        self.connections += 1
        self.on_connected()

    def send(self, *packets: bytes) -> None:
        """Send when there is a connection; what matters is sent again on the next one."""
        if self.online and self._writer is not None and not self._writer.is_closing():
            self._writer.write(b"".join(packets))

    def next_id(self, used: dict[int, "Pending"]) -> int:
        """Return an identifier that is not in use (MQTT5 2.2.1)."""
        while True:
            self._last_id = self._last_id % 65_535 + 1
            if self._last_id not in used:
                return self._last_id

    def reason(self, body: bytes) -> int:
        """Return the reason of an acknowledgement; MQTT 3 has none, and none is success."""
        return body[2] if self.version == 5 and len(body) > 2 else 0

    def on_new_session(self) -> None:
        """Forget: the server has no session."""
        raise NotImplementedError

    def on_connected(self) -> None:
        """Go on where the last connection ended."""
        raise NotImplementedError

    def on_packet(self, first: int, body: bytes) -> None:
        """Take any packet but CONNACK and DISCONNECT."""
        raise NotImplementedError


@dataclass
class Pending:
    """A message between its PUBLISH and its last acknowledgement."""

    stream: Stream
    number: int
    released: bool = False

    def awaits(self) -> int:
        """Return the type of the packet that comes next for it."""
        if self.stream.qos == 1:
            return PUBACK
        return PUBCOMP if self.released else PUBREC


class Publisher(Device):
    """Numbers its messages; at most `window` of them are under way.

    `topics` are pairs of topic and QoS, each a stream of its own.
    """

    def __init__(
        self,
        ledger: Ledger,
        client_id: str,
        topics: list[tuple[str, int]],
        version: int = 5,
        window: int = 20,
    ) -> None:
        super().__init__(ledger, client_id, version)
        self._streams = [Stream(client_id, topic, qos) for topic, qos in topics]
        self._window = window
        self.pending: dict[int, Pending] = {}
        self.reasons: list[int] = []

    async def produce(self, rng: random.Random, rate: float, burst: int = 8) -> None:
        """Publish about `rate` messages a second in bursts, whenever connected."""
        while True:
            for _ in range(rng.randint(1, burst)):
                self.publish(rng.choice(self._streams))
            await asyncio.sleep(rng.expovariate(2 * rate / (burst + 1)))

    def publish(self, stream: Stream) -> bool:
        """Publish the next message of a stream; False when the window or the line is closed."""
        if not self.online or len(self.pending) >= min(self._window, self.quota):
            return False
        packet_id = self.next_id(self.pending)
        self.pending[packet_id] = Pending(stream, self.ledger.sends(stream))
        self._send_publish(packet_id, 0)
        return True

    def streams(self) -> list[Stream]:
        """Return what this publisher numbers."""
        return self._streams

    def _send_publish(self, packet_id: int, dup: int) -> None:
        pending = self.pending[packet_id]
        stream = pending.stream
        properties = b"\0" if self.version == 5 else b""
        first = 0x30 | dup | stream.qos << 1
        head = text(stream.topic) + packet_id.to_bytes(2, "big") + properties
        self.send(packet(first, head, stream.payload(pending.number)))

    def on_new_session(self) -> None:
        """Keep what the server cannot have delivered: it is published as new."""
        kept = [each for each in self.pending.values() if not each.released]
        self.pending = {}
        for each in kept:
            self.pending[self.next_id(self.pending)] = each

    def on_connected(self) -> None:
        """Send again what is not acknowledged, in the order of sending (MQTT5 4.4, 4.6)."""
        for packet_id, pending in self.pending.items():
            if pending.released:
                self.send(b"\x62\x02" + packet_id.to_bytes(2, "big"))
            else:
                self._send_publish(packet_id, 8)

    def on_packet(self, first: int, body: bytes) -> None:
        """Follow the acknowledgements."""
        kind = first >> 4
        packet_id = int.from_bytes(body[:2], "big")
        pending = self.pending.get(packet_id)
        if pending is None or kind != pending.awaits():
            self.ledger.breach(self.client_id, f"packet {kind} for {packet_id}: {pending}")
            return
        reason = self.reason(body)
        if kind != PUBCOMP and reason >= REFUSED:
            self.reasons.append(reason)
            self.ledger.refused(pending.stream, pending.number)
            del self.pending[packet_id]
            return
        if kind != PUBCOMP:
            self.ledger.acknowledged(pending.stream, pending.number)
        if kind == PUBREC:
            pending.released = True
            self.send(b"\x62\x02" + body[:2])
        else:
            del self.pending[packet_id]


class Subscriber(Device):
    """Subscribes once for the life of its session, acknowledges in order, some time later.

    `filters` are pairs of filter and QoS; `laziness` is how many seconds acknowledgements wait.
    One that is shared is the only one, and its group is the subscriber in the ledger.
    """

    def __init__(
        self,
        ledger: Ledger,
        client_id: str,
        filters: list[tuple[str, int]],
        version: int = 5,
        *,
        receive_maximum: int = 0,
        laziness: float = 0.0,
    ) -> None:
        super().__init__(ledger, client_id, version, receive_maximum=receive_maximum)
        self._filters = filters
        first = filters[0][0]
        self.account = first if first.startswith(SHARE) else client_id
        self._laziness = laziness
        self._subscribing: dict[int, tuple[str, int]] = {}
        self._granted: set[str] = set()
        self._received: set[int] = set()
        self._answers: list[bytes] = []

    def subscribed(self) -> bool:
        """Return whether every filter was granted."""
        return len(self._granted) == len(self._filters)

    def on_new_session(self) -> None:
        """Forget the subscriptions and the identifiers of QoS 2."""
        self._granted.clear()
        self._received.clear()

    def on_connected(self) -> None:
        """Subscribe to what was not granted yet."""
        self._answers.clear()
        self._subscribing.clear()
        properties = b"\0" if self.version == 5 else b""
        for number, (topic_filter, qos) in enumerate(self._filters, 1):
            if topic_filter not in self._granted:
                self._subscribing[number] = (topic_filter, qos)
                self.ledger.asks(self.account, _inner(topic_filter), qos)
                body = number.to_bytes(2, "big") + properties + text(topic_filter)
                self.send(packet(0x82, body, bytes((qos,))))

    def on_packet(self, first: int, body: bytes) -> None:
        """Take messages and what belongs to them."""
        kind = first >> 4
        if kind == PUBLISH:
            self._take_publish(first, body)
        elif kind == PUBREL:
            self._received.discard(int.from_bytes(body[:2], "big"))
            self._answer(b"\x70\x02" + body[:2])
        elif kind == SUBACK:
            topic_filter, qos = self._subscribing.pop(int.from_bytes(body[:2], "big"))
            if body[-1] != qos:
                self.ledger.breach(self.client_id, f"SUBACK {body[-1]:#x} for {topic_filter}")
            self._granted.add(topic_filter)
            self.ledger.subscribed(self.account, _inner(topic_filter))
        else:
            self.ledger.breach(self.client_id, f"packet {kind}")

    def _take_publish(self, first: int, body: bytes) -> None:
        qos = first >> 1 & 3
        end = 2 + int.from_bytes(body[:2], "big")
        topic = body[2:end].decode()
        packet_id = body[end : end + 2] if qos else b""
        end += len(packet_id)
        if self.version == 5:
            found = _variable(body, end)
            assert found is not None
            end = found[1] + found[0]
        identifier = int.from_bytes(packet_id, "big")
        if qos == 2 and identifier in self._received:
            if not first & 8:
                self.ledger.breach(self.client_id, f"identifier {identifier} is used twice")
        else:
            if qos == 2:
                self._received.add(identifier)
            self.ledger.delivered(self.account, topic, qos, body[end:])
        if qos:
            self._answer((b"\x40\x02" if qos == 1 else b"\x50\x02") + packet_id)

    def _answer(self, answer: bytes) -> None:
        if not self._laziness:
            self.send(answer)
            return
        if not self._answers:
            asyncio.get_running_loop().call_later(self._laziness, self._flush, self.connections)
        self._answers.append(answer)

    def _flush(self, connection: int) -> None:
        if connection == self.connections:
            self.send(*self._answers)
            self._answers.clear()


def _inner(topic_filter: str) -> str:
    """The filter without the group."""
    return topic_filter.split("/", 2)[2] if topic_filter.startswith(SHARE) else topic_filter
