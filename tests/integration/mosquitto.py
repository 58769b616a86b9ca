"""A real mosquitto that tests configure, stop, kill and start again."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Final

from tests.integration.supervised import PATIENCE_SECONDS, until

# Below the ports that a client's own end may get: a client that connects again and again to a
# port where nobody listens would at last be given that very port, and talk to itself.
PORTS: Final = range(20_000, 32_000)


def fixed_port() -> int:
    """Return a port that nobody uses and that no client is given as its own."""
    rng = random.Random()
    while True:
        port = rng.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Mosquitto:
    """A mosquitto on a port of its own; it keeps its state when it is stopped in order."""

    def __init__(self, place: Path, *lines: str, begin: bool = True) -> None:
        self._port = fixed_port()
        place.mkdir(parents=True, exist_ok=True)
        self._configuration = place / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        self._configuration.write_text(
            f"listener {self._port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {place}/\nmax_queued_messages 0\nlog_dest none\n{user}"
            + "".join(f"{line}\n" for line in lines),
            encoding="utf-8",
        )
        self._process: subprocess.Popen[bytes] | None = None
        if begin:
            self.start()

    def address(self, name: str = "mqtt_tcp") -> tuple[str, int]:
        """Where it listens; it has one listener."""
        del name
        return ("127.0.0.1", self._port)

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        binary = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        assert binary, "mosquitto is not installed: run scripts/setup"
        self._process = subprocess.Popen(
            [binary, "-c", str(self._configuration)], stderr=subprocess.DEVNULL
        )
        until(self._accepts, "mosquitto accepts connections")

    def _accepts(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(self.address(), 1):
            return True
        return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE_SECONDS)
