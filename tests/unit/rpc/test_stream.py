"""Two ends of a stream in memory: their handshake, its refusals, and the limit of a message."""

import asyncio
import struct
from collections.abc import Callable

import pytest

from robustmq.errors import ProtocolError
from robustmq.rpc import wire
from robustmq.rpc.stream import Identity, Stream
from robustmq.rpc.wire import Frame, Hello, Raft

MOST = 100_000


class Pipe:
    """One direction; also what of grpclib's streams is read from."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._is_over = False
        self._more = asyncio.Event()
        self.changed: Callable[[bytes], bytes] = lambda data: data

    async def send(self, message: bytes) -> None:
        message = self.changed(message)
        self.raw(struct.pack(">BI", 0, len(message)) + message)

    def raw(self, data: bytes) -> None:
        self._bytes += data
        self._more.set()

    def end(self) -> None:
        self._is_over = True
        self._more.set()

    async def recv_data(self, size: int) -> bytes:
        while len(self._bytes) < size and not self._is_over:
            self._more.clear()
            await self._more.wait()
        taken = bytes(self._bytes[:size])
        del self._bytes[:size]
        return taken


class Pair:
    """The caller's stream and the callee's."""

    def __init__(self) -> None:
        self.up, self.down = Pipe(), Pipe()
        self.caller = Stream(self.up.send, lambda: self.down, MOST)
        self.callee = Stream(self.down.send, lambda: self.up, MOST)

    async def shake(self, one: Identity, other: Identity, to: int = -1) -> list[object]:
        calling, answering = self.caller.call(one, to), self.callee.answer(other)
        return [*await asyncio.gather(calling, answering, return_exceptions=True)]


def identity(
    node: int, secret: bytes = b"s" * 16, judge: Callable[[Hello], str | None] = lambda _: None
) -> Identity:
    hello = Hello("cluster", "id", node, f"store-{node}", f"host-{node}:1228")
    return Identity(secret, lambda: hello, judge, lambda: bytes([node]) * wire.NONCE_BYTES)


@pytest.mark.parametrize("secret", [b"", b"s" * 16])
def test_both_know_whom_they_speak_with_and_batches_pass(secret: bytes) -> None:
    async def run() -> None:
        pair = Pair()
        theirs, ours = await pair.shake(identity(1, secret), identity(2, secret), to=2)
        assert isinstance(theirs, Hello)
        assert isinstance(ours, Hello)
        assert (theirs.node, ours.node) == (2, 1)
        batch: list[Frame] = [Raft(b"x" * 1_000)]
        for _ in range(3):
            await pair.caller.send(batch)
            assert await pair.callee.receive() == batch
            await pair.callee.send(batch)
            assert await pair.caller.receive() == batch
        pair.up.end()
        assert await pair.callee.receive() == []

    asyncio.run(run())


@pytest.mark.parametrize(
    ("one", "other"), [(b"a" * 16, b"b" * 16), (b"a" * 16, b""), (b"", b"b" * 16)]
)
def test_who_has_another_secret_is_refused_and_both_hear_it(one: bytes, other: bytes) -> None:
    async def run() -> None:
        pair = Pair()
        ends = asyncio.create_task(pair.shake(identity(1, one), identity(2, other)))
        done, _ = await asyncio.wait({ends}, timeout=5)
        assert done, "neither waits for the other"
        for end in ends.result():
            assert isinstance(end, ProtocolError)

    asyncio.run(run())


def test_who_is_foreign_is_refused_by_either_side_with_the_sentence() -> None:
    async def run() -> None:
        foreign = identity(2, judge=lambda hello: f"{hello.cluster} is foreign")
        caller, callee = await Pair().shake(identity(1), foreign)
        assert str(caller) == "it refuses us: id is foreign"
        assert str(callee) == "id is foreign"
        caller, _ = await Pair().shake(foreign, identity(1))
        assert str(caller) == "id is foreign"

    asyncio.run(run())


def test_who_reaches_another_node_than_it_means_is_told() -> None:
    async def run() -> None:
        caller, callee = await Pair().shake(identity(1), identity(2), to=3)
        assert "this is node 2, not node 3" in str(caller)
        assert "this is node 2, not node 3" in str(callee)

    asyncio.run(run())


@pytest.mark.parametrize("size", [MOST + 1, 0xFFFFFFFF])
def test_a_message_that_is_too_long_is_not_waited_for(size: int) -> None:
    async def run() -> None:
        pair = Pair()
        await pair.shake(identity(1), identity(2))
        pair.up.raw(struct.pack(">BI", 0, size))
        with pytest.raises(ProtocolError, match="are allowed"):
            await pair.callee.receive()

    asyncio.run(run())


def test_before_the_handshake_only_little_is_taken() -> None:
    async def run() -> None:
        pair = Pair()
        pair.up.raw(struct.pack(">BI", 0, wire.HANDSHAKE_BYTES + 1))
        with pytest.raises(ProtocolError, match="are allowed"):
            await pair.callee.answer(identity(2))

    asyncio.run(run())


def test_a_message_that_was_changed_on_the_way_ends_the_stream() -> None:
    async def run() -> None:
        pair = Pair()
        await pair.shake(identity(1), identity(2))
        pair.up.changed = lambda data: data[:-1] + bytes([data[-1] ^ 1])
        await pair.caller.send([Raft(b"content")])
        with pytest.raises(ProtocolError):
            await pair.callee.receive()

    asyncio.run(run())
