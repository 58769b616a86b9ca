import errno
import socket
from collections.abc import Callable, Iterator

import pytest
from aioquic.quic.connection import NetworkAddress

from robustmq.net.quic_socket import READS, QuicSocket


def _udp(host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.settimeout(10)
    return sock


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with _udp() as sock:
        yield sock


class Wayward:
    """A socket whose calls fail as it is told, once each."""

    def __init__(self, sock: socket.socket, failures: dict[str, list[int]]) -> None:
        self.inner = sock
        self._failures = failures
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def _call(self, name: str) -> Callable[..., int]:
        self.calls.append(name)
        if self._failures.get(name):
            number = self._failures[name].pop(0)
            raise OSError(number, "as told")
        method: Callable[..., int] = getattr(self.inner, name)
        return method

    def sendto(self, data: bytes, address: NetworkAddress) -> int:
        return self._call("sendto")(data, address)

    def sendmsg(self, *arguments: object) -> int:
        return self._call("sendmsg")(*arguments)

    def recvfrom(self, size: int) -> object:
        return self._call("recvfrom")(size)


def _wayward(**failures: list[int]) -> tuple[QuicSocket, Wayward]:
    sock = _udp()
    sock.setblocking(False)
    wayward = Wayward(sock, failures)
    return QuicSocket(wayward), wayward  # type: ignore[arg-type]


def test_runs_of_one_size_go_together_and_arrive_apart(peer: socket.socket) -> None:
    quic, wayward = _wayward()
    other = _udp()
    to, elsewhere = peer.getsockname(), other.getsockname()
    sizes = [1_200, 1_200, 1_200, 300, 1_200, 20, 1_300]
    datagrams = [(bytes((at,)) * size, to) for at, size in enumerate(sizes)]
    assert quic.send([*datagrams, (b"other", elsewhere)])
    assert [peer.recv(2_000) for _ in sizes] == [data for data, _ in datagrams]
    assert other.recv(100) == b"other"
    assert wayward.calls == ["sendmsg", "sendmsg", "sendto", "sendto"]
    assert quic.waiting == 0


def test_many_datagrams_are_cut_into_runs_that_the_kernel_takes(peer: socket.socket) -> None:
    quic, _ = _wayward()
    datagrams = [(b"%04d" % at + bytes(1_196), peer.getsockname()) for at in range(100)]
    assert quic.send(datagrams)
    assert [int(peer.recv(2_000)[:4]) for _ in range(100)] == list(range(100))


def test_a_kernel_that_cannot_cut_gets_one_at_a_time(peer: socket.socket) -> None:
    quic, wayward = _wayward(sendmsg=[errno.EIO])
    assert quic.send([(b"a" * 50, peer.getsockname())] * 3)
    assert [peer.recv(100) for _ in range(3)] == [b"a" * 50] * 3
    assert wayward.calls == ["sendmsg", "sendto", "sendto", "sendto"]
    assert quic.send([(b"b" * 50, peer.getsockname())] * 2)
    assert wayward.calls[4:] == ["sendto", "sendto"]


def test_what_the_kernel_does_not_take_now_is_kept_in_order(peer: socket.socket) -> None:
    quic, _ = _wayward(sendto=[errno.EAGAIN])
    assert not quic.send([(b"first", peer.getsockname())])
    assert quic.waiting == 1
    assert quic.send([(b"second", peer.getsockname())])
    assert [peer.recv(100), peer.recv(100)] == [b"first", b"second"]


def test_what_cannot_be_delivered_is_lost_alone(peer: socket.socket) -> None:
    quic, _ = _wayward(sendto=[errno.EPERM])
    assert quic.send([(b"lost", peer.getsockname())])
    assert quic.send([(b"here", peer.getsockname())])
    assert peer.recv(100) == b"here"


def test_a_turn_takes_so_many_datagrams_and_errors_are_passed_over(peer: socket.socket) -> None:
    quic, wayward = _wayward(recvfrom=[errno.ECONNREFUSED])
    for number in range(READS + 10):
        peer.sendto(b"%d" % number, wayward.inner.getsockname())
    taken: list[bytes] = []
    assert quic.receive(lambda data, _: taken.append(data), 60.0) == READS
    assert quic.receive(lambda data, _: taken.append(data), 0.0) == 1
    assert quic.receive(lambda data, _: taken.append(data), 60.0) == 9
    assert [int(data) for data in taken] == list(range(READS + 10))


@pytest.mark.parametrize(("anywhere", "asked"), [("0.0.0.0", "127.0.0.9"), ("::", "::1")])
def test_a_socket_for_all_addresses_answers_from_the_one_that_was_asked(
    anywhere: str, asked: str
) -> None:
    with _udp(anywhere) as sock, _udp(asked.replace(".9", ".1")) as client:
        port = sock.getsockname()[1]
        quic = QuicSocket(sock)
        sock.setblocking(False)
        client.connect((asked, port))
        client.send(b"question")
        taken: list[tuple[bytes, NetworkAddress]] = []
        while not taken:
            quic.receive(lambda data, address: taken.append((data, address)), 1.0)
        ((data, address),) = taken
        assert data == b"question"
        assert address[:2] == client.getsockname()[:2]
        # A connected socket hears nobody else.
        assert quic.send([(b"answer", address), (b"answer", address), (b"end", address)])
        assert [client.recv(100) for _ in range(3)] == [b"answer", b"answer", b"end"]
