"""MQTT over QUIC: across cores, on several streams, from changing addresses, and against abuse."""

import os
import random
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustmq.mqtt.packets import V5, V311, Disconnect, Publish, Suback, Subscribe, Subscription
from robustmq.mqtt.reasons import Reason
from tests import authority
from tests.integration.homes import PLACES, name_on
from tests.integration.quic_client import Line, QuicClient
from tests.integration.supervised import Node, until
from tests.integration.wire_client import Client, numbered, serve

ROUNDS = 4


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority.made(tmp_path_factory.mktemp("authority"))


def _settings(keys: Path) -> tuple[str, ...]:
    return (
        f'mqtt_runtime.tls.tls_cert=["{keys / "server.pem"}"]',
        f'mqtt_runtime.tls.tls_key=["{keys / "server.key"}"]',
        'mqtt_runtime.server.listeners=["tcp","quic"]',
    )


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Iterator[Node]:
    yield from serve(tmp_path_factory.mktemp("quic") / "data", *_settings(keys))


def _name(beginning: str) -> str:
    return f"{beginning}-{os.urandom(4).hex()}"


@pytest.mark.parametrize(("publisher", "subscriber"), PLACES)
@pytest.mark.parametrize("version", [V311, V5])
def test_every_qos_reaches_every_core(
    node: Node, publisher: int, subscriber: int, version: int
) -> None:
    topic = _name("t")
    for _ in range(ROUNDS):
        # Which worker takes a connection is by chance: some are relayed to their home.
        with (
            QuicClient(node, name_on(subscriber, "s"), version) as hears,
            QuicClient(node, name_on(publisher, "p"), version) as says,
        ):
            assert hears.subscribe(topic, 2) == [2]
            for qos in (0, 1, 2):
                assert says.publish(topic, b"%d" % qos, qos) == 0
                message = hears.message()
                assert (message.payload, message.qos) == (b"%d" % qos, qos)
            says.disconnect()
            hears.disconnect()


def test_tcp_and_quic_are_the_same_to_each_other(node: Node) -> None:
    topic = _name("t")
    with QuicClient(node, _name("q")) as quic, Client(node, _name("c")) as tcp:
        assert quic.subscribe(topic, 1) == [1]
        assert tcp.subscribe(topic, 1) == [1]
        assert quic.publish(topic, b"from quic", 1) == 0
        assert tcp.publish(topic, b"from tcp", 1) == 0
        assert {m.payload for m in quic.messages(2)} == {b"from quic", b"from tcp"}
        assert {m.payload for m in tcp.messages(2)} == {b"from quic", b"from tcp"}


def test_a_message_of_a_mebibyte_goes_both_ways(node: Node) -> None:
    topic = _name("t")
    payload = random.Random(5).randbytes(1 << 20)
    for core in (0, 1):
        with QuicClient(node, name_on(core, "big")) as client:
            client.subscribe(topic, 1)
            assert client.publish(topic, payload, 1) == 0
            assert client.message().payload == payload


def test_many_messages_keep_their_order(node: Node) -> None:
    topic = _name("t")
    payloads = list(numbered(2_000))
    for core in (0, 1):
        with QuicClient(node, name_on(core, "s")) as hears, Client(node, _name("p")) as says:
            hears.subscribe(topic, 1)
            for payload in payloads:
                says.send(Publish(topic.encode(), payload))
            assert hears.payloads(len(payloads)) == payloads


@pytest.mark.parametrize("home", [0, 1])
def test_data_streams_carry_packets_of_the_session(node: Node, home: int) -> None:
    topic = _name("t")
    for _ in range(ROUNDS):
        with QuicClient(node, name_on(home, "streams")) as client:
            first, second = client.side(), client.side()
            first.send(Subscribe(7, [Subscription(topic, 2)]))
            assert first.expect(Suback).packet_id == 7
            for qos in (0, 1, 2):
                assert second.publish(topic, b"%d" % qos, qos) == 0
                assert client.message().payload == b"%d" % qos
            second.drop_stream()
            assert first.publish(topic, b"still", 1) == 0
            assert client.message().payload == b"still"


def test_an_error_on_a_data_stream_ends_the_client(node: Node) -> None:
    for core in (0, 1):
        with QuicClient(node, name_on(core, "wrong")) as client:
            client.side().send(Disconnect())
            assert client.expect(Disconnect).reason == Reason.PROTOCOL_ERROR
            assert client.ending() == []


def resets(node: Node) -> float:
    return node.sum("mqtt_quic_resets_total")


@pytest.mark.parametrize("core", [0, 1])
def test_a_client_that_moves_stays_connected(node: Node, core: int) -> None:
    topic, before = _name("t"), resets(node)
    with QuicClient(node, name_on(core, "moves"), keep_alive=60) as client:
        client.subscribe(topic, 1)
        for number in range(8):
            client.line.move()
            if number % 2:
                client.line.quic.change_connection_id()
            assert client.publish(topic, b"%d" % number, 1) == 0
            assert client.message().payload == b"%d" % number
    assert resets(node) == before


