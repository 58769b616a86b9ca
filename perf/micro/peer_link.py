"""Frames per second from a core of one node to a core of another: our link, and a gRPC stream.

Two processes over loopback, each on its own. `link`: `workers.peers` as workers drive it, a batch
of frames a turn. `grpc`: one bidirectional stream of grpclib, a message per frame; gathered: the
frames of a turn as one message, which the receiver does not take apart. The receiver counts; the
CPU time is that of both processes. Run as `python perf/micro/peer_link.py [--seconds 2]`.
"""

import argparse
import asyncio
import mmap
import os
import resource
import signal
import socket
import time
from collections.abc import Callable

from grpclib.client import Channel
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream

from robustmq.rpc.stream import Plain
from robustmq.settings.cluster import Cluster
from tests.peer_shell import Shell, nodes

A = 1 + 1 << 10
B = 2 + 1 << 10
SIZES = (100, 1_000, 10_000, 100_000)
TURN_BYTES = 131_072
SETTINGS = Cluster()
PATH = "/perf.Peer/Frames"


def batch(size: int) -> list[bytes]:
    """Return the frames of a turn."""
    return [os.urandom(size) for _ in range(max(1, min(500, TURN_BYTES // size)))]


class Report:
    """What the receiving process has counted, in memory that both see."""

    def __init__(self) -> None:
        self.cells = memoryview(mmap.mmap(-1, 4_096)).cast("Q")

    def count(self, frames: int) -> None:
        """Count frames that have arrived, and the time that they took of the CPU."""
        self.cells[0] += frames
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.cells[1] = int((used.ru_utime + used.ru_stime) * 1e9)


# ------------------------------------------------------------------ our link


def receive_link(ports: tuple[int, int], report: Report) -> None:
    """Be core B and count what comes."""
    shell = Shell(2, port=ports[1], settings=SETTINGS)
    heard = [0]

    def handle(_source: int, _frame: bytes) -> None:
        heard[0] += 1

    shell.peers.handle = handle
    shell.peers.update("perf", nodes((1, ports[0]), (2, ports[1])))
    while True:
        shell.poller.wait(10)
        report.count(heard[0])
        heard[0] = 0


def send_link(ports: tuple[int, int], size: int, seconds: float) -> None:
    """Be core A and say as much as is taken."""
    shell = Shell(1, port=ports[0], settings=SETTINGS)
    shell.peers.update("perf", nodes((1, ports[0]), (2, ports[1])))
    frames = batch(size)
    shell.step()
    line = shell.peers.lines[B]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if line.backlog_bytes < 4 << 20:
            for frame in frames:
                line.send(frame)
            shell.step()
        else:
            shell.poller.wait(1)
    while line.backlog_bytes:
        shell.poller.wait(1)


# ------------------------------------------------------------------ a gRPC stream


class Frames:
    """The service."""

    def __init__(self, report: Report, together: int) -> None:
        self._report = report
        self._together = together

    async def frames(self, stream: "Stream[bytes, bytes]") -> None:
        """Count what comes."""
        async for _ in stream:
            self._report.count(self._together)
        await stream.send_message(b"done")

    def __mapping__(self) -> dict[str, Handler]:
        return {PATH: Handler(self.frames, Cardinality.STREAM_STREAM, bytes, bytes)}


def receive_grpc(port: int, report: Report, together: int) -> None:
    """Serve the stream."""

    async def serve() -> None:
        server = Server([Frames(report, together)], codec=Plain())
        await server.start("127.0.0.1", port)
        await server.wait_closed()

    asyncio.run(serve())


def send_grpc(port: int, size: int, seconds: float, together: int) -> None:
    """Say as much as is taken."""

    async def send() -> None:
        channel = Channel("127.0.0.1", port, codec=Plain())
        frames = batch(size)
        call = channel.request(PATH, Cardinality.STREAM_STREAM, bytes, bytes)
        async with call as stream:
            await stream.send_request()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for at in range(0, len(frames), together):
                    await stream.send_message(b"".join(frames[at : at + together]))
            await stream.end()
            await stream.recv_message()
        channel.close()

    asyncio.run(send())


# ------------------------------------------------------------------ the measurement


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def measure(receive: Callable[[Report], None], send: Callable[[], None]) -> tuple[float, float]:
    """Return frames per second and microseconds of CPU per frame, of both processes."""
    report = Report()
    child = os.fork()
    if child == 0:
        receive(report)
    try:
        time.sleep(0.5)
        before = time.process_time()
        begin = time.monotonic()
        send()
        took = time.monotonic() - begin
        own = time.process_time() - before
        count = report.cells[0]
        return count / took, (own * 1e9 + report.cells[1]) / 1_000 / max(count, 1)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def over_link(size: int, seconds: float) -> tuple[float, float]:
    """Measure our link."""
    ports = free_port(), free_port()
    return measure(
        lambda report: receive_link(ports, report), lambda: send_link(ports, size, seconds)
    )


def over_grpc(size: int, seconds: float, together: int) -> tuple[float, float]:
    """Measure a stream with so many frames in a message."""
    port = free_port()
    return measure(
        lambda report: receive_grpc(port, report, together),
        lambda: send_grpc(port, size, seconds, together),
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    seconds = parser.parse_args().seconds
    print(f"{'':>15} {'bytes':>8} {'frames/s':>10} {'MB/s':>8} {'us CPU/frame':>13}")
    for size in SIZES:
        for name, (rate, cost) in (
            ("link", over_link(size, seconds)),
            ("grpc", over_grpc(size, seconds, 1)),
            ("grpc, gathered", over_grpc(size, seconds, len(batch(size)))),
        ):
            print(f"{name:>15} {size:>8} {rate:>10,.0f} {rate * size / 1e6:>8.1f} {cost:>13.2f}")


if __name__ == "__main__":
    main()
