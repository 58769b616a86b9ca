"""Brokers that are killed and started again on the same data and the same port."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from tests.integration.mosquitto import Mosquitto, fixed_port
from tests.integration.supervised import Node

SUPERVISOR: Final = "robustmq.cli.supervisor"
BACK_OFF: Final = ("runtime.restart_backoff_ms=50", "runtime.restart_backoff_max_ms=100")
KINDS: Final = {"worker": 10, "workers": 2, "server": 2, "supervisor": 3, "everything": 5}


class Plant(Protocol):
    """What a trial needs to know about a broker. The methods block."""

    address: tuple[str, int]

    def start(self) -> None:
        """Start it on what data there is, and return when it is ready."""
        ...

    def stop(self) -> None:
        """End it in order."""
        ...

    def disturb(self, rng: random.Random) -> str:
        """Kill something; start what does not come back by itself; return what was killed."""
        ...

    def close(self) -> None:
        """End everything."""
        ...


class RobustPlant:
    """A supervisor and its workers.

    `widths` are the numbers of workers of one start after the other, again from the first one.
    `kinds` says what is killed, and how often beside the others. `prefix` is shell that runs
    before each start. `starts` are the seconds that each start took.
    """

    def __init__(
        self,
        place: Path,
        widths: tuple[int, ...] = (2,),
        settings: tuple[str, ...] = (),
        prefix: str = "",
        kinds: Mapping[str, int] = KINDS,
    ) -> None:
        self.place = place
        self.data = place / "data"
        self.address = ("127.0.0.1", fixed_port())
        self.starts: list[float] = []
        self._widths = widths
        port = f"mqtt_runtime.server.tcp_port={self.address[1]}"
        self._settings = (port, *BACK_OFF, *settings)
        self._prefix = prefix
        self._kinds = kinds
        self._node: Node | None = None

    @property
    def node(self) -> Node:
        """The node that runs, or ran last."""
        assert self._node is not None
        return self._node

    def start(self) -> None:
        """Start the node and wait until it is ready."""
        number = len(self.starts)
        log = self.data.with_suffix(".log")
        if log.exists():
            log.rename(self.place / f"data.{number - 1}.log")
        begin = time.monotonic()
        self._node = Node(
            self.data,
            workers=self._widths[number % len(self._widths)],
            module=SUPERVISOR,
            settings=self._settings,
            shell_prefix=self._prefix,
        )
        self.starts.append(0.0)
        self._node.ready()
        self.starts[-1] = time.monotonic() - begin

    def stop(self) -> None:
        """End the node in order."""
        self.node.children()
        self.node.send(signal.SIGTERM)
        assert self.node.wait() == 0, self.node.errors()
        self.node.close()

    def close(self) -> None:
        """End everything."""
        if self._node is not None:
            self._node.close()

    def kill(self, *names: str) -> None:
        """Kill processes of the node at once, by their names."""
        children = self.node.children()
        for name in names:
            if name in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(children[name], signal.SIGKILL)

    def kill_all(self) -> None:
        """Kill every process of the node, as when the machine's memory has run out."""
        children = self.node.children().values()
        for pid in (self.node.process.pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.node.close()

    def disturb(self, rng: random.Random) -> str:
        """Kill a worker, some workers, the server, the supervisor or everything, at random."""
        workers = sorted(name for name in self.node.children() if name.startswith("worker"))
        kind = rng.choices([*self._kinds], [*self._kinds.values()])[0]
        if kind == "worker" and workers:
            victim = rng.choice(workers)
            self.kill(victim)
            return victim
        if kind == "workers":
            self.kill(*workers)
        elif kind == "server":
            self.kill("server")
        elif kind == "supervisor":
            self.node.children()
            self.node.process.kill()
            self.node.close()
            self.start()
        else:
            kind = "everything"
            self.kill_all()
            self.start()
        return kind

    def logs(self) -> str:
        """Return what all nodes of this plant have said."""
        files = sorted(self.place.glob("data*.log"), key=lambda path: path.stat().st_mtime)
        return "".join(path.read_text(encoding="utf-8") for path in files)


class MosquittoPlant:
    """A mosquitto that keeps its state on the disk when it is stopped, and only then."""

    def __init__(self, place: Path, stop_by: signal.Signals) -> None:
        self._place = place
        self._stop_by = stop_by
        self._mosquitto = Mosquitto(place, "autosave_interval 0", begin=False)
        self.address = self._mosquitto.address()

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        self._mosquitto.start()

    def stop(self) -> None:
        """End it in order."""
        self._mosquitto.stop()

    def close(self) -> None:
        """End it."""
        self._mosquitto.stop(signal.SIGKILL)

    def disturb(self, rng: random.Random) -> str:
        """End it, in order or not as it was made, and start it again."""
        del rng
        self._mosquitto.stop(self._stop_by)
        self._mosquitto.start()
        return self._stop_by.name
