"""A cluster whose nodes are killed, stopped and cut off from each other, one harm at a time."""

import itertools
import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tests.chaos.wires import Wires
from tests.integration.cluster import Cluster
from tests.integration.mosquitto import fixed_port
from tests.integration.supervised import Node, until

PATIENCE: Final = 90.0
"""Seconds that a cluster may take to be whole again on a machine that has much else to do."""
KINDS: Final = {
    "node": 4,
    "meta": 3,
    "worker": 3,
    "short pause": 2,
    "long pause": 3,
    "cut": 3,
    "cut one way": 3,
    "broken link": 2,
    "restart": 2,
    "everything": 1,
}
LOSING: Final = {"node", "restart", "everything", "worker"}
"""Kinds by which the victim's processes that have sessions end."""


class HarmedCluster(Cluster):
    """Three nodes that reach each other over wires, and have a fixed port for clients."""

    def __init__(self, path: Path, *, workers: int = 1, settings: Sequence[str] = ()) -> None:
        backoff = ("runtime.restart_backoff_ms=50", "runtime.restart_backoff_max_ms=200")
        super().__init__(
            path,
            workers=workers,
            settings=("cluster.bind_ip=127.0.0.1", *backoff, *settings),
        )
        self.mqtt = {number: fixed_port() for number in self.first}
        self.wires = Wires(self._owner)
        for number in self.first:
            for port in self._ports[number]:
                self.wires.lay(number, (f"127.0.1.{number}", port), ("127.0.0.1", port))

    @property
    def addresses(self) -> str:
        """The value of `meta_addrs`: every node is found at its wire."""
        entries = (f'{number}="127.0.1.{number}:{self._ports[number][0]}"' for number in self.first)
        return "{" + ", ".join(entries) + "}"

    def launch(self, number: int, *settings: str) -> Node:
        """Start a node, and do not wait for it; the log of its life before is kept."""
        log = self.path / f"node-{number}.log"
        if log.exists():
            text = log.read_bytes()
            with (self.path / f"node-{number}.past").open("ab") as past:
                past.write(text)
        port = f"mqtt_runtime.server.tcp_port={self.mqtt[number]}"
        return super().launch(number, port, *settings)

    def address(self, number: int) -> tuple[str, int]:
        """Return where clients find a node."""
        return "127.0.0.1", self.mqtt[number]

    def close(self) -> None:
        """End everything."""
        for number in self.nodes:
            self.resume(number)
        super().close()
        self.wires.close()

    def _owner(self, inode: int) -> int | None:
        """Return the node that has a socket."""
        wanted = f"socket:[{inode}]"
        for number, node in self.nodes.items():
            if any(wanted in _descriptors(child) for child in _children(node.process.pid)):
                return number
        return None

    def incarnations(self) -> dict[int, int]:
        """Return what the cluster says: it rises when a node is given up."""
        for number in self.first:
            if nodes := self.status(number).get("nodes"):
                return {int(each): nodes[each]["incarnation"] for each in nodes}
        return {}

    def tell(self) -> str:
        """Return what every node says of the cluster and its links, for who looks for a reason."""
        told = []
        for number, node in self.nodes.items():
            told.append(f"node {number}: {self.status(number)}")
            with suppress(OSError, KeyError):
                told.append(f"links: {node.get('/api/cluster/links')[1]}")
            said = (line for line in node.errors().splitlines() if '"info"' not in line)
            told += list(said)[-8:]
        return "\n".join(told)

    def whole(self) -> float:
        """Wait until every node takes part again; return the seconds that it took."""
        return until(self._is_whole, "the cluster is whole again", PATIENCE)

    def agreed(self) -> None:
        """Wait until all say the same, when nothing changes any more."""
        until(self._is_settled, "all nodes agree", PATIENCE)

    def _is_whole(self) -> bool:
        time.sleep(0.05)
        return all(_is_well(self.status(number), self.first) for number in self.first)

    # ------------------------------------------------------------------ harm

    def harm(self, kind: str, victim: int, rng: random.Random) -> None:
        """Do it, leave it for a while, and end it; then every node runs, and starts perhaps."""
        match kind:
            case "node":
                self.kill(victim)
                time.sleep(rng.choice((0.0, 0.5, 4.5)))
                self.launch(victim).ready()
            case "everything":
                for number in self.first:
                    self.kill(number)
                self.start()
            case "restart":
                self.stop(victim)
                self.launch(victim).ready()
            case "meta" | "worker":
                self._kill_child(victim, kind, rng)
            case "short pause" | "long pause":
                self.pause(victim)
                time.sleep(rng.uniform(0.3, 1.2) if kind == "short pause" else 4.5)
                self.resume(victim)
            case _:
                self._cut(kind, victim, rng)

    def _kill_child(self, victim: int, kind: str, rng: random.Random) -> None:
        children = self.nodes[victim].children()
        names = sorted(name for name in children if name.startswith(kind))
        with suppress(ProcessLookupError):
            os.kill(children[rng.choice(names)], signal.SIGKILL)
        until(
            lambda: len(self.nodes[victim].children()) == len(children), "it is replaced", PATIENCE
        )

    def _cut(self, kind: str, victim: int, rng: random.Random) -> None:
        others = [number for number in self.first if number != victim]
        if kind == "broken link":
            others = [rng.choice(others)]
        out = [(victim, other) for other in others]
        into = [(other, victim) for other in others]
        pairs = rng.choice((out, into)) if kind == "cut one way" else out + into
        self.wires.cut(pairs)
        time.sleep(rng.choice((0.5, 2.0, 5.0)))
        self.wires.heal(broken=rng.random() < 0.5)


def _is_well(status: dict[str, Any], nodes: Sequence[int]) -> bool:
    if not status or status["isolated"]:
        return False
    lives = all(status["nodes"].get(str(n), {}).get("state") == "live" for n in nodes)
    return lives and all(group["leader"] is not None for group in status["groups"].values())


def _children(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return []


def _descriptors(pid: str) -> set[str]:
    found = set()
    with suppress(OSError):
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(str(each.readlink()))
    return found


def plan(rounds: int, rng: random.Random) -> list[tuple[str, int]]:
    """Return kinds and victims for so many rounds; no kind twice before each had its turn."""
    kinds: list[str] = []
    while len(kinds) < rounds:
        bag = [kind for kind, count in KINDS.items() for _ in range(count)]
        rng.shuffle(bag)
        first = dict.fromkeys(bag)
        kinds += first
    return [(kind, rng.randint(1, 3)) for kind in itertools.islice(kinds, rounds)]
