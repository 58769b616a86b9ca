"""Nodes that call each other over real sockets on loopback."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from robustmq.net.trust import Trust, read_trust
from robustmq.rpc import wire
from robustmq.rpc.callee import Callee, Ears
from robustmq.rpc.caller import Lines, Terms
from robustmq.rpc.stream import Identity
from robustmq.rpc.wire import Hello, Unreachable
from robustmq.settings.cluster import Cluster
from tests.authority import Authority

MOST = 1 << 20
SECRET = b"s" * 16


class Nodes:
    """Node 1 listens, node 2 calls it."""

    def __init__(
        self, *, max_callers: int = 8, backlog: int = 64 << 20, trust: Trust | None = None
    ) -> None:
        self.trust = trust or Trust(SECRET)
        self.heard: list[bytes] = []
        self.refused: list[str] = []
        self.met: list[int] = []
        self.lost: list[int] = []
        ears = Ears(
            lambda _node, frame: self.heard.append(frame),
            self._call,
            lambda _where, reason: self.refused.append(reason),
            lambda hello: self.met.append(hello.node),
        )
        self._ears = ears
        self._max_callers = max_callers
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.address: tuple[str, int] = self.listener.getsockname()
        self.terms = Terms(MOST, backlog, 5.0, 0.01, 0.05, self.trust.client)
        self.lines = self.new_lines(2, self.trust.secret)
        self.callee = self.new_callee()

    def new_callee(self) -> Callee:
        return Callee(
            identity(1, self.trust.secret),
            self._ears,
            most_bytes=MOST,
            timeout_s=1.0,
            max_callers=self._max_callers,
            context=self.trust.server,
        )

    def new_lines(self, node: int, secret: bytes) -> Lines:
        return Lines(
            identity(node, secret),
            self.terms,
            met=lambda _hello: None,
            lost=self.lost.append,
            refused=lambda _node, reason: self.refused.append(reason),
        )

    async def begin(self) -> None:
        await self.callee.listen(self.listener)
        self.lines.update({1: self.address})
        await until(lambda: self.lines.connected() == [1])

    async def _call(self, caller: Hello, kind: str, body: bytes) -> bytes:
        if kind == "no":
            raise ValueError("it is not done")
        if kind == "late":
            await asyncio.sleep(60)
        return f"{caller.node} {kind} ".encode() + body

    async def close(self) -> None:
        await self.lines.close()
        await self.callee.close()


def identity(node: int, secret: bytes) -> Identity:
    hello = Hello("cluster", "", node, f"store-{node}", "127.0.0.1:1")
    return Identity(secret, lambda: hello, lambda _: None, lambda: os.urandom(wire.NONCE_BYTES))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def on_loop(test: Callable[[Nodes], Awaitable[None]], **arguments: Any) -> None:  # noqa: ANN401
    async def run() -> None:
        nodes = Nodes(**arguments)
        await nodes.begin()
        try:
            await test(nodes)
        finally:
            await nodes.close()

    asyncio.run(run())


def test_frames_arrive_in_order_and_calls_are_answered() -> None:
    async def test(nodes: Nodes) -> None:
        sent = [str(number).encode() * (number % 50 + 1) for number in range(2_000)]
        sent.append(b"long" * 200_000)
        for frame in sent:
            nodes.lines.raft(1, frame)
        await until(lambda: len(nodes.heard) == len(sent))
        assert nodes.heard == sent
        assert await nodes.lines.call(1, "do", b"this", 20) == b"2 do this"
        with pytest.raises(ValueError, match="it is not done"):
            await nodes.lines.call(1, "no", b"", 20)
        with pytest.raises(Unreachable, match="has not answered"):
            await nodes.lines.call(1, "late", b"", 0.05)
        with pytest.raises(Unreachable, match="not known"):
            await nodes.lines.call(3, "do", b"", 1)

    on_loop(test)


def test_what_waits_for_a_node_is_bounded() -> None:
    async def test(nodes: Nodes) -> None:
        for _ in range(10):
            nodes.lines.raft(1, bytes(400_000))
        assert nodes.lines.dropped == 8
        await until(lambda: len(nodes.heard) == 2)

    on_loop(test, backlog=1_000_000)


def test_a_line_is_made_again_when_the_node_is_back() -> None:
    async def test(nodes: Nodes) -> None:
        waiting = asyncio.create_task(nodes.lines.call(1, "late", b"", 20))
        await asyncio.sleep(0.05)
        await nodes.callee.close()
        with pytest.raises(Unreachable):
            await waiting
        await until(lambda: not nodes.lines.connected())
        assert nodes.lost == [1]
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(nodes.address)
        listener.setblocking(False)
        nodes.callee = nodes.new_callee()
        await nodes.callee.listen(listener)
        await until(lambda: nodes.lines.connected() == [1])
        assert await nodes.lines.call(1, "do", b"", 20) == b"2 do "

    on_loop(test)


def test_a_stranger_hears_why_and_is_not_let_in() -> None:
    async def test(nodes: Nodes) -> None:
        strange = nodes.new_lines(3, b"quite another one")
        strange.update({1: nodes.address})
        await until(lambda: len(nodes.refused) >= 2)
        assert all("secret" in reason for reason in nodes.refused)
        assert strange.connected() == []
        await strange.close()

    on_loop(test)


def test_who_says_nothing_is_not_kept() -> None:
    async def test(nodes: Nodes) -> None:
        reader, writer = await asyncio.open_connection(*nodes.address)
        async with asyncio.timeout(20):
            while await reader.read(1_000):
                pass
        writer.close()

    on_loop(test)


def test_strangers_are_counted() -> None:
    async def test(nodes: Nodes) -> None:
        idle = [await asyncio.open_connection(*nodes.address) for _ in range(2)]
        reader, writer = await asyncio.open_connection(*nodes.address)
        async with asyncio.timeout(20):
            # The third is closed at once, whatever the others do.
            while await reader.read(1_000):
                pass
        for _, each in (*idle, (reader, writer)):
            each.close()
        assert await nodes.lines.call(1, "do", b"", 20) == b"2 do "

    on_loop(test, max_callers=2)


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100]
)
def test_other_bytes_do_no_harm(data: bytes) -> None:
    async def test(nodes: Nodes) -> None:
        reader, writer = await asyncio.open_connection(*nodes.address)
        writer.write(data)
        async with asyncio.timeout(20):
            while await reader.read(1_000):
                pass
        writer.close()
        assert await nodes.lines.call(1, "do", b"", 20) == b"2 do "

    on_loop(test)


def test_a_node_that_is_there_and_silent_is_given_up() -> None:
    async def run() -> None:
        nodes = Nodes()
        nodes.terms = nodes.terms._replace(timeout_s=0.3)
        nodes.lines = nodes.new_lines(2, SECRET)
        await nodes.begin()
        # What it is sent is taken by its kernel, and by nobody else.
        for protocol in nodes.callee._open:
            protocol.connection._transport.pause_reading()
        await until(lambda: nodes.lost == [1])
        await nodes.close()

    asyncio.run(run())


def _trust(directory: Path) -> Trust:
    authority = Authority(directory)
    authority.issue("node", "node", ())
    cert, key, ca = (str(directory / name) for name in ("node.pem", "node.key", "ca.pem"))
    return read_trust(Cluster(tls_cert=cert, tls_key=key, tls_ca=ca))


def test_with_certificates_of_the_cluster_no_secret_is_needed(tmp_path: Path) -> None:
    async def run() -> None:
        nodes = Nodes(trust=_trust(tmp_path / "ours"))
        await nodes.begin()
        assert await nodes.lines.call(1, "do", b"", 20) == b"2 do "
        foreign = _trust(tmp_path / "theirs")
        for context in (foreign.client, None):
            nodes.terms = nodes.terms._replace(context=context)
            strange = nodes.new_lines(3, b"")
            strange.update({1: nodes.address})
            # It tries again and again: nobody is let in, and nobody is met.
            await asyncio.sleep(0.2)
            assert strange.connected() == []
            await strange.close()
        assert any("TLS is not possible" in reason for reason in nodes.refused)
        assert nodes.met == [2]
        await nodes.close()

    asyncio.run(run())


def test_a_node_that_moves_is_called_where_it_is() -> None:
    async def test(nodes: Nodes) -> None:
        nodes.lines.update({})
        assert nodes.lines.connected() == []
        nodes.lines.update({1: ("127.0.0.1", 1)})
        nodes.lines.update({1: nodes.address})
        await until(lambda: nodes.lines.connected() == [1])

    on_loop(test)
