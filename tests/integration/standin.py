"""A worker without a broker: it beats, listens, answers each client with its index, and drains.

Clients steer it: "hang" stops the heartbeat, "deaf" makes it ignore SIGTERM.
"""

import os
import select
import signal
import sys
import time
from functools import partial
from unittest import mock

from robustmq.cli import supervisor as command
from robustmq.shm.region import Phase
from robustmq.workers import supervisor
from robustmq.workers.inheritance import MQTT_TCP, Inheritance

WORK_SECONDS = 3.5


def work(seconds: float) -> None:
    """Use the processor for so long, and show no other sign of life."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def run(inheritance: Inheritance) -> None:
    """Live as a worker does; STANDIN in the environment delays or prevents it."""
    match os.environ.get("STANDIN"):
        case "fail":
            raise SystemExit(3)
        case "slow":
            time.sleep(1000)
        case "loads":
            work(WORK_SECONDS)
        case "recovers":
            inheritance.enter(Phase.RECOVERING)
            work(WORK_SECONDS)
        case "waits":
            inheritance.enter(Phase.RECOVERING)
            time.sleep(1000)
        case "raise":
            raise RuntimeError("as the test wants")
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, _frame: stop.append(signum))
    listener = inheritance.listeners[MQTT_TCP]
    listener.listen(16)
    inheritance.enter(Phase.READY)
    state = inheritance.region.state(inheritance.index)
    counters = inheritance.region.counters(inheritance.index)
    while not stop:
        state.heartbeat_ns = time.monotonic_ns()
        if not select.select([listener], [], [], 0.02)[0]:
            continue
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            continue
        client.settimeout(1)
        counters[0] += 1
        counters[12] += 1
        client.sendall(str(inheritance.index).encode())
        match client.recv(16):
            case b"hang":
                client.sendall(b".")
                time.sleep(1000)
            case b"deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                client.sendall(b".")
        client.close()
    inheritance.enter(Phase.DRAINING)


def main() -> int:
    """Run the real command line, with this module in the place of the worker."""
    programs = {**supervisor.PROGRAMS, "worker": "tests.integration.standin"}
    with mock.patch.object(
        command, "Supervisor", partial(supervisor.Supervisor, programs=programs)
    ):
        return command.main()


if __name__ == "__main__":
    sys.exit(main())
