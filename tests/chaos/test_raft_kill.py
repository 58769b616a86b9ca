"""Three processes with Raft hosts, killed with SIGKILL under load: nothing acknowledged is lost."""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.chaos.raft_process import LENGTH
from tests.integration.mosquitto import fixed_port
from tests.integration.supervised import ROOT

ROUNDS = int(os.environ.get("ROBUSTMQ_RAFT_KILLS", "4"))
IN_FLIGHT = 64
PATIENCE = 60.0


class Client:
    """A connection to one process; it is gone when the process is."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send(b"client")
        self.input = bytearray()
        self.early: list[list[Any]] = []
        self.waiting: dict[int, bytes] = {}

    def send(self, data: bytes) -> None:
        self.sock.sendall(LENGTH.pack(len(data)) + data)

    def receive(self, seconds: float) -> list[list[Any]]:
        """Replies that come within a time; raises OSError when the process is gone."""
        if self.early:
            early, self.early = self.early, []
            return early
        self.sock.settimeout(seconds)
        try:
            data = self.sock.recv(1 << 20)
        except TimeoutError:
            return []
        if not data:
            raise ConnectionResetError
        self.input += data
        replies = []
        while len(self.input) >= 4:
            (size,) = LENGTH.unpack_from(self.input)
            if len(self.input) < 4 + size:
                break
            replies.append(msgspec.msgpack.decode(bytes(self.input[4 : 4 + size])))
            del self.input[: 4 + size]
        return replies

    def ask(self, *what: object) -> Any:  # noqa: ANN401
        """Ask one thing; what else is answered meanwhile is received later."""
        self.send(msgspec.msgpack.encode([0, *what]))
        others: list[list[Any]] = []
        while True:
            replies = self.receive(PATIENCE)
            found = [value for number, value in replies if number == 0]
            others += [reply for reply in replies if reply[0]]
            if found:
                self.early = others
                return found[0]


class Cluster:
    """The three processes, and a client of each that lives."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.ports = [fixed_port() for _ in range(3)]
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.clients: dict[int, Client] = {}
        self.acknowledged: dict[bytes, int] = {}
        self.sent = 0
        for number in (1, 2, 3):
            self.start(number)

    def start(self, number: int) -> None:
        ports = ",".join(map(str, self.ports))
        folder = str(self.place / str(number) / "meta")
        self.processes[number] = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.raft_process", str(number), ports, folder, "40"],
            cwd=ROOT,
            stderr=(self.place / f"{number}.log").open("ab"),
        )

    def kill(self, number: int) -> None:
        process = self.processes.pop(number)
        process.kill()
        process.wait()
        if client := self.clients.pop(number, None):
            client.sock.close()

    def close(self) -> None:
        for number in list(self.processes):
            self.kill(number)

    def connect(self) -> int:
        """Connect to every process that listens; returns how many there are."""
        for number, process in self.processes.items():
            if number not in self.clients:
                assert process.poll() is None, self.log(number)
                try:
                    self.clients[number] = Client(self.ports[number - 1])
                except OSError:
                    continue
        return len(self.clients)

    def log(self, number: int) -> str:
        return (self.place / f"{number}.log").read_text()

    def load(self, seconds: float) -> int:
        """Keep commands in flight on every process that lives; returns how many there are."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.connect()
            for number, client in list(self.clients.items()):
                try:
                    self.pump(client)
                except OSError:
                    client.sock.close()
                    del self.clients[number]
        return len(self.clients)

    def pump(self, client: Client) -> None:
        while len(client.waiting) < IN_FLIGHT:
            self.sent += 1
            command = b"%016d" % self.sent + b"x" * 100
            client.waiting[self.sent] = command
            client.send(msgspec.msgpack.encode([self.sent, command]))
        for number, position in client.receive(0.01):
            command = client.waiting.pop(number)
            if position is not None:
                self.acknowledged[command] = position

    def fall_behind(self, number: int, other: int) -> None:
        """Kill a process, go on until another one's log begins behind it, kill it in its repair."""
        applied = self.state(other)[4]
        self.kill(number)

        def is_cut() -> bool:
            self.load(0.2)
            return other in self.clients and bool(self.state(other)[3] > applied)

        until(is_cut, "the log is not cut short")
        self.start(number)
        until(lambda: self.load(0.05) == 3, "it does not come back")
        self.kill(number)
        self.start(number)

    def state(self, number: int) -> list[Any]:
        """What a process has folded, and its log; it is asked until a majority confirms it."""
        while (state := self.clients[number].ask(None)) is None:
            pass
        assert isinstance(state, list)
        return state

    def states(self) -> list[Any]:
        return [self.clients[number].ask(None) for number in (1, 2, 3)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.mark.slow
def test_a_kill_at_any_time_loses_nothing(cluster: Cluster) -> None:
    rng = random.Random()

    def is_served() -> bool:
        cluster.load(0.05)
        return bool(cluster.acknowledged)

    until(is_served, "nothing is served")
    until(lambda: cluster.load(0.05) == 3, "not all are there")
    number, other = rng.sample((1, 2, 3), 2)
    cluster.fall_behind(number, other)
    for _ in range(ROUNDS):
        cluster.load(rng.uniform(0.1, 0.5))
        victims = rng.choice(([1], [2], [3], [1, 2], [2, 3], [1, 2, 3]))
        for number in victims:
            cluster.kill(number)
        cluster.load(rng.uniform(0.0, 0.5))
        for number in victims:
            cluster.start(number)
    before = len(cluster.acknowledged)

    def goes_on() -> bool:
        cluster.load(0.1)
        return len(cluster.clients) == 3 and len(cluster.acknowledged) > before

    until(goes_on, "it does not go on")
    for client in cluster.clients.values():
        client.sock.close()
    cluster.clients.clear()
    until(lambda: cluster.connect() == 3, "a process is gone")
    until(lambda: len({str(each[:2]) for each in cluster.states() if each}) == 1, "not equal")
    logs = "".join(cluster.log(number) for number in (1, 2, 3))
    assert "sent the state" in logs
    assert "Traceback" not in logs
    for client in cluster.clients.values():
        for command, position in cluster.acknowledged.items():
            assert client.ask(command, 0) == b"%d" % position
