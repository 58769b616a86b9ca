"""Several real nodes on this machine, as a test sees them: started together, killed, watched."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.integration.mosquitto import fixed_port
from tests.integration.supervised import Node, until

SUPERVISOR = "robustmq.cli.supervisor"
_SHARED = ("cluster_id", "groups", "leader", "nodes")
SECRET = "a secret of sixteen or more"
PATIENCE_SECONDS = 60.0
"""Three nodes start a dozen processes, all at once, perhaps on a machine that is busy as well."""


class Cluster:
    """Nodes 1 to `size` in folders below `path`, each with `workers`, and settings for all.

    A node that is not among the first ones joins when it is started. Every node keeps its ports
    over restarts. What is waited for here is waited for by status, never by time.
    """

    def __init__(
        self,
        path: Path,
        size: int = 3,
        *,
        workers: int = 1,
        settings: Sequence[str] = (),
        secret: str = SECRET,
    ) -> None:
        self.path = path
        self.first = tuple(range(1, size + 1))
        self.nodes: dict[int, Node] = {}
        self._workers = workers
        self._settings = [*settings, f"cluster.secret={secret}"]
        self._ports: dict[int, tuple[int, int]] = {}
        for number in self.first:
            self._ports[number] = (fixed_port(), fixed_port())

    @property
    def addresses(self) -> str:
        """The value of `meta_addrs`."""
        entries = (f'{number}="127.0.0.1:{self._ports[number][0]}"' for number in self.first)
        return "{" + ", ".join(entries) + "}"

    def launch(self, number: int, *settings: str) -> Node:
        """Start a node, and do not wait for it."""
        grpc, peer = self._ports.setdefault(number, (fixed_port(), fixed_port()))
        node = self.nodes[number] = Node(
            self.path / f"node-{number}",
            workers=self._workers,
            module=SUPERVISOR,
            settings=(
                f"broker_id={number}",
                f"meta_addrs={self.addresses}",
                f"grpc_port={grpc}",
                f"cluster.peer_port={peer}",
                *self._settings,
                *settings,
            ),
        )
        return node

    def start(self, *numbers: int) -> "Cluster":
        """Start nodes at once, all first ones unless named, and wait until they are ready."""
        wanted = numbers or self.first
        for number in wanted:
            self.launch(number)
        for number in wanted:
            self.nodes[number].ready()
        return self

    def kill(self, number: int) -> None:
        """End a node with SIGKILL, all its processes at once."""
        self.nodes[number].close()

    def kill_meta(self, number: int) -> None:
        """End the meta process of a node, which its supervisor replaces."""
        _signal(self.nodes[number].children()["meta"], signal.SIGKILL)

    def stop(self, number: int) -> int:
        """Stop a node in order; return its exit status."""
        node = self.nodes[number]
        node.send(signal.SIGTERM)
        status = node.wait()
        node.close()
        return status

    def pause(self, number: int) -> None:
        """Stop all processes of a node where they are (SIGSTOP), the supervisor first."""
        node = self.nodes[number]
        node.send(signal.SIGSTOP)
        for child in node.children().values():
            _signal(child, signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """Let a paused node go on, the supervisor last."""
        node = self.nodes[number]
        for child in node.children().values():
            _signal(child, signal.SIGCONT)
        node.send(signal.SIGCONT)

    def wipe(self, number: int) -> None:
        """Remove the data of a node that does not run."""
        shutil.rmtree(self.path / f"node-{number}")

    def status(self, number: int) -> dict[str, Any]:
        """Return what a node says of the cluster; {} while it does not answer."""
        with suppress(OSError, KeyError, json.JSONDecodeError):
            code, text = self.nodes[number].get("/api/cluster/status")
            if code == 200:
                data: dict[str, Any] = json.loads(text)["data"]
                return data
        return {}

    def ask(self, number: int, path: str, content: object) -> tuple[int, Any]:
        """Post to the administration of a node below /api/cluster; return status and answer."""
        code, text = self.nodes[number].post(f"/api/cluster/{path}", content)
        return code, json.loads(text)

    def until(self, number: int, condition: Callable[[dict[str, Any]], object], what: str) -> None:
        """Wait until the status of a node is as wanted."""
        until(
            lambda: (status := self.status(number)) and condition(status),
            f"node {number}: {what}",
            PATIENCE_SECONDS,
        )

    def connected(self, *numbers: int) -> None:
        """Wait until all these nodes, all that run unless named, are connected with each other."""
        wanted = numbers or tuple(self.nodes)
        for number in wanted:
            others = {*wanted} - {number}
            self.until(number, _has(others), f"connected to {others}")

    def leader(self) -> int:
        """Return the node that leads the metadata, as a node that runs says."""
        found: list[int] = []

        def is_known() -> bool:
            said = [self.status(number).get("leader") for number in self.nodes]
            found[:] = [leader for leader in said if leader is not None]
            return bool(found)

        until(is_known, "a leader", PATIENCE_SECONDS)
        return found[0]

    def settled(self) -> None:
        """Wait until all nodes that run agree: who leads what, who is there, and how far it is."""
        until(self._is_settled, "all nodes agree", PATIENCE_SECONDS)

    def _is_settled(self) -> bool:
        said = [self.status(number) for number in self.nodes]
        if not all(each and not each["isolated"] for each in said):
            return False
        shown = [{key: each[key] for key in _SHARED} for each in said]
        lives = [said[0]["nodes"].get(str(number), {}).get("state") for number in self.nodes]
        led = all(group["leader"] is not None for group in said[0]["groups"].values())
        return led and {*lives} == {"live"} and all(each == shown[0] for each in shown)

    def close(self) -> None:
        """End everything, however it went."""
        for node in self.nodes.values():
            node.send(signal.SIGCONT)
            node.close()


@contextmanager
def cluster(path: Path, size: int = 3, **arguments: Any) -> Iterator[Cluster]:  # noqa: ANN401
    """Make a cluster that is ended with the block; nothing is started yet."""
    made = Cluster(path, size, **arguments)
    try:
        yield made
    finally:
        made.close()


def _has(others: set[int]) -> Callable[[dict[str, Any]], bool]:
    return lambda status: others <= {*status["connected"]}


def _signal(pid: int, signum: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signum)
