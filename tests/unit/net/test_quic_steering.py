import random
import socket

from robustmq.net.quic_steering import CID_BYTES, ConnectionIds, attach

WORKERS = 3


def test_an_id_names_its_worker_whatever_is_drawn() -> None:
    for worker, workers in ((0, 1), (6, 7), (255, 256), (0, 1_000), (999, 1_000)):
        ids = ConnectionIds(worker, workers, b"secret", lambda count: b"\xff" * count)
        assert int.from_bytes(ids.issue()[:2], "big") % workers == worker
        ids = ConnectionIds(worker, workers, b"secret", random.Random(1).randbytes)
        issued = {ids.issue() for _ in range(200)}
        assert len(issued) == 200
        assert {len(cid) for cid in issued} == {CID_BYTES}
        assert {int.from_bytes(cid[:2], "big") % workers for cid in issued} == {worker}


def test_a_token_belongs_to_an_id_and_a_node() -> None:
    ids = ConnectionIds(0, 2, b"secret", random.randbytes)
    again = ConnectionIds(1, 2, b"secret", random.randbytes)
    other = ConnectionIds(0, 2, b"another", random.randbytes)
    assert ids.reset_token(b"a" * 8) == again.reset_token(b"a" * 8)
    assert len({ids.reset_token(b"a" * 8), ids.reset_token(b"b" * 8)}) == 2
    assert other.reset_token(b"a" * 8) != ids.reset_token(b"a" * 8)


def test_the_kernel_gives_each_datagram_to_the_worker_that_its_id_names() -> None:
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(WORKERS)]
    address = ("127.0.0.1", 0)
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.settimeout(10)
        sock.bind(address)
        address = sock.getsockname()
    attach(sockets[0], WORKERS)
    for worker, sock in enumerate(sockets):
        ids = ConnectionIds(worker, WORKERS, b"secret", random.Random(worker).randbytes)
        for number in range(20):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            cid = ids.issue()
            short = b"\x40" + cid + b"%d" % number
            long = b"\xc0\x00\x00\x00\x01\x08" + cid + b"%d" % number
            for data in (short, long):
                sender.sendto(data, address)
                assert sock.recv(100) == data
            sender.close()
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(b"", address)
    sender.sendto(b"\x40", address)
    assert [sockets[0].recv(10), sockets[0].recv(10)] == [b"", b"\x40"]
    sender.close()
    for sock in sockets:
        sock.close()
