"""What an offline durable session costs in memory and on disk, with one private filter each.

`python -m perf.micro.offline_sessions [--sessions 1000000]`: so many clients connect with a session
that outlives the connection, subscribe at QoS 1 to a filter of their own, and leave. The memory of
all processes of the broker is read before and after.
"""

import argparse
import signal
import time
from pathlib import Path

from perf import brokers, generator, processes
from perf.generator import Load, Report

SETTLE_SECONDS = 3.0
PART = 100_000
KIB = 1024
MIB = 1 << 20


def _disk(directory: Path) -> int:
    """Bytes of disk that the files under a directory take."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return sum(path.stat().st_blocks * 512 for path in files)


def _fill(port: int, first: int, sessions: int, options: argparse.Namespace) -> Report:
    load = Load("offline", 0, sessions, qos=1, protocol=options.protocol)
    words = ("--first", str(first), "--parallel", str(options.parallel), "--timeout", "1200")
    return generator.run(load, port, options=words)


def measure(options: argparse.Namespace) -> None:
    """Run one peer and print what its sessions cost."""
    with brokers.running(options.peer, options.workers, {}, options.directory) as broker:
        time.sleep(SETTLE_SECONDS)
        before = processes.memory(broker.pid), processes.resident(broker.pid)
        clock, start = time.monotonic(), processes.cpu(broker.pid)
        for first in range(0, options.sessions, PART):
            count = min(PART, options.sessions - first)
            report = _fill(broker.port, first, count, options)
            done, rate = first + count, report.connect_rate
            grown = (processes.memory(broker.pid) - before[0]) / done
            print(f"{done:>9} sessions, {rate:7.0f}/s, {grown:7.0f} bytes each", flush=True)
        seconds = time.monotonic() - clock
        spent = processes.cpu(broker.pid).since(start)
        time.sleep(SETTLE_SECONDS)
        after = processes.memory(broker.pid), processes.resident(broker.pid)
        disk = _disk(broker.folder)
    count = options.sessions
    print(
        f"{options.peer}: {count} offline sessions with a filter each, made in {seconds:.0f} s, "
        f"{1e6 * spent / count:.0f} us CPU each"
    )
    for name, old, new in zip(("PSS", "RSS"), before, after, strict=True):
        each = (new - old) / count
        print(f"{name} {old / MIB:.1f} -> {new / MIB:.1f} MiB: {each / KIB:.3f} KiB a session")
    print(f"disk {disk / MIB:.1f} MiB: {disk / count / KIB:.3f} KiB a session")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m perf.micro.offline_sessions")
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--peer", default="robustmq", choices=brokers.PEERS)
    parser.add_argument("-w", "--workers", type=int, default=2, help="workers of robustmq (2)")
    parser.add_argument("--protocol", type=int, default=5, choices=(4, 5))
    parser.add_argument("--parallel", type=int, default=64, help="clients at the same time (64)")
    parser.add_argument("--directory", type=Path, help="where the data are kept")
    # An ordinary end, so that the broker is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
