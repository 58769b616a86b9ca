"""What lies between nodes: every connection of two nodes passes here, and may be held or broken.

A cut holds bytes, as a network that drops packets does: nobody hears of it, new connections are not
made, and what was sent arrives when the cut is healed, unless the connection is broken then.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from typing import Final

Pair = tuple[int, int]
"""From one node to another."""
Address = tuple[str, int]

_READ: Final = 65_536
_SOCK_DIAG: Final = 4
_BY_FAMILY: Final = 20
_ANY_STATE: Final = 0xFFFF_FFFF
_INODE_AT: Final = 16 + 68


class Wires:
    """Proxies in a thread of their own. `caller(inode)` names the node that has a socket."""

    def __init__(self, caller: Callable[[int], int | None]) -> None:
        self._caller = caller
        self._cuts: set[Pair] = set()
        self._writers: set[tuple[Pair, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wires")
        self._thread.start()

    def lay(self, node: int, front: Address, back: Address) -> None:
        """Let others reach a node's port `back` at `front`."""

        async def serve() -> None:
            await asyncio.start_server(
                lambda reader, writer: self._connected(node, back, reader, writer), *front
            )

        asyncio.run_coroutine_threadsafe(serve(), self._loop).result()

    def cut(self, pairs: Iterable[Pair]) -> None:
        """Let nothing pass from one node to another."""
        self._loop.call_soon_threadsafe(self._cut, {*pairs})

    def heal(self, *, broken: bool) -> None:
        """Let everything pass again; `broken`: connections that were cut end instead."""
        self._loop.call_soon_threadsafe(self._heal, broken)

    def close(self) -> None:
        """End everything."""

        def end() -> None:
            for _, writer in self._writers:
                writer.transport.abort()
            for task in asyncio.all_tasks():
                task.cancel()
            self._loop.call_later(0.1, self._loop.stop)

        self._loop.call_soon_threadsafe(end)
        self._thread.join()
        self._loop.close()

    def _cut(self, pairs: set[Pair]) -> None:
        self._cuts |= pairs

    def _heal(self, broken: bool) -> None:
        if broken:
            for (one, other), writer in self._writers:
                if {(one, other), (other, one)} & self._cuts:
                    writer.transport.abort()
        self._cuts.clear()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _open(self, *pairs: Pair) -> None:
        """Wait until none of these is cut."""
        while self._cuts & {*pairs}:
            await self._changed.wait()

    async def _connected(
        self, node: int, back: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        far, near = (writer.get_extra_info(name) for name in ("peername", "sockname"))
        caller = self._caller(_inode(far, near))
        if caller is None:
            writer.transport.abort()
            return
        there, back_again = (caller, node), (node, caller)
        entries = {(there, writer)}
        self._writers |= entries
        try:
            await self._open(there, back_again)
            far_reader, far_writer = await asyncio.open_connection(*back)
            entries.add((there, far_writer))
            self._writers |= entries
            await asyncio.gather(
                self._carry(there, reader, far_writer), self._carry(back_again, far_reader, writer)
            )
        except (OSError, asyncio.CancelledError):
            # Nobody is there, or all of it ends.
            pass
        finally:
            self._writers -= entries
            for _, each in entries:
                each.transport.abort()

    async def _carry(
        self, pair: Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry bytes one way; the end and an abrupt one pass as bytes do."""
        data = b"more"
        while data:
            try:
                data = await reader.read(_READ)
            except OSError:
                data = b""
            await self._open(pair)
            with contextlib.suppress(OSError, RuntimeError):
                if data:
                    writer.write(data)
                    await writer.drain()
                else:
                    writer.close()


def _inode(one: Address, other: Address) -> int:
    """Return the inode of the socket from one end to another, 0 when there is none (sock_diag(7)).

    The kernel's list of all connections can be very long; this asks for one.
    """
    ports = struct.pack("!HH", one[1], other[1])
    hosts = b"".join(socket.inet_aton(host) + bytes(12) for host, _ in (one, other))
    wanted = ports + hosts + struct.pack("=III", 0, _ANY_STATE, _ANY_STATE)
    body = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, _ANY_STATE) + wanted
    head = struct.pack("=IHHII", 16 + len(body), _BY_FAMILY, 1, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.send(head + body)
        answer = kernel.recv(_READ)
    if len(answer) < _INODE_AT + 4:
        return 0
    return int.from_bytes(answer[_INODE_AT : _INODE_AT + 4], "little")
