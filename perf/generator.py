"""The compiled load generator as a function: build it when its sources changed, run it, read it.

The generator stops at two gates (when all clients are connected and subscribed, and when
everything was delivered), so that the caller can read the broker's clocks exactly there.
"""

import fcntl
import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent / "loadgen"
FLAGS = ("-O2", "-flto", "-std=gnu11", "-Wall", "-Wextra")
COMPILE_SECONDS = 120.0
GRACE_SECONDS = 180.0


class GeneratorError(Exception):
    """The generator could not be built, could not connect, or did not end as it should."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run publishes, and to whom.

    `topology` is "fan" (every subscriber receives every publisher), "pair" (subscriber i receives
    publisher i), "connect" (`subscribers` connections and nothing else) or "offline". `rate` is in
    publishes per second of all publishers (open loop, stamped with the scheduled time); 0 is the
    closed loop, in which each publisher has at most `window` messages that are not delivered
    everywhere and acknowledged. `payload` is in bytes, `batch` in PUBLISH packets a send,
    `protocol` 4 or 5.
    `durable` gives the subscribers sessions that outlive their connections. With a `backlog` they
    subscribe and leave, so many messages are published and acknowledged, then they come back and
    take them; with the topology "offline" `subscribers` clients subscribe to a filter each and
    leave, and that is all. `realtime` asks for a real-time priority (the report says whether it
    was granted), so that other programs do not delay the schedule.
    """

    topology: str = "fan"
    publishers: int = 1
    subscribers: int = 1
    qos: int = 0
    payload: int = 64
    window: int = 0
    batch: int = 1
    rate: float = 0.0
    protocol: int = 4
    topics: int = 1
    wildcard: bool = False
    durable: bool = False
    backlog: int = 0
    realtime: bool = False

    def arguments(self) -> list[str]:
        """The command line of the generator for this load."""
        words: list[str] = []
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool):
                words += [f"--{each.name}"] if value else []
            elif value or each.name not in {"window", "rate", "backlog"}:
                words += [f"--{each.name}", str(value)]
        return words


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A histogram's summary, in microseconds."""

    count: int
    mean: float
    p50: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True, slots=True)
class Report:
    """What the generator saw; times in seconds, rates per second.

    `deliveries` counts the whole run, `throughput` and `latency_us` the part after the warm-up.
    With a backlog `publish_rate` is that of the `fill_seconds`, in which it was published, and the
    rest is about its delivery. `lag_us` is how late the generator itself sent (open loop): that
    part of a latency is its own.
    """

    connections: int
    connect_seconds: float
    connect_rate: float
    published: int
    expected: int
    deliveries: int
    seconds: float
    fill_seconds: float
    throughput: float
    publish_rate: float
    cpu_seconds: float
    latency_us: Quantiles
    lag_us: Quantiles
    lost: int
    reordered: int
    duplicates: int
    corrupt: int
    unacknowledged: int
    unordered_acks: int
    errors: int
    timed_out: bool
    realtime: bool
    first_error: str
    status: int = field(default=0)

    @property
    def clean(self) -> bool:
        """Whether every message was delivered exactly once, whole and in order."""
        return self.status == 0

    def faults(self) -> str:
        """What was wrong, in a few words; empty when nothing was."""
        names = (
            "lost",
            "reordered",
            "duplicates",
            "corrupt",
            "unacknowledged",
            "unordered_acks",
            "errors",
        )
        words = [f"{name} {getattr(self, name)}" for name in names if getattr(self, name)]
        if self.first_error:
            words.append(self.first_error)
        return ", ".join(words)


def _digest() -> str:
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sorted(SOURCES.glob("*.[ch]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def binary() -> Path:
    """The path of the generator, compiled with `cc` (or $CC) when its sources are new.

    Raises GeneratorError with the compiler's words when that fails.
    """
    folder = SOURCES / "build"
    folder.mkdir(exist_ok=True)
    target = folder / f"loadgen-{_digest()}"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        for old in folder.glob("loadgen-*"):
            old.unlink()
        draft = folder / "draft"
        command = [os.environ.get("CC", "cc"), *FLAGS, "-o", str(draft)]
        command += [str(path) for path in sorted(SOURCES.glob("*.c"))]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=COMPILE_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise GeneratorError(f"the load generator needs a C compiler: {error}") from error
        if done.returncode:
            raise GeneratorError(f"the load generator does not compile:\n{done.stderr}")
        draft.rename(target)
    return target


def _report(line: dict[str, Any], status: int) -> Report:
    values = {each.name: line[each.name] for each in fields(Report) if each.name != "status"}
    for name in ("latency_us", "lag_us"):
        values[name] = Quantiles(**values[name])
    return Report(**values, status=status)


def run(
    load: Load,
    port: int,
    *,
    seconds: float = 1.0,
    warmup: float = 0.3,
    options: tuple[str, ...] = (),
    ready: Callable[[], None] | None = None,
    done: Callable[[], None] | None = None,
    filled: Callable[[], None] | None = None,
) -> Report:
    """Runs the generator against 127.0.0.1:`port` and returns what it saw.

    `seconds` and `warmup` are the measured and the unmeasured part of the load; `options` are
    further words of its command line. `ready` is called when all clients are connected and
    subscribed and nothing was published yet, `filled` when the backlog is there and its subscribers
    are not, `done` when everything was delivered and all clients
    are still connected. Raises GeneratorError when the clients could not connect.
    """
    command = [str(binary()), "--port", str(port), "--seconds", str(seconds)]
    command += ["--warmup", str(warmup), "--gate", *load.arguments(), *options]
    calls = {"ready": ready, "filled": filled, "done": done}
    report: dict[str, Any] | None = None
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for text in process.stdout:
                line = json.loads(text)
                if line["event"] == "report":
                    report = line
                    break
                call = calls[line["event"]]
                if call:
                    call()
                process.stdin.write("\n")
                process.stdin.flush()
            status = process.wait(GRACE_SECONDS)
        except BaseException:
            process.kill()
            raise
        complaint = process.stderr.read()
    if report is None or status not in {0, 1}:
        reason = report["first_error"] if report else complaint.strip()
        raise GeneratorError(f"the load generator ended with status {status}: {reason}")
    return _report(report, status)
