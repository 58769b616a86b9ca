"""Accepting and peeking: what the poller's module does to a socket before it is a stream."""

import os
import resource
import socket

import pytest

from tests.datapath import SIDES, Side


@pytest.mark.parametrize("kind", SIDES)
def test_accept_takes_up_to_its_limit(kind: str) -> None:
    side = Side(kind)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        assert side.accept(listener.fileno(), 5) == []
        peers = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        accepted = side.accept(listener.fileno(), 2)
        assert len(accepted) == 2
        accepted += side.accept(listener.fileno(), 10)
        assert len(accepted) == 3
        for fd in accepted:
            connection = socket.socket(fileno=fd)
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert not os.get_blocking(fd)
            assert not os.get_inheritable(fd)
            connection.close()
        for peer in peers:
            peer.close()


@pytest.mark.parametrize("kind", SIDES)
def test_accept_says_when_descriptors_have_run_out(kind: str) -> None:
    side = Side(kind)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        peer = socket.create_connection(listener.getsockname())
        resource.setrlimit(resource.RLIMIT_NOFILE, (peer.fileno(), limit[1]))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                side.accept(listener.fileno(), 5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        os.close(side.accept(listener.fileno(), 5)[0])
        peer.close()


@pytest.mark.parametrize("kind", SIDES)
def test_peek_leaves_the_bytes_where_they_are(kind: str) -> None:
    side = Side(kind)
    ours, theirs = socket.socketpair()
    assert side.peek(ours.fileno(), 10) is None
    theirs.sendall(b"hello")
    assert side.peek(ours.fileno(), 3) == b"hel"
    assert side.peek(ours.fileno(), 10) == b"hello"
    assert ours.recv(10) == b"hello"
    theirs.sendall(bytes(range(256)) * 100)
    for length in (4_095, 4_096, 4_097, 20_000, 25_600, 32_768):
        assert side.peek(ours.fileno(), length) == (bytes(range(256)) * 100)[:length]
    assert len(ours.recv(30_000)) == 25_600
    theirs.close()
    assert side.peek(ours.fileno(), 10) == b""
    ours.close()
    with pytest.raises(OSError, match=r".+"):
        side.peek(9_999, 10)


@pytest.mark.parametrize("kind", SIDES)
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_peer_address_is_the_peers(kind: str, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, 0), family=family)
    peer = socket.create_connection(listener.getsockname()[:2])
    ours, _ = listener.accept()
    assert Side(kind).peer_address(ours.fileno()) == address
    for connection in (ours, peer, listener):
        connection.close()


@pytest.mark.parametrize("kind", SIDES)
def test_a_step_of_the_clock_is_made_up_for_slowly_and_no_further(kind: str) -> None:
    slew = Side(kind).slew
    hour, second = 3_600_000_000_000, 1_000_000_000
    assert slew(hour, second) == second // 64
    assert slew(-hour, second) == -(second // 64)
    assert slew(1_000, second) == 1_000
    assert slew(-1_000, second) == -1_000
    assert slew(0, second) == slew(hour, 0) == 0


@pytest.mark.parametrize("kind", SIDES)
def test_a_socket_without_an_ip_peer_has_no_address(kind: str) -> None:
    ours, theirs = socket.socketpair()
    alone = socket.socket()
    side = Side(kind)
    assert [side.peer_address(each.fileno()) for each in (ours, alone)] == ["", ""]
    for connection in (ours, theirs, alone):
        connection.close()
