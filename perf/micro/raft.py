"""What Raft itself costs: three replicas in one thread, their frames encoded and decoded, no disk.

The first line is a lone proposal, from `propose` until all three have handed it out; the others
are batches of commands, an entry each, with several batches under way; the last is a read by a
follower. Times are of the processor, for all three replicas together.
Run as `python -m perf.micro.raft [--seconds 2]`.
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from robustmq.raft.message import Entry, HardState, Membership, Message, Snapshot, decode, encode
from robustmq.raft.node import Node
from robustmq.raft.ready import Stored
from robustmq.settings.raft import Raft

NODES: Final = 3
COMMAND: Final = b"c" * 100
FRAME_BYTES: Final = 64 << 20


class Nothing:
    """A journal that has nothing: the cache holds all that is asked for."""

    last_index = 0

    def read(self, first: int, last: int, most_bytes: int) -> Sequence[Entry]:
        """Never asked."""
        raise AssertionError(f"{first} to {last} ({most_bytes} bytes) are in the cache")


class Group:
    """Three replicas and their links."""

    def __init__(self) -> None:
        chance = random.Random(1)
        start = Snapshot(0, 0, Membership(tuple(range(NODES))))
        stored = Stored(start=start, hard_state=HardState(), applied=0, entries=Nothing())
        settings = Raft(cache_bytes=1 << 30, uncommitted_bytes=1 << 30)
        self.nodes = [
            Node(each, 0, settings, stored, chance=chance.random, now_ms=0) for each in range(NODES)
        ]
        self.handed = [0] * NODES
        self.answered = 0
        self.nodes[0].tick(settings.election_timeout_ms * 2)
        self.settle()
        assert self.nodes[0].leads

    def turn(self) -> bool:
        """Let every replica do what it has to; says whether there was something."""
        frames: dict[int, list[Message]] = {}
        for at, node in enumerate(self.nodes):
            while (ready := node.ready()) is not None:
                for message in ready.messages:
                    frames.setdefault(message.to, []).append(message)
                self.handed[at] += len(ready.committed)
                self.answered += len(ready.reads)
                if ready.number:
                    node.persisted(ready.number)
        for to, messages in frames.items():
            for message in decode(encode(messages), FRAME_BYTES):
                self.nodes[to].step(message, 0)
        return bool(frames)

    def settle(self) -> None:
        """Turns until nothing is left to do."""
        while self.turn():
            pass

    def forget(self) -> None:
        """Let the logs be short again."""
        for node in self.nodes:
            node.compact(node.handed)


def measure(seconds: float, batch: int, what: Callable[[Group], None]) -> tuple[float, float]:
    """Microseconds of the processor per command, and commands a second."""
    group = Group()
    done, begun = 0, time.process_time()
    while time.process_time() - begun < seconds:
        what(group)
        done += batch
        if not done % 1_000:
            group.forget()
    spent = time.process_time() - begun
    assert len(set(group.handed)) == 1, "a replica has not handed out all"
    return spent / done * 1e6, done / spent


def propose(group: Group, count: int) -> None:
    """One batch, until all have it."""
    group.nodes[0].propose([COMMAND] * count, 0)
    group.settle()


def stream(group: Group, count: int, under_way: int) -> None:
    """Batches that follow each other without a wait."""
    for _ in range(under_way):
        group.nodes[0].propose([COMMAND] * (count // under_way), 0)
        group.turn()
    group.settle()


def read(group: Group) -> None:
    """A read by a follower."""
    group.nodes[1].read_index(group.answered + 1, 0)
    group.settle()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    seconds = parser.parse_args().seconds
    rows: list[tuple[str, int, Callable[[Group], None]]] = [
        ("a lone proposal", 1, lambda group: propose(group, 1)),
        ("a batch of 10", 10, lambda group: propose(group, 10)),
        ("a batch of 100", 100, lambda group: propose(group, 100)),
        ("a batch of 1,000", 1_000, lambda group: propose(group, 1_000)),
        ("10 batches of 100 under way", 1_000, lambda group: stream(group, 1_000, 10)),
        ("a read by a follower", 1, read),
    ]
    for name, batch, what in rows:
        each, rate = measure(seconds, batch, what)
        print(f"{name:30} {each:8.2f} us each {rate:12,.0f} a second")


if __name__ == "__main__":
    main()
