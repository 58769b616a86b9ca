"""Three processes with Raft hosts on loopback: the time of one proposal, and proposals a second.

`leader` and `follower` say whose client it is. One in flight gives the time from asking to the
answer, many give the rate; every answer follows the disks of a majority.
Run as `python -m perf.micro.raft_host [--seconds 3] [--size 100] [--depth 2000] [--directory DIR]`;
DIR decides which disk.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psutil

from tests.chaos.raft_process import LENGTH
from tests.chaos.test_raft_kill import Client
from tests.integration.mosquitto import fixed_port


class Rate:
    """What was measured of one client."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.answered = 0
        self.refused = 0
        self.seconds = 0.0
        self.cpu = 0.0
        """Seconds of processor of the three."""


def measured(client: Client, depth: int, size: int, seconds: float) -> Rate:
    """Keep `depth` proposals in flight for a time."""
    rate, sent, began = Rate(), 0, {0: 0.0}
    start = time.perf_counter()
    end = start + seconds
    began.clear()
    while (now := time.perf_counter()) < end or began:
        frames = bytearray()
        while now < end and len(began) < depth:
            sent += 1
            data = msgspec.msgpack.encode([sent, b"%016d" % (sent % 100_000) + bytes(size - 16)])
            frames += LENGTH.pack(len(data)) + data
            began[sent] = now
        if frames:
            client.sock.settimeout(None)
            client.sock.sendall(frames)
        for number, position in client.receive(10.0):
            rate.times.append(time.perf_counter() - began.pop(number))
            rate.answered += position is not None
            rate.refused += position is None
    rate.seconds = time.perf_counter() - start
    return rate


def shown(name: str, depth: int, rate: Rate) -> str:
    """Say what was measured."""
    times = sorted(rate.times)
    p50, p99 = statistics.median(times), times[len(times) * 99 // 100]
    return (
        f"{name:<9} {depth:>6} in flight  p50 {p50 * 1e3:8.2f} ms  p99 {p99 * 1e3:8.2f} ms  "
        f"{rate.answered / rate.seconds:9.0f}/s  "
        f"cpu of all three {rate.cpu / max(rate.answered, 1) * 1e6:6.0f} us each  "
        f"refused {rate.refused}"
    )


def spent(processes: Sequence[subprocess.Popen[bytes]]) -> float:
    """Return the processor's seconds of processes so far."""
    times = [psutil.Process(each.pid).cpu_times() for each in processes]
    return float(sum(each.user + each.system for each in times))


def connected(port: int) -> Client:
    """Return a client as soon as the process listens."""
    end = time.monotonic() + 30
    while True:
        try:
            return Client(port)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def run(place: Path, arguments: argparse.Namespace) -> None:
    """Start the three, and measure."""
    ports = [fixed_port() for _ in range(3)]
    command = [sys.executable, "-m", "tests.chaos.raft_process"]
    joined = ",".join(map(str, ports))
    processes = [
        subprocess.Popen([*command, str(number), joined, f"{place}/{number}/meta"])
        for number in (1, 2, 3)
    ]
    try:
        clients = {number: connected(port) for number, port in enumerate(ports, 1)}
        while (state := clients[1].ask(None)) is None or state[2] is None:
            time.sleep(0.1)
        leader = state[2]
        follower = next(number for number in clients if number != leader)
        for name, number in (("leader", leader), ("follower", follower)):
            for depth in (1, 64, arguments.depth):
                before = spent(processes)
                rate = measured(clients[number], depth, arguments.size, arguments.seconds)
                rate.cpu = spent(processes) - before
                print(shown(name, depth, rate), flush=True)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--depth", type=int, default=2_000)
    parser.add_argument("--directory")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(dir=arguments.directory))
    try:
        run(place, arguments)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
