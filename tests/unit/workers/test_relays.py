"""Relays between two cores without rings: frames are carried by hand, or not at all."""

from typing import cast

import pytest

from robustmq import metrics
from robustmq._kernel.outbox import Outbox
from robustmq._kernel.turn import Turn
from robustmq.mqtt.connection import Connection
from robustmq.net.layer import Facts
from robustmq.net.transport import Endpoint
from robustmq.policy.principal import Peer
from robustmq.workers.relays import FIRST_KIND, Relays

WINDOW = 100
PEER = Peer("192.0.2.1", "tls", "alice")


class Intake:
    """What was fed, and whether more is wanted."""

    def __init__(self) -> None:
        self.data = b""
        self.paused = False
        self.error: Exception | None = None

    def feed(self, data: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.data += data

    def resume(self) -> None:
        self.paused = False


class Client:
    """A connection, as far as its stream sees it."""

    def __init__(self, turn: Turn, peer: Peer) -> None:
        self.peer = peer
        self.intake = Intake()
        self.outbox = Outbox(turn)
        self.stream: object = None
        self.losses = 0

    def lost(self) -> None:
        self.losses += 1


class Socket:
    """A transport whose peer reads only when the test wants."""

    endpoint: Endpoint

    def __init__(self) -> None:
        self.facts = Facts()
        self.sent = b""
        self.backlog = 0
        self.resumed = 0
        self.ended = ""

    def write(self, data: bytes) -> None:
        self.sent += data
        self.backlog += len(data)

    def drain(self) -> None:
        self.backlog = 0
        self.endpoint.drained()

    def resume(self) -> None:
        self.resumed += 1

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"
        self.endpoint.lost()


class Pair:
    """Two cores: 0 accepts, 1 is home."""

    def __init__(self) -> None:
        self.turn = Turn(memoryview(bytearray(8 * metrics.CELLS)).cast("Q"))
        self.clients: list[Client] = []
        self.room = True
        self.errors: list[Exception] = []
        self.frames: list[tuple[int, int, bytes]] = []
        self.cores = [
            Relays(Sending(self, core), WINDOW, self.arrive, self.errors.append) for core in (0, 1)
        ]
        self.socket = Socket()

    def arrive(self, peer: Peer) -> Connection | None:
        if not self.room:
            return None
        self.clients.append(Client(self.turn, peer))
        return cast("Connection", self.clients[-1])

    def open(self, beginning: bytes = b"first") -> Client:
        self.cores[0].open(1, self.socket, PEER, beginning)
        self.carry()
        return self.clients[-1]

    def carry(self) -> int:
        """End the turns of both cores until nothing is on its way; return the frames' number."""
        carried = 0
        while True:
            for core in self.cores:
                core.flush()
            outboxes = self.turn.outboxes[:]
            self.turn.outboxes.clear()
            for outbox in outboxes:
                outbox.settle()
                if outbox.stream is not None:
                    outbox.stream.flush()
            if not self.frames:
                return carried
            frames, self.frames = self.frames, []
            for source, target, frame in frames:
                assert frame[0] >= FIRST_KIND
                self.cores[target].receive(source, frame)
                carried += 1

    def is_forgotten(self) -> bool:
        return not (self.cores[0].accepted or self.cores[1].homes)


class Sending:
    """The fabric of one core."""

    def __init__(self, pair: Pair, core: int) -> None:
        self.pair, self.core = pair, core

    def send(self, core: int, frame: bytes) -> None:
        self.pair.frames.append((self.core, core, frame))


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_home_hears_who_it_is_and_what_was_read(pair: Pair) -> None:
    client = pair.open(b"first")
    assert (client.peer, client.intake.data) == (PEER, b"first")


def test_what_a_turn_brings_is_one_frame_each_way(pair: Pair) -> None:
    client = pair.open(b"")
    for _ in range(5):
        pair.socket.endpoint.feed(b"ab")
    assert pair.carry() == 1
    assert client.intake.data == b"ab" * 5
    for _ in range(5):
        client.outbox.put(b"cd")
    assert pair.carry() == 1
    assert pair.socket.sent == b"cd" * 5


def test_home_that_takes_nothing_stops_the_socket(pair: Pair) -> None:
    client = pair.open(b"")
    client.intake.paused = True
    pauses = []
    for data in (bytes(WINDOW - 1), b"x"):
        pair.socket.endpoint.feed(data)
        pauses.append(pair.socket.endpoint.paused)
    pair.carry()
    assert [*pauses, pair.socket.endpoint.paused] == [False, True, True]
    assert client.outbox.stream is not None
    client.outbox.stream.resume()
    pair.carry()
    assert [pair.socket.endpoint.paused, pair.socket.resumed] == [False, 1]


def test_a_peer_that_does_not_read_is_sent_no_more_than_the_window(pair: Pair) -> None:
    client = pair.open(b"")
    for _ in range(10):
        client.outbox.put(bytes(60))
        pair.carry()
    assert len(pair.socket.sent) == 120
    assert client.outbox.size == 480
    pair.socket.drain()
    pair.carry()
    assert len(pair.socket.sent) == 600


def test_drained_means_that_more_may_be_sent(pair: Pair) -> None:
    client = pair.open(b"")
    calls: list[int] = []
    client.outbox.drained = lambda: calls.append(1)
    client.outbox.put(b"small")
    pair.carry()
    assert len(calls) == 1
    client.outbox.put(bytes(WINDOW))
    pair.carry()
    assert len(calls) == 1
    pair.socket.drain()
    pair.carry()
    assert len(calls) == 2


def test_the_peers_end_comes_behind_its_last_bytes(pair: Pair) -> None:
    client = pair.open()
    pair.socket.endpoint.feed(b"last")
    pair.socket.endpoint.lost()
    pair.carry()
    assert (client.intake.data, client.losses) == (b"firstlast", 1)
    assert pair.is_forgotten()


def test_home_closes_behind_its_last_bytes(pair: Pair) -> None:
    client = pair.open()
    client.outbox.put(bytes(WINDOW))
    pair.carry()
    client.outbox.put(b"bye")
    stream = client.outbox.stream
    assert stream is not None
    stream.close()  # type: ignore[attr-defined]
    pair.carry()
    assert (pair.socket.ended, pair.socket.sent[-3:]) == ("closed", b"bye")
    assert not pair.is_forgotten()
    pair.socket.endpoint.lost()
    pair.carry()
    assert pair.is_forgotten()


def test_home_aborts(pair: Pair) -> None:
    client = pair.open()
    client.stream.abort()  # type: ignore[attr-defined]
    pair.carry()
    assert (pair.socket.ended, client.losses) == ("aborted", 1)
    assert pair.is_forgotten()


def test_home_has_no_room(pair: Pair) -> None:
    pair.room = False
    pair.cores[0].open(1, pair.socket, PEER, b"first")
    pair.carry()
    assert pair.socket.ended == "aborted"
    assert pair.is_forgotten()


def test_a_core_that_is_replaced_ends_both_kinds(pair: Pair) -> None:
    client = pair.open()
    pair.cores[0].replaced(1)
    assert pair.socket.ended == "aborted"
    pair.cores[1].replaced(0)
    assert client.losses == 1
    # What is still on its way is for nobody.
    assert pair.is_forgotten()
    pair.carry()
    assert pair.errors == []


def test_another_core_that_is_replaced_ends_nothing(pair: Pair) -> None:
    client = pair.open()
    for core in pair.cores:
        core.replaced(2)
    assert (pair.socket.ended, client.losses) == ("", 0)


def test_an_error_of_ours_ends_one_stream(pair: Pair) -> None:
    client = pair.open()
    client.intake.error = RuntimeError("ours")
    pair.socket.endpoint.feed(b"x")
    pair.carry()
    assert [str(error) for error in pair.errors] == ["ours"]
    assert (pair.socket.ended, client.losses) == ("aborted", 1)
    assert pair.is_forgotten()
