"""What it costs to take WebSocket frames apart: the twin, the kernel, and a library.

Run with `python -m perf.micro.websocket [seconds per case]`. Prints nanoseconds per frame, best
of three, for reads of as many frames as fit into 64 KiB; `websockets` is its sans-I/O protocol.
"""

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable

from websockets.protocol import OPEN, Protocol, Side

MODULES = ("robustmq._kernel.pure.websocket", "robustmq._kernel.fast.websocket")
SIZES = (2, 64, 1_024, 16_384)
READ = 65_536
MASK = bytes((1, 2, 3, 4))


def frame(size: int) -> bytes:
    """Return a client's binary frame with a payload of `size` bytes."""
    if size < 126:
        return bytes((0x82, 0x80 | size)) + MASK + bytes(size)
    return bytes((0x82, 0xFE)) + size.to_bytes(2, "big") + MASK + bytes(size)


def library() -> Callable[[bytes], object]:
    """Return what takes bytes with the library, as its own servers do."""
    protocol = Protocol(Side.SERVER, state=OPEN, max_size=None)

    def feed(data: bytes) -> bytes:
        protocol.receive_data(data)
        return b"".join(event.data for event in protocol.events_received())  # type: ignore[union-attr]

    return feed


def ours(module: str) -> Callable[[bytes], object]:
    """Return what takes bytes with a module of ours."""
    feed: Callable[[bytes], object] = importlib.import_module(module).FrameReader(1 << 30).feed
    return feed


def nanoseconds(feed: Callable[[bytes], object], size: int, seconds: float) -> float:
    """Return the time of one frame of `size` bytes, best of three."""
    frames = max(1, READ // (size + 6))
    data = frame(size) * frames
    best = float("inf")
    for _ in range(3):
        rounds, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds / 3:
            feed(data)
            rounds += 1
        best = min(best, (time.perf_counter() - start) / rounds / frames * 1e9)
    return best


def main() -> None:
    """Measure every size with every implementation that is there."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.6
    cases = {"websockets": library()}
    for module in MODULES:
        if importlib.util.find_spec(module):
            cases[module.split(".")[2]] = ours(module)
    print("bytes      " + "".join(f"{name:>15}" for name in cases))
    for size in SIZES:
        figures = [nanoseconds(feed, size, seconds) for feed in cases.values()]
        print(f"{size:<11}" + "".join(f"{figure:>12.0f} ns" for figure in figures))


if __name__ == "__main__":
    main()
