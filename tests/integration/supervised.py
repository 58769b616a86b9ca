"""A real supervisor as a test sees it: started, watched from outside, and always cleaned up."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0
OF_THE_MACHINE = frozenset({"HighCpuUsage", "HighMemoryUsage", "PublishersPaused"})
"""Alarms that say how busy the machine is that runs the tests, and nothing wrong of the node."""
PORTS = ("tcp", "tls", "websocket", "websockets", "quic")


def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> float:
    """Wait for a condition; return the seconds that it took, or fail and say `what`."""
    begin = time.monotonic()
    while not condition():
        waited = time.monotonic() - begin
        assert waited < seconds, f"{what}: not within {seconds} s"
        time.sleep(0.01)
    return time.monotonic() - begin


class Node:
    """A supervisor and its children. `module` is what `python -m` runs."""

    def __init__(
        self,
        data: Path,
        *arguments: str,
        workers: int = 2,
        module: str = "tests.integration.standin",
        settings: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        shell_prefix: str = "",
    ) -> None:
        command = [sys.executable, "-m", module, "-w", str(workers), "--data", str(data)]
        ports = [f"mqtt_runtime.server.{name}_port=0" for name in PORTS]
        ports += [f"kafka_runtime.{name}_port=0" for name in ("tcp", "tls")]
        for setting in ("http_port=0", "broker_ip=127.0.0.1", *ports, *settings):
            command += ["--set", setting]
        command += arguments
        if shell_prefix:
            command = ["bash", "-c", f'{shell_prefix}; exec "$@"', "bash", *command]
        self.log_path = data.with_suffix(".log")
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
            )
        self.facts: dict[str, Any] = {}
        self._family: dict[int, psutil.Process] = {}

    def ready(self) -> "Node":
        """Wait for the line that says that the node is ready."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.errors()
        self.facts = json.loads(line)
        self.children()
        return self

    def errors(self) -> str:
        """Return what the node has written on standard error."""
        return self.log_path.read_text(encoding="utf-8")

    def events(self) -> list[dict[str, Any]]:
        """Return the log's lines."""
        lines = self.errors().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def seen(self, event: str) -> list[dict[str, Any]]:
        """Return the log's lines about an event."""
        return [line for line in self.events() if line["event"] == event]

    def complaints(self) -> list[dict[str, Any]]:
        """Return the log's warnings and errors, but for those about a busy machine."""
        wrong = [line for line in self.events() if line["level"] in {"warning", "error"}]
        return [line for line in wrong if line.get("name") not in OF_THE_MACHINE]

    def children(self) -> dict[str, int]:
        """Return the children's process ids by their titles, without "robustmq: "."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                title = next(iter(child.cmdline()), "")
            except psutil.Error:
                continue
            self._family[child.pid] = child
            if title.startswith("robustmq: "):
                found[title.removeprefix("robustmq: ").strip()] = child.pid
        return found

    def survivors(self) -> list[int]:
        """Return the children, ever seen by `children`, that are still running."""
        return [pid for pid, child in self._family.items() if _lives(child)]

    def address(self, name: str = "mqtt_tcp") -> tuple[str, int]:
        """Return where a listener is."""
        host, port = self.facts[name].rsplit(":", 1)
        return host, int(port)

    def connect(self, name: str = "mqtt_tcp") -> socket.socket:
        """Open a connection to a listener."""
        return socket.create_connection(self.address(name), timeout=PATIENCE_SECONDS)

    def get(self, path: str) -> tuple[int, str]:
        """Ask the HTTP server; return status and body."""
        try:
            address = f"http://{self.facts['http']}{path}"
            with urllib.request.urlopen(address, timeout=PATIENCE_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def post(self, path: str, content: object) -> tuple[int, str]:
        """Send JSON to the HTTP server; return status and body."""
        request = urllib.request.Request(
            f"http://{self.facts['http']}{path}",
            json.dumps(content).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def sum(self, metric: str) -> float:
        """Return the value of a metric, over all cores."""
        _, text = self.get("/metrics")
        lines = [line for line in text.splitlines() if line.startswith(metric + "{core=")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def sample(self, series: str) -> float:
        """Return the value of one series of /metrics."""
        _, text = self.get("/metrics")
        lines = [line for line in text.splitlines() if line.startswith(series + " ")]
        assert len(lines) == 1, (series, lines)
        return float(lines[0].rsplit(" ", 1)[1])

    def send(self, signum: signal.Signals) -> None:
        """Signal the supervisor."""
        self.process.send_signal(signum)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for the supervisor's end; return its exit status."""
        return self.process.wait(seconds)

    def close(self) -> None:
        """End everything, however it went."""
        if self.process.poll() is None:
            self.children()
            self.process.kill()
        self.process.wait()
        until(lambda: not self.survivors(), "children of a killed supervisor end")
        if self.process.stdout is not None:
            self.process.stdout.close()


def _lives(child: psutil.Process) -> bool:
    try:
        return bool(child.is_running() and child.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
