"""What a message costs in each kernel of the data path, twin against kernel.

Run with `python -m perf.micro.datapath [seconds per case]`. Prints nanoseconds per message (in
fan-out: per delivery), best of three, in batches of 100 messages of 64 bytes.
"""

import importlib
import importlib.util
import sys
import time
from array import array
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

from robustmq.metrics import CELLS

KERNELS = ("turn", "outbox", "batch", "window", "fanout", "interest", "intake")
COUNT = 100
PAYLOAD = bytes(64)
TOPICS = [b"site/%d/state" % i for i in range(10)]


class Case(NamedTuple):
    """What is measured: its name, one round, and how many messages a round has."""

    name: str
    round: Callable[[], object]
    messages: int


def load(kind: str) -> Any:  # noqa: ANN401
    """Return the names of all kernels of one side in one place."""
    names: dict[str, object] = {}
    for name in KERNELS:
        names |= vars(importlib.import_module(f"robustmq._kernel.{kind}.{name}"))
    return SimpleNamespace(**names)


def _publish(topic: bytes, qos: int, packet_id: int) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic
    body += packet_id.to_bytes(2, "big") if qos else b""
    body += PAYLOAD
    return bytes((0x30 | qos << 1, len(body))) + body


class Bench:
    """The kernels of one side, put together as a worker does."""

    def __init__(self, kind: str) -> None:
        self.side = load(kind)
        self.turn = self.side.Turn(array("Q", bytes(8 * CELLS)))

    def window(self, limit: int = 65_535) -> Any:  # noqa: ANN401
        """Return a window on an outbox that is never sent."""
        window = self.side.Window(self.turn, 1 << 20, 1 << 40, 1 << 40)
        window.attach(self.side.Outbox(self.turn), 4, limit, 0, 0)
        return window

    def batch(self, topics: list[bytes], qos: int) -> bytes:
        """Return a batch of COUNT records."""
        builder = self.side.BatchBuilder(self.turn, None, 1 << 30, None)
        for i in range(COUNT):
            builder.append(topics[i * len(topics) // COUNT], PAYLOAD, b"\0", qos, 0)
        batch: bytes = builder.take()[0]
        return batch

    def cases(self) -> list[Case]:
        """Return all cases."""
        return [
            self.intake("intake to batch, QoS 0", 0, 1),
            self.intake("intake to batch and PUBACK, QoS 1", 1, 1),
            self.intake("the same, ten topics", 1, 10),
            self.split("split, one topic", 1),
            self.split("split, ten topics to two cores", 10),
            self.fanout("fan-out 1 to 1, QoS 0", 1, 0),
            self.fanout("fan-out 1 to 100, QoS 0", 100, 0),
            self.fanout("fan-out 1 to 1 and PUBACK, QoS 1", 1, 1),
            self.fanout("fan-out 1 to 100 and PUBACK, QoS 1", 100, 1),
        ]

    def intake(self, name: str, qos: int, topics: int) -> Case:
        """Measure PUBLISH packets from one read to a batch, answered when it is settled."""
        side, turn = self.side, self.turn
        builder = side.BatchBuilder(turn, None, 1 << 30, None)
        connection = SimpleNamespace(on_route=lambda topic: side.Handle(topic, builder))
        outbox = side.Outbox(turn)
        intake = side.Intake(turn, outbox, connection, 1 << 20)
        intake.open, intake.version = True, 4
        data = b"".join(_publish(TOPICS[i * topics // COUNT], qos, i + 1) for i in range(COUNT))

        def once() -> None:
            intake.feed(data)
            _, acks = builder.take()
            acks.settle(0, [])
            outbox.take()
            turn.outboxes.clear()
            turn.builders.clear()

        return Case(name, once, COUNT)

    def split(self, name: str, topics: int) -> Case:
        """Measure how a batch is cut for the cores that want it."""
        cores = [(0,), (1,)]
        interest = self.side.Interest(lambda topic: cores[topic[5] % 2], 100)
        batch = self.batch(TOPICS[:topics], 1)
        return Case(name, lambda: interest.split(batch), COUNT)

    def fanout(self, name: str, subscribers: int, qos: int) -> Case:
        """Measure a batch of one topic until it is in all outboxes, and acknowledged."""
        side, turn = self.side, self.turn
        windows = [self.window() for _ in range(subscribers)]
        group = side.Group(4, qos, False, False, b"", windows)
        fanout = side.Fanout(turn, lambda _: side.Route([group], [], 0), None, 100)
        batch = self.batch(TOPICS[:1], qos)

        def once() -> None:
            first = turn.sequence + 1
            fanout.deliver(batch)
            for window in windows:
                window.outbox.take()
                if qos:
                    for sequence in range(first, first + COUNT):
                        window.puback(sequence % 65_535 + 1)
            turn.outboxes.clear()

        return Case(name, once, COUNT * subscribers)


def measure(case: Case, seconds: float) -> float:
    """Return nanoseconds per message, best of three."""
    best = float("inf")
    case.round()
    for _ in range(3):
        rounds = 0
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds / 3:
            case.round()
            rounds += 1
        best = min(best, (time.perf_counter() - begin) / (rounds * case.messages))
    return best * 1e9


def main() -> None:
    """Measure every case on the twin and, where it is built, on the kernel."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    kinds = ["pure"]
    if importlib.util.find_spec("robustmq._kernel.fast.fanout"):
        kinds.append("fast")
    sides = [Bench(kind).cases() for kind in kinds]
    for cases in zip(*sides, strict=True):
        found = [measure(case, seconds) for case in cases]
        line = f"{cases[0].name:40}" + "".join(f"{ns:12.0f} ns" for ns in found)
        if len(found) == 2:
            line += f"{found[0] / found[1]:8.1f}x"
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
