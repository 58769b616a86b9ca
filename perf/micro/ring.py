"""Frames and megabytes per second through the ring: the kernel and its twin.

`alone`: one process pushes a turn's frames and pulls them, which is the cost of the code.
`across`: a child pushes and this process pulls, which adds what the caches must carry;
whoever cannot go on yields, so that two processes on one busy core do not wait for a time slice.
Run as `python perf/micro/ring.py [--seconds 0.3]`.
"""

import argparse
import importlib
import mmap
import os
import signal
import time

from robustmq._kernel.ring import Ring

SIZES = (64, 256, 1024, 4096, 16384, 65536)
RING_BYTES = 1 << 20
TURN_BYTES = 128 * 1024


def turn(size: int) -> list[bytes]:
    """Return the frames of one turn: `TURN_BYTES` of them, at most a thousand."""
    return [os.urandom(size) for _ in range(max(1, min(1000, TURN_BYTES // size)))]


def alone(ring: Ring, size: int, seconds: float) -> float:
    """Return frames per second when one process does both."""
    frames = turn(size)
    rounds = 0
    start = time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        ring.push(frames)
        ring.pull(RING_BYTES)
        rounds += 1
    return rounds * len(frames) / spent


def across(ring: Ring, size: int, seconds: float) -> float:
    """Return frames per second from a child to this process."""
    child = os.fork()
    if child == 0:
        frames = turn(size)
        while True:
            if ring.push(frames) < len(frames):
                os.sched_yield()
    try:
        while not ring.pull(0):
            os.sched_yield()
        count = 0
        start = time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds:
            if pulled := len(ring.pull(TURN_BYTES)):
                count += pulled
            else:
                os.sched_yield()
        return count / spent
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def main() -> None:
    """Measure every implementation, way and size, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each cell")
    seconds = parser.parse_args().seconds
    print(f"{'ring':8}{'way':8}{'bytes':>7}{'frames/s':>14}{'MB/s':>10}{'ns/frame':>10}")
    for name in ("fast", "pure"):
        kernel = importlib.import_module(f"robustmq._kernel.{name}.ring")
        for way in (alone, across):
            for size in SIZES:
                ring = kernel.Ring(mmap.mmap(-1, RING_BYTES), 0, RING_BYTES)
                rate = way(ring, size, seconds)
                print(
                    f"{name:8}{way.__name__:8}{size:7}{rate:14,.0f}"
                    f"{rate * size / 1e6:10,.0f}{1e9 / rate:10,.0f}"
                )


if __name__ == "__main__":
    main()
