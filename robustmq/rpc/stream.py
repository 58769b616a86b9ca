"""A gRPC stream between two nodes: its handshake, and messages with a limit.

grpclib trusts a length of 4 GiB that a peer writes; here a message is taken by its parts, and
refused when it is longer than it may be.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from grpclib.encoding.base import CodecBase

from robustmq.errors import ProtocolError
from robustmq.rpc import wire
from robustmq.rpc.wire import Frame, Greeting, Hello, Refusal, Seal

_HEAD: Final = struct.Struct(">BI")


class Plain(CodecBase):
    """Bytes as they are: what they mean is `wire`'s business."""

    __content_subtype__ = "robustmq"

    def encode(self, message: bytes, message_type: type[bytes]) -> bytes:  # noqa: ARG002
        """Return the message."""
        return message

    def decode(self, data: bytes, message_type: type[bytes]) -> bytes:  # noqa: ARG002
        """Return the data."""
        return data


class Data(Protocol):
    """What of grpclib's streams is used: of `grpclib.protocol.Stream`."""

    async def recv_data(self, size: int) -> bytes:
        """Return so many bytes; b"" at the end."""
        ...


class Identity(NamedTuple):
    """Who we are, and how strangers are told from nodes.

    `hello()` is what we say of ourselves; `judge(theirs)` is a sentence when they are refused.
    `nonce()` is `NONCE_BYTES` of chance.
    """

    secret: bytes
    hello: Callable[[], Hello]
    judge: Callable[[Hello], str | None]
    nonce: Callable[[], bytes]


class Stream:
    """One connection's stream: `shake` hands first, then `send` and `receive` batches.

    `send_message` and `data` are grpclib's; `most_bytes` bounds a message.
    """

    def __init__(
        self, send_message: Callable[[bytes], Any], data: Callable[[], Data], most_bytes: int
    ) -> None:
        self._send = send_message
        self._data = data
        self._most_bytes = most_bytes
        self._out = self._in = Seal(b"", b"")
        self._sending = asyncio.Lock()

    async def call(self, own: Identity, to: int) -> Hello:
        """Be the caller: show who we are, and return who they are; raises ProtocolError."""
        ours = Greeting(wire.VERSION, own.nonce())
        await self._send(wire.encode(ours))
        theirs = wire.greeting(await self._receive(wire.HANDSHAKE_BYTES))
        key = wire.key_of(own.secret, ours, theirs)
        self._out, self._in = Seal(key, wire.CALLER), Seal(key, wire.CALLEE)
        await self._say(msgspec.structs.replace(own.hello(), to=to))
        answer = await self._receive(wire.HANDSHAKE_BYTES)
        found = wire.hello(_opened(self._in, answer))
        if to not in {-1, found.node}:
            raise ProtocolError(0, f"node {found.node} is there, not node {to}: see meta_addrs")
        if reason := own.judge(found):
            raise ProtocolError(0, reason)
        return found

    async def answer(self, own: Identity) -> Hello:
        """Be the callee: return who calls; raises ProtocolError, and they have been told why."""
        theirs = wire.greeting(await self._receive(wire.HANDSHAKE_BYTES))
        ours = Greeting(wire.VERSION, own.nonce())
        await self._send(wire.encode(ours))
        key = wire.key_of(own.secret, theirs, ours)
        self._out, self._in = Seal(key, wire.CALLEE), Seal(key, wire.CALLER)
        data = await self._receive(wire.HANDSHAKE_BYTES)
        try:
            found = wire.hello(self._in.open(data))
        except ProtocolError as error:
            # What has no right code is told without one.
            await self._send(wire.encode(Refusal(error.detail)))
            raise
        if reason := self._fault(found, own):
            await self._say(Refusal(reason))
            raise ProtocolError(0, reason)
        await self._say(own.hello())
        return found

    @staticmethod
    def _fault(theirs: Hello, own: Identity) -> str | None:
        ours = own.hello()
        if theirs.to not in {-1, ours.node}:
            return f"this is node {ours.node}, not node {theirs.to}: see meta_addrs"
        return own.judge(theirs)

    async def _say(self, message: Hello | Refusal) -> None:
        await self._send(self._out.close(wire.encode(message)))

    async def send(self, batch: list[Frame]) -> None:
        """Send frames as one message."""
        data = wire.encode(batch)
        async with self._sending:
            # A message that waits for room in the window would let another one into its middle.
            await self._send(self._out.close(data))

    async def receive(self) -> list[Frame]:
        """Return the next batch, [] at the end of the stream; raises ProtocolError."""
        data = await self._receive(self._most_bytes)
        return wire.frames(self._in.open(data)) if data else []

    async def _receive(self, most_bytes: int) -> bytes:
        stream = self._data()
        try:
            head = await stream.recv_data(_HEAD.size)
            if not head:
                return b""
            compressed, size = _HEAD.unpack(head)
            if compressed or size > most_bytes:
                raise ProtocolError(0, f"a message of {size} bytes; {most_bytes} are allowed")
            return await stream.recv_data(size) if size else b""
        except AssertionError:
            # What grpclib raises then.
            raise ProtocolError(0, "the stream ended within a message") from None


def _opened(seal: Seal, data: bytes) -> bytes:
    """Open the callee's hello; a refusal for a wrong secret has no code, as it cannot have one."""
    try:
        return seal.open(data)
    except ProtocolError:
        try:
            refusal = msgspec.msgpack.decode(data, type=Refusal)
        except msgspec.DecodeError:
            raise ProtocolError(0, wire.WRONG_SECRET) from None
        raise ProtocolError(0, f"it refuses us: {refusal.detail}") from None
