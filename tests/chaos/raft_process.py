"""A process with a Raft host and nothing else: peers and clients on one loopback port.

Run as `python -m tests.chaos.raft_process NUMBER PORTS FOLDER [compact_entries]`. A frame is a
length (u32) and bytes. The first one says who comes: `peer N` or `client`. A client sends msgpack
[id, command] and is sent [id, position], position None when it was refused; [id, None] asks for
what is folded here, after a read: [id, [position, chain, leader, start, applied]]; [id, key, 0]
for a row as it is.
"""

import contextlib
import random
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any
from zlib import crc32

import msgspec

from robustmq.errors import Refused
from robustmq.meta.database import RocksdbDatabases
from robustmq.meta.machine import Applied, Outcome, Store
from robustmq.meta.raft_host import Disk, RaftHost
from robustmq.raft.message import Membership
from robustmq.settings.raft import Raft
from robustmq.storage.files import SystemFiles
from robustmq.storage.writer import WriterThread

LENGTH = struct.Struct("<I")
RECONNECT_MS = 50
GROUP = "metadata"


class Chained:
    """A machine that keeps each command once, and a chain over all of them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.position = 0
        self.chain = 0

    def apply(self, index: int, command: bytes) -> bytes:
        self.position, self.chain = index, crc32(command, self.chain)
        self.store.put(b"c" + command[:16], str(index).encode())
        self.store.put(b"#", b"%d %d" % (index, self.chain))
        return b""

    def reload(self) -> None:
        if row := self.store.get(b"#"):
            self.position, self.chain = map(int, row.split())


class Pipe:
    """A socket that carries frames."""

    def __init__(self, sock: socket.socket, is_open: bool) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.is_open = is_open
        self.input = bytearray()
        self.output = bytearray()
        self.is_gone = False
        self.who = ""

    def put(self, data: bytes) -> None:
        self.output += LENGTH.pack(len(data)) + data

    def take(self) -> list[bytes]:
        """Read what is there; raises OSError at the end."""
        with contextlib.suppress(BlockingIOError):
            while data := self.sock.recv(1 << 20):
                self.input += data
                if len(data) < 1 << 20:
                    break
            else:
                raise ConnectionResetError
        frames, at = [], 0
        while len(self.input) - at >= 4:
            (size,) = LENGTH.unpack_from(self.input, at)
            if len(self.input) - at - 4 < size:
                break
            frames.append(bytes(self.input[at + 4 : at + 4 + size]))
            at += 4 + size
        del self.input[:at]
        return frames

    def flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.output:
                del self.output[: self.sock.send(self.output)]


class RaftProcess:
    """The loop. `step` waits for something and does it."""

    def __init__(self, number: int, ports: list[int], folder: str, settings: Raft) -> None:
        self.number = number
        self.ports = dict(enumerate(ports, 1))
        self.selector = selectors.DefaultSelector()
        self.pipes: dict[int, Pipe] = {}
        self.retry_ms: dict[int, int] = {}
        self.listener = socket.create_server(("127.0.0.1", self.ports[number]), reuse_port=False)
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        self.touched: set[Pipe] = set()
        self.machine: Chained | None = None
        self.host = RaftHost(
            me=number,
            groups={GROUP: self.make},
            voters=Membership(tuple(sorted(self.ports))),
            settings=settings,
            timeout_ms=5_000,
            disk=Disk(
                SystemFiles(),
                WriterThread("raft"),
                RocksdbDatabases(settings.store_memory_bytes, settings.store_wal_bytes),
                folder,
            ),
            send=self.send,
            chance=random.random,
            report=lambda sentence: print(f"{number}: {sentence}", file=sys.stderr, flush=True),
            wall_s=int(time.time()),
            now_ms=now(),
        )
        self.selector.register(self.host.fileno(), selectors.EVENT_READ, lambda _: None)

    def make(self, store: Store) -> Chained:
        self.machine = Chained(store)
        return self.machine

    def step(self, most_ms: int = 50) -> None:
        wait = min(max(self.host.next_ms - now(), 0), most_ms)
        for key, events in self.selector.select(wait / 1_000):
            key.data(events)
        self.host.turn(now())
        for pipe in list(self.touched):
            self.flush(pipe)

    def send(self, to: int, data: bytes) -> None:
        pipe = self.pipes.get(to)
        if pipe is None and now() >= self.retry_ms.get(to, 0):
            self.retry_ms[to] = now() + RECONNECT_MS
            sock = socket.socket()
            pipe = self.pipes[to] = Pipe(sock, is_open=False)
            pipe.who = f"peer {to}"
            sock.connect_ex(("127.0.0.1", self.ports[to]))
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            self.selector.register(sock, both, lambda events: self.ready(pipe, events))
            pipe.put(b"peer %d" % self.number)
        if pipe is not None and len(pipe.output) < 64 << 20:
            pipe.put(data)
            self.touched.add(pipe)

    def accept(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            sock, _ = self.listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pipe = Pipe(sock, is_open=True)
            self.selector.register(
                sock, selectors.EVENT_READ, lambda events: self.ready(pipe, events)
            )

    def ready(self, pipe: Pipe, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                for frame in pipe.take():
                    self.take(pipe, frame)
        except OSError:
            self.drop(pipe)
            return
        if events & selectors.EVENT_WRITE:
            pipe.is_open = True
            pipe.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.touched.add(pipe)

    def flush(self, pipe: Pipe) -> None:
        self.touched.discard(pipe)
        if not pipe.is_open or pipe.is_gone:
            return
        try:
            pipe.flush()
        except OSError:
            self.drop(pipe)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if pipe.output else 0)
        key = self.selector.get_key(pipe.sock)
        if key.events != wanted:
            self.selector.modify(pipe.sock, wanted, key.data)

    def drop(self, pipe: Pipe) -> None:
        self.touched.discard(pipe)
        if pipe.is_gone:
            return
        pipe.is_gone = True
        self.selector.unregister(pipe.sock)
        pipe.sock.close()
        for to, each in list(self.pipes.items()):
            if each is pipe:
                del self.pipes[to]
                self.host.unreachable(to)

    def take(self, pipe: Pipe, frame: bytes) -> None:
        if not pipe.who:
            pipe.who = frame.decode()
        elif pipe.who == "client":
            self.serve(pipe, msgspec.msgpack.decode(frame))
        else:
            self.host.receive(int(pipe.who.split()[1]), frame)

    def serve(self, pipe: Pipe, asked: list[Any]) -> None:
        number, command, *row = asked
        machine = self.machine
        assert machine is not None

        def reply(value: object) -> None:
            pipe.put(msgspec.msgpack.encode([number, value]))
            self.touched.add(pipe)

        def done(outcome: Outcome) -> None:
            reply(outcome.position if isinstance(outcome, Applied) else None)

        def read(refused: Refused | None) -> None:
            status = self.host.status()[0]
            state = [machine.position, machine.chain, status.leader, status.start, status.applied]
            reply(None if refused else state)

        if row:
            reply(machine.store.get(b"c" + command[:16]))
        elif command is None:
            self.host.read(GROUP, read)
        else:
            self.host.propose(GROUP, command, done)


def now() -> int:
    return time.monotonic_ns() // 1_000_000


def main(stop: Callable[[], bool] = lambda: False) -> None:
    number, ports, folder, *more = sys.argv[1:]
    settings = Raft(
        election_timeout_ms=400,
        heartbeat_interval_ms=60,
        compact_entries=int(more[0]) if more else 20_000,
        keep_entries=10 if more else 2_000,
        segment_bytes=64 << 10,
        snapshot_part_bytes=8 << 10,
        cache_bytes=32 << 10,
        retry_ms=300,
    )
    process = RaftProcess(int(number), [int(each) for each in ports.split(",")], folder, settings)
    while not stop():
        process.step()


if __name__ == "__main__":
    main()
