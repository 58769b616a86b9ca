"""The door: who is let in, where to, and who is turned away when."""

import socket
from collections.abc import Callable, Iterator

import pytest

from robustmq import metrics
from robustmq._kernel.poller import Poller
from robustmq._kernel.turn import Turn
from robustmq.broker.timers import Timers
from robustmq.net import proxy
from robustmq.net.layer import Facts
from robustmq.net.tcp import Acceptor, Door

TIMEOUT_MS = 1_000


class House:
    """A door on a real listener; time is what the test says it is."""

    def __init__(self) -> None:
        turn = Turn(memoryview(bytearray(8 * metrics.CELLS)).cast("Q"))
        self.poller = Poller(turn, lambda: True, lambda: None, self.fail)
        self.timers = Timers()
        self.now_ms = 1_000_000
        self.room = 100
        self.refused = 0
        self.reasons: list[str] = []
        self.has_header = False
        self.arrived: list[tuple[socket.socket, int]] = []
        self.peers: list[socket.socket] = []
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        self.address = listener.getsockname()
        self.door = Door(
            self.poller,
            clock=self.timers,
            now_ms=lambda: self.now_ms,
            peek_bytes=16,
            timeout_ms=TIMEOUT_MS,
            home=lambda data: int(data) if data.isdigit() else None,
            arrived=lambda fd, core, _: self.arrived.append((socket.socket(fileno=fd), core)),
            refused=lambda _, why: self.count(why),
            header=self.header,
        )
        self.acceptor = Acceptor(
            self.poller,
            clock=self.timers,
            now_ms=lambda: self.now_ms,
            listener=listener,
            met=lambda fd: self.door.meet(fd, Facts(), self.has_header),
            full=lambda: len(self.arrived) >= self.room,
            refused=self.count,
        )

    def shut(self) -> None:
        self.acceptor.shut()
        self.door.shut()

    def fail(self, error: Exception) -> None:
        raise error

    def count(self, why: str = "") -> None:
        self.refused += 1
        self.reasons.append(why)

    def header(self, data: bytes, facts: Facts) -> int | None:
        header = proxy.parse(data, 232)
        if header is not None:
            proxy.apply(header, facts, takes_user=False)
        return header.length if header is not None else None

    def peer(self, data: bytes = b"") -> socket.socket:
        peer = socket.create_connection(self.address)
        peer.settimeout(5)
        self.peers.append(peer)
        peer.sendall(data)
        return peer

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(500):
            if condition():
                return
            self.poller.wait(10)
        raise AssertionError("it did not come true")

    def pass_time(self, ms: int) -> None:
        self.now_ms += ms
        self.timers.run(self.now_ms)

    def close(self) -> None:
        self.shut()
        self.poller.close()
        for connection in [*self.peers, *(each for each, _ in self.arrived)]:
            connection.close()


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.close()


def test_the_first_bytes_say_where_a_connection_goes_and_stay_unread(house: House) -> None:
    house.peer(b"7")
    house.until(lambda: house.arrived)
    connection, core = house.arrived[0]
    assert core == 7
    assert connection.recv(10) == b"7"


def test_who_has_not_said_enough_is_asked_again_when_more_comes(house: House) -> None:
    peer = house.peer(b"x")
    house.until(lambda: house.door.waiting)
    peer.sendall(b"y")
    house.poller.wait(20)
    assert house.arrived == []
    silent = house.peer()
    house.until(lambda: house.door.waiting == 2)
    silent.sendall(b"3")
    house.until(lambda: house.arrived)
    assert (house.arrived[0][1], house.door.waiting) == (3, 1)


def test_the_silent_are_turned_away_in_time_and_nobody_else(house: House) -> None:
    first = house.peer()
    house.until(lambda: house.door.waiting == 1)
    house.pass_time(TIMEOUT_MS // 2)
    second = house.peer()
    house.until(lambda: house.door.waiting == 2)
    house.pass_time(TIMEOUT_MS // 2 + 50)
    assert (house.door.waiting, house.refused) == (1, 1)
    assert first.recv(1) == b""
    second.sendall(b"2")
    house.until(lambda: house.arrived)
    house.pass_time(10 * TIMEOUT_MS)
    assert (house.door.waiting, house.refused) == (0, 1)
    house.peer()
    house.until(lambda: house.door.waiting == 1)
    house.pass_time(TIMEOUT_MS + 50)
    assert (house.door.waiting, house.refused) == (0, 2)


def test_one_timer_serves_all_who_wait(house: House) -> None:
    for _ in range(5):
        peer = house.peer()
        house.until(lambda: house.door.waiting == 1)
        peer.sendall(b"1")
        house.until(lambda: not house.door.waiting)
    assert sum(len(slot) for slot in house.timers._slots.values()) == 1


def test_nobody_comes_in_when_the_house_is_full(house: House) -> None:
    house.room = 1
    house.peer(b"1")
    house.until(lambda: house.arrived)
    late = house.peer(b"1")
    house.until(lambda: house.refused)
    assert len(house.arrived) == 1
    # Its byte was not read, so the end is a reset.
    with pytest.raises(ConnectionResetError):
        late.recv(1)


def test_a_peer_that_leaves_without_a_word_is_forgotten(house: House) -> None:
    peer = house.peer()
    house.until(lambda: house.door.waiting)
    peer.close()
    house.until(lambda: house.refused)
    assert house.door.waiting == 0


def test_a_peer_that_ends_within_its_beginning_is_turned_away_at_once(house: House) -> None:
    peer = house.peer(b"x")
    house.until(lambda: house.door.waiting == 1)
    peer.shutdown(socket.SHUT_WR)
    house.until(lambda: house.refused == 1)
    assert house.reasons == ["it ended before it was known whose it is"]
    assert house.door.waiting == 0


def test_a_peer_that_has_said_all_and_ended_comes_in(house: House) -> None:
    peer = house.peer(b"7")
    peer.shutdown(socket.SHUT_WR)
    house.until(lambda: len(house.arrived) == 1)
    assert house.arrived[0][1] == 7


def test_shutting_closes_those_who_wait(house: House) -> None:
    peer = house.peer()
    house.until(lambda: house.door.waiting)
    house.shut()
    assert peer.recv(1) == b""
    assert house.door.waiting == 0
    with pytest.raises(ConnectionRefusedError):
        house.peer()