def test_a_client_that_comes_again_by_another_way_takes_its_session_over(node: Node) -> None:
    for core in (0, 1):
        name = name_on(core, "again")
        with QuicClient(node, name) as first, Client(node, name) as second:
            assert first.expect(Disconnect).reason == Reason.SESSION_TAKEN_OVER
            assert first.ending() == []
            with QuicClient(node, name) as third:
                assert second.expect(Disconnect).reason == Reason.SESSION_TAKEN_OVER
                third.ping()


def test_what_the_server_says_last_arrives_before_the_end(node: Node) -> None:
    for core in (0, 1):
        with QuicClient(node, name_on(core, "last")) as client:
            client.send_bytes(b"\xf0\x00\xff")
            (last,) = client.ending()
            assert isinstance(last, Disconnect)
            assert client.line.terminated() == 0


def test_other_protocols_are_refused(node: Node) -> None:
    line = Line(node.address("mqtt_quic"), alpn="h3").connect()
    assert line.termination is not None
    assert line.termination.error_code == 0x100 + 120
    line.close()


def test_garbage_changes_nothing_for_others(node: Node) -> None:
    chance = random.Random(11)
    address = node.address("mqtt_quic")
    with QuicClient(node, _name("calm")) as client, _udp() as sock:
        for number in range(2_000):
            data = bytearray(chance.randbytes(chance.randrange(1, 1_400)))
            if number % 2:
                data[:6] = b"\xc0\x00\x00\x00\x01\x08"
                data += bytes(1_200)
            sock.sendto(data, address)
        client.ping()
        client.line.quic.send_stream_data(0, b"")
    with QuicClient(node, _name("calm")) as client:
        client.ping()
    until(
        lambda: sum(node.sample(f'mqtt_quic_connections{{core="{core}"}}') for core in (0, 1)) == 0,
        "connections are over",
    )


def _udp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def test_a_slow_reader_holds_up_nobody(node: Node) -> None:
    topic = _name("t")
    payload = bytes(8_192)
    for core in (0, 1):
        with (
            QuicClient(node, name_on(core, "slow")) as slow,
            QuicClient(node, name_on(core, "quick")) as quick,
            Client(node, _name("p")) as says,
        ):
            slow.subscribe(topic)
            quick.subscribe(topic)
            for number in range(200):
                says.send(Publish(topic.encode(), b"%04d" % number + payload))
                assert quick.message().payload[:4] == b"%04d" % number
            assert says.publish("nobody", b"", 1) in {0, 0x10}
            # What was not dropped comes in order.
            heard = [int(message.payload[:4]) for message in slow.heard()]
            assert heard == sorted(heard)
            assert heard


def test_a_worker_that_is_killed_takes_only_its_own_with_it(tmp_path: Path, keys: Path) -> None:
    node = Node(tmp_path / "data", module="robustmq.cli.supervisor", settings=_settings(keys))
    try:
        before = node.ready().children()["worker 0"]
        # By (accepting worker, home).
        clients: dict[tuple[int, int], QuicClient] = {}
        while len(clients) < len(PLACES):
            for home in (0, 1):
                client = QuicClient(node, name_on(home, "killed"))
                clients[client.accepted_by, home] = client
        os.kill(before, signal.SIGKILL)
        clients[1, 1].ping()
        assert clients[1, 0].ending() == []
        assert clients[1, 0].line.terminated() == 0
        until(lambda: node.children().get("worker 0") not in {None, before}, "a new life")
        # Those that worker 0 had are told by its next life, who shows that it knows their ids.
        for home in (0, 1):
            line = clients[0, home].line
            line.quic.send_ping(1)
            line.flush()
            line.hear_reset()
        for client in clients.values():
            with QuicClient(node, client.client_id) as again:
                again.ping()
            client.line.close()
    finally:
        node.close()


def test_a_new_certificate_is_shown_to_new_clients(tmp_path: Path, keys: Path) -> None:
    for name in ("server", "other"):
        for kind in ("pem", "key"):
            shutil.copy(keys / f"{name}.{kind}", tmp_path / f"{name}.{kind}")
    settings = (*_settings(tmp_path), "mqtt_runtime.tls.check_interval_ms=100")
    node = Node(tmp_path / "data", module="robustmq.cli.supervisor", settings=settings)

    def shown() -> str:
        with QuicClient(node, _name("sees")) as client:
            certificate = client.line.quic.tls._peer_certificate
            assert certificate is not None
            return certificate.subject.rfc4514_string()

    try:
        node.ready()
        with QuicClient(node, _name("stays")) as client:
            assert shown() == "CN=localhost"
            for kind in ("key", "pem"):
                (tmp_path / f"other.{kind}").replace(tmp_path / f"server.{kind}")
            until(lambda: shown() == "CN=other.example", "the new certificate is shown")
            client.ping()
    finally:
        node.close()


def test_a_server_that_stops_says_so(tmp_path: Path, keys: Path) -> None:
    node = Node(tmp_path / "data", module="robustmq.cli.supervisor", settings=_settings(keys))
    try:
        node.ready()
        clients = [QuicClient(node, name_on(core, "last")) for core in (0, 1, 0, 1)]
        node.send(signal.SIGTERM)
        for client in clients:
            assert client.expect(Disconnect).reason == Reason.SERVER_SHUTTING_DOWN
            assert client.line.terminated() == 0
            client.line.close()
        assert node.wait() == 0
    finally:
        node.close()
