"""The side that is called: `grpc_port`, and what comes over it."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import grpclib.server
from grpclib.const import Cardinality, Handler
from grpclib.protocol import H2Protocol

from robustmq.errors import ProtocolError
from robustmq.rpc import wire
from robustmq.rpc.stream import Identity, Plain, Stream
from robustmq.rpc.wire import Call, Hello, Raft, Refusal, Reply

CALLS: Final = 64
"""Calls of one node that are being answered at once; it waits with more."""


class Ears(NamedTuple):
    """Who hears what nodes say.

    `raft(node, frame)` takes Raft messages; `call(caller, kind, body)` answers, or raises
    ValueError with a sentence; `refused(where, reason)` hears of those who were not let in,
    `came(hello)` of those who were.
    """

    raft: Callable[[int, bytes], None]
    call: Callable[[Hello, str, bytes], Awaitable[bytes]]
    refused: Callable[[str, str], None]
    came: Callable[[Hello], None]


class Callee:
    """The gRPC server of a node. One stream a connection, and nobody stays who shows no right."""

    def __init__(
        self,
        identity: Identity,
        ears: Ears,
        *,
        most_bytes: int,
        timeout_s: float,
        max_callers: int,
        context: ssl.SSLContext | None,
    ) -> None:
        self._identity = identity
        self._ears = ears
        self._most_bytes = most_bytes
        self._timeout_s = timeout_s
        self._max_callers = max_callers
        self._context = context
        self._strangers: set[H2Protocol] = set()
        self._open: set[H2Protocol] = set()
        self._server = _Server(self)

    async def listen(self, listener: socket.socket) -> None:
        """Begin to take connections from a bound socket."""
        await self._server.start(sock=listener, ssl=self._context)

    async def close(self) -> None:
        """End the server and its connections."""
        self._server.close()
        for protocol in [*self._open]:
            protocol.connection.close()
        await self._server.wait_closed()

    def came(self, protocol: H2Protocol) -> bool:
        """Hear of a new connection; False when there are too many whom nobody knows yet."""
        if len(self._strangers) >= self._max_callers:
            return False
        self._strangers.add(protocol)
        self._open.add(protocol)
        asyncio.get_running_loop().call_later(self._timeout_s, self._end_stranger, protocol)
        return True

    def went(self, protocol: H2Protocol) -> None:
        """Hear of a connection's end."""
        self._open.discard(protocol)
        self._strangers.discard(protocol)

    def _end_stranger(self, protocol: H2Protocol) -> None:
        if protocol in self._strangers:
            self._strangers.discard(protocol)
            protocol.connection.close()

    async def link(self, stream: "grpclib.server.Stream[bytes, bytes]") -> None:
        """Serve a stream until it ends."""
        where = _where(stream)
        talk = Stream(stream.send_message, lambda: stream._stream, self._most_bytes)
        try:
            async with asyncio.timeout(self._timeout_s):
                caller = await talk.answer(self._identity)
            self._known(stream)
            self._ears.came(caller)
            await self._serve(talk, caller)
        except ProtocolError as error:
            self._ears.refused(where, error.detail)
        except TimeoutError:
            self._ears.refused(where, "it did not say who it is in time")

    def _known(self, stream: "grpclib.server.Stream[bytes, bytes]") -> None:
        for protocol in [*self._strangers]:
            if protocol.connection is stream._stream.connection:
                self._strangers.discard(protocol)

    async def _serve(self, talk: Stream, caller: Hello) -> None:
        room = asyncio.Semaphore(CALLS)
        tasks: set[asyncio.Task[None]] = set()
        try:
            while batch := await talk.receive():
                for frame in batch:
                    match frame:
                        case Raft(data):
                            self._ears.raft(caller.node, data)
                        case Call():
                            await room.acquire()
                            task = asyncio.create_task(self._reply(talk, caller, frame, room))
                            tasks.add(task)
                            task.add_done_callback(tasks.discard)
                        case Reply() | Refusal():
                            raise ProtocolError(0, "an answer that nobody has asked for")
        finally:
            for task in tasks:
                task.cancel()

    async def _reply(
        self, talk: Stream, caller: Hello, call: Call, room: asyncio.Semaphore
    ) -> None:
        try:
            try:
                body = b""
                if call.kind != wire.PING:
                    body = await self._ears.call(caller, call.kind, call.body)
                reply = Reply(call.number, body)
            except ValueError as error:
                reply = Reply(call.number, refused=str(error))
            if call.number:
                await talk.send([reply])
        finally:
            room.release()


class _Server(grpclib.server.Server):
    """grpclib's server, whose connections are counted until they have shown who they are."""

    def __init__(self, callee: Callee) -> None:
        super().__init__([_Service(callee)], codec=Plain())
        self._callee = callee

    def _protocol_factory(self) -> H2Protocol:
        self.__gc_step__()
        handler = grpclib.server.Handler(
            self._mapping, self._codec, self._status_details_codec, self.__dispatch__
        )
        self._handlers.add(handler)
        return _Guarded(self._callee, handler, self._config, self._h2_config)


class _Guarded(H2Protocol):
    def __init__(self, callee: Callee, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._callee = callee

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._callee.came(self):
            self.connection.close()

    def connection_lost(self, error: BaseException | None) -> None:
        self._callee.went(self)
        super().connection_lost(error)


class _Service:
    def __init__(self, callee: Callee) -> None:
        self._callee = callee

    def __mapping__(self) -> dict[str, Handler]:
        return {wire.METHOD: Handler(self._callee.link, Cardinality.STREAM_STREAM, bytes, bytes)}


def _where(stream: "grpclib.server.Stream[bytes, bytes]") -> str:
    address = stream.peer.addr()
    return f"{address[0]}:{address[1]}" if address else "somewhere"
