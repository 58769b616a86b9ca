import random

from aioquic.buffer import Buffer
from aioquic.quic.events import (
    ConnectionTerminated,
    HandshakeCompleted,
)
from aioquic.quic.packet import QuicErrorCode, QuicPacketType, pull_quic_header

from robustmq.net.quic_steering import CID_BYTES
from tests.unit.net.quic_network import Network, closed, echoed, greet


def test_another_protocol_is_refused_in_the_handshake() -> None:
    network = Network()
    client = network.client(alpn="h3")
    assert closed(network, client)
    assert client.seen(ConnectionTerminated)[0].error_code == 0x100 + 120
    assert not network.hall.takers
    assert network.hall.refusals == 1
    assert network.run(lambda: network.server.connections == 0)


def test_a_full_server_refuses() -> None:
    network = Network()
    network.hall.full = True
    client = network.client()
    assert closed(network, client)
    ended = client.seen(ConnectionTerminated)[0]
    assert ended.error_code == QuicErrorCode.CONNECTION_REFUSED
    assert network.hall.refusals == 1
    assert network.server.connections == 0


def test_a_shut_server_takes_nobody_and_keeps_whom_it_has() -> None:
    network = Network()
    network.hall.echo = True
    client = greet(network)
    network.server.shut()
    late = network.client(5_999)
    client.quic.send_stream_data(0, b" there?")
    assert network.run(lambda: client.received() == b"hello there?")
    assert not network.run(lambda: late.seen(HandshakeCompleted), 5.0)


def test_many_that_begin_are_asked_to_show_their_address() -> None:
    network = Network(retry_above=2, worker=3, workers=4)
    for number in range(6):
        network.client(5_000 + number)
    assert network.run(lambda: all(c.seen(HandshakeCompleted) for c in network.clients))
    assert network.hall.retries >= 1
    assert network.server.connections == 6


def test_a_token_that_comes_from_another_address_is_refused() -> None:
    network = Network(retry_above=0)
    client = network.client()
    network.mangle = lambda _: [] if client.quic._retry_count else [0.0]
    assert network.run(lambda: client.quic._retry_count)
    network.mangle = lambda _: [0.0]
    client.address = ("10.0.0.3", 5_000)
    assert closed(network, client)
    ended = client.seen(ConnectionTerminated)[0]
    assert ended.error_code == QuicErrorCode.INVALID_TOKEN
    assert network.server.connections == 0


def test_handshakes_that_are_never_finished_are_bounded_and_given_up() -> None:
    network = Network(handshakes=3)
    for number in range(10):
        network.client(5_000 + number)
    network.mangle = lambda data: [0.0] if data[0] & 0xF0 == 0xC0 else []
    silent = [client.quic.datagrams_to_send(network.now)[0][0] for client in network.clients]
    network.clients.clear()
    for number, data in enumerate(silent):
        network.inject(data, ("10.0.0.2", 5_000 + number))
    network.run(lambda: False, 1.0)
    assert network.server.connections == 3
    assert network.hall.refusals == 7
    assert network.run(lambda: network.server.connections == 0, 20.0)


def test_who_connects_and_opens_no_stream_is_given_up() -> None:
    network = Network()
    client = network.client()
    assert network.connected(client)
    assert not network.run(lambda: client.seen(ConnectionTerminated), 4.0)
    assert network.run(lambda: client.seen(ConnectionTerminated), 2.0)
    assert network.run(lambda: network.server.connections == 0)


def test_the_connections_of_an_earlier_life_are_reset() -> None:
    network = Network()
    client = greet(network)
    network.restart()
    seen: list[bytes] = []

    def watch(data: bytes) -> list[float]:
        seen.append(data)
        return [0.0]

    network.mangle = watch
    client.quic.send_stream_data(0, b"are you there?")
    assert network.run(lambda: network.hall.resets > 0 and len(seen) > 1)
    assert network.server.connections == 0
    # The token is the one that the client was told when it connected (RFC 9000 10.3.1).
    assert seen[1].endswith(client.quic._peer_cid.stateless_reset_token)
    assert len(seen[1]) < len(seen[0])


def test_resets_are_shorter_than_what_they_answer_and_few() -> None:
    network = Network()
    for _ in range(300):
        network.inject(b"\x40" + bytes(30), ("10.0.0.2", 7))
    network.run(lambda: False, 0.5)
    assert network.hall.resets == 100
    before = network.sent
    network.now += 2.0
    network.inject(b"\x40" + bytes(20), ("10.0.0.2", 7))
    network.run(lambda: False, 0.5)
    assert network.sent == before + 1


def test_another_version_is_told_ours() -> None:
    network = Network()
    seen: list[bytes] = []

    def watch(data: bytes) -> list[float]:
        seen.append(data)
        return [0.0]

    network.mangle = watch
    packet = b"\xc0" + b"\x1a\x2a\x3a\x4a" + b"\x08" + b"d" * 8 + b"\x08" + b"s" * 8
    network.inject(packet + bytes(1_200), ("10.0.0.2", 7))
    network.inject(packet, ("10.0.0.2", 7))
    network.run(lambda: False, 1.0)
    (answer,) = seen[2:]
    header = pull_quic_header(Buffer(data=answer), host_cid_length=CID_BYTES)
    assert header.packet_type is QuicPacketType.VERSION_NEGOTIATION
    assert header.supported_versions == [1, 0x6B3343CF]


def test_garbage_leaves_nothing_behind() -> None:
    network = Network()
    client = greet(network)
    chance = random.Random(3)
    for number in range(500):
        data = bytearray(chance.randbytes(chance.randrange(1, 1_400)))
        if number % 3 == 0:
            data[:14] = b"\xc0\x00\x00\x00\x01\x08" + chance.randbytes(8)
            data += bytes(1_200)
        network.inject(bytes(data), ("10.0.0.66", number + 1))
    client.quic.send_stream_data(0, b" still")
    taker = network.hall.takers[0]
    assert network.run(lambda: bytes(taker.taken) == b"hello still")
    network.run(lambda: False, 10.0)
    assert network.server.connections == 1
    assert not network.hall.errors


def test_nobody_gets_a_ticket_for_data_that_could_be_repeated() -> None:
    network = Network()
    network.hall.echo = True
    client = greet(network)
    assert echoed(network, client, b"hello")
    network.run(lambda: False, 1.0)
    assert client.tickets == []
    assert not client.seen(HandshakeCompleted)[0].early_data_accepted
