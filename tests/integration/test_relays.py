"""Clients over TLS whose home is the other core, or this one: both ways, to every kind of end."""

import contextlib
import os
import signal
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from robustmq.message.topic import stable_hash
from robustmq.mqtt.packets import Disconnect, Properties, Publish
from robustmq.mqtt.reasons import Reason
from tests import authority
from tests.integration.homes import PLACES, WORKERS, name_on
from tests.integration.secure import TlsClient, TlsWire, context, settings
from tests.integration.supervised import Node, until
from tests.integration.wire_client import Client, Ended, serve

SIZES: Final = (0, 65_536, 1_048_577, 10_000_000)
WINDOW: Final = 65_536
STALLED: Final = 40
KEPT: Final = Properties(session_expiry_interval=60)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority.made(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls(directory: Path) -> ssl.SSLContext:
    return context(directory)


@pytest.fixture(scope="module")
def node(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    window = f"mqtt_runtime.server.relay_window_bytes={WINDOW}"
    yield from serve(
        tmp_path_factory.mktemp("relays") / "data",
        *settings(directory),
        window,
        "mqtt_runtime.protocol.max_outbox_bytes=262144",
    )


def relayed(node: Node) -> int:
    """Return how many connections were relayed since the node began."""
    _, text = node.get("/metrics")
    series = "mqtt_connections_relayed_total"
    lines = [line for line in text.splitlines() if line.startswith(series)]
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines))


@pytest.mark.parametrize(("publisher", "subscriber"), PLACES)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_come_and_go(
    node: Node, tls: ssl.SSLContext, publisher: int, subscriber: int, qos: int
) -> None:
    with (
        TlsClient(node, tls, name_on(publisher, "p")) as sender,
        TlsClient(node, tls, name_on(subscriber, "s")) as receiver,
    ):
        topic = f"relays/{publisher}{subscriber}{qos}"
        assert receiver.subscribe(topic, qos) == [qos]
        for number in range(50):
            assert sender.publish(topic, b"%d" % number, qos) == 0
        assert [receiver.message().payload for _ in range(50)] == [b"%d" % n for n in range(50)]


def test_the_kernel_gives_connections_to_either_core(node: Node, tls: ssl.SSLContext) -> None:
    before = relayed(node)
    for _ in range(30):
        with TlsClient(node, tls, name_on(0, "k")):
            pass
    until(lambda: 0 < relayed(node) - before < 30, "some are relayed and some are not")


@pytest.mark.parametrize("size", SIZES)
def test_packets_of_every_size_both_ways(node: Node, tls: ssl.SSLContext, size: int) -> None:
    payload = os.urandom(size)
    for core in range(WORKERS):
        with contextlib.ExitStack() as clients:
            # Some of them are accepted by the other core.
            for number in range(2):
                client = clients.enter_context(TlsClient(node, tls, name_on(core, "b")))
                topic = f"size/{core}/{number}/{size}"
                client.subscribe(topic, 1)
                assert client.publish(topic, payload, 1) == 0
                assert client.message().payload == payload


@pytest.mark.parametrize("core", range(WORKERS))
def test_takeover_between_tls_and_tcp(node: Node, tls: ssl.SSLContext, core: int) -> None:
    name = name_on(core, "t")
    taken = Disconnect(Reason.SESSION_TAKEN_OVER)
    for _ in range(3):
        with (
            TlsClient(node, tls, name, clean=False, properties=KEPT) as first,
            Client(node, name, clean=False, properties=KEPT) as second,
            TlsClient(node, tls, name, clean=False, properties=KEPT) as third,
        ):
            assert first.ending() == [taken]
            assert second.ending() == [taken]
            assert third.connack.session_present
            third.publish("any", b"", 1)


def connections(node: Node) -> float:
    return sum(node.sample(f'mqtt_connections{{core="{core}"}}') for core in range(WORKERS))


