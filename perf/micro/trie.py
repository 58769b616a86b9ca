"""What a look-up in the subscription trie costs, twin against kernel.

Run with `python -m perf.micro.trie [seconds per case]`. Prints nanoseconds per match, best of
three, for tables of subscriptions that a broker's core may have.
"""

import importlib
import importlib.util
import sys
import time
from types import ModuleType
from typing import Protocol

from robustmq._kernel.pure.trie import Trie


class Matcher(Protocol):
    """What the twin and the kernel have in common here."""

    def match(self, topic: bytes) -> list[int]:
        """Return the keys of the filters that match."""


MODULES = ("robustmq._kernel.pure.trie", "robustmq._kernel.fast.trie")
TOPICS = [b"site/%d/device/%d/state" % (i % 50, i) for i in range(1000)]
TABLES: dict[str, list[bytes]] = {
    "1,000 exact filters": TOPICS,
    "one wildcard over all": [b"site/#"],
    "1,000 exact, 4 wildcards": [*TOPICS, b"site/+/device/+/state", b"#", b"+/+/#", b"site/7/#"],
    "7,000 mixed filters": [
        *TOPICS,
        *(b"site/%d/device/%d/+" % (i % 50, i) for i in range(1000)),
        *(b"site/+/device/%d/state" % i for i in range(1000)),
        *(b"site/%d/#" % i for i in range(1000)),
        *(b"other/%d/+/x" % i for i in range(3000)),
    ],
}


def nanoseconds(trie: Matcher, seconds: float) -> float:
    """Return the time of one `match`, over topics in turn, best of three."""
    best = float("inf")
    for _ in range(3):
        rounds, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds / 3:
            for topic in TOPICS:
                trie.match(topic)
            rounds += 1
        best = min(best, (time.perf_counter() - start) / rounds / len(TOPICS) * 1e9)
    return best


def table(module: ModuleType, filters: list[bytes]) -> Matcher:
    """Return a trie of the module that holds the filters."""
    trie: Trie[int] = module.Trie()
    for number, topic_filter in enumerate(filters):
        trie.add(topic_filter, number)
    return trie


def main() -> None:
    """Measure every table with every implementation that is there."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.6
    modules = [importlib.import_module(m) for m in MODULES if importlib.util.find_spec(m)]
    for name, filters in TABLES.items():
        figures = [nanoseconds(table(module, filters), seconds) for module in modules]
        ratio = f"{figures[0] / figures[1]:.2f}x" if len(figures) > 1 else "no kernel"
        print(f"{name:28}" + "".join(f"{figure:9.0f} ns" for figure in figures) + f"  {ratio}")


if __name__ == "__main__":
    main()
