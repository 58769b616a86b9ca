"""Starting and stopping the brokers that are compared, each fresh, on free loopback ports."""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
START_SECONDS = 30.0
STOP_SECONDS = 10.0
PEERS = (
    "robustmq",
    "robustmq-always",
    "robustmq-pure",
    "mosquitto",
    "mosquitto-persistent",
    "nats",
)

MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
max_connections -1
max_inflight_messages 0
max_queued_messages 0
max_queued_bytes 0
set_tcp_nodelay true
log_dest none
"""
PERSISTENCE = {
    "mosquitto": "persistence false\n",
    "mosquitto-persistent": (
        "persistence true\npersistence_location {folder}/\nautosave_interval 1\n"
    ),
}
NATS = """\
server_name: perf
listen: 127.0.0.1:{inner}
jetstream {{ store_dir: "{folder}/jetstream" }}
mqtt {{ host: 127.0.0.1, port: {port}, max_ack_pending: 30000 }}
"""
NOTES = {
    "mosquitto": "no persistence, no logging, no limit on inflight or queued messages, TCP_NODELAY",
    "mosquitto-persistent": (
        "the same, but all its state is written to the disk each second, without fsync, after the "
        "acknowledgements: kill -9 loses what was acknowledged since (robustmq: nothing)"
    ),
    "nats": (
        "nats-server's MQTT over JetStream in files, max_ack_pending 30000; written before the "
        "acknowledgement, synced every 2 minutes (robustmq: each second, or always)"
    ),
    "robustmq-always": "robustmq with storage.flush = always: fsync before the acknowledgement",
}
"""What one has to know about a peer to compare its figures with others."""


class BrokerError(Exception):
    """A broker is not installed, did not start, or died."""


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that runs: its name, its MQTT port, the root of its process tree, its files."""

    name: str
    port: int
    pid: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Launch:
    """How a broker is started: the words, what is added to the environment, where it says ready."""

    command: list[str]
    environment: dict[str, str]
    ready_url: str | None = None


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _debian(package: str) -> str:
    """The path of a peer's program, which has the name of its package."""
    found = shutil.which(package, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not found:
        raise BrokerError(f"{package} is not installed: apt-get install {package}")
    return found


def supervisor() -> str:
    """The path of robustmq's program. Raises BrokerError when it is not installed."""
    beside = Path(sys.executable).parent / "robustmq-supervisor"
    found = str(beside) if beside.exists() else shutil.which("robustmq-supervisor")
    if not found:
        raise BrokerError("robustmq-supervisor is not installed: run scripts/setup")
    return found


def launch(name: str, port: int, folder: Path, workers: int, commands: dict[str, str]) -> Launch:
    """How the peer `name` is started; `commands` has those that the user added, by name.

    Raises BrokerError when it is unknown or not installed.
    """
    if name in commands:
        words = shlex.split(commands[name].format(port=port, folder=folder, workers=workers))
        return Launch(words, {})
    if name in PERSISTENCE:
        configuration = folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        text = MOSQUITTO + PERSISTENCE[name] + user
        configuration.write_text(text.format(port=port, folder=folder))
        return Launch([_debian("mosquitto"), "-c", str(configuration)], {})
    if name == "nats":
        configuration = folder / "nats.conf"
        configuration.write_text(NATS.format(port=port, inner=free_port(), folder=folder))
        return Launch([_debian("nats-server"), "-c", str(configuration)], {})
    if name not in PEERS:
        raise BrokerError(f"unknown peer {name!r}: {', '.join([*PEERS, *commands])}")
    http = free_port()
    command = [supervisor(), "-w", str(workers), "--data", str(folder / "data")]
    command += ["--set", f"mqtt_runtime.server.tcp_port={port}", "--set", f"http_port={http}"]
    command += ["--set", "kafka_runtime.tcp_port=0"]
    command += ["--set", 'mqtt_runtime.server.listeners=["tcp"]']
    # The generator is busy on the same cores, and no peer is pinned.
    command += ["--set", "runtime.pin=false"]
    if name == "robustmq-always":
        command += ["--set", "storage.flush=always"]
    environment = {"ROBUSTMQ_PURE": "1" if name == "robustmq-pure" else "0"}
    return Launch(command, environment, f"http://127.0.0.1:{http}/health/ready")


def version(name: str, commands: dict[str, str]) -> str:
    """What the peer says about its version, in one line."""
    if name in commands:
        return commands[name]
    if name in PERSISTENCE or name == "nats":
        words = [_debian("mosquitto"), "-h"]
        if name == "nats":
            words = [_debian("nats-server"), "--version"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.stdout.splitlines()[0] if done.stdout else name
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    words = []
    for command in ([supervisor(), "--version"], git):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        words.append(done.stdout.strip() if done.returncode == 0 else "unknown")
    return " ".join(words)


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _await(process: subprocess.Popen[bytes], how: Launch, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BrokerError(f"{how.command[0]} ended at its start: {_tail(log)}")
        if _accepts(port) and (how.ready_url is None or _answers(how.ready_url)):
            return
        time.sleep(0.02)
    raise BrokerError(f"{how.command[0]} was not ready after {START_SECONDS:.0f} s: {_tail(log)}")


def _tail(log: Path) -> str:
    """The last line of the log: by custom the one that says why."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    # The session was started for this broker, so its group holds nothing else.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_SECONDS)


@contextlib.contextmanager
def running(
    name: str, workers: int, commands: dict[str, str], directory: Path | None = None
) -> Iterator[Broker]:
    """Starts the peer, waits until it accepts connections, and stops it at the end.

    `workers` is for robustmq; `commands` maps the names of further peers to command lines with
    `{port}`, `{folder}` and `{workers}` in them. Its data are in a new folder of `directory`, and
    removed at the end. Raises BrokerError when it does not start.
    """

    def how(port: int, folder: Path) -> Launch:
        return launch(name, port, folder, workers, commands)

    with started(name, how, directory) as broker:
        yield broker


@contextlib.contextmanager
def started(
    name: str, how_to: Callable[[int, Path], Launch], directory: Path | None = None
) -> Iterator[Broker]:
    """As `running`, for what is started as `how_to(port, folder)` says."""
    with tempfile.TemporaryDirectory(
        prefix="perf-", dir=directory, ignore_cleanup_errors=True
    ) as temporary:
        folder = Path(temporary)
        port = free_port()
        how = how_to(port, folder)
        log = folder / "log"
        with log.open("wb") as output:
            try:
                process = subprocess.Popen(
                    how.command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | how.environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise BrokerError(f"{how.command[0]} cannot be run: {error}") from error
        try:
            _await(process, how, port, log)
            yield Broker(name, port, process.pid, folder)
        finally:
            _stop(process)
