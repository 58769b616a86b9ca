"""This server behind mosquitto's command line and the few settings that its tests use.

`python -m tests.suites.stand_in -p PORT` or `-c FILE`. A setting that has no counterpart ends it,
with its name in `<FILE>.cannot`.
"""

import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

_IGNORED: Final = {"log_type", "log_dest", "per_listener_settings", "user", "check_retain_source"}


class Settings:
    """What a mosquitto.conf says, in our words."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.tables: list[tuple[str, dict[str, Any]]] = []
        self.kept: Path | None = None
        self.listeners = 0

    def port(self, text: str) -> None:
        """Take the port of MQTT."""
        self.listeners += 1
        if self.listeners > 1:
            raise LookupError("a second listener of MQTT")
        self.values["mqtt_runtime.server.tcp_port"] = int(text.split(maxsplit=1)[0])

    def passwords(self, text: str) -> None:
        """Take a password file's lines."""
        for line in Path(text).read_text(encoding="utf-8").splitlines():
            name, _, kept = line.strip().partition(":")
            if name and not kept.startswith("$7$"):
                raise LookupError("a password file with $6$ hashes (salted SHA-512, one round)")
            if name:
                self.tables.append(("users", {"username": name, "password": kept}))

    def most_bytes(self, text: str) -> None:
        """Bound the payload of messages."""
        self.tables.append(("topic_rules", {"filter": "#", "max_message_bytes": int(text)}))

    def persist(self, text: str) -> None:
        """Keep what is stored as long as the file is there."""
        self.kept = Path(text)

    def inflight(self, text: str) -> None:
        """Bound what is unacknowledged, in both directions."""
        for name in ("max_inflight", "receive_max"):
            self.values[f"mqtt_runtime.protocol.{name}"] = int(text)

    def packet(self, text: str) -> None:
        """Bound packets, which cannot be bounded as low as mosquitto can."""
        if int(text) < 1_024:
            raise LookupError(f"max_packet_size {text}; ours is at least 1024")
        self.values["mqtt_runtime.protocol.max_packet_size"] = int(text)

    def key(self, name: str, kind: Callable[[str], Any] = int) -> Callable[[str], None]:
        """Make what sets a key of ours."""
        return lambda text: self.values.__setitem__(name, kind(text))

    def retain(self, text: str) -> None:
        """Refuse what mosquitto can switch off and we cannot."""
        if text != "true":
            raise LookupError("retain_available false")


def _truth(text: str) -> bool:
    return text == "true"


def read(path: Path, settings: Settings) -> None:
    """Read a mosquitto.conf; raises LookupError with what we do not have."""
    known = {
        "port": settings.port,
        "listener": settings.port,
        "allow_anonymous": settings.key("mqtt_runtime.auth.secret_free_login", _truth),
        "password_file": settings.passwords,
        "persistence_file": settings.persist,
        "persistence": _truth,
        "max_connections": settings.key("mqtt_runtime.limit.cluster.max_connections_per_node"),
        "max_keepalive": settings.key("mqtt_runtime.keep_alive.max_time"),
        "max_inflight_messages": settings.inflight,
        "max_packet_size": settings.packet,
        "message_size_limit": settings.most_bytes,
        "retain_available": settings.retain,
    }
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, value = line.strip().partition(" ")
        if not name or name.startswith("#") or name in _IGNORED:
            continue
        if name not in known:
            raise LookupError(name)
        known[name](value)


def _data(settings: Settings) -> str:
    """The directory of the data: new, unless it is to be found again."""
    if settings.kept is None:
        return tempfile.mkdtemp(prefix="stand-in-")
    place = settings.kept.with_suffix(".data").absolute()
    if not settings.kept.exists():
        shutil.rmtree(place, ignore_errors=True)
        settings.kept.touch()
    return str(place)


def main(arguments: list[str]) -> NoReturn:
    """Translate, and become the server."""
    settings = Settings()
    given = dict(itertools.pairwise(arguments))
    if "-c" in given:
        path = Path(given["-c"])
        # As mosquitto has it for a listener that somebody has configured.
        settings.values["mqtt_runtime.auth.secret_free_login"] = False
        try:
            read(path, settings)
        except LookupError as error:
            Path(f"{path}.cannot").write_text(str(error.args[0]), encoding="utf-8")
            raise SystemExit(3) from None
    if "-p" in given:
        settings.port(given["-p"])
    values = {
        "http_port": 0,
        "kafka_runtime.tcp_port": 0,
        "kafka_runtime.tls_port": 0,
        "data_path": _data(settings),
        "runtime.workers": 2,
        "runtime.pin": False,
        "log.level": "error",
        "mqtt_runtime.protocol.max_topic_levels": 201,
        "mqtt_runtime.protocol.topic_alias_max": 10,
        "mqtt_runtime.protocol.receive_max": 20,
        "mqtt_runtime.server.listeners": ["tcp"],
        **settings.values,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    for name, row in settings.tables:
        lines += [f"[[{name}]]", *(f"{key} = {json.dumps(value)}" for key, value in row.items())]
    with tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False) as file:
        file.write("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "robustmq.cli.supervisor", "-c", file.name]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main(sys.argv[1:])