def test_a_client_that_leaves_without_a_word_is_noticed(node: Node, tls: ssl.SSLContext) -> None:
    before = connections(node)
    clients = [TlsClient(node, tls, name_on(n % 2, "g")) for n in range(8)]
    until(lambda: connections(node) == before + 8, "all are connected")
    for client in clients:
        client.close()
    until(lambda: connections(node) == before, "all are gone")


def test_a_subscriber_that_does_not_read_holds_up_nobody(node: Node, tls: ssl.SSLContext) -> None:
    payload = bytes(100_000)
    with contextlib.ExitStack() as clients:
        slow, fast = [], []
        for number in range(4):
            client = clients.enter_context(
                TlsClient(node, tls, name_on(number % 2, "z"), receive_buffer=8_192)
            )
            client.subscribe("slow/#", 0)
            slow.append(client)
            client = clients.enter_context(TlsClient(node, tls, name_on(number % 2, "f")))
            client.subscribe("slow/#", 1)
            fast.append(client)
        sender = clients.enter_context(Client(node, name_on(0, "w")))
        dropped = 'mqtt_messages_dropped_slow_total{core="%d"}'
        for number in range(STALLED):
            assert sender.publish("slow/x", b"%03d" % number + payload, 1) == 0
            for client in fast:
                assert client.message().payload[:3] == b"%03d" % number
        for core in range(WORKERS):
            assert node.sample(dropped % core) > 0
        # Who reads again gets what was kept, in order, and then what is new.
        for client in slow:
            first = client.message().payload[:3]
            assert first == b"000"


def test_a_publisher_is_held_up_by_credit_and_goes_on(node: Node, tls: ssl.SSLContext) -> None:
    """Far more than the window and the rings hold is on its way at once."""
    with (
        TlsClient(node, tls, name_on(0, "c")) as one,
        TlsClient(node, tls, name_on(1, "c")) as two,
    ):
        for client in (one, two):
            for number in range(60):
                client.send(Publish(b"nobody", bytes(300_000), 1, False, False, 1 + number))
        for client in (one, two):
            for _ in range(60):
                client.receive()


def test_who_speaks_no_mqtt_is_nobodys(node: Node, tls: ssl.SSLContext) -> None:
    with TlsWire(node, tls) as wire:
        wire.send_bytes(b"GET / HTTP/1.1\r\n\r\n")
        assert wire.ending() == []


def test_a_core_that_dies_ends_what_it_had_to_do_with_and_nothing_else(
    directory: Path, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data", module="robustmq.cli.supervisor", settings=settings(directory))
    try:
        children = node.ready().children()
        workers = [children[f"worker {core}"] for core in range(WORKERS)]
        for dying in range(WORKERS):
            with contextlib.ExitStack() as stack:
                clients = {
                    name: stack.enter_context(TlsClient(node, tls, name))
                    for name in (name_on(n % 2, "d") for n in range(16))
                }
                os.kill(workers[dying], signal.SIGKILL)
                ended = {name for name, client in clients.items() if not is_alive(client)}
                assert {name for name in clients if home(name) == dying} <= ended
                for name in clients:
                    until(partial(comes_in, node, tls, name), "its home is back")
    finally:
        node.close()


def home(name: str) -> int:
    return stable_hash(name.encode()) % WORKERS


def is_alive(client: TlsClient) -> bool:
    """Say whether the server still answers, or ends the connection."""
    try:
        client.ping()
    except (Ended, OSError):
        return False
    return True


def comes_in(node: Node, tls: ssl.SSLContext, name: str) -> bool:
    try:
        with TlsClient(node, tls, name) as client:
            client.ping()
    except (Ended, OSError):
        return False
    return True


def test_a_node_that_stops_tells_all_and_waits_for_none(
    directory: Path, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data", module="robustmq.cli.supervisor", settings=settings(directory))
    try:
        node.ready()
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(TlsClient(node, tls, name_on(n % 2, "e"))) for n in range(12)
            ]
            node.send(signal.SIGTERM)
            for client in clients:
                assert client.ending() == [Disconnect(Reason.SERVER_SHUTTING_DOWN)]
                client.close()
            assert node.wait() == 0
    finally:
        node.close()
