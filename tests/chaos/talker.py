"""A small asyncio MQTT client of its own making, for tests that break things.

It speaks 3.1.1 or 5, publishes at QoS 0 or 1 with an answer to wait for, acknowledges what it
hears, and notes why its connection ended. Nothing is repeated and nothing reconnects by itself.
"""

import asyncio
import contextlib
from typing import Final

PATIENCE: Final = 60.0
CONNACK, PUBLISH, PUBACK, SUBACK, UNSUBACK, PINGRESP, DISCONNECT = 2, 3, 4, 9, 11, 13, 14


def number(value: int) -> bytes:
    """Return a variable byte integer."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def packet(first: int, *parts: bytes) -> bytes:
    """Return a control packet."""
    body = b"".join(parts)
    return bytes((first,)) + number(len(body)) + body


def text(value: str) -> bytes:
    """Return a string with its length."""
    encoded = value.encode()
    return len(encoded).to_bytes(2, "big") + encoded


class Talker:
    """One client on one connection; `heard` are (topic, payload) in the order of arrival."""

    def __init__(self, client_id: str, version: int = 4, *, clean: bool = True) -> None:
        self.client_id = client_id
        self.version = version
        self.clean = clean
        self.present = False
        self.heard: list[tuple[str, bytes]] = []
        self.reason: int | None = None
        self.ended = asyncio.Event()
        self._news = asyncio.Event()
        self._answers: dict[tuple[int, int], asyncio.Future[bytes]] = {}
        self._last_id = 0

    async def open(self, address: tuple[str, int]) -> "Talker":
        """Connect and wait for CONNACK; raises ConnectionError when there is none."""
        reader, self._writer = await asyncio.open_connection(*address, limit=1 << 20)
        answer = self._expect(CONNACK, 0)
        self._reading = asyncio.create_task(self._read(reader))
        properties = b"\0" if self.version == 5 else b""
        flags = bytes((2 if self.clean else 0,))
        if self.version == 5 and not self.clean:
            properties = b"\x05\x11" + (3600).to_bytes(4, "big")
        head = text("MQTT") + bytes((self.version,)) + flags + b"\0\0" + properties
        self._writer.write(packet(0x10, head, text(self.client_id)))
        connack = await self._wait(answer)
        assert connack[1] == 0, connack
        self.present = bool(connack[0])
        return self

    def publish(
        self, topic: str, payload: bytes, qos: int = 1, *, retain: bool = False
    ) -> "asyncio.Future[bytes] | None":
        """Send a PUBLISH; return what will hold its PUBACK."""
        properties = b"\0" if self.version == 5 else b""
        if qos == 0:
            self._writer.write(packet(0x30 | retain, text(topic), properties, payload))
            return None
        packet_id, answer = self._identified(PUBACK)
        self._writer.write(packet(0x32 | retain, text(topic), packet_id, properties, payload))
        return answer

    async def say(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 1 and wait for the PUBACK."""
        answer = self.publish(topic, payload)
        assert answer is not None
        await self._wait(answer)

    def start_subscribe(self, topic_filter: str, qos: int = 1) -> "asyncio.Future[bytes]":
        """Send a SUBSCRIBE; return what will hold its SUBACK."""
        packet_id, answer = self._identified(SUBACK)
        properties = b"\0" if self.version == 5 else b""
        self._writer.write(packet(0x82, packet_id, properties, text(topic_filter), bytes((qos,))))
        return answer

    async def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        """Subscribe and wait for a SUBACK that grants it."""
        answer = await self._wait(self.start_subscribe(topic_filter, qos))
        assert answer[-1] == qos, answer

    async def ping(self) -> None:
        """Ask whether the server is there."""
        answer = self._expect(PINGRESP, 0)
        self._writer.write(b"\xc0\0")
        await self._wait(answer)

    async def until_heard(self, count: int) -> list[tuple[str, bytes]]:
        """Wait until so many messages have been heard; return all."""
        async with asyncio.timeout(PATIENCE):
            while len(self.heard) < count:
                assert not self.ended.is_set(), f"{len(self.heard)} of {count}, then the end"
                self._news.clear()
                await self._news.wait()
        return self.heard

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    async def drain(self) -> None:
        """Wait until the socket takes more."""
        await self._writer.drain()

    async def close(self) -> None:
        """Disconnect and end; a connection that is lost already is no error."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(b"\xe0\0")
            self._writer.close()
            await self._writer.wait_closed()
        self._reading.cancel()

    def _expect(self, kind: int, packet_id: int) -> "asyncio.Future[bytes]":
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[kind, packet_id] = answer
        return answer

    def _identified(self, kind: int) -> "tuple[bytes, asyncio.Future[bytes]]":
        self._last_id = self._last_id % 65_535 + 1
        return self._last_id.to_bytes(2, "big"), self._expect(kind, self._last_id)

    async def _wait(self, answer: "asyncio.Future[bytes]") -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await answer

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                first = (await reader.readexactly(1))[0]
                length = shift = 0
                while True:
                    byte = (await reader.readexactly(1))[0]
                    length |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
                self._take(first, await reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended.set()
            self._news.set()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(ConnectionResetError("the server has closed"))
                    answer.exception()

    def _take(self, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == PUBLISH:
            self._take_publish(first, body)
        elif kind == DISCONNECT:
            self.reason = body[0] if body else 0
        else:
            packet_id = 0 if kind in {CONNACK, PINGRESP} else int.from_bytes(body[:2], "big")
            answer = self._answers.pop((kind, packet_id))
            if not answer.done():
                answer.set_result(body)

    def _take_publish(self, first: int, body: bytes) -> None:
        end = 2 + int.from_bytes(body[:2], "big")
        topic = body[2:end].decode()
        if first & 6:
            self._writer.write(b"\x40\x02" + body[end : end + 2])
            end += 2
        if self.version == 5:
            # No property block in these tests is longer than a byte can say.
            end += 1 + body[end]
        self.heard.append((topic, body[end:]))
        self._news.set()


async def opened(
    address: tuple[str, int], client_id: str, version: int = 4, *, clean: bool = True
) -> Talker:
    """Connect again and again until the server answers."""
    async with asyncio.timeout(PATIENCE):
        while True:
            talker = Talker(client_id, version, clean=clean)
            try:
                return await talker.open(address)
            except ConnectionError:
                await asyncio.sleep(0.02)
