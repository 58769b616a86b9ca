"""The side that calls: one connection to each other node, made again whenever it ends."""

import asyncio
import itertools
import ssl
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final, NamedTuple

from grpclib.client import Channel, StreamStreamMethod
from grpclib.exceptions import GRPCError, StreamTerminatedError

from robustmq.errors import ProtocolError
from robustmq.rpc import wire
from robustmq.rpc.stream import Identity, Plain, Stream
from robustmq.rpc.wire import Call, Frame, Hello, Raft, Reply, Unreachable

ANYBODY: Final = -1
BATCH_BYTES: Final = 1 << 20
"""Bytes of frames that are sent as one message, unless a single frame is longer."""


class Terms(NamedTuple):
    """What holds for every call; times in seconds, sizes in bytes."""

    most_bytes: int
    backlog_bytes: int
    timeout_s: float
    retry_min_s: float
    retry_max_s: float
    context: ssl.SSLContext | None


class Line:
    """The connection to one node.

    `met(hello)` hears when it is made, `lost(node)` when it has ended, `refused(node, reason)` when
    one of the two does not want the other.
    `node` is whom we expect at `address` (host, port); ANYBODY: whoever is there.
    """

    def __init__(
        self,
        node: int,
        address: tuple[str, int],
        identity: Identity,
        terms: Terms,
        *,
        met: Callable[[Hello], None],
        lost: Callable[[int], None],
        refused: Callable[[int, str], None],
    ) -> None:
        self.node = node
        self.address = address
        self.is_connected = False
        self.dropped = 0
        self._is_closing = False
        self._identity = identity
        self._terms = terms
        self._met = met
        self._ended = lost
        self._refused = refused
        self._waiting: list[Frame] = []
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._numbers = itertools.count(1)
        self._task = asyncio.create_task(self._live())

    def raft(self, frame: bytes) -> None:
        """Send a frame, or drop it when the node is not there or far behind."""
        if self.is_connected and self._waiting_bytes + len(frame) <= self._terms.backlog_bytes:
            self._put(Raft(frame), len(frame))
        else:
            self.dropped += 1

    def tell(self, kind: str, body: bytes) -> None:
        """Send a call that nobody answers, or drop it likewise."""
        if self.is_connected and self._waiting_bytes + len(body) <= self._terms.backlog_bytes:
            self._put(Call(0, kind, body), len(body))

    async def call(self, kind: str, body: bytes, seconds: float) -> bytes:
        """Ask; raises Unreachable, or ValueError with the sentence of a refusal."""
        if not self.is_connected:
            raise Unreachable(f"node {self.node} is not connected")
        number = next(self._numbers)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        self._put(Call(number, kind, body), len(body))
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            raise Unreachable(f"node {self.node} has not answered within {seconds:g} s") from None
        finally:
            self._calls.pop(number, None)

    async def close(self) -> None:
        """End the connection, for good."""
        # grpclib cancels tasks, too, and then what it raises takes the place of our cancellation.
        self._is_closing = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _put(self, frame: Frame, size: int) -> None:
        self._waiting.append(frame)
        self._waiting_bytes += size
        self._wake.set()

    async def _live(self) -> None:
        terms = self._terms
        wait_s = terms.retry_min_s
        while not self._is_closing:
            try:
                await self._connect()
                wait_s = terms.retry_min_s
            except ProtocolError as error:
                self._refused(self.node, error.detail)
                wait_s = terms.retry_max_s
            except ssl.SSLError as error:
                self._refused(self.node, f"TLS is not possible with it: {error.reason or error}")
                wait_s = terms.retry_max_s
            except (OSError, TimeoutError, Unreachable, GRPCError, StreamTerminatedError):
                # Nobody there, or not any more: what is usual while nodes come and go.
                wait_s = min(wait_s * 2, terms.retry_max_s)
            except Exception as error:
                # Whatever a peer makes a library stumble over ends this connection, not the line.
                self._refused(self.node, f"{type(error).__name__}: {error}")
                wait_s = terms.retry_max_s
            finally:
                self._lost()
            if not self._is_closing:
                await asyncio.sleep(wait_s)

    async def _connect(self) -> None:
        terms = self._terms
        host, port = self.address
        channel = Channel(host, port, codec=Plain(), ssl=terms.context)
        try:
            method = StreamStreamMethod(channel, wire.METHOD, bytes, bytes)
            async with method.open() as stream:
                talk = Stream(stream.send_message, lambda: stream._stream, terms.most_bytes)
                async with asyncio.timeout(terms.timeout_s):
                    await stream.send_request()
                    # What waits for bytes must hear of the connection's end: it is woken by this.
                    with stream._wrapper:
                        hello = await talk.call(self._identity, self.node)
                self.is_connected = True
                self._met(hello)
                await self._pass(talk, stream._wrapper)
                await stream.cancel()
        finally:
            channel.close()

    async def _pass(self, talk: Stream, ended: AbstractContextManager[None]) -> None:
        """Send and receive until either ends, the connection does, or the node says nothing."""
        tasks = [
            asyncio.create_task(self._send(talk)),
            asyncio.create_task(self._hear(talk, ended)),
            asyncio.create_task(self._watch()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        """Ask now and then whether the node is there: a cut is not told to who only sends."""
        seconds = self._terms.timeout_s
        while True:
            await asyncio.sleep(seconds / 2)
            await self.call(wire.PING, b"", seconds)

    async def _send(self, talk: Stream) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await talk.send(self._batch())

    def _batch(self) -> list[Frame]:
        """Take what fits into one message, at least one frame."""
        size = taken = 0
        room = min(BATCH_BYTES, self._terms.most_bytes // 2)
        for frame in self._waiting:
            size += _size(frame)
            if taken and size > room:
                size -= _size(frame)
                break
            taken += 1
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        self._waiting_bytes -= size
        return batch

    async def _hear(self, talk: Stream, ended: AbstractContextManager[None]) -> None:
        with ended:
            while batch := await talk.receive():
                for frame in batch:
                    self._answered(frame)

    def _answered(self, frame: Frame) -> None:
        if not isinstance(frame, Reply):
            raise ProtocolError(0, "a node that was called asks instead of answering")
        answer = self._calls.get(frame.number)
        if answer is None or answer.done():
            return
        if frame.refused:
            answer.set_exception(ValueError(frame.refused))
        else:
            answer.set_result(frame.body)

    def _lost(self) -> None:
        if self.is_connected:
            self.is_connected = False
            self._ended(self.node)
        self._waiting, self._waiting_bytes = [], 0
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(Unreachable(f"the connection to node {self.node} was lost"))


class Lines:
    """The connections to all other nodes."""

    def __init__(
        self,
        identity: Identity,
        terms: Terms,
        met: Callable[[Hello], None],
        lost: Callable[[int], None],
        refused: Callable[[int, str], None],
    ) -> None:
        self._identity = identity
        self._terms = terms
        self._met = met
        self._lost = lost
        self._refused = refused
        self._lines: dict[int, Line] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def update(self, addresses: Mapping[int, tuple[str, int]]) -> None:
        """Call these nodes and no others from now on."""
        for node, line in [*self._lines.items()]:
            if addresses.get(node) != line.address:
                del self._lines[node]
                task = asyncio.create_task(line.close())
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)
        for node, address in addresses.items():
            if node not in self._lines:
                self._lines[node] = Line(
                    node,
                    address,
                    self._identity,
                    self._terms,
                    met=self._met,
                    lost=self._lost,
                    refused=self._refused,
                )

    def raft(self, node: int, frame: bytes) -> None:
        """Send a frame of Raft messages to a node; what cannot be sent is dropped."""
        if line := self._lines.get(node):
            line.raft(frame)

    def tell(self, node: int, kind: str, body: bytes) -> None:
        """Tell a node something that it does not answer."""
        if line := self._lines.get(node):
            line.tell(kind, body)

    async def call(self, node: int, kind: str, body: bytes, seconds: float) -> bytes:
        """Ask a node; raises Unreachable, or ValueError with the sentence of a refusal."""
        line = self._lines.get(node)
        if line is None:
            raise Unreachable(f"node {node} is not known here")
        return await line.call(kind, body, seconds)

    def connected(self) -> list[int]:
        """Return the nodes that are connected, ascending."""
        return sorted(node for node, line in self._lines.items() if line.is_connected)

    @property
    def dropped(self) -> int:
        """Frames that were not sent."""
        return sum(line.dropped for line in self._lines.values())

    async def close(self) -> None:
        """End all connections."""
        lines, self._lines = self._lines, {}
        await asyncio.gather(*(line.close() for line in lines.values()), *self._ending)


def _size(frame: Frame) -> int:
    match frame:
        case Raft(data):
            return len(data)
        case Call(_, _, body) | Reply(_, body):
            return len(body)
    return 0
